//! Digests that names end in.

use sha2::{Digest, Sha256};

/// The first `length` hex digits of a SHA-256 over the parts, each with its length before it.
#[must_use]
pub fn short_digest<'a>(parts: impl IntoIterator<Item = &'a str>, length: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hex = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    hex.chars().take(length).collect()
}
