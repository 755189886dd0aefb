//! Plan shards: what was found of a range of a large window's batches, before its plan. `docs/formats.md` §3.10.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::{LedgerObject, ledger_object};
use super::names::BatchTime;
use super::plan::{ExclusionReason, Shape};
use super::work::Share;

/// A batch of the window's time, as the listings and `delivered/` show it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// The path's time.
    pub time: BatchTime,
    /// The batch's UUID.
    pub uuid: Uuid,
    /// `rejected/` has it.
    pub rejected: bool,
    /// `records/` has it.
    pub recorded: bool,
    /// When the peer's store made our signature visible; `None`: not delivered.
    pub ours: Option<OurTime>,
    /// When our store made the peer's signature visible; `None`: not there.
    pub theirs: Option<i64>,
    /// What a look inside showed; only for candidates that times admit to some cutoff.
    pub content: Option<Content>,
}

/// When ours came to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OurTime {
    /// When.
    pub millis: i64,
    /// Nobody could read the time from the peer's store: the one of `delivered/` stands in.
    pub unread: bool,
}

/// What a look into the record, the ingestion header and the peer's messages showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Content {
    /// All is well.
    Good(Box<Pinned>),
    /// It can't be a member at any cutoff.
    Bad(ExclusionReason),
}

/// What the plan pins of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pinned {
    /// SHA-256 of the record's plain part.
    pub record_digest: String,
    /// The digest of the peer's messages.
    pub messages_digest: String,
    /// The batch's shape.
    pub shape: Shape,
}

/// `shards/…`: all that the plan needs of the batches of one range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanShard {
    /// The revision, 1.
    pub revision: u32,
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`, inclusive.
    pub start: String,
    /// `YYYYMMDDHHmm`, exclusive.
    pub end: String,
    /// The last cutoff that was due, milliseconds since 1970: batches that came later weren't looked into.
    pub cutoff_millis: i64,
    /// Which batches.
    pub range: String,
    /// Our share.
    pub share: Share,
    /// The processor's name in sum-part paths.
    pub instance: String,
    /// The peer ran the original.
    pub legacy_peer: bool,
    /// The batches, sorted by object name.
    pub candidates: Vec<Candidate>,
}
ledger_object!(PlanShard, 256 << 20);

impl PlanShard {
    /// Whether it says of the same range of the same window, at the same cutoff and by the same rules, what `other` does.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let bare = |shard: &Self| Self {
            candidates: Vec::new(),
            ..shard.clone()
        };
        bare(self) == bare(other)
    }
}
