//! How worker pods run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most pull Secrets. The admission policies of the cluster chart look at as many.
pub const MAX_PULL_SECRETS: usize = 4;

/// How worker pods run.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.intake.serviceAccountName != self.aggregate.serviceAccountName")
        .message("intake and aggregate need service accounts of their own: they may write to different mailboxes"),
    validation = Rule::new("!has(self.podLabels) || self.podLabels.all(label, !label.contains('prio-operator.io/') && !label.contains('kubernetes.io/') && label != 'job-name' && label != 'controller-uid')")
        .message("podLabels may not hold labels of prio-operator.io or kubernetes.io: policies and the Job controller select pods by them"),
)]
#[serde(rename_all = "camelCase")]
pub struct Workers {
    /// Intake pods.
    pub intake: WorkerStage,
    /// Aggregate pods.
    pub aggregate: WorkerStage,
    /// Batches that one pod takes in, 1 is pod-per-batch.
    #[serde(default = "batches_per_pod")]
    #[schemars(range(min = 1, max = 2_000))]
    pub batches_per_pod: u32,
    /// Batches of a window that one pod sums; a window of more is planned and summed in parts by several pods.
    #[serde(default = "sum_batches_per_pod")]
    #[schemars(range(min = 1, max = 100_000))]
    pub sum_batches_per_pod: u32,
    /// Pods that run at once, of one stage.
    #[serde(default = "max_pods")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_pods: u32,
    /// Which batches get a Batch object.
    #[serde(default)]
    pub batch_objects: BatchObjects,
    /// At most so many Batch objects; the rest is a count.
    #[serde(default = "max_batch_objects")]
    #[schemars(range(min = 0, max = 20_000))]
    pub max_batch_objects: u32,
    /// A Job none of whose pods runs after so many seconds is removed, and the cause named.
    #[serde(default = "start_deadline_seconds")]
    #[schemars(range(min = 5, max = 3_600))]
    pub start_deadline_seconds: u32,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 63)))]
    pub node_selector: BTreeMap<String, String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::affinity")]
    pub affinity: Option<Affinity>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::image_pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Labels added to worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), inner(length(max = 63)))]
    pub pod_labels: BTreeMap<String, String>,
}

fn batches_per_pod() -> u32 {
    100
}

fn sum_batches_per_pod() -> u32 {
    2_000
}

fn max_pods() -> u32 {
    20
}

fn max_batch_objects() -> u32 {
    5_000
}

fn start_deadline_seconds() -> u32 {
    300
}

/// One stage's pods.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStage {
    /// The service account of this stage's pods; they mount no API token.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::resources")]
    pub resources: Option<ResourceRequirements>,
}

/// Which batches get a Batch object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchObjects {
    /// Every one, up to `maxBatchObjects`.
    #[default]
    All,
    /// Rejected, blocked, late and crashing ones.
    Exceptions,
}
