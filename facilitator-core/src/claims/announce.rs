//! Puts claims: in the hour in which they are announced. The same batches have the same chunks within an hour, whoever puts
//! them.

use std::collections::BTreeSet;

use mailbox::{Mailbox, PutOutcome};

use super::{ClaimsFault, Entry, Mine};
use crate::formats::claims::{Chunk, ChunkName, Claim, ClaimHour, ClaimsObject, MAX_CHUNK_ENTRIES};
use crate::put::put;

/// Puts all claims; returns the chunks of them that weren't there before. What was there is another worker's as well: it may
/// have been looked at before ours was there, and is looked at as anybody's.
///
/// Claims on one packet are in the order of their batches, in one chunk or in one after another.
pub(super) async fn announce(
    ledger: &dyn Mailbox,
    mine: &Mine<'_>,
    now: ClaimHour,
) -> Result<BTreeSet<ChunkName>, ClaimsFault> {
    let mut own = BTreeSet::new();
    for entries in mine.entries.chunks(MAX_CHUNK_ENTRIES) {
        let claim = |entry: &Entry| Claim {
            fingerprint: entry.fingerprint,
            owner: mine.owners[usize::from(entry.batch)],
        };
        let mut claims: Vec<Claim> = entries.iter().map(claim).collect();
        claims.sort_unstable();
        claims.dedup();
        let chunk = Chunk::encode(now.day, now.hour, &claims);
        let key = ClaimsObject::Chunk(chunk.name).key(mine.key.name());
        if put(ledger, &key, &chunk.bytes).await? == PutOutcome::Created {
            own.insert(chunk.name);
        }
    }
    Ok(own)
}
