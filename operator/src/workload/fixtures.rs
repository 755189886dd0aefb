//! What tests are made of: a processor, mailboxes, and Jobs, pods and Events as Kubernetes writes them.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use crds::DataShareProcessor;
use facilitator_core::formats::ledger::{Rejected, RejectedReason, Verdict, WindowResult};
use facilitator_core::formats::names::{BatchId, WindowId};
use facilitator_core::formats::work::{BatchOutcome, BatchReport, Report, WindowOutcome, WindowReport, WorkList};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{JobView, KeySet, PlannedJob, Stage, Timing, WorkerContext, build};
use crate::inventory::{Inventory, Listed, Listings};
use crate::processor::keys::resolve;
use crate::window::Schedule;

/// The first window of the tests is 2026-11-20 00:00 to 03:00, its cutoff 03:50, planned at 04:00, then three hours on.
pub(crate) const WINDOW: &str = "kittens-seen/202611200000-202611200300";

pub(crate) const IMAGE: &str = "registry.example/facilitator:0.1.0";

pub(crate) fn at(text: &str) -> Timestamp {
    let text = if text.len() == 5 {
        format!("2026-11-20T{text}:00Z")
    } else {
        text.to_owned()
    };
    text.parse().unwrap()
}

pub(crate) fn processor() -> DataShareProcessor {
    let key = |id: &str| json!({"inline": {"batchSigningKeys": [{"id": id, "publicKey": "BA=="}]}});
    let mailbox = |name: &str| json!({"url": format!("file:///mailboxes/{name}"), "volume": {"claimName": name}});
    serde_json::from_value(json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "DataShareProcessor",
        "metadata": {"name": "pha", "namespace": "pha-workers", "uid": "0b5b6a4e-2f0c-4a53-a1de-6f4c2f8ad0a1", "generation": 3},
        "spec": {
            "share": "First",
            "instance": "us-ct-g-enpa",
            "ingestor": key("ingestor"),
            "peer": key("peer"),
            "portal": {"inline": {}},
            "mailboxes": {
                "ingestion": mailbox("ingestion"),
                "peerValidation": mailbox("peer-validation"),
                "ledger": mailbox("ledger"),
                "outgoing": {"peer": mailbox("outgoing-peer"), "portal": mailbox("portal")},
            },
            "keys": {
                "batchSigning": {"secretRef": {"name": "batch-signing"}},
                "packetDecryption": [{"secretRef": {"name": "packet-new"}}, {"secretRef": {"name": "packet-old"}}],
            },
            "windows": {"periodSeconds": 10_800, "gracePeriodSeconds": 3_600, "settleSeconds": 600, "maxDefers": 1},
            "workers": {
                "intake": {"serviceAccountName": "intake", "resources": {"limits": {"memory": "128Mi"}}},
                "aggregate": {"serviceAccountName": "aggregate"},
                "batchesPerPod": 4,
                "maxPods": 3,
                "nodeSelector": {"disk": "fast"},
                "podLabels": {"team": "health"},
            },
        },
    }))
    .unwrap()
}

pub(crate) fn schedule(processor: &DataShareProcessor) -> Schedule {
    Schedule::of(&processor.spec, at("2026-11-19T00:00:00Z"), &Timing::default()).unwrap()
}

/// Batch `n` of `aggregation`, its path's time `HH/mm` of 2026-11-20.
pub(crate) fn batch(aggregation: &str, time: &str, n: u128) -> BatchId {
    let uuid = uuid::Uuid::from_u128(n);
    BatchId::parse(&format!("{aggregation}/2026/11/20/{time}/{uuid}")).unwrap()
}

/// The first `count` batches of the first window.
pub(crate) fn kittens(count: u128) -> Vec<BatchId> {
    (1..=count).map(|n| batch("kittens-seen", "01/00", n)).collect()
}

pub(crate) fn window(text: &str) -> WindowId {
    WindowId::parse(text).unwrap()
}

/// Mailboxes, filled step by step.
#[derive(Clone, Default)]
pub(crate) struct Mailboxes(pub(crate) Listings);

impl Mailboxes {
    fn put(list: &mut Vec<Listed>, name: String, stored: &str) {
        list.push(Listed {
            name,
            stored: at(stored),
        });
    }

    pub(crate) fn ingested(mut self, ids: &[BatchId], stored: &str) -> Self {
        for id in ids {
            for ending in ["", ".avro", ".sig"] {
                Self::put(&mut self.0.ingestion, format!("{id}.batch{ending}"), stored);
            }
        }
        self
    }

    pub(crate) fn named(mut self, name: &str, stored: &str) -> Self {
        Self::put(&mut self.0.ingestion, name.to_owned(), stored);
        self
    }

    pub(crate) fn answered(mut self, ids: &[BatchId], share: u8, stored: &str) -> Self {
        for id in ids {
            Self::put(
                &mut self.0.peer_validation,
                format!("{id}.validity_{share}.sig"),
                stored,
            );
        }
        self
    }

