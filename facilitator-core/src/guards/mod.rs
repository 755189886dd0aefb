//! What keeps clients private and sums right beyond the protocol: pure decisions, each with its table of cases.

pub mod duplicates;
pub mod floor;
pub mod query_point;
pub mod release;
