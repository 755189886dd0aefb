//! Compaction: many chunks become few runs, so that a look takes few and short reads. Nothing is changed or deleted; a run
//! that is missing, late or made twice costs reads alone.

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mailbox::{Mailbox, PutOutcome};

use super::day::{self, Day};
use super::{ClaimsFault, READS, named};
use crate::formats::claims::{
    CLAIM_BYTES, Chunk, ChunkName, Claim, ClaimDay, ClaimsObject, MAX_CHUNK_BYTES, MAX_RUN_ENTRIES, PacketKeyName,
    RunReference, claims_in, encode_run, entries_of,
};
use crate::put::put;

/// Fewer chunks than this are left as they are.
pub const COMPACT_CHUNKS: usize = 4;
/// A run is merged again with at least a quarter of its claims: each claim is written a few times at most.
const GROWTH: u64 = 4;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Runs that were put.
    pub runs: u32,
    /// Chunks that are in them.
    pub chunks: usize,
    /// Claims that were written.
    pub claims: u64,
}

/// Compacts one day of a packet key's claims as far as that pays.
///
/// # Errors
/// [`ClaimsFault`].
pub async fn compact(ledger: &dyn Mailbox, key: PacketKeyName, day: ClaimDay) -> Result<Compacted, ClaimsFault> {
    let mut done = Compacted::default();
    loop {
        let there = day::read(ledger, key, day).await?;
        let Some((chunks, runs)) = next_run(&there.chunks, there.runs()) else {
            return Ok(done);
        };
        let claims = merged(ledger, key, day, &chunks, &runs).await?;
        match put_run(ledger, key, there, &chunks, &runs, &claims).await? {
            PutOutcome::Created => {
                done.runs += 1;
                done.chunks += chunks.len();
                done.claims += claims.len() as u64;
            }
            // Another worker is at it.
            PutOutcome::Exists => return Ok(done),
        }
    }
}

/// Chunks and runs of which the next run is made; `None`: that doesn't pay. Runs of more than half the bound stay.
fn next_run(chunks: &[(ChunkName, u64)], runs: &[RunReference]) -> Option<(Vec<ChunkName>, Vec<RunReference>)> {
    if chunks.len() < COMPACT_CHUNKS {
        return None;
    }
    let bound = MAX_RUN_ENTRIES as u64;
    let (mut claims, mut taken) = (0, Vec::new());
    for (name, bytes) in chunks {
        claims += claims_in(*bytes);
        if claims > bound && !taken.is_empty() {
            claims -= claims_in(*bytes);
            break;
        }
        taken.push(*name);
    }
    let mut small: Vec<&RunReference> = runs.iter().filter(|run| u64::from(run.entries) <= bound / 2).collect();
    small.sort_by_key(|run| (run.entries, run.number));
    let mut merged = Vec::new();
    for run in small {
        let entries = u64::from(run.entries);
        if entries > GROWTH * claims || claims + entries > bound {
            break;
        }
        claims += entries;
        merged.push(*run);
    }
    Some((taken, merged))
}

/// The claims of chunks and runs, sorted, two owners of a fingerprint at most: whoever asks is one of two others at least.
async fn merged(
    ledger: &dyn Mailbox,
    key: PacketKeyName,
    day: ClaimDay,
    chunks: &[ChunkName],
    runs: &[RunReference],
) -> Result<Vec<Claim>, ClaimsFault> {
    let of_chunks = chunks.iter().map(|name| {
        async move {
            let key = ClaimsObject::Chunk(*name).key(key);
            let bytes = ledger.read(&key, MAX_CHUNK_BYTES).await?;
            named(&key, Chunk::decode(name, &bytes))
        }
        .boxed()
    });
    let of_runs = runs.iter().map(|run| {
        async move {
            let number = run.number;
            let key = ClaimsObject::Run { day, number }.key(key);
            let length = u64::from(run.entries) * CLAIM_BYTES as u64;
            let bytes = ledger.read_range(&key, run.claim_at(0), length).await?;
            named(&key, entries_of(&bytes, run.entries as usize))
        }
        .boxed()
    });
    let reads: Vec<_> = of_chunks.chain(of_runs).collect();
    let mut claims: Vec<Claim> = stream::iter(reads).buffered(READS).try_concat().await?;
    claims.sort_unstable();
    claims.dedup();
    let mut of_this = 0;
    let mut last = None;
    claims.retain(|claim| {
        of_this = if last == Some(claim.fingerprint) {
            of_this + 1
        } else {
            1
        };
        last = Some(claim.fingerprint);
        of_this <= 2
    });
    Ok(claims)
}

async fn put_run(
    ledger: &dyn Mailbox,
    packet_key: PacketKeyName,
    there: Day,
    chunks: &[ChunkName],
    merged: &[RunReference],
    claims: &[Claim],
) -> Result<PutOutcome, ClaimsFault> {
    let day = there.day;
    let (newest, mut runs, mut covered) = match there.newest {
        Some((number, header)) => (number, header.runs, header.covered),
        None => (0, Vec::new(), Vec::new()),
    };
    runs.retain(|run| !merged.contains(run));
    covered.extend(chunks.iter().map(|name| (name.hour, name.digest)));
    let number = newest + 1;
    let key = ClaimsObject::Run { day, number }.key(packet_key);
    let bytes = named(&key, encode_run(number, runs, covered, claims))?;
    Ok(put(ledger, &key, &bytes).await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chunks(claims: &[u64]) -> Vec<(ChunkName, u64)> {
        let name = |n| ChunkName {
            day: ClaimDay::parse("20261120").unwrap(),
            hour: 0,
            digest: [n; 16],
        };
        let chunk = |(n, claims): (u8, &u64)| (name(n), 8 + 16 * claims);
        (0..).zip(claims).map(chunk).collect()
    }

    fn runs(entries: &[u32]) -> Vec<RunReference> {
        let run = |(number, entries): (u32, &u32)| RunReference {
            number,
            entries: *entries,
            bucket_bits: 0,
            index_at: 0,
        };
        (1..).zip(entries).map(run).collect()
    }

    #[test]
    fn what_is_merged_is_worth_it_and_fits() {
        const BOUND: u64 = MAX_RUN_ENTRIES as u64;
        let half = MAX_RUN_ENTRIES as u32 / 2;
        // Claims of chunks, claims of runs; how many chunks and which runs are taken.
        type Row<'a> = (&'a [u64], &'a [u32], Option<(usize, &'a [u32])>);
        let table: [Row<'_>; 9] = [
            (&[], &[], None),
            (&[1, 1, 1], &[], None),
            (&[1, 1, 1, 1], &[], Some((4, &[]))),
            (&[10; 4], &[40, 100], Some((4, &[1, 2]))),
            (&[10; 4], &[400, 40], Some((4, &[2]))),
            (&[10; 4], &[half], Some((4, &[]))),
            (&[100_000; 5], &[half - 1], Some((5, &[1]))),
            (&[100_000; 5], &[half + 1], Some((5, &[]))),
            (&[BOUND / 4; 5], &[1], Some((4, &[]))),
        ];
        for (claims, entries, expected) in table {
            let next = next_run(&chunks(claims), &runs(entries));
            let got = next.map(|(chunks, runs)| (chunks.len(), runs.iter().map(|run| run.number).collect::<Vec<_>>()));
            let expected = expected.map(|(chunks, runs)| (chunks, runs.to_vec()));
            assert_eq!(got, expected, "{claims:?} {entries:?}");
        }
    }
}
