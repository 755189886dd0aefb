//! Prio2's proofs that every value of a packet is 0 or 1, over the field of p = 4293918721.
//!
//! A share is a vector: the values, f(0), g(0), h(0), and h at the odd 2n-th roots of unity, where n is the next power of
//! two ≥ bins + 1. f interpolates the values (at the n-th roots 1 to bins), g is f − 1 there, h = f·g. The parties query
//! their shares at a point that neither chose, and the proof holds iff the sums of what they find satisfy f·g = h.

mod expand;
mod field;
mod lanes;
mod query;
mod split;

pub use expand::{
    ShareError, expand_seed, expand_seed_into, parse_first_share, parse_first_share_into, parse_second_share,
    parse_second_share_into,
};
pub use field::{PRIME, add, mul, pow, reduce, subtract};
pub use query::{ProofQuery, QueryBuffer};
pub use split::{ShareSplitter, Shares};

use crate::formats::work::Share;

/// What a party finds at the query point: its verification message. Field elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// f at the query point.
    pub f: u32,
    /// g at the query point.
    pub g: u32,
    /// h at the query point.
    pub h: u32,
}

/// n: the next power of two ≥ bins + 1.
#[must_use]
pub fn domain(bins: u32) -> usize {
    (bins as usize + 1).next_power_of_two()
}

/// The length of a share in field elements: bins + 3 + n.
#[must_use]
pub fn proof_length(bins: u32) -> usize {
    bins as usize + 3 + domain(bins)
}

/// Whether a packet must be excluded for its query point (ledger rule 8): r^(2n) = 1, after reducing modulo p.
///
/// At the n-th roots a message would show the client's value; at the other 2n-th roots the check means nothing.
#[must_use]
pub fn query_point_refused(r_pit: u32, bins: u32) -> bool {
    pow(reduce(r_pit), 2 * domain(bins) as u64) == 1
}

/// The verification message of one share; for many packets of the same bins, keep a [`ProofQuery`].
#[must_use]
pub fn verification_message(elements: &[u32], bins: u32, r_pit: u32, share: Share) -> Message {
    ProofQuery::new(bins).message(elements, r_pit, share)
}

/// Whether the two parties' messages prove the packet.
#[must_use]
pub fn proof_holds(own: Message, peer: Message) -> bool {
    mul(add(own.f, peer.f), add(own.g, peer.g)) == add(own.h, peer.h)
}

/// Adds a share's values to an accumulator of the same length.
pub fn accumulate(accumulator: &mut [u32], values: &[u32]) {
    lanes::add_to(lanes::Instructions::detect(), accumulator, values);
}

/// Takes a share's values out of an accumulator again.
pub fn subtract_from(accumulator: &mut [u32], values: &[u32]) {
    accumulator
        .iter_mut()
        .zip(values)
        .for_each(|(sum, value)| *sum = subtract(*sum, *value));
}

#[cfg(test)]
mod tests;