    pub(crate) fn delivered(mut self, ids: &[BatchId], stored: &str) -> Self {
        for id in ids {
            Self::put(&mut self.0.ledger, format!("delivered/{id}"), stored);
        }
        self
    }

    pub(crate) fn rejected(mut self, ids: &[BatchId], reason: RejectedReason, stored: &str) -> Self {
        for id in ids {
            let name = format!("rejected/{id}");
            let message = "the batch is bad".to_owned();
            let rejected = Rejected {
                revision: 1,
                reason,
                message,
                header_digest: None,
                packet_digest: None,
            };
            self.0.rejections.insert(name.clone(), rejected);
            Self::put(&mut self.0.ledger, name, stored);
        }
        self
    }

    pub(crate) fn planned(mut self, window: &str, stored: &str) -> Self {
        Self::put(&mut self.0.ledger, format!("plans/{window}"), stored);
        self
    }

    /// Names under a folder of the ledger.
    pub(crate) fn in_ledger<T: std::fmt::Display>(mut self, folder: &str, names: &[T], stored: &str) -> Self {
        for name in names {
            Self::put(&mut self.0.ledger, format!("{folder}/{name}"), stored);
        }
        self
    }

    pub(crate) fn finished(self, window: &str, verdict: Verdict, stored: &str) -> Self {
        let mut this = self.planned(window, stored);
        let name = format!("results/{window}");
        let summed = verdict == Verdict::Summed;
        let result = WindowResult {
            revision: 1,
            verdict,
            reason: (verdict == Verdict::Failed).then_some(facilitator_core::formats::ledger::FailedReason::RecordLost),
            message: "as it went".to_owned(),
            plan_digest: Some("ab".repeat(32)),
            batches: 2,
            packets: 40,
            clients: 39,
            invalid_proofs: 1,
            missing_peer_messages: 0,
            excluded_packets: 0,
            late_batches: 1,
            unread_times: 0,
            sum_part: summed.then(|| format!("us-ct-g-enpa/{window}.sum_0")),
            sum_part_digest: summed.then(|| "cd".repeat(32)),
            put: None,
        };
        this.0.results.insert(name.clone(), result);
        Self::put(&mut this.0.ledger, name, stored);
        this
    }

    pub(crate) fn inventory(&self, schedule: &Schedule, now: Timestamp) -> Inventory {
        Inventory::build(self.0.clone(), schedule, now)
    }
}

/// The Secrets that its spec names.
pub(crate) fn key_set(processor: &DataShareProcessor) -> &'static KeySet {
    let resolved = resolve(&processor.spec.keys, &BTreeMap::new(), None, &BTreeSet::new());
    Box::leak(Box::new(resolved.work.unwrap()))
}

pub(crate) fn context<'a>(processor: &'a DataShareProcessor) -> WorkerContext<'a> {
    WorkerContext {
        namespace: "pha-workers",
        processor_name: "pha",
        processor_uid: processor.metadata.uid.as_deref().unwrap(),
        generation: processor.metadata.generation.unwrap(),
        spec: &processor.spec,
        keys: key_set(processor),
        image: IMAGE,
        image_pull_policy: None,
        parameters_config_map: "pha-parameters-5c2e",
        active_deadline_seconds: 21_600,
        ttl_seconds: 300,
    }
}

/// The Job as the API server and the Job controller show it right after its creation.
pub(crate) fn started(planned: &PlannedJob, processor: &DataShareProcessor, created: &str) -> JobView {
    let (config_map, mut job) = build(planned, &context(processor));
    job.metadata.creation_timestamp = Some(Time(at(created)));
    job.metadata.uid = Some(format!("uid of {} of {created}", job.metadata.name.as_deref().unwrap()));
    JobView {
        work: work_list(&config_map),
        job: with_status(job, json!({})),
        ..JobView::default()
    }
}

fn work_list(config_map: &ConfigMap) -> Option<WorkList> {
    serde_json::from_str(&config_map.data.as_ref()?["work.json"]).ok()
}

fn with_status(mut job: Job, status: Value) -> Job {
    job.status = Some(serde_json::from_value(status).unwrap());
    job
}

impl JobView {
    pub(crate) fn status(mut self, status: Value) -> Self {
        self.job = with_status(self.job, status);
        self
    }

