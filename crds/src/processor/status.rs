//! What a person should know of a processor.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a person should know of the processor.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("default" = crate::schema::pending_status()))]
#[serde(rename_all = "camelCase")]
pub struct DataShareProcessorStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `PeersKnown`, `MailboxesListed`, `WorkersReady`, `WindowsOnTime`, `AdmissionGuarded`, `ManifestPublished`
    /// and `Stalled`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The ledger's id: gone or different means `Stalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub ledger_id: Option<String>,
    /// The first window that is ours, RFC 3339; the ledger holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub start_at: Option<String>,
    /// Digest of what both parties must agree on: compare it with the peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub agreement_digest: Option<String>,
    /// Batches of open windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<BatchCounts>,
    /// Windows by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowCounts>,
}

/// Batches of open windows, by outcome.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchCounts {
    /// Found and not taken in yet.
    #[schemars(range(min = 0))]
    pub waiting: i64,
    /// In a running Job.
    #[schemars(range(min = 0))]
    pub running: i64,
    /// Taken in.
    #[schemars(range(min = 0))]
    pub validated: i64,
    /// Refused for good.
    #[schemars(range(min = 0))]
    pub rejected: i64,
    /// Wait for a key or a right.
    #[schemars(range(min = 0))]
    pub blocked: i64,
    /// Came after their window's plan.
    #[schemars(range(min = 0))]
    pub late: i64,
    /// Names in the mailboxes that are no batch's.
    #[schemars(range(min = 0))]
    pub unknown_names: i64,
}

/// Windows by state.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowCounts {
    /// Their cutoff is to come.
    #[schemars(range(min = 0))]
    pub open: i64,
    /// Summed.
    #[schemars(range(min = 0))]
    pub summed: i64,
    /// Ended without a sum: empty, below the floor, missed.
    #[schemars(range(min = 0))]
    pub without_sum: i64,
    /// Failed.
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// Past their time and not summed.
    #[schemars(range(min = 0))]
    pub overdue: i64,
}
