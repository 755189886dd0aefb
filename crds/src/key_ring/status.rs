//! What a person should know of a ring's keys.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most versions that a status shows, retired ones among them.
pub const MAX_VERSIONS: usize = 40;
/// The most characters of an annotation's value that are remembered with its answer.
pub const MAX_ANSWER: usize = 250;
/// The most lines of a plan.
const MAX_PLAN_LINES: usize = 64;

/// What a person should know of the ring. The ConfigMap `<name>.versions` holds the same history, and outlives the ring.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("default" = crate::schema::pending_status()))]
#[serde(rename_all = "camelCase")]
pub struct KeyRingStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Stalled`, `Progressing`, `WaitsForPerson` and `AdmissionGuarded`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The id of the key that signs new work, or that the manifest tells clients to encrypt to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub in_use: Option<String>,
    /// Versions that aren't retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub active_versions: Option<i64>,
    /// What happens next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextStep>,
    /// Every version, youngest first; of the retired ones the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_VERSIONS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub versions: Vec<KeyVersion>,
    /// The value of the annotation `prio-operator.io/rotate` that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ANSWER))]
    pub rotation_answered: Option<String>,
    /// The answer to the annotation `prio-operator.io/plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RotationPlan>,
}

/// What happens next.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextStep {
    /// What, one word: `Create`, `Load`, `Certify`, `Publish`, `Use` or `Retire`.
    #[schemars(length(max = 63))]
    pub step: String,
    /// The key's id; absent where it isn't made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub id: Option<String>,
    /// Not before, RFC 3339; absent where no time is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub at: Option<String>,
    /// What it waits for.
    #[schemars(length(max = 1024))]
    pub waits_for: String,
}

/// Where a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VersionState {
    /// Its Secret is there, and its second copy where the spec wants one; not every worker is known to have it.
    Written,
    /// Every worker has it; the partners don't know it.
    Loaded,
    /// The partners know it; it isn't used for new work.
    Published,
    /// It signs new work, or clients are told to encrypt to it.
    InUse,
    /// Another is used for new work; old work may still need it, so that workers have it.
    Superseded,
    /// No traffic needed it any more: workers and manifest don't have it. Its Secret is still there.
    Retired,
}

/// One version of the key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyVersion {
    /// The key's id in manifests and signatures.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// Name of its Secret, with `key` and `id`.
    #[schemars(length(min = 1, max = 253))]
    pub secret: String,
    /// Where it is.
    pub state: VersionState,
    /// What it waits for, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub waits_for: Option<String>,
    /// When the key was made, RFC 3339, as all times here.
    #[schemars(length(max = 40))]
    pub created: String,
    /// When its second copy was written, before its Secret; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub backed_up: Option<String>,
    /// When its Secret was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub written: Option<String>,
    /// Since when every worker has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub loaded: Option<String>,
    /// When a person said that its certificate is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub certified: Option<String>,
    /// When it was first seen in what is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub published: Option<String>,
    /// Since when it is used for new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub promoted: Option<String>,
    /// Since when another is used for new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub superseded: Option<String>,
    /// Since when workers and manifest don't have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub retired: Option<String>,
    /// Its public half, PEM `PUBLIC KEY`.
    #[schemars(length(min = 1, max = 512))]
    pub public_key: String,
    /// PEM `CERTIFICATE REQUEST`, of packet-encryption keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub certificate_signing_request: Option<String>,
}

/// What would happen and when, if nothing came in between.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationPlan {
    /// The value of the annotation that asked.
    #[schemars(length(max = 253))]
    pub requested: String,
    /// When it was made, RFC 3339.
    #[schemars(length(max = 40))]
    pub made: String,
    /// One line a step, in order.
    #[serde(default)]
    #[schemars(length(max = MAX_PLAN_LINES), inner(length(max = 512)))]
    pub lines: Vec<String>,
}
