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
    cel,
    status = "BatchStatus",
    category = "prio",
    doc = "One ingestion batch on its way through intake. The operator makes and removes Batches; the ledger is the truth.",
    selectable = ".spec.processor",
    selectable = ".spec.aggregation",
    printcolumn(name = "Processor", type_ = "string", json_path = ".spec.processor"),
    printcolumn(name = "Aggregation", type_ = "string", json_path = ".spec.aggregation"),
    printcolumn(name = "Time", type_ = "string", json_path = ".spec.time"),
    printcolumn(name = "Outcome", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Packets", type_ = "integer", json_path = ".status.packets"),
    printcolumn(name = "Excluded", type_ = "integer", json_path = ".status.excluded"),
    printcolumn(name = "UUID", type_ = "string", json_path = ".spec.uuid", priority = 1),
    printcolumn(name = "Job", type_ = "string", json_path = ".status.job", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec")
        .message("a Batch's spec is immutable: it names one ingestion batch; the operator makes the others")
)]
#[serde(rename_all = "camelCase")]
pub struct BatchSpec {
    /// Name of the DataShareProcessor in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub processor: String,
    /// The aggregation id: the first segment of the batch's name.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub aggregation: String,
    /// The time of the batch's name, `YYYY/MM/DD/HH/mm`, UTC.
    #[schemars(
        length(min = 16, max = 16),
        regex(pattern = r"^[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{2}/[0-9]{2}$")
    )]
    pub time: String,
    /// The batch's UUID.
    #[schemars(
        length(min = 36, max = 36),
        regex(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    )]
    pub uuid: String,
}

/// What became of the batch.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("default" = crate::schema::pending_status()))]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// `Ready`, `Validated` and `Stalled`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// `Validated`, `Rejected`, `Blocked`, `Late` or `CrashesWorker`; absent while it waits or runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub outcome: Option<String>,
    /// Why, one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub reason: Option<String>,
    /// How many packets the batch holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub packets: Option<i64>,
    /// How many of them are excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub excluded: Option<i64>,
    /// The Job that last had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// How many Jobs had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attempts: Option<i32>,
}
