//! KeyRings: the keys controller and the operator together, on a real API server. What probe pods would do is done here.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::key_ring::{KeyVersion, VersionState};
use crds::{DataShareProcessor, KeyRing};
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey};
use facilitator_core::formats::ledger::{LedgerObject, REVISION, Verdict, WindowResult};
use facilitator_core::formats::work::{Report, WorkList};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::place::{Place, place, until};

const INTAKE: &str = "prio-operator.io/stage=intake";

/// Versions follow each other every 25 seconds.
fn ring(purpose: &str, prefix: &str, recipient: &str) -> Value {
    let mut spec = json!({
        "purpose": purpose,
        "keyIdPrefix": prefix,
        "rotation": {
            "createMinAgeSeconds": 25, "primaryMinAgeSeconds": 1, "retireMinAgeSeconds": 25, "retireMinCount": 1, "noTrafficSeconds": 1,
        },
        "backup": {"method": "Age", "recipients": [recipient]},
    });
    if purpose == "PacketEncryption" {
        spec["certificate"] = json!({"commonName": "us-ct.test.certificates.example.org"});
    }
    spec
}

impl Place {
    async fn create_ring(&self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": "prio-operator.io/v1alpha1", "kind": "KeyRing", "metadata": {"name": name}, "spec": spec,
        });
        let object: KeyRing = serde_json::from_value(object).unwrap();
        self.api::<KeyRing>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    /// The ring's versions, once they are as wanted, youngest first.
    async fn versions(&self, ring: &str, what: &str, wanted: impl Fn(&[KeyVersion]) -> bool) -> Vec<KeyVersion> {
        until(&format!("{ring}: {what}"), async || {
            let versions = self.api::<KeyRing>().get(ring).await.ok()?.status?.versions;
            wanted(&versions).then_some(versions)
        })
        .await
    }

    /// Waits for a condition of a ring.
    async fn ring_says(&self, ring: &str, kind: &str, status: &str, reason: &str) -> String {
        until(&format!("{ring}: {kind}={status} ({reason})"), async || {
            let conditions = self.api::<KeyRing>().get(ring).await.ok()?.status?.conditions;
            let found = conditions
                .into_iter()
                .find(|c| c.type_ == kind && c.status == status && c.reason == reason)?;
            Some(found.message)
        })
        .await
    }

    /// As probe pods would, until something else is so: finds the keys of each work list mounted, and says so.
    async fn while_probes_find_the_keys<T>(&self, done: impl Future<Output = T>) -> T {
        tokio::select! {
            done = done => done,
            () = self.let_probes_find_the_keys() => unreachable!(),
        }
    }

    async fn let_probes_find_the_keys(&self) {
        let probes = ListParams::default().labels("prio-operator.io/stage in (intake-keys,aggregate-keys)");
        let mut found = BTreeSet::new();
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for job in self.api::<Job>().list(&probes).await.unwrap().items {
                if found.insert(job.uid().unwrap()) {
                    self.let_probe_find_the_keys(&job).await;
                }
            }
        }
    }

    async fn let_probe_find_the_keys(&self, job: &Job) {
        let list = until("the probe's work list", async || {
            self.api::<ConfigMap>().get_opt(&job.name_any()).await.ok()?
        })
        .await;
        let Ok(WorkList::KeyProbe { signing, packets, .. }) = serde_json::from_str(&list.data.unwrap()["work.json"])
        else {
            panic!("no probe's list");
        };
        let mounted = secrets(job);
        for key in signing.iter().chain(&packets) {
            let secret = format!("{}.{}", ring_of(&key.id), key.id.rsplit('-').next().unwrap());
            assert!(mounted.contains(&secret), "{secret} isn't mounted: {mounted:?}");
        }
        let pod = job.spec.clone().unwrap().template.spec.unwrap();
        let stage = job.labels()["prio-operator.io/stage"].clone();
        assert_eq!(format!("{}-keys", pod.service_account_name.unwrap()), stage);
        let report = Report {
            revision: 1,
            work: job.name_any(),
            index: 0,
            pod_uid: "p".into(),
            batches: vec![],
            windows: vec![],
            keys: signing.iter().chain(&packets).map(|key| key.id.clone()).collect(),
        };
        let name = format!("reports/{}/0-p", job.name_any());
        self.put("ledger", &name, report.to_bytes().unwrap()).await;
        self.let_pods_exit(job, 0, "").await;
    }

    async fn public(&self, ring: &str) -> Option<Value> {
        let data = self
            .api::<ConfigMap>()
            .get_opt(&format!("{ring}.public"))
            .await
            .unwrap()?
            .data?;
        let (_, text) = data.into_iter().next()?;
        serde_json::from_str(&text).ok()
    }

    async fn finished(&self, window: &str) {
        let result = WindowResult {
            revision: REVISION,
            verdict: Verdict::BelowFloor,
            reason: None,
            message: String::new(),
            plan_digest: None,
            batches: 1,
            packets: 1,
            clients: 0,
            invalid_proofs: 0,
            missing_peer_messages: 0,
            excluded_packets: 0,
            late_batches: 0,
            unread_times: 0,
            sum_part: None,
            sum_part_digest: None,
            put: None,
        };
        self.put("ledger", &format!("results/{window}"), result.to_bytes().unwrap())
            .await;
    }
}

