//! KeyRings: the keys controller and the operator together, on a real API server. What probe pods would do is done here.

mod help;
mod import;
mod person;

use std::collections::BTreeSet;

use crds::key_ring::VersionState;
use crds::{DataShareProcessor, KeyRing};
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey};
use facilitator_core::formats::work::WorkList;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::manifests::hold_to_the_originals_rules;
use crate::place::{place, until};
use help::{INTAKE, PERIOD_SECONDS, batch, hour_ago, is, manifest, party, ring, secrets};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_proven_published_used_followed_and_retired() {
    let Some(place) = place("keys").await else { return };
    let identity = age::x25519::Identity::generate();
    let operator = place.start_operator();
    party(&place, &identity.to_public().to_string()).await;
    let keys = place.start_keys_controller();

    // Written, with a second copy, and nobody told of it.
    place
        .ring_says("packets", "Progressing", "True", "WaitsForLoading")
        .await;
    let first = place
        .versions("packets", "one version", |versions| versions.len() == 1)
        .await
        .remove(0);
    assert_eq!(first.state, VersionState::Written);
    let secret = place.api::<Secret>().get(&first.secret).await.unwrap();
    assert_eq!((secret.immutable, secret.owner_references().len()), (Some(true), 0));
    let text = String::from_utf8(secret.data.clone().unwrap()["key"].0.clone()).unwrap();
    PacketDecryptionKey::parse(&text).unwrap();
    let status = serde_json::to_string(&place.api::<KeyRing>().get("packets").await.unwrap()).unwrap();
    assert!(!status.contains(&text));
    // The Secret is lost, and what the copy holds takes its place.
    let secrets_api = place.api::<Secret>();
    secrets_api
        .delete(&first.secret, &DeleteParams::default())
        .await
        .unwrap();
    place.restore(&first.secret, &identity);
    let restored = secrets_api.get(&first.secret).await.unwrap();
    assert_eq!(
        (&restored.data, restored.immutable, &restored.type_),
        (&secret.data, secret.immutable, &secret.type_)
    );
    assert_eq!(
        (place.public("packets").await, place.public("signing").await),
        (None, None)
    );
    place.condition("us-ct", "Ready", "False", "NoKeyYet").await;
    // The plan, asked for by an annotation, is in the status.
    let plan = place.plan("packets", "please").await;
    assert!(
        plan.iter().any(|line| line.contains("publish packets-key-")),
        "{plan:?}"
    );

    // Proven under both accounts, then public, then in use.
    place
        .while_probes_find_the_keys(place.condition("us-ct", "KeysLoaded", "True", "AsExpected"))
        .await;
    for name in ["signing", "packets"] {
        let versions = place
            .versions(name, "in use", |versions| versions.iter().any(is(VersionState::InUse)))
            .await;
        let version = versions.into_iter().find(is(VersionState::InUse)).unwrap();
        for (earlier, later) in [
            (&version.backed_up, &version.written),
            (&version.written, &version.loaded),
            (&version.loaded, &version.published),
            (&version.published, &version.promoted),
        ] {
            let time = |text: &Option<String>| text.as_ref().unwrap().parse::<Timestamp>().unwrap();
            assert!(time(earlier) <= time(later), "{version:?}");
        }
        assert!(place.public(name).await.unwrap().get(&version.id).is_some());
        place.ring_says(name, "Ready", "True", "AsExpected").await;
    }

    // Work is done with them, and pins them.
    let time = hour_ago();
    place.put_batch(&batch(time)).await;
    let work = place.first_job_of(INTAKE).await;
    let mounted = secrets(&work);
    assert!(mounted.contains(&first.secret), "{mounted:?}");
    let list = until("its work list", async || {
        place.api::<ConfigMap>().get_opt(&work.name_any()).await.ok()?
    })
    .await;
    let Ok(WorkList::Intake { keys: pins, .. }) = serde_json::from_str(&list.data.unwrap()["work.json"]) else {
        panic!("no intake list");
    };
    assert_eq!(pins.packet_keys, std::slice::from_ref(&first.id));
    assert!(pins.signer.unwrap().starts_with("signing-key-"));

    // The next version: proven by its probes, but not loaded as long as a Job runs that began without it.
    let older = until("the older Job is named", async || {
        let found = place.condition("us-ct", "KeysLoaded", "False", "Probing").await;
        found.message.contains(&work.name_any()).then_some(found)
    });
    let probing = place.while_probes_find_the_keys(older).await;
    assert!(probing.message.contains("began without"), "{probing:?}");
    assert_eq!(
        place
            .public("packets")
            .await
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        [&first.id]
    );
    // The Job's batch was recorded under the first key: its window needs it.
    let window = facilitator_core::window::Window::holding(time, PERIOD_SECONDS).unwrap();
    let text = |time: Timestamp| time.strftime("%Y%m%d%H%M").to_string();
    let window = format!("agg/{}-{}", text(window.start()), text(window.end()));
    place
        .put(
            "ledger",
            &format!("uses/{}/{window}", first.id),
            b"{\"revision\":1}\n".to_vec(),
        )
        .await;
    // It is answered, or another Job would be waited for, whose pods nobody starts.
    place.delivered(&batch(time)).await;
    place.let_pods_exit(&work, 0, "").await;
    let in_use = place.versions("packets", "the second in use", |versions| {
        versions
            .iter()
            .any(|version| version.state == VersionState::InUse && version.id != first.id)
    });
    let second = place.while_probes_find_the_keys(in_use).await;
    let second = second.into_iter().find(is(VersionState::InUse)).unwrap();
    assert_eq!(
        place
            .public("packets")
            .await
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        [&second.id]
    );

    // The first stays mounted as long as the window has no result, whatever its age, and goes then.
    let known = until("the window needs the key", async || {
        let status = place
            .api::<DataShareProcessor>()
            .get("us-ct")
            .await
            .ok()?
            .status?
            .keys?;
        status
            .versions
            .into_iter()
            .find(|key| key.id == first.id && key.needed_by.is_some())
    })
    .await;
    assert!(known.needed_by.unwrap().contains(&window));
    place
        .versions("packets", "it waits for the window", |versions| {
            let first = versions.iter().find(|version| version.id == first.id).unwrap();
            first.waits_for.as_ref().is_some_and(|waits| waits.contains(&window))
        })
        .await;
    place.finished(&window).await;
    place
        .versions("packets", "retired", |versions| {
            versions
                .iter()
                .any(|version| version.id == first.id && version.state == VersionState::Retired)
        })
        .await;
    assert!(
        place.api::<Secret>().get(&first.secret).await.is_ok(),
        "no key is ever deleted"
    );
    let events = place.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let reasons: BTreeSet<_> = events.iter().filter_map(|event| event.reason.clone()).collect();
    for reason in [
        "KeyCreated",
        "KeyLoaded",
        "KeysPublished",
        "KeyInUse",
        "KeyRetired",
        "Planned",
    ] {
        assert!(reasons.contains(reason), "{reasons:?}");
    }
    operator.stopped().await;
    keys.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_ring_takes_no_key_along_and_finds_its_keys_again() {
    let Some(place) = place("ring").await else { return };
    let identity = age::x25519::Identity::generate();
    let operator = place.start_operator();
    let recipient = identity.to_public().to_string();
    party(&place, &recipient).await;
    let slow = json!({"spec": {"rotation": {"createMinAgeSeconds": 90_000, "retireMinAgeSeconds": 90_000}}});
    for name in ["signing", "packets"] {
        place
            .api::<KeyRing>()
            .patch(name, &PatchParams::default(), &Patch::Merge(&slow))
            .await
            .unwrap();
    }
    let keys = place.start_keys_controller();
    let in_use = async |name| {
        place
            .versions(name, "in use", |versions| versions.iter().any(is(VersionState::InUse)))
            .await
    };
    let before = place
        .while_probes_find_the_keys(async {
            in_use("packets").await;
            in_use("signing").await.remove(0)
        })
        .await;
    place.condition("us-ct", "KeysLoaded", "True", "AsExpected").await;

    // What a rotation would be is foreseen, and no key is made by that.
    let plan = place.plan("signing", "rotate:1").await;
    assert!(
        plan.iter().any(|line| line.contains("make signing-key-"))
            && plan[0].contains("its second copy, then its Secret"),
        "{plan:?}"
    );
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    let first = |plan: &[String]| plan[0].split(' ').next().unwrap().parse::<Timestamp>().unwrap();
    assert!(first(&plan) < in_an_hour, "{plan:?}");
    let plain = place.plan("signing", "1").await;
    assert!(first(&plain) > in_an_hour, "{plain:?}");
    let status = place.api::<KeyRing>().get("signing").await.unwrap().status.unwrap();
    assert_eq!((status.versions.len(), status.rotation_answered), (1, None));
    let of_ring = ListParams::default().labels("prio-operator.io/key-ring=signing");
    let made = place.api::<Secret>().list(&of_ring).await.unwrap().items;
    assert_eq!(made.len(), 2, "the key and its second copy");

    place
        .api::<KeyRing>()
        .delete("signing", &DeleteParams::default())
        .await
        .unwrap();
    place.condition("us-ct", "KeysLoaded", "False", "KeyRingMissing").await;
    place.put_batch(&batch(hour_ago())).await;
    let work = until("work goes on", async || {
        place
            .api::<Job>()
            .list(&ListParams::default().labels(INTAKE))
            .await
            .ok()?
            .items
            .into_iter()
            .next()
    })
    .await;
    assert!(secrets(&work).contains(&before.secret));
    for name in [before.secret.clone(), format!("{}.backup", before.secret)] {
        assert!(
            place
                .api::<Secret>()
                .get(&name)
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_none()
        );
    }
    // Applied again, with its record: the same key, not another one.
    place
        .create_ring("signing", &ring("BatchSigning", "signing-key", &recipient))
        .await;
    place
        .api::<KeyRing>()
        .patch("signing", &PatchParams::default(), &Patch::Merge(&slow))
        .await
        .unwrap();
    let found = place
        .versions("signing", "found again", |versions| {
            versions.iter().any(is(VersionState::InUse))
        })
        .await;
    assert_eq!(
        (found[0].id.clone(), found[0].promoted.clone()),
        (before.id.clone(), before.promoted.clone())
    );
    let text = place.api::<Secret>().get(&before.secret).await.unwrap().data.unwrap()["key"]
        .0
        .clone();
    let key = BatchSigningKey::parse(&before.id, &String::from_utf8(text).unwrap()).unwrap();
    assert_eq!(key.verifying_key().to_pem(), found[0].public_key);

    // Without its record and its status it doesn't begin anew over keys that are public.
    keys.stopped().await;
    place
        .api::<KeyRing>()
        .delete("signing", &DeleteParams::default())
        .await
        .unwrap();
    place
        .api::<ConfigMap>()
        .delete("signing.versions", &DeleteParams::default())
        .await
        .unwrap();
    place
        .create_ring("signing", &ring("BatchSigning", "signing-key", &recipient))
        .await;
    let keys = place.start_keys_controller();
    let message = place
        .ring_says("signing", "Stalled", "True", "PublishedKeyUnknown")
        .await;
    assert!(message.contains(&before.id), "{message}");
    operator.stopped().await;
    keys.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_workers_do_not_get_is_named_and_keeps_nobody_from_work() {
    let Some(place) = place("probe").await else { return };
    let mut spec = place.spec();
    spec["keys"]["packetDecryption"] = json!([{"secretRef": {"name": "packet"}}, {"keyRingRef": {"name": "packets"}}]);
    place.create_processor("us-ct", spec).await;
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    place
        .create_ring("packets", &ring("PacketEncryption", "packets-key", &recipient))
        .await;
    let (operator, keys) = (place.start_operator(), place.start_keys_controller());
    let probe = until("a probe Job", async || {
        let probes = ListParams::default().labels("prio-operator.io/stage=intake-keys");
        place.api::<Job>().list(&probes).await.ok()?.items.into_iter().next()
    })
    .await;
    place
        .let_pods_exit(&probe, 78, "no mounted Secret holds the packet key")
        .await;
    let failed = place.condition("us-ct", "KeysLoaded", "False", "ProbeFailed").await;
    assert!(
        failed.message.contains("no mounted Secret holds the packet key"),
        "{failed:?}"
    );
    // Work goes on with what is there, without the new key.
    place.put_batch(&batch(hour_ago())).await;
    let work = place.first_job_of(INTAKE).await;
    let mounted = secrets(&work);
    assert!(
        mounted.contains(&"packet".to_owned()) && mounted.iter().all(|secret| !secret.starts_with("packets.")),
        "{mounted:?}"
    );
    assert_eq!(place.public("packets").await, None);
    operator.stopped().await;
    keys.stopped().await;
    place.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_public_for_a_partner_that_is_not_known_yet() {
    let Some(place) = place("partner").await else { return };
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let mut spec = place.spec();
    // Each of two new parties waits for the other's manifest.
    spec["peer"] = json!({"peerRef": {"name": "other"}});
    spec["mailboxes"]["outgoing"]["peer"] = json!({});
    spec["keys"] = json!({
        "batchSigning": {"keyRingRef": {"name": "signing"}},
        "packetDecryption": [{"keyRingRef": {"name": "packets"}}],
    });
    spec["manifest"] = manifest();
    place.create_processor("us-ct", spec).await;
    let (operator, keys) = (place.start_operator(), place.start_keys_controller());
    place.condition("us-ct", "ManifestPublished", "False", "NoKeyYet").await;
    for (name, purpose) in [("signing", "BatchSigning"), ("packets", "PacketEncryption")] {
        place
            .create_ring(name, &ring(purpose, &format!("{name}-key"), &recipient))
            .await;
    }
    place
        .while_probes_find_the_keys(place.condition("us-ct", "ManifestPublished", "True", "AsExpected"))
        .await;
    place.condition("us-ct", "PeersKnown", "False", "PeerMissing").await;
    let published = place.api::<ConfigMap>().get("manifests").await.unwrap().data.unwrap();
    hold_to_the_originals_rules(&published);
    let manifest = &published["us-ct-manifest.json"];
    for name in ["signing", "packets"] {
        let versions = place
            .versions(name, "in use", |versions| versions.iter().any(is(VersionState::InUse)))
            .await;
        let version = versions.into_iter().find(is(VersionState::InUse)).unwrap();
        assert!(manifest.contains(&version.id), "{} in {manifest}", version.id);
    }
    operator.stopped().await;
    keys.stopped().await;
    place.gone().await;
}
