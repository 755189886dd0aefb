//! Claims: no packet is answered in two batches (ledger rule 1).
//!
//! Two messages for one packet under two query points are two equations in one client's values: one guess in 2^32 passes
//! both. So before packets are answered, their fingerprints are put into our ledger, with who means to answer them; then
//! everybody's are looked at, and what another batch claims is a replay. Whoever claims later sees who claimed before: of
//! two workers that run at the same time, at most one finds nothing.
//!
//! Claims are filed by the time of their announcement, not by the batch's path: the path is the ingestor's to choose, and
//! what is to be compared is what is answered within the horizon of real time.
//!
//! What was claimed is claimed for good. Where a worker stops between its claims and its records, and another batch
//! claims the same packets before it comes back, both lose them. Only an ingestor who replays can bring that about. Claims
//! of a batch's own path aren't in its way, whatever its header was: its record is put once.

mod announce;
mod compact;
mod day;
mod look;

use jiff::{SignedDuration, Timestamp};
use mailbox::{Mailbox, MailboxError, MailboxErrorKind};
use snafu::{ResultExt, Snafu};

pub use compact::{COMPACT_CHUNKS, Compacted, compact};

use crate::crypto::ClaimKey;
use crate::formats::claims::{ClaimDay, ClaimHour, ClaimsError};
use crate::formats::names::BatchId;

/// Objects that are read at a time: each takes a few megabytes at most.
const READS: usize = 8;

/// Why claims couldn't be put or looked at: nothing is known.
#[derive(Clone, Debug, Snafu)]
pub enum ClaimsFault {
    /// The ledger's fault.
    #[snafu(transparent)]
    Mailbox {
        /// What happened.
        source: MailboxError,
    },
    /// An object isn't what we write.
    #[snafu(display("{object}: {source}"))]
    Object {
        /// Its name.
        object: String,
        /// What is wrong.
        source: ClaimsError,
    },
    /// Claims are filed by a clock, and ours can't be right.
    #[snafu(display("it is {ours} here and {theirs} in the ledger's store, and claims are filed by time"))]
    Clock {
        /// Our time.
        ours: Timestamp,
        /// The store's.
        theirs: Timestamp,
    },
}

impl ClaimsFault {
    /// Whether an object of claims is missing or damaged: nothing near it can be answered before a person restores it.
    #[must_use]
    pub fn is_of_an_object(&self) -> bool {
        match self {
            Self::Object { .. } => true,
            Self::Clock { .. } => false,
            Self::Mailbox { source } => {
                matches!(source.kind(), MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge)
            }
        }
    }
}

/// Days that are looked at beyond the horizon.
const CLOCKS_DIFFER_DAYS: i32 = 1;
/// Two workers' clocks differ by a day at most, where each is so far from the store's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(12);

/// How far replays are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayGuard {
    /// A batch's packets are looked for in batches that were claimed at most so many days before.
    pub horizon_days: u16,
}

/// A packet that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedPacket {
    /// What it is known by: [`ClaimKey::fingerprint`].
    pub fingerprint: u64,
    /// Its index in the batch.
    pub packet: u32,
    /// Index of its key among the mounted ones.
    pub key: u8,
}

/// A claimed packet with the index of its batch; ordered as claims are stored, the batches of a group in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: u8,
    fingerprint: u64,
    batch: u16,
    packet: u32,
}

/// Batches whose packets are claimed together.
#[derive(Debug, Default)]
pub struct Claims {
    batches: Vec<BatchId>,
    entries: Vec<Entry>,
}

impl Claims {
    /// The most batches that are claimed together.
    pub const MAX_BATCHES: usize = u16::MAX as usize;

    /// Adds a batch with the packets that are to be answered. At most [`Claims::MAX_BATCHES`] are added.
    pub fn add(&mut self, batch: &BatchId, packets: Vec<ClaimedPacket>) {
        let index = u16::try_from(self.batches.len()).unwrap_or(u16::MAX);
        debug_assert!(self.batches.len() < Self::MAX_BATCHES);
        self.batches.push(batch.clone());
        let entries = packets.into_iter().map(|claimed| Entry {
            key: claimed.key,
            fingerprint: claimed.fingerprint,
            batch: index,
            packet: claimed.packet,
        });
        if self.entries.is_empty() {
            // In place: a batch may have millions.
            self.entries = entries.collect();
        } else {
            self.entries.extend(entries);
        }
    }