fn ring_of(id: &str) -> &str {
    id.split('-').next().unwrap()
}

/// The Secrets that a Job's pods mount.
fn secrets(job: &Job) -> Vec<String> {
    let pod = job.spec.clone().unwrap().template.spec.unwrap();
    pod.volumes
        .unwrap()
        .into_iter()
        .filter_map(|volume| volume.secret?.secret_name)
        .collect()
}

fn is(state: VersionState) -> impl Fn(&KeyVersion) -> bool {
    move |version| version.state == state
}

/// An hour ago, so that its window is open.
fn batch() -> String {
    let time = Timestamp::now().checked_sub(SignedDuration::from_hours(1)).unwrap();
    format!(
        "agg/{}/00000000-0000-0000-0000-00000000000{}",
        time.strftime("%Y/%m/%d/%H/%M"),
        1
    )
}

async fn party(place: &Place, recipient: &str) {
    let mut spec = place.spec();
    spec["keys"] = json!({
        "batchSigning": {"keyRingRef": {"name": "signing"}},
        "packetDecryption": [{"keyRingRef": {"name": "packets"}}],
    });
    place.create_processor("us-ct", spec).await;
    place.condition("us-ct", "KeysLoaded", "False", "KeyRingMissing").await;
    place
        .create_ring("signing", &ring("BatchSigning", "signing-key", recipient))
        .await;
    place
        .create_ring("packets", &ring("PacketEncryption", "packets-key", recipient))
        .await;
}

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
    let copy = place
        .api::<Secret>()
        .get(&format!("{}.backup", first.secret))
        .await
        .unwrap();
    let mut opened = String::new();
    std::io::Read::read_to_string(
        &mut age::Decryptor::new(copy.data.unwrap()["secret.json.age"].0.as_slice())
            .unwrap()
            .decrypt(std::iter::once(&identity as _))
            .unwrap(),
        &mut opened,
    )
    .unwrap();
    assert_eq!(serde_json::from_str::<Secret>(&opened).unwrap().data, secret.data);
    assert_eq!(
        (place.public("packets").await, place.public("signing").await),
        (None, None)
    );
    place.condition("us-ct", "Ready", "False", "NoKeyYet").await;
    // The plan, asked for by an annotation, is in the status.
    let ask = json!({"metadata": {"annotations": {"prio-operator.io/plan": "please"}}});
    place
        .api::<KeyRing>()
        .patch("packets", &PatchParams::default(), &Patch::Merge(&ask))
        .await
        .unwrap();
    let plan = until("the plan", async || {
        place.api::<KeyRing>().get("packets").await.ok()?.status?.plan
    })
    .await;
    assert!(
        plan.requested == "please" && plan.lines.iter().any(|line| line.contains("publish packets-key-")),
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
    place.put_batch(&batch()).await;
    let work = until("an intake Job", async || {
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
    let mounted = secrets(&work);
    assert!(mounted.contains(&first.secret), "{mounted:?}");
    let list = until("its work list", async || {
        place.api::<ConfigMap>().get_opt(&work.name_any()).await.ok()?
    })
    .await;
    let Ok(WorkList::Intake { keys: pins, .. }) = serde_json::from_str(&list.data.unwrap()["work.json"]) else {
        panic!("no intake list");
    };
    assert_eq!(pins.packet_keys, [first.id.clone()]);
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
    let time = Timestamp::now().checked_sub(SignedDuration::from_hours(1)).unwrap();
    let window = facilitator_core::window::Window::holding(time, 28_800).unwrap();
    let text = |time: Timestamp| time.strftime("%Y%m%d%H%M").to_string();
    let window = format!("agg/{}-{}", text(window.start()), text(window.end()));
    place
        .put(
            "ledger",
            &format!("uses/{}/{window}", first.id),
            b"{\"revision\":1}\n".to_vec(),
        )
        .await;
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

    place
        .api::<KeyRing>()
        .delete("signing", &DeleteParams::default())
        .await
        .unwrap();
    place.condition("us-ct", "KeysLoaded", "False", "KeyRingMissing").await;
    place.put_batch(&batch()).await;
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
    place.put_batch(&batch()).await;
    let work = until("an intake Job", async || {
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
