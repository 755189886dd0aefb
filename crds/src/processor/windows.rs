//! When windows are summed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// When windows are summed. Both parties must agree on all of it but `startAt`, `historyDays`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.periodSeconds % 60 == 0")
        .message("periodSeconds must be whole minutes: batches are named by the minute"),
    validation = Rule::new("self.settleSeconds <= self.gracePeriodSeconds")
        .message("settleSeconds must not exceed gracePeriodSeconds: the cutoff, end + grace - settle, would come before the window's end"),
    validation = Rule::new("!has(self.cutoffs) || self.cutoffs.all(entry, ((timestamp(entry.start.substring(0, 4) + '-' + entry.start.substring(4, 6) + '-' + entry.start.substring(6, 8) + 'T' + entry.start.substring(8, 10) + ':' + entry.start.substring(10, 12) + ':00Z') - timestamp('1970-01-01T00:00:00Z')).getSeconds() + 62135596800) % self.periodSeconds == 0)")
        .message("cutoffs: start must be the first minute of a window (windows of periodSeconds follow each other from 0001-01-01T00:00Z)"),
)]
#[serde(rename_all = "camelCase")]
pub struct Windows {
    /// Windows that begin before it are not ours, RFC 3339; default: the creation of the resource, rounded up to a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub start_at: Option<String>,
    /// Length of a window in seconds, whole minutes.
    #[serde(default = "default_period_seconds")]
    #[schemars(range(min = 60, max = 2_678_400))]
    pub period_seconds: u32,
    /// How many seconds after its end a window waits for batches.
    #[serde(default = "default_grace_period_seconds")]
    #[schemars(range(min = 0, max = 2_678_400))]
    pub grace_period_seconds: u32,
    /// How many seconds before planning the cutoff is, so that every store shows what was written by then.
    #[serde(default = "default_settle_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub settle_seconds: u32,
    /// How often an empty-handed window moves its cutoff by one period.
    #[serde(default = "default_max_defers")]
    #[schemars(range(min = 0, max = 100))]
    pub max_defers: u32,
    /// No sum of fewer clients is released.
    #[serde(default = "default_min_clients")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_clients: u64,
    /// How many days AggregationWindows are kept.
    #[serde(default = "default_history_days")]
    #[schemars(range(min = 1, max = 3_650))]
    pub history_days: u32,
    /// Extra cutoffs for old windows, agreed with the peer; one for each aggregation and window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["aggregation".into(), "start".into()]))]
    pub cutoffs: Vec<Cutoff>,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            start_at: None,
            period_seconds: default_period_seconds(),
            grace_period_seconds: default_grace_period_seconds(),
            settle_seconds: default_settle_seconds(),
            max_defers: default_max_defers(),
            min_clients: default_min_clients(),
            history_days: default_history_days(),
            cutoffs: Vec::new(),
        }
    }
}

fn default_period_seconds() -> u32 {
    28_800
}

fn default_grace_period_seconds() -> u32 {
    14_400
}

fn default_settle_seconds() -> u32 {
    600
}

fn default_max_defers() -> u32 {
    3
}

fn default_min_clients() -> u64 {
    100
}

fn default_history_days() -> u32 {
    90
}

/// An extra cutoff, agreed with the peer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cutoff {
    /// The aggregation id.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub aggregation: String,
    /// The window's start, `YYYYMMDDHHmm`, UTC.
    #[schemars(
        length(min = 12, max = 12),
        regex(pattern = r"^[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9]$")
    )]
    pub start: String,
    /// The cutoff, RFC 3339; in the future when set, so that both parties still can act by it.
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub cutoff: String,
}
