//! Looks at everybody's claims: which of our packets does another batch claim?

use std::collections::BTreeSet;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use mailbox::Mailbox;

use super::day::{self, Day};
use super::{CLOCKS_DIFFER, ClaimsFault, ClockSnafu, Entry, Mine, READS, named};
use crate::formats::claims::{
    CLAIM_BYTES, Chunk, ChunkName, Claim, ClaimDay, ClaimsObject, MAX_CHUNK_BYTES, RunIndex, RunReference, entries_of,
};

/// Claims between two that are wanted which are read rather than skipped by another request.
const GAP_ENTRIES: u32 = 4 << 10;
/// Claims that are read at once, at most.
const STRETCH_ENTRIES: u32 = 64 << 10;

/// A packet of ours: batch and index.
type Found = (u16, u32);

/// What a look reads.
enum Piece<'a> {
    Chunk(ChunkName),
    Run(&'a Day, RunReference),
}

/// The packets that others claim, of all that was announced since the day `from`. All of ours is announced by now; `own` are
/// the chunks that nobody else can have put; `now` is when it was announced.
pub(super) async fn look(
    ledger: &dyn Mailbox,
    mine: &Mine<'_>,
    own: &BTreeSet<ChunkName>,
    from: ClaimDay,
    now: Timestamp,
) -> Result<Vec<Found>, ClaimsFault> {
    let key = mine.key.name();
    let (days, theirs) = day::days(ledger, key, from).await?;
    // Filed under another time, ours might not be found.
    let theirs = theirs.filter(|theirs| now.duration_since(*theirs).abs() > CLOCKS_DIFFER);
    if let Some(theirs) = theirs {
        return ClockSnafu { ours: now, theirs }.fail();
    }
    let reads: Vec<_> = days
        .into_iter()
        .map(|there| day::read(ledger, key, there).boxed())
        .collect();
    let days: Vec<Day> = stream::iter(reads).buffered(READS).try_collect().await?;
    let pieces = days.iter().flat_map(|day| {
        let runs = day.runs().iter().map(move |run| Piece::Run(day, *run));
        let others = day.chunks.iter().filter(|(name, _)| !own.contains(name));
        runs.chain(others.map(|(name, _)| Piece::Chunk(*name)))
    });
    let looks: Vec<_> = pieces
        .map(|piece| {
            async move {
                match piece {
                    Piece::Chunk(name) => chunk(ledger, mine, name).await,
                    Piece::Run(day, reference) => run_or_chunks(ledger, mine, day, reference).await,
                }
            }
            .boxed()
        })
        .collect();
    stream::iter(looks).buffered(READS).try_concat().await
}

async fn chunk(ledger: &dyn Mailbox, mine: &Mine<'_>, name: ChunkName) -> Result<Vec<Found>, ClaimsFault> {
    let key = ClaimsObject::Chunk(name).key(mine.key.name());
    let bytes = ledger.read(&key, MAX_CHUNK_BYTES).await?;
    let claims = named(&key, Chunk::decode(&name, &bytes))?;
    Ok(mine.claimed_by_others(&claims).collect())
}

/// Looks at a run; where it is missing or damaged, at the chunks that it was made of.
async fn run_or_chunks(
    ledger: &dyn Mailbox,
    mine: &Mine<'_>,
    day: &Day,
    reference: RunReference,
) -> Result<Vec<Found>, ClaimsFault> {
    let fault = match run(ledger, mine, day.day, reference).await {
        Err(fault) if fault.is_of_an_object() => fault,
        result => return result,
    };
    let Some(chunks) = day.instead_of_runs() else {
        return Err(fault);
    };
    tracing::warn!(%fault, chunks = chunks.len(), "reading the chunks that a run of claims was made of");
    let mut found = Vec::new();
    for name in chunks {
        found.extend(chunk(ledger, mine, *name).await?);
    }
    Ok(found)
}

async fn run(
    ledger: &dyn Mailbox,
    mine: &Mine<'_>,
    day: ClaimDay,
    run: RunReference,
) -> Result<Vec<Found>, ClaimsFault> {
    let number = run.number;
    let key = ClaimsObject::Run { day, number }.key(mine.key.name());
    let index = ledger.read_range(&key, run.index_at, run.index_bytes()).await?;
    let stretches = {
        let index = named(&key, RunIndex::decode(&run, &index))?;
        stretches(mine.entries.iter().map(|entry| index.may_be_at(entry.fingerprint)))
    };
    let mut found = Vec::new();
    for (from, to) in stretches {
        let claims = usize::try_from(to - from).unwrap_or(0);
        let bytes = ledger
            .read_range(&key, run.claim_at(from), (claims * CLAIM_BYTES) as u64)
            .await?;
        let claims = named(&key, entries_of(&bytes, claims))?;
        found.extend(mine.claimed_by_others(&claims));
    }
    Ok(found)
}

/// What to read for these positions, which ascend: few requests, short ones.
fn stretches(positions: impl Iterator<Item = std::ops::Range<u32>>) -> Vec<(u32, u32)> {
    let mut stretches: Vec<(u32, u32)> = Vec::new();
    for wanted in positions.filter(|wanted| !wanted.is_empty()) {
        match stretches.last_mut() {
            Some((from, to)) if wanted.start <= *to + GAP_ENTRIES && wanted.end <= *from + STRETCH_ENTRIES => {
                *to = wanted.end.max(*to);
            }
            _ => stretches.push((wanted.start, wanted.end)),
        }
    }
    stretches
}

impl Mine<'_> {
    /// Our packets that other batches claim in these claims, which are sorted.
    fn claimed_by_others(&self, claims: &[Claim]) -> impl Iterator<Item = Found> {
        let from = claims.first().map_or(u64::MAX, |claim| claim.fingerprint);
        let to = claims.last().map_or(0, |claim| claim.fingerprint);
        let of = |entries: &[Entry]| {
            let begin = entries.partition_point(|entry| entry.fingerprint < from);
            let end = entries.partition_point(|entry| entry.fingerprint <= to);
            begin..end.max(begin)
        };
        let mut rest = claims;
        self.entries[of(self.entries)].iter().filter_map(move |entry| {
            rest = &rest[rest.partition_point(|claim| claim.fingerprint < entry.fingerprint)..];
            let owner = self.owners[usize::from(entry.batch)];
            let others = rest
                .iter()
                .take_while(|claim| claim.fingerprint == entry.fingerprint)
                .any(|claim| claim.owner != owner);
            others.then_some((entry.batch, entry.packet))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_together_is_read_at_once() {
        let of = |positions: &[std::ops::Range<u32>]| stretches(positions.iter().cloned());
        assert_eq!(of(&[0..0, 5..5]), []);
        assert_eq!(of(&[3..4, 3..4, 4..6, 4_000..4_001]), [(3, 4_001)]);
        assert_eq!(of(&[3..4, 4_101..4_102]), [(3, 4), (4_101, 4_102)]);
        let long: Vec<_> = (0..40).map(|n| n * 4_000..n * 4_000 + 1).collect();
        let stretches = of(&long);
        assert_eq!(stretches.len(), 3);
        assert!(stretches.iter().all(|(from, to)| to - from <= STRETCH_ENTRIES));
    }
}
