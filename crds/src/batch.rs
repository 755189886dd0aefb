//! Batch: one ingestion batch on its way through intake. A projection of the ledger; deleting it loses nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One ingestion batch.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "prio-operator.io",
    version = "v1alpha1",
    kind = "Batch",
    plural = "batches",
    namespaced,
    status = "BatchStatus",
    category = "prio",
    doc = "One ingestion batch on its way through intake. The operator makes and removes Batches; the ledger is the truth.",
    selectable = ".spec.processor",
    selectable = ".spec.aggregation"
)]
#[serde(rename_all = "camelCase")]
pub struct BatchSpec {
    /// Name of the DataShareProcessor in the same namespace.
    pub processor: String,
    /// The aggregation id: the first segment of the batch's name.
    pub aggregation: String,
    /// The time of the batch's name, `YYYY/MM/DD/HH/mm`, UTC.
    pub time: String,
    /// The batch's UUID.
    pub uuid: String,
}

/// What became of the batch.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// `Ready` and `Validated`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// `Validated`, `Rejected`, `Blocked`, `Late` or `CrashesWorker`; absent while it waits or runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why, one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many packets the batch holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<i64>,
    /// How many of them are excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<i64>,
    /// The Job that last had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// How many Jobs had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
}