    /// Announces the claims at `now`, then looks: which packets of each batch are replays, by index, ascending. `keys` are
    /// those of the mounted packet keys, in their order. Of batches of this group that have a packet in common the first one keeps
    /// it, by path.
    ///
    /// # Errors
    /// [`ClaimsFault`]: not known; nothing may be answered before another try.
    pub async fn find_replays(
        mut self,
        ledger: &dyn Mailbox,
        keys: &[ClaimKey],
        guard: ReplayGuard,
        now: Timestamp,
    ) -> Result<Vec<Vec<u32>>, ClaimsFault> {
        let order = self.sort();
        let mut replays = vec![Vec::new(); self.batches.len()];
        let mine: Vec<Mine<'_>> = keys
            .iter()
            .enumerate()
            .filter_map(|(index, key)| self.of_key(u8::try_from(index).ok()?, key))
            .collect();
        let mut own = Vec::with_capacity(mine.len());
        for mine in &mine {
            own.push(announce::announce(ledger, mine, ClaimHour::of(now)).await?);
        }
        let from = ClaimDay::of(now).plus(-i32::from(guard.horizon_days) - CLOCKS_DIFFER_DAYS);
        // Only when all is announced: another worker may hold packets of ours under any key.
        for (mine, own) in mine.iter().zip(&own) {
            let found = look::look(ledger, mine, own, from, now).await?;
            for (batch, packet) in mine.inside().chain(found) {
                replays[usize::from(batch)].push(packet);
            }
        }
        for packets in &mut replays {
            packets.sort_unstable();
            packets.dedup();
        }
        Ok(order
            .into_iter()
            .map(|place| std::mem::take(&mut replays[place]))
            .collect())
    }

    /// Puts batches into the order in which they are announced, and entries into theirs; returns where each batch went.
    ///
    /// A batch that loses a packet to an earlier one of its group relies on it: whoever answers the later one elsewhere
    /// must have seen the earlier one's claim, which is there first.
    fn sort(&mut self) -> Vec<usize> {
        let mut sorted: Vec<usize> = (0..self.batches.len()).collect();
        sorted.sort_by_key(|index| {
            let batch = &self.batches[*index];
            (batch.time, &batch.aggregation, batch.uuid)
        });
        let mut places = vec![0; sorted.len()];
        for (place, index) in sorted.iter().enumerate() {
            places[*index] = place;
        }
        for entry in &mut self.entries {
            entry.batch = u16::try_from(places[usize::from(entry.batch)]).unwrap_or(u16::MAX);
        }
        self.batches = sorted.iter().map(|index| self.batches[*index].clone()).collect();
        self.entries.sort_unstable();
        places
    }

    fn of_key<'a>(&'a self, index: u8, key: &'a ClaimKey) -> Option<Mine<'a>> {
        let from = self.entries.partition_point(|entry| entry.key < index);
        let to = self.entries.partition_point(|entry| entry.key <= index);
        (from < to).then(|| Mine {
            key,
            entries: &self.entries[from..to],
            owners: self.batches.iter().map(|batch| key.owner(batch)).collect(),
        })
    }
}

/// What is claimed of one packet key's packets.
struct Mine<'a> {
    key: &'a ClaimKey,
    /// Sorted, at least one.
    entries: &'a [Entry],
    /// Of each batch.
    owners: Vec<u64>,
}

impl Mine<'_> {
    /// Packets that an earlier batch of the group has: batch and packet.
    fn inside(&self) -> impl Iterator<Item = (u16, u32)> {
        let same = |one: &&[Entry]| one[0].fingerprint == one[1].fingerprint;
        let mut first = None;
        self.entries.windows(2).filter_map(move |pair| {
            if !same(&pair) {
                first = None;
                return None;
            }
            let kept = *first.get_or_insert(pair[0].batch);
            (self.owners[usize::from(kept)] != self.owners[usize::from(pair[1].batch)])
                .then_some((pair[1].batch, pair[1].packet))
        })
    }
}

/// Names the object whose bytes are no claims.
fn named<T>(object: &mailbox::ObjectKey, result: Result<T, ClaimsError>) -> Result<T, ClaimsFault> {
    result.context(ObjectSnafu {
        object: object.as_str(),
    })
}

#[cfg(test)]
mod tests;
