//! What a person should know of a processor.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::PreflightStatus;
use crate::key_ring::VersionState;

/// What a person should know of the processor.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("default" = crate::schema::pending_status()))]
#[serde(rename_all = "camelCase")]
pub struct DataShareProcessorStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `PeersKnown`, `MailboxesListed`, `WorkersReady`, `WindowsOnTime`, `AdmissionGuarded`, `ManifestPublished`,
    /// `Stalled`, `Preflight`, and `KeysLoaded` where the spec refers to KeyRings.
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
    /// What is known of keys of KeyRings; rotation rests on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeysStatus>,
    /// The last preflight, line by line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightStatus>,
}

/// What is known of keys of KeyRings.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysStatus {
    /// The keys that aren't retired.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["keyRing".into(), "id".into()]))]
    pub versions: Vec<KeyUse>,
}

/// What is known of one version of a key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// The KeyRing.
    #[schemars(length(min = 1, max = 253))]
    pub key_ring: String,
    /// The key's id.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// Name of its Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret: String,
    /// Where the KeyRing says that it is: workers go by it while the KeyRing is gone.
    pub state: VersionState,
    /// Since when the workers of both stages have it: a probe under each account read it, and no older worker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub loaded: Option<String>,
    /// Since when partners get it in our own manifest; where `manifest.servedAt` is given, it is looked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub published: Option<String>,
    /// Of a key that is superseded: all batches that came before are taken in or refused, so that what they needed of it
    /// is in `lastUsed` and `neededBy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub observed_until: Option<String>,
    /// The end of the last window with work under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub last_used: Option<String>,
    /// A window that isn't finished and has work under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub needed_by: Option<String>,
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
