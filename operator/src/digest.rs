//! Digests that names end in, or that people compare.

use facilitator_core::formats::ledger::hex;
use sha2::{Digest, Sha256};

/// The first `length` hex digits of a SHA-256 over the parts, each with its length before it.
#[must_use]
pub fn short_digest<'a>(parts: impl IntoIterator<Item = &'a str>, length: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()).chars().take(length).collect()
}

/// SHA-256 as 64 lower-case hex digits.
#[must_use]
pub fn hex_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
