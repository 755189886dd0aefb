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
    let imported = import(&args, "workers", &secret(&VERSIONS), None, now).unwrap();
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
        None,
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
    let published = |scalar| BTreeMap::from([("prod-us-ct-1700000000".to_owned(), request(scalar))]);
    let kept = import(&args, "workers", &secret(&VERSIONS), Some(&published([2; 32])), now).unwrap();
    assert!(kept.record.data.unwrap()[RECORD_FIELD].contains(&request([2; 32]).replace('\n', "\\n")));
    let refused = import(&args, "workers", &secret(&VERSIONS), Some(&published([9; 32])), now).unwrap_err();
    assert!(
        refused
            .message
            .contains("another key under the id prod-us-ct-1700000000"),
        "{}",
        refused.message
    );
}

fn record(imported: &Imported, spec: Value) -> Record {
    let text = &imported.record.data.as_ref().unwrap()[RECORD_FIELD];
    Record::read("ring", text, &serde_json::from_value(spec).unwrap()).unwrap()
}

fn signing(prefix: &str) -> Value {
    json!({"purpose": "BatchSigning", "keyIdPrefix": prefix, "backup": {"method": "None"}})
}

#[test]
fn what_the_manifest_holds_is_published_and_the_ring_has_all_of_it() {
    let now: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    let public = |scalar| {
        BatchSigningKey::from_scalar("k", &[scalar; 32])
            .unwrap()
            .verifying_key()
            .to_pem()
    };
    let held = |keys: &[(&str, u8)]| -> BTreeMap<String, String> {
        keys.iter()
            .map(|(id, scalar)| ((*id).to_owned(), public(*scalar)))
            .collect()
    };
    let args = args(Purpose::BatchSigning, Vec::new());
    let of = |manifest: &BTreeMap<String, String>| import(&args, "workers", &secret(&VERSIONS), Some(manifest), now);
    let imported = of(&held(&[("prod-us-ct-1700000000", 2), ("prod-us-ct-1720000000", 3)])).unwrap();
    let record = record(&imported, signing("prod-us-ct"));
    let states: Vec<_> = record
        .versions
        .iter()
        .map(|one| format!("{:?}", one.state().unwrap()))
        .collect();
    assert_eq!(states, ["Superseded", "InUse", "Published"]);
    assert_eq!(record.versions[2].published, Some(now), "not known for longer");
    let refused = |manifest| of(&manifest).unwrap_err().message;
    let strange = refused(held(&[("prod-us-ct-1600000000", 2)]));
    assert!(
        strange.contains("the manifest holds the key prod-us-ct-1600000000"),
        "{strange}"
    );
    let other = refused(held(&[("prod-us-ct-1700000000", 3)]));
    assert!(
        other.contains("another key under the id prod-us-ct-1700000000"),
        "{other}"
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.json");
    fs::write(
        &file,
        json!({"batch-signing-public-keys": {"a": {"public-key": "text", "expiration": ""}}}).to_string(),
    )
    .unwrap();
    assert_eq!(published(&file, Purpose::BatchSigning).unwrap()["a"], "text");
    let none = published(&file, Purpose::PacketEncryption).unwrap_err().message;
    assert!(none.contains("no packet-encryption-keys"), "{none}");
}

#[test]
fn the_secret_of_a_secret_reference_becomes_the_first_version_under_its_id() {
    let now: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    let made: Timestamp = "2026-05-20T00:00:00Z".parse().unwrap();
    let key = BatchSigningKey::from_scalar("by-hand", &[2; 32]).unwrap();
    let one = |names: [&str; 2], key: &str| Secret {
        metadata: serde_json::from_value(json!({"name": "signing", "creationTimestamp": "2026-05-20T00:00:00Z"}))
            .unwrap(),
        data: Some(
            [(names[0], key), (names[1], "by-hand\n")]
                .map(|(name, text)| (name.to_owned(), ByteString(text.into())))
                .into(),
        ),
        ..Secret::default()
    };
    let text = key.to_base64().unwrap();
    let mut args = args(Purpose::BatchSigning, Vec::new());
    let wrong = import(&args, "workers", &one(["key", "id"], &text), None, now)
        .unwrap_err()
        .message;
    assert!(wrong.contains("--key-id-prefix must be by-hand"), "{wrong}");
    args.key_id_prefix = "by-hand".into();
    for names in [["key", "id"], ["secret_key", "primary_kid"]] {
        let imported = import(&args, "workers", &one(names, &text), None, now).unwrap();
        assert_eq!(imported.secrets[0].metadata.name.as_deref(), Some("ring.0"));
        let data = imported.secrets[0].data.as_ref().unwrap();
        let written = BatchSigningKey::parse("by-hand", std::str::from_utf8(&data["key"].0).unwrap()).unwrap();
        assert_eq!(
            (data["id"].0.as_slice(), written.verifying_key()),
            (b"by-hand".as_slice(), key.verifying_key())
        );
        let record = record(&imported, signing("by-hand"));
        let version = &record.versions[0];
        assert_eq!(
            (version.id.as_str(), version.created, version.is_in_use()),
            ("by-hand", made, true)
        );
        assert_eq!(version.public_key, key.verifying_key().to_pem());
    }
    let damaged = import(&args, "workers", &one(["key", "id"], "no key"), None, now)
        .unwrap_err()
        .message;
    assert!(damaged.contains("by-hand") && !damaged.contains("no key"), "{damaged}");
    let neither = import(&args, "workers", &Secret::default(), None, now)
        .unwrap_err()
        .message;
    assert!(neither.contains("neither key_versions"), "{neither}");
}

/// A Secret that has been there for a year.
fn of_fields(fields: &[(&str, &str)]) -> Secret {
    let metadata = json!({"name": "of-before", "creationTimestamp": "2025-11-20T00:00:00Z"});
    let data = fields
        .iter()
        .map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret {
        metadata: serde_json::from_value(metadata).unwrap(),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

#[test]
fn a_key_that_is_alone_in_its_secret_becomes_version_0_of_1970_and_the_prefix_is_its_id() {
    let now: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    let signer = BatchSigningKey::from_scalar("k", &[2; 32]).unwrap();
    let packets = PacketDecryptionKey::from_scalar([2; 32].into()).unwrap();
    let packets_spec = json!({
        "purpose": "PacketEncryption", "keyIdPrefix": "prod-us-ct", "certificate": {"commonName": "a.example"},
        "backup": {"method": "None"},
    });
    let table = [
        (
            Purpose::BatchSigning,
            signer.to_base64().unwrap(),
            signing("prod-us-ct"),
        ),
        (Purpose::PacketEncryption, packets.to_base64(), packets_spec),
    ];
    for (purpose, key, spec) in table {
        let args = args(purpose, Vec::new());
        let secret = of_fields(&[("secret_key", key.as_str())]);
        let imported = import(&args, "workers", &secret, None, now).unwrap();
        assert_eq!(imported.secrets.len(), 1, "{purpose:?}");
        assert_eq!(imported.secrets[0].metadata.name.as_deref(), Some("ring.0"));
        let data = imported.secrets[0].data.as_ref().unwrap();
        assert_eq!(
            (data["id"].0.as_slice(), data["key"].0.as_slice()),
            (b"prod-us-ct".as_slice(), key.as_bytes())
        );
        let record = record(&imported, spec);
        let version = &record.versions[0];
        assert_eq!((version.number, version.id.as_str()), (0, "prod-us-ct"));
        assert_eq!((version.created, version.is_in_use()), (Timestamp::UNIX_EPOCH, true));
        assert_eq!(version.public_key, signer.verifying_key().to_pem());
    }
}

#[test]
fn a_key_whose_id_is_not_known_for_sure_is_refused() {
    let key = BatchSigningKey::from_scalar("k", &[2; 32]).unwrap();
    let text = key.to_base64().unwrap();
    let other = BatchSigningKey::from_scalar("k", &[3; 32]).unwrap();
    let (pem, other) = (key.verifying_key().to_pem(), other.verifying_key().to_pem());
    let (text, pem, other) = (text.as_str(), pem.as_str(), other.as_str());
    let alone = [("secret_key", text)];
    /// The prefix, the Secret's entries, the key that the manifest holds, and why it is refused.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>, &'a str);
    let table: [Row<'_>; 8] = [
        ("", &alone, None, "give the key's id in the manifest as --key-id-prefix"),
        (
            "k",
            &[("secret_key", "no key")],
            None,
            "k: the key is no standard base64",
        ),
        (
            "k",
            &alone,
            Some(("another", pem)),
            "the manifest holds the key another",
        ),
        ("k", &alone, Some(("k", other)), "another key under the id k"),
        ("k", &[("key", text)], None, "nor secret_key alone"),
        (
            "k",
            &[("key", text), ("secret_key", text)],
            None,
            "nor secret_key alone",
        ),
        (
            "k",
            &[("secret_key", text), ("primary_kid", "other")],
            None,
            "--key-id-prefix must be other",
        ),
        ("k", &[("primary_kid", "k")], None, "nor secret_key alone"),
    ];
    for (prefix, fields, held, expected) in table {
        let args = Args {
            key_id_prefix: prefix.into(),
            ..args(Purpose::BatchSigning, Vec::new())
        };
        let held = held.map(|(id, public)| BTreeMap::from([(id.to_owned(), public.to_owned())]));
        let refused = import(
            &args,
            "workers",
            &of_fields(fields),
            held.as_ref(),
            Timestamp::UNIX_EPOCH,
        );
        let message = refused.unwrap_err().message;
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains(text) && !message.contains("no key"), "{message}");
    }
}

#[test]
fn the_packet_key_of_a_secret_reference_keeps_the_request_that_partners_have() {
    let now = Timestamp::UNIX_EPOCH;
    let key = PacketDecryptionKey::from_scalar([2; 32].into()).unwrap();
    let request = NewKey::of_packet_encryption("by-hand", &key, "another.example").unwrap();
    let request = request.signing_request().unwrap().to_owned();
    let data = [("key", key.to_base64().to_string()), ("id", "by-hand".to_owned())];
    let secret = Secret {
        data: Some(
            data.map(|(name, text)| (name.to_owned(), ByteString(text.into())))
                .into(),
        ),
        ..Secret::default()
    };
    let args = Args {
        key_id_prefix: "by-hand".into(),
        ..args(Purpose::PacketEncryption, Vec::new())
    };
    let manifest = BTreeMap::from([("by-hand".to_owned(), request.clone())]);
    let imported = import(&args, "workers", &secret, Some(&manifest), now).unwrap();
    let spec = json!({
        "purpose": "PacketEncryption", "keyIdPrefix": "by-hand", "certificate": {"commonName": "a.example"}, "backup": {"method": "None"},
    });
    assert_eq!(record(&imported, spec).versions[0].public_text(), request);
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
