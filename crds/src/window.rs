//! AggregationWindow: one per processor, aggregation and window.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One window of one aggregation.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "prio-operator.io",
    version = "v1alpha1",
    kind = "AggregationWindow",
    plural = "aggregationwindows",
    shortname = "aggwin",
    namespaced,
    status = "AggregationWindowStatus",
    category = "prio",
    doc = "One window of one aggregation: what was in it, when it is summed, what came out.",
    selectable = ".spec.processor",
    selectable = ".spec.aggregation"
)]
#[serde(rename_all = "camelCase")]
pub struct AggregationWindowSpec {
    /// Name of the DataShareProcessor in the same namespace.
    pub processor: String,
    /// The aggregation id.
    pub aggregation: String,
    /// First minute of the window, `YYYYMMDDHHmm`, UTC.
    pub start: String,
    /// First minute after the window, `YYYYMMDDHHmm`, UTC.
    pub end: String,
}

/// What became of the window.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregationWindowStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Aggregated`, `Stalled` and `PeerSetKnown`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The cutoff in force, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutoff: Option<String>,
    /// How often the cutoff moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defers: Option<i32>,
    /// What is known of its batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<WindowBatches>,
    /// Clients in the sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<i64>,
    /// The sum part in the portal's mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum_part: Option<SumPartReference>,
    /// SHA-256 of the frozen set, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// The Job that last had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Seconds from the planning Job's start to the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
}

/// Counts of a window's batches.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowBatches {
    /// Found in the ingestion mailbox.
    pub seen: i64,
    /// Our validation is with the peer.
    pub delivered: i64,
    /// The peer's validation is here.
    pub matched: i64,
    /// Refused for good.
    pub rejected: i64,
    /// Wait for a key or a right.
    pub blocked: i64,
    /// Came after the plan.
    pub late: i64,
}

/// Where the sum part is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SumPartReference {
    /// The object's name in the portal's mailbox.
    pub name: String,
    /// SHA-256 of the header object, lower-case hex.
    pub digest: String,
}
