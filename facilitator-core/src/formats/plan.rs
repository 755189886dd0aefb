//! Plans: the frozen set of a window. `docs/formats.md` §3.5, ledger rules 3 and 4.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::{LedgerObject, ledger_object};
use super::record::RecordHead;
use super::work::{Approval, Share};

/// What all members of a plan have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shape {
    /// `name` of the ingestion headers.
    pub name: String,
    /// Bins, 1 to 2^19 − 1.
    pub bins: u32,
    /// Epsilon.
    pub epsilon: f64,
    /// The prime.
    pub prime: u64,
    /// Number of servers.
    pub number_of_servers: u32,
    /// Hamming weight.
    pub hamming_weight: Option<i32>,
}

impl Shape {
    /// The shape of a record's batch.
    #[must_use]
    pub fn of(record: &RecordHead) -> Self {
        Self {
            name: record.name.clone(),
            bins: record.bins,
            epsilon: record.epsilon,
            prime: record.prime,
            number_of_servers: record.number_of_servers,
            hamming_weight: record.hamming_weight,
        }
    }
}

/// A batch of the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// The path's time, `YYYY/MM/DD/HH/mm`.
    pub time: String,
    /// The batch's UUID.
    pub uuid: Uuid,
    /// SHA-256 of the record's plain part: what the seals are bound to.
    pub record_digest: String,
    /// SHA-256 over what the peer says of each packet that is in, in the record's order: pins what it says, not its bytes
    /// (ledger rule 12).
    pub messages_digest: String,
    /// The time of `delivered/` stands in for the one of the peer's store, which nobody could read (ledger rule 3).
    pub our_time_unread: bool,
}

/// Why a batch of the window's time is not in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExclusionReason {
    /// Intake has no record of it.
    NoRecord,
    /// The ingestion header isn't the record's any more: our messages belong to the old bytes.
    Overwritten,
    /// Another shape than the first member's.
    ShapeDiffers,
    /// The peer doesn't have our messages.
    NotDelivered,
    /// We don't have the peer's messages.
    NoPeerMessages,
    /// Ours came to the peer after the cutoff.
    Late,
    /// The peer's came to us after the cutoff.
    PeerLate,
    /// The peer's validation batch can't be read, isn't the peer's or is of another batch.
    PeerBad,
    /// Intake refused it.
    Rejected,
}

/// A batch that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exclusion {
    /// The path's time, `YYYY/MM/DD/HH/mm`.
    pub time: String,
    /// The batch's UUID.
    pub uuid: Uuid,
    /// Why.
    pub reason: ExclusionReason,
}

/// `plans/…`: the frozen set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The revision, 1.
    pub revision: u32,
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`, inclusive.
    pub start: String,
    /// `YYYYMMDDHHmm`, exclusive.
    pub end: String,
    /// The cutoff that the set was made at, milliseconds since 1970.
    pub cutoff_millis: i64,
    /// Our share.
    pub share: Share,
    /// The processor's name in sum-part paths.
    pub instance: String,
    /// Id of the key that signs the sum part.
    pub signer: String,
    /// What all members have in common.
    pub shape: Shape,
    /// The set, sorted by object name.
    pub members: Vec<Member>,
    /// The rest, sorted by object name.
    pub exclusions: Vec<Exclusion>,
    /// The approval under which the window is released once more; `None` for its first release.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}
ledger_object!(Plan, 256 << 20);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn epsilon_passes_a_plan_bit_by_bit() {
        // Read by a parser that is off by one unit in the last place, this is 13.197293758193137.
        let epsilon = 13.197293758193139_f64;
        let text = serde_json::to_string(&epsilon).unwrap();
        assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), epsilon.to_bits());
    }

    #[test]
    fn shapes_differ_by_any_field() {
        let shape = Shape {
            name: "a".into(),
            bins: 1,
            epsilon: 0.1,
            prime: 5,
            number_of_servers: 2,
            hamming_weight: None,
        };
        assert_eq!(shape, shape.clone());
        for other in [
            Shape {
                name: "b".into(),
                ..shape.clone()
            },
            Shape {
                bins: 2,
                ..shape.clone()
            },
            Shape {
                epsilon: 1.0,
                ..shape.clone()
            },
            Shape {
                prime: 6,
                ..shape.clone()
            },
            Shape {
                number_of_servers: 3,
                ..shape.clone()
            },
            Shape {
                hamming_weight: Some(0),
                ..shape.clone()
            },
        ] {
            assert_ne!(shape, other);
        }
    }
}