    /// Every index succeeded.
    pub(crate) fn complete(self) -> Self {
        let completions = self.job.spec.as_ref().unwrap().completions;
        self.status(json!({
            "succeeded": completions, "active": 0, "ready": 0, "completionTime": "2026-11-20T02:00:10Z",
            "startTime": "2026-11-20T02:00:00Z", "completedIndexes": "0",
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached"},
                           {"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}],
        }))
    }

    /// Indexes failed.
    pub(crate) fn failed(self, reason: &str, message: &str) -> Self {
        self.status(json!({
            "failed": 4, "active": 0, "failedIndexes": "0", "startTime": "2026-11-20T02:00:00Z",
            "conditions": [{"type": "FailureTarget", "status": "True", "reason": reason, "message": message},
                           {"type": "Failed", "status": "True", "reason": reason, "message": message}],
        }))
    }

    pub(crate) fn crashed(self) -> Self {
        self.failed("FailedIndexes", "Job has failed indexes")
    }

    pub(crate) fn refused(self, line: &str) -> Self {
        let state = json!({"terminated": {"exitCode": 78, "reason": "Error", "message": format!("{line}\n")}});
        let name = self.name().to_owned();
        self.failed(
            "PodFailurePolicy",
            &format!("Container worker for pod pha-workers/{name}-0-x7k2p failed with exit code 78 matching FailJob rule at index 2"),
        )
        .pod("Failed", state, "02:00")
    }

    /// A pod with the given container state.
    pub(crate) fn pod(mut self, phase: &str, state: Value, created: &str) -> Self {
        let n = self.pods.len();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{}-{n}-x7k2p", self.name()), "uid": format!("pod {n} of {}", self.name()),
                "creationTimestamp": at(created).to_string(),
            },
            "status": {
                "phase": phase,
                "containerStatuses": [{
                    "name": "worker", "ready": phase == "Running", "restartCount": 0, "started": phase == "Running",
                    "image": IMAGE, "imageID": "", "state": state,
                }],
            },
        }))
        .unwrap();
        self.pods.push(pod);
        self
    }

    pub(crate) fn creating(self) -> Self {
        self.pod("Pending", json!({"waiting": {"reason": "ContainerCreating"}}), "02:00")
    }

    pub(crate) fn running(self) -> Self {
        self.pod(
            "Running",
            json!({"running": {"startedAt": "2026-11-20T02:00:05Z"}}),
            "02:00",
        )
    }

    /// A pod that the scheduler finds no node for.
    pub(crate) fn unscheduled(mut self, message: &str) -> Self {
        self = self.pod("Pending", json!({}), "02:00");
        let pod = self.pods.last_mut().unwrap().status.as_mut().unwrap();
        pod.container_statuses = None;
        pod.conditions = serde_json::from_value(json!([
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
        ]))
        .unwrap();
        self
    }

    /// An Event about the Job (`pod` is `None`) or one of its pods.
    pub(crate) fn event(mut self, pod: Option<usize>, reason: &str, message: &str) -> Self {
        let (kind, name, uid) = match pod {
            None => ("Job", self.name().to_owned(), self.uid().to_owned()),
            Some(n) => {
                let meta = &self.pods[n].metadata;
                ("Pod", meta.name.clone().unwrap(), meta.uid.clone().unwrap())
            }
        };
        let event: Event = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}.17a"), "namespace": "pha-workers"},
            "involvedObject": {"kind": kind, "name": name, "uid": uid, "namespace": "pha-workers"},
            "reason": reason, "message": message, "type": "Warning", "count": 3,
            "source": {"component": if pod.is_some() { "kubelet" } else { "job-controller" }},
        }))
        .unwrap();
        self.events.push(event);
        self
    }

    pub(crate) fn batch_report(mut self, id: &BatchId, outcome: BatchOutcome, reason: &str) -> Self {
        let batch = BatchReport {
            aggregation: id.aggregation.to_string(),
            time: id.time.to_path(),
            uuid: id.uuid,
            outcome,
            reason: reason.to_owned(),
            message: "key k2 isn't mounted".to_owned(),
            packets: 20,
            excluded: 1,
        };
        self.reports.push(self.report(vec![batch], Vec::new()));
        self
    }

    /// What index `index` of a Job of parts reports.
    pub(crate) fn part_report(self, id: &str, index: u32, outcome: WindowOutcome) -> Self {
        let mut this = self.window_report(id, outcome, "");
        if let Some(report) = this.reports.last_mut() {
            report.index = index;
        }
        this
    }

    pub(crate) fn window_report(mut self, id: &str, outcome: WindowOutcome, reason: &str) -> Self {
        let id = window(id);
        let window = WindowReport {
            aggregation: id.aggregation.to_string(),
            start: id.start.to_compact(),
            end: id.end.to_compact(),
            release: Some(id.release()).filter(|release| *release > 1),
            outcome,
            reason: reason.to_owned(),
            message: "key k2 isn't mounted".to_owned(),
            cutoff_millis: None,
        };
        self.reports.push(self.report(Vec::new(), vec![window]));
        self
    }

    fn report(&self, batches: Vec<BatchReport>, windows: Vec<WindowReport>) -> Report {
        Report {
            revision: 1,
            work: self.name().to_owned(),
            index: 0,
            pod_uid: "pod 0".to_owned(),
            batches,
            windows,
            keys: Vec::new(),
        }
    }
}

pub(crate) fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

pub(crate) fn label(stage: Stage) -> &'static str {
    stage.label()
}
