//! Puts claims: a chunk for each hour of the batches' paths, in the order of the hours. The same batches have the same
//! chunks, whoever puts them.

use std::collections::BTreeSet;

use mailbox::{Mailbox, PutOutcome};

use super::{ClaimsFault, Entry, Mine};
use crate::formats::claims::{Chunk, ChunkName, Claim, ClaimDay, ClaimsObject, MAX_CHUNK_ENTRIES};
use crate::put::put;

/// Puts all claims; returns the chunks of them that weren't there before. What was there is another worker's as well: it may
/// have been looked at before ours was there, and is looked at as anybody's.
pub(super) async fn announce(ledger: &dyn Mailbox, mine: &Mine<'_>) -> Result<BTreeSet<ChunkName>, ClaimsFault> {
    let hours: BTreeSet<(ClaimDay, u8)> = mine.times.iter().copied().collect();
    let mut own = BTreeSet::new();
    for (day, hour) in hours {
        let of_hour = |entry: &&Entry| mine.times[usize::from(entry.batch)] == (day, hour);
        let mut entries = mine.entries.iter().filter(of_hour).peekable();
        while entries.peek().is_some() {
            let mut claims: Vec<Claim> = entries
                .by_ref()
                .take(MAX_CHUNK_ENTRIES)
                .map(|entry| Claim {
                    fingerprint: entry.fingerprint,
                    owner: mine.owners[usize::from(entry.batch)],
                })
                .collect();
            claims.sort_unstable();
            claims.dedup();
            let chunk = Chunk::encode(day, hour, &claims);
            let key = ClaimsObject::Chunk(chunk.name).key(mine.key.name());
            if put(ledger, &key, &chunk.bytes).await? == PutOutcome::Created {
                own.insert(chunk.name);
            }
        }
    }
    Ok(own)
}
