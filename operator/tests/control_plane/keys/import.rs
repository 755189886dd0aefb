//! Keys of before: what `kubectl prio keys import` writes of them, applied, is what the keys controller goes on with.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use crds::KeyRing;
use crds::key_ring::VersionState;
use crds::names::KEY_RING_LABEL;
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey};
use facilitator_core::formats::work::WorkList;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::help::{INTAKE, PERIOD_SECONDS, batch, hour_ago, is, manifest, ring, secrets};
use crate::place::{Place, place, until};

/// The original's id of a packet key: prefix and time of creation. Probes here want a ring's name before, and a number after.
const PACKETS_PREFIX: &str = "packets-prod-us-ct";
/// The id that a key of a secretRef had and keeps.
const SIGNER: &str = "signing-0";

/// What each entry of the original's `key_versions` holds of a key: 1, the compressed point, the scalar.
fn originals_form(scalar: [u8; 32]) -> String {
    let key = PacketDecryptionKey::from_scalar(scalar.into()).unwrap();
    let (x, y) = key.public_point()[1..].split_at(32);
    let bytes = [&[1, 2 + (y[31] & 1)], x, &scalar].concat();
    STANDARD_NO_PAD.encode(bytes)
}

/// Makes a Secret, imports it as it is read back, applies what comes of it as the guide says, and gives its Secrets' names.
async fn import(place: &Place, ring: &str, data: Value, arguments: &[&str]) -> BTreeSet<String> {
    let object = json!({"metadata": {"name": format!("{ring}-of-before")}, "stringData": data});
    let api = place.api::<Secret>();
    let secret: Secret = serde_json::from_value(object).unwrap();
    let secret = api.create(&PostParams::default(), &secret).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (from, into) = (folder.path().join("secret.json"), folder.path().join("imported"));
    std::fs::write(&from, serde_json::to_string(&secret).unwrap()).unwrap();
    let program = std::env::current_exe().unwrap();
    let program = program.parent().and_then(Path::parent).unwrap().join("kubectl-prio");
    assert!(
        program.exists(),
        "cargo build --workspace --bins makes {}",
        program.display()
    );
    let output = std::process::Command::new(program)
        .args([
            "keys",
            "import",
            "--namespace",
            &secret.namespace().unwrap(),
            "--ring",
            ring,
        ])
        .arg("--from")
        .arg(&from)
        .arg("--into")
        .arg(&into)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read(into.join(name)).unwrap();
    let list: Value = serde_json::from_slice(&read("secrets.json")).unwrap();
    let made: Vec<Secret> = serde_json::from_value(list["items"].clone()).unwrap();
    let parameters = PatchParams::apply("kubectl");
    for secret in &made {
        api.patch(&secret.name_any(), &parameters, &Patch::Apply(secret))
            .await
            .unwrap();
    }
    let record: ConfigMap = serde_json::from_slice(&read("versions.json")).unwrap();
    place
        .api::<ConfigMap>()
        .patch(&record.name_any(), &parameters, &Patch::Apply(&record))
        .await
        .unwrap();
    made.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_keys_stay_in_use_under_their_ids_and_none_is_made() {
    let Some(place) = place("import").await else { return };
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let created = |days: i64| (Timestamp::now() - SignedDuration::from_hours(24 * days)).as_second();
    let (older, primary) = (created(40), created(10));
    let version = |created: i64, scalar: [u8; 32], primary: bool| json!({"key": originals_form(scalar), "creation_time": created.to_string(), "primary": primary});
    let versions = json!([version(older, [7; 32], false), version(primary, [8; 32], true)]).to_string();
    let packets = [
        "--purpose=packet-encryption",
        "--common-name=us-ct.test.certificates.example.org",
        &format!("--key-id-prefix={PACKETS_PREFIX}"),
        &format!("--recipient={recipient}"),
    ];
    let packets = import(&place, "packets", json!({"key_versions": versions}), &packets).await;
    let key = BatchSigningKey::from_scalar(SIGNER, &[9; 32]).unwrap();
    let signing = [
        "--purpose=batch-signing",
        &format!("--key-id-prefix={SIGNER}"),
        &format!("--recipient={recipient}"),
    ];
    let data = json!({"key": key.to_base64().unwrap().as_str(), "id": SIGNER});
    let signing = import(&place, "signing", data, &signing).await;

    for (name, purpose, prefix) in [
        ("packets", "PacketEncryption", PACKETS_PREFIX),
        ("signing", "BatchSigning", SIGNER),
    ] {
        let mut spec = ring(purpose, prefix, &recipient);
        // The usual ages: none of these keys is due.
        spec.as_object_mut().unwrap().remove("rotation");
        place.create_ring(name, &spec).await;
    }
    let mut spec = place.spec();
    spec["windows"]["periodSeconds"] = json!(PERIOD_SECONDS);
    spec["keys"] = json!({
        "batchSigning": {"keyRingRef": {"name": "signing"}},
        "packetDecryption": [{"keyRingRef": {"name": "packets"}}],
    });
    spec["manifest"] = manifest();
    place.create_processor("us-ct", spec).await;
    let (operator, keys) = (place.start_operator(), place.start_keys_controller());
    place
        .while_probes_find_the_keys(place.condition("us-ct", "KeysLoaded", "True", "AsExpected"))
        .await;

    let ids = |created: &[i64]| -> Vec<String> {
        let of = |created: &i64| format!("{PACKETS_PREFIX}-{created}");
        created.iter().map(of).collect()
    };
    let packet_id = ids(&[primary]).remove(0);
    for (name, in_use, all, made) in [
        ("packets", packet_id.as_str(), ids(&[primary, older]), packets),
        ("signing", SIGNER, vec![SIGNER.to_owned()], signing),
    ] {
        place.ring_says(name, "Ready", "True", "AsExpected").await;
        let versions = place.api::<KeyRing>().get(name).await.unwrap().status.unwrap().versions;
        let found: Vec<_> = versions
            .iter()
            .filter(|version| is(VersionState::InUse)(version))
            .collect();
        assert!(matches!(found[..], [version] if version.id == in_use), "{versions:?}");
        let known: Vec<_> = versions.into_iter().map(|version| version.id).collect();
        assert_eq!(known, all, "youngest first");
        assert!(place.public(name).await.unwrap().get(in_use).is_some());
        let of_ring = ListParams::default().labels(&format!("{KEY_RING_LABEL}={name}"));
        let secrets = place.api::<Secret>().list(&of_ring).await.unwrap().items;
        let secrets: BTreeSet<_> = secrets.iter().map(ResourceExt::name_any).collect();
        assert_eq!(
            secrets, made,
            "the Secrets and second copies of the import, and no others"
        );
    }

    // Work is done with them, the older one mounted for packets that are on their way.
    place.put_batch(&batch(hour_ago())).await;
    let work = place.first_job_of(INTAKE).await;
    let mounted = secrets(&work);
    for secret in [
        format!("packets.{primary}"),
        format!("packets.{older}"),
        "signing.0".to_owned(),
    ] {
        assert!(mounted.contains(&secret), "{secret} in {mounted:?}");
    }
    let list = until("its work list", async || {
        place.api::<ConfigMap>().get_opt(&work.name_any()).await.ok()?
    })
    .await;
    let Ok(WorkList::Intake { keys: pins, .. }) = serde_json::from_str(&list.data.unwrap()["work.json"]) else {
        panic!("no intake list");
    };
    assert_eq!(pins.signer.as_deref(), Some(SIGNER));
    assert!(pins.packet_keys.contains(&packet_id), "{pins:?}");
    operator.stopped().await;
    keys.stopped().await;
    place.gone().await;
}
