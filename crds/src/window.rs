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
    cel,
    status = "AggregationWindowStatus",
    category = "prio",
    doc = "One window of one aggregation: what was in it, when it is summed, what came out.",
    selectable = ".spec.processor",
    selectable = ".spec.aggregation",
    printcolumn(name = "Processor", type_ = "string", json_path = ".spec.processor"),
    printcolumn(name = "Aggregation", type_ = "string", json_path = ".spec.aggregation"),
    printcolumn(name = "Start", type_ = "string", json_path = ".spec.start"),
    printcolumn(name = "State", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = r#".status.conditions[?(@.type=="Ready")].lastTransitionTime"#
    ),
    printcolumn(name = "Cutoff", type_ = "string", json_path = ".status.cutoff"),
    printcolumn(name = "Seen", type_ = "integer", json_path = ".status.batches.seen"),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.batches.matched"),
    printcolumn(name = "Late", type_ = "integer", json_path = ".status.batches.late"),
    printcolumn(name = "Clients", type_ = "integer", json_path = ".status.clients"),
    printcolumn(name = "End", type_ = "string", json_path = ".spec.end", priority = 1),
    printcolumn(name = "Sum part", type_ = "string", json_path = ".status.sumPart.name", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.processor == oldSelf.spec.processor && self.spec.aggregation == oldSelf.spec.aggregation && self.spec.start == oldSelf.spec.start && self.spec.end == oldSelf.spec.end")
        .message("an AggregationWindow's spec is immutable but for override: it names one window; set windows.cutoffs of its processor instead"),
    validation = Rule::new("!has(oldSelf.spec.override) || !has(oldSelf.spec.override.approvedBy) || !has(self.spec.override) || self.spec.override == oldSelf.spec.override || self.spec.override.release > oldSelf.spec.override.release")
        .message("an approved override can't be changed: remove it, or set one for a later release"),
    validation = Rule::new("self.spec.start < self.spec.end").message("spec.end must come after spec.start")
)]
#[serde(rename_all = "camelCase")]
pub struct AggregationWindowSpec {
    /// Name of the DataShareProcessor in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub processor: String,
    /// The aggregation id.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub aggregation: String,
    /// First minute of the window, `YYYYMMDDHHmm`, UTC.
    #[schemars(
        length(min = 12, max = 12),
        regex(pattern = r"^[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9]$")
    )]
    pub start: String,
    /// First minute after the window, `YYYYMMDDHHmm`, UTC.
    #[schemars(
        length(min = 12, max = 12),
        regex(pattern = r"^[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9]$")
    )]
    pub end: String,
    /// Leave to release the window once more, with the batches that are there by now.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub overriding: Option<Override>,
}

/// Leave to release a window once more. The peer must be given the same; each side refuses by itself what would tell of
/// fewer clients than its floor beside the sums that were released before.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.expiresAt > self.cutoff")
        .message("override.expiresAt must come after override.cutoff: an override that has expired freezes no set"),
    validation = Rule::new("self.expiresAt - self.cutoff <= duration('720h')")
        .message("override.expiresAt must come within 30 days of override.cutoff")
)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// Which release it is for, the same number on both sides: 2 the first time. Its sum part is in the portal's mailbox
    /// under `<instance>.release-<number>`.
    #[schemars(range(min = 2, max = 9))]
    pub release: u8,
    /// Batches that both sides have validated by then are in, RFC 3339; agreed with the peer, in the future when set.
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub cutoff: String,
    /// When it expires, RFC 3339: a set that isn't frozen by then is refused.
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub expires_at: String,
    /// Why, for whoever looks at it later. It goes into the ledger.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// The approver's own name, as the API server knows them. Nothing happens without it; who may set it is a right of its
    /// own (docs/security.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub approved_by: Option<String>,
}

/// What became of the window.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("default" = crate::schema::pending_status()))]
#[serde(rename_all = "camelCase")]
pub struct AggregationWindowStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Aggregated`, `Stalled` and `PeerSetKnown`; with an override `Overridden`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The cutoff in force, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub cutoff: Option<String>,
    /// How often the cutoff moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub defers: Option<i32>,
    /// What is known of its batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<WindowBatches>,
    /// Clients in the sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub clients: Option<i64>,
    /// The sum part in the portal's mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum_part: Option<SumPartReference>,
    /// SHA-256 of the frozen set, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub plan_digest: Option<String>,
    /// What was released beside the first sum part, by overrides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["release".into()]))]
    pub further_releases: Vec<FurtherRelease>,
    /// The Job that last had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// Seconds from the planning Job's start to the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub duration_seconds: Option<i64>,
}

/// Counts of a window's batches.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowBatches {
    /// Found in the ingestion mailbox.
    #[schemars(range(min = 0))]
    pub seen: i64,
    /// Our validation is with the peer.
    #[schemars(range(min = 0))]
    pub delivered: i64,
    /// The peer's validation is here.
    #[schemars(range(min = 0))]
    pub matched: i64,
    /// Refused for good.
    #[schemars(range(min = 0))]
    pub rejected: i64,
    /// Wait for a key or a right.
    #[schemars(range(min = 0))]
    pub blocked: i64,
    /// Came after the plan.
    #[schemars(range(min = 0))]
    pub late: i64,
}

/// A release of the window after its first.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FurtherRelease {
    /// Which, 2 to 9.
    #[schemars(range(min = 2, max = 9))]
    pub release: u8,
    /// Clients in its sum.
    #[schemars(range(min = 0))]
    pub clients: i64,
    /// SHA-256 of its frozen set, lower-case hex.
    #[schemars(length(max = 64))]
    pub plan_digest: String,
    /// Its sum part.
    pub sum_part: SumPartReference,
}

/// Where the sum part is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SumPartReference {
    /// The object's name in the portal's mailbox.
    #[schemars(length(max = 1024))]
    pub name: String,
    /// SHA-256 of the header object, lower-case hex.
    #[schemars(length(max = 64))]
    pub digest: String,
}
