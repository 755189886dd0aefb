#![allow(clippy::unwrap_used)]
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use k8s_openapi::ByteString;
use operator::keys::objects::{BACKUP_FIELD, RECORD_FIELD};
use p256::elliptic_curve::sec1::ToSec1Point;

use super::*;

/// A Secret as the original's rotator writes it, of keys made elsewhere.
fn secret(scalars: &[(i64, bool, [u8; 32])]) -> Secret {
    let entry = |(created, primary, scalar): &(i64, bool, [u8; 32])| {
        let key = p256::SecretKey::from_slice(scalar).unwrap();
        let mut bytes = vec![1];
        bytes.extend(key.public_key().to_sec1_point(true).as_bytes());
        bytes.extend(scalar);
        json!({"key": STANDARD_NO_PAD.encode(bytes), "creation_time": created.to_string(), "primary": primary})
    };
    let text = Value::Array(scalars.iter().map(entry).collect()).to_string();
    Secret {
        data: Some([("key_versions".to_owned(), ByteString(text.into_bytes()))].into()),
        ..Secret::default()
    }
}

fn args(purpose: Purpose, recipients: Vec<String>) -> Args {
    Args {
        from: "-".into(),
        ring: "ring".into(),
        purpose,
        key_id_prefix: "prod-us-ct".into(),
        common_name: Some("a.example".into()),
        recipients,
        manifest: None,
        into: "unused".into(),
    }
}

const VERSIONS: [(i64, bool, [u8; 32]); 3] = [
    (0, false, [1; 32]),
    (1_700_000_000, true, [2; 32]),
    (1_720_000_000, false, [3; 32]),
];

#[test]
fn every_version_becomes_a_secret_that_workers_read_and_the_primary_one_is_in_use() {
    let now: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    let identity = age::x25519::Identity::generate();
    let recipients = vec![identity.to_public().to_string()];
    let args = args(Purpose::PacketEncryption, recipients);
    let imported = import(&args, "workers", &secret(&VERSIONS), &BTreeMap::new(), now).unwrap();
    let names: Vec<_> = imported
        .secrets
        .iter()
        .map(|secret| secret.metadata.name.clone().unwrap())
        .collect();
    let expected = [
        "ring.0.backup",
        "ring.0",
        "ring.1700000000.backup",
        "ring.1700000000",
        "ring.1720000000.backup",
        "ring.1720000000",
    ];
    assert_eq!(names, expected);
    let first = &imported.secrets[1].data.as_ref().unwrap();
    assert_eq!(first["id"].0, b"prod-us-ct");
    let key = PacketDecryptionKey::parse(std::str::from_utf8(&first["key"].0).unwrap()).unwrap();
    assert_eq!(
        key.public_point()[..],
        *p256::SecretKey::from_slice(&[1; 32])
            .unwrap()
            .public_key()
            .to_sec1_point(false)
            .as_bytes()
    );
    // The second copy is this very Secret.
    let wrapped = &imported.secrets[0].data.as_ref().unwrap()[BACKUP_FIELD].0;
    let mut copy = String::new();
    let opened = age::Decryptor::new(wrapped.as_slice())
        .unwrap()
        .decrypt(std::iter::once(&identity as _));
    opened.unwrap().read_to_string(&mut copy).unwrap();
    assert_eq!(serde_json::from_str::<Secret>(&copy).unwrap(), imported.secrets[1]);

    let ring: crds::KeyRingSpec = serde_json::from_value(json!({
        "purpose": "PacketEncryption", "keyIdPrefix": "prod-us-ct", "certificate": {"commonName": "a.example"},
        "backup": {"method": "None"},
    }))
    .unwrap();
    let text = &imported.record.data.as_ref().unwrap()[RECORD_FIELD];
    let record = Record::read("ring", text, &ring).unwrap();
    let states: Vec<_> = record
        .versions
        .iter()
        .map(|version| format!("{:?}", version.state().unwrap()))
        .collect();
    assert_eq!(states, ["Superseded", "InUse", "Written"]);
    assert_eq!(record.versions[1].id, "prod-us-ct-1700000000");
    let secrets = serde_json::to_string(&imported.secrets).unwrap();
    assert!(imported.told.iter().all(|told| !secrets.contains(told.as_str())));
}

#[test]
fn signing_keys_are_read_too_and_a_published_request_is_kept_if_it_is_of_the_same_key() {
    let now = Timestamp::UNIX_EPOCH;
    let signing = import(
        &args(Purpose::BatchSigning, Vec::new()),
        "workers",
        &secret(&VERSIONS),
        &BTreeMap::new(),
        now,
    )
    .unwrap();
    let data = signing.secrets[1].data.as_ref().unwrap();
    let key = BatchSigningKey::parse("k", std::str::from_utf8(&data["key"].0).unwrap()).unwrap();
    let expected = BatchSigningKey::from_scalar("k", &[2; 32]).unwrap();
    assert_eq!(key.verifying_key(), expected.verifying_key());

    let request = |scalar: [u8; 32]| {
        let key = PacketDecryptionKey::from_scalar(scalar.into()).unwrap();
        NewKey::of_packet_encryption("k", &key, "another.example")
            .unwrap()
            .signing_request()
            .unwrap()
            .to_owned()
    };
    let args = args(Purpose::PacketEncryption, Vec::new());
    let published = |scalar| [("prod-us-ct-1700000000".to_owned(), request(scalar))].into();
    let kept = import(&args, "workers", &secret(&VERSIONS), &published([2; 32]), now).unwrap();
    assert!(kept.record.data.unwrap()[RECORD_FIELD].contains(&request([2; 32]).replace('\n', "\\n")));
    let refused = import(&args, "workers", &secret(&VERSIONS), &published([9; 32]), now).unwrap_err();
    assert!(
        refused
            .message
            .contains("another key under the id prod-us-ct-1700000000"),
        "{}",
        refused.message
    );
}

#[test]
fn files_are_for_their_owner_alone_and_never_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.json");
    write(&file, &json!({"a": 1})).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(write(&file, &json!({})).is_err());
}
