//! What a preflight found.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last preflight: whether work could be done, checked under each stage's account. Work doesn't wait for it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightStatus {
    /// Digest of what it rests on: the spec, what is known of partners, our manifest, the workers' image, the annotation.
    /// Another one is another preflight.
    #[schemars(length(min = 1, max = 64))]
    pub inputs: String,
    /// The value of the annotation `prio-operator.io/preflight` that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub asked: Option<String>,
    /// When it began, RFC 3339.
    #[schemars(length(max = 40))]
    pub started: String,
    /// When its last line came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub finished: Option<String>,
    /// The checks, in the order of the guide.
    #[serde(default)]
    #[schemars(length(max = 96))]
    pub lines: Vec<PreflightLine>,
}

/// One check.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightLine {
    /// Who checked.
    pub stage: PreflightStage,
    /// What was checked; see docs/operations.md.
    #[schemars(length(min = 1, max = 63))]
    pub check: String,
    /// Of which mailbox: `ingestion`, `peerValidation`, `ledger`, `peer` or `portal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub mailbox: Option<String>,
    /// How it ended.
    pub outcome: PreflightOutcome,
    /// What was found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub remedy: String,
}

/// Who checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PreflightStage {
    /// The operator itself.
    Operator,
    /// A Job under the account of intake.
    Intake,
    /// A Job under the account of aggregation.
    Aggregate,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PreflightOutcome {
    /// All is well.
    Passed,
    /// Work would fail.
    Failed,
    /// It can't be known from there; the detail says why.
    NotCheckable,
}
