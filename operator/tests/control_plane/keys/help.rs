//! Rings, and what probe pods and workers would do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crds::KeyRing;
use crds::key_ring::{KeyVersion, VersionState};
use facilitator_core::formats::ledger::{Delivered, DeliveredPut, LedgerObject, REVISION, Verdict, WindowResult};
use facilitator_core::formats::work::{Report, WorkList};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::place::{Place, until};

pub const INTAKE: &str = "prio-operator.io/stage=intake";
/// Short, so that the window of an hour ago is over whatever the time of the day.
pub const PERIOD_SECONDS: u32 = 1_800;

/// Versions follow each other every 25 seconds.
pub fn ring(purpose: &str, prefix: &str, recipient: &str) -> Value {
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
    /// Has the guide's own commands bring back a key whose Secret is gone, by the programs that they name.
    pub fn restore(&self, secret: &str, identity: &age::x25519::Identity) {
        let guide = include_str!("../../../../docs/operations.md");
        let (_, restore) = guide.split_once("**Restore a key**").unwrap();
        let commands = restore.split("```\n").nth(1).unwrap();
        let commands = commands.replace("$RING.1700000000", secret);
        assert!(commands.contains(&format!("{secret}.backup")), "{commands}");
        let folder = tempfile::tempdir().unwrap();
        let identity = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        std::fs::write(folder.path().join("identity.txt"), identity).unwrap();
        let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster/cluster");
        let script = format!(
            "set -o pipefail; kubectl() {{ '{}' kubectl \"$@\"; }}; {commands}",
            cluster.display()
        );
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("WORKERS", &self.namespace)
            .env(
                "PRIO_OPERATOR_KUBECONFIG",
                std::env::var("PRIO_OPERATOR_TEST_KUBECONFIG").unwrap(),
            )
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{commands}\n{said}(the program age is in Debian's package age)"
        );
    }

    pub async fn create_ring(&self, name: &str, spec: &Value) {
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
    pub async fn versions(&self, ring: &str, what: &str, wanted: impl Fn(&[KeyVersion]) -> bool) -> Vec<KeyVersion> {
        until(&format!("{ring}: {what}"), async || {
            let versions = self.api::<KeyRing>().get(ring).await.ok()?.status?.versions;
            wanted(&versions).then_some(versions)
        })
        .await
    }

    /// Waits for a condition of a ring.
    pub async fn ring_says(&self, ring: &str, kind: &str, status: &str, reason: &str) -> String {
        until(&format!("{ring}: {kind}={status} ({reason})"), async || {
            let conditions = self.api::<KeyRing>().get(ring).await.ok()?.status?.conditions;
            let found = conditions
                .into_iter()
                .find(|c| c.type_ == kind && c.status == status && c.reason == reason)?;
            Some(found.message)
        })
        .await
    }

    /// Annotates a ring.
    pub async fn annotate_ring(&self, ring: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let api = self.api::<KeyRing>();
        api.patch(ring, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// What the ring's status answers to the plan annotation.
    pub async fn plan(&self, ring: &str, value: &str) -> Vec<String> {
        self.annotate_ring(ring, "prio-operator.io/plan", value).await;
        until(&format!("{ring}: the plan {value}"), async || {
            let plan = self.api::<KeyRing>().get(ring).await.ok()?.status?.plan?;
            (plan.requested == value).then_some(plan.lines)
        })
        .await
    }

    /// As probe pods would, until something else is so: finds the keys of each work list mounted, and says so.
    pub async fn while_probes_find_the_keys<T>(&self, done: impl Future<Output = T>) -> T {
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

    pub async fn public(&self, ring: &str) -> Option<Value> {
        let data = self
            .api::<ConfigMap>()
            .get_opt(&format!("{ring}.public"))
            .await
            .unwrap()?
            .data?;
        let (_, text) = data.into_iter().next()?;
        serde_json::from_str(&text).ok()
    }

    pub async fn delivered(&self, batch: &str) {
        let delivered = Delivered {
            revision: REVISION,
            record_digest: "00".repeat(32),
            signature_object: format!("{batch}.validity_0.sig"),
            store_time_millis: None,
            put: DeliveredPut::Created,
        };
        self.put("ledger", &format!("delivered/{batch}"), delivered.to_bytes().unwrap())
            .await;
    }

    pub async fn finished(&self, window: &str) {
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
pub fn secrets(job: &Job) -> Vec<String> {
    let pod = job.spec.clone().unwrap().template.spec.unwrap();
    pod.volumes
        .unwrap()
        .into_iter()
        .filter_map(|volume| volume.secret?.secret_name)
        .collect()
}

pub fn is(state: VersionState) -> impl Fn(&KeyVersion) -> bool {
    move |version| version.state == state
}

/// A time whose window has ended and takes batches still.
pub fn hour_ago() -> Timestamp {
    Timestamp::now().checked_sub(SignedDuration::from_hours(1)).unwrap()
}

/// A batch of that time.
pub fn batch(time: Timestamp) -> String {
    format!(
        "agg/{}/00000000-0000-0000-0000-00000000000{}",
        time.strftime("%Y/%m/%d/%H/%M"),
        1
    )
}

/// Manifests of ours, with what the rings publish.
pub fn manifest() -> Value {
    json!({
        "publishTo": {"configMap": {"name": "manifests"}},
        "ingestionBucket": "gs://ours-ingestion",
        "peerValidationBucket": "gs://ours-peer-validation",
    })
}

pub async fn party(place: &Place, recipient: &str) {
    let mut spec = place.spec();
    spec["windows"]["periodSeconds"] = json!(PERIOD_SECONDS);
    spec["keys"] = json!({
        "batchSigning": {"keyRingRef": {"name": "signing"}},
        "packetDecryption": [{"keyRingRef": {"name": "packets"}}],
    });
    spec["manifest"] = manifest();
    place.create_processor("us-ct", spec).await;
    place.condition("us-ct", "KeysLoaded", "False", "KeyRingMissing").await;
    place
        .create_ring("signing", &ring("BatchSigning", "signing-key", recipient))
        .await;
    place
        .create_ring("packets", &ring("PacketEncryption", "packets-key", recipient))
        .await;
}
