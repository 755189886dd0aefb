//! Every packet of a batch, decided in file order: opened, answered and added, or excluded (ledger rule 1). All cores
//! work on one batch; of a packet that opens under one key alone, as every client's does, what comes out doesn't depend on how
//! many there are. Memory doesn't grow with the packets, but for what [`Duplicates`] keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::thread;

use zeroize::Zeroizing;

use super::workers::{Decided, Sums, decide_all};
use crate::formats::FormatError;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{PacketExclusion, PacketState, RecordPacket};
use crate::formats::work::Share;
use crate::guards::duplicates::{Duplicates, Name, Repeats};
use crate::processor::MountedPacketKey;
use crate::proof::{self, ProofQuery};

/// How a pass over a batch's packets decides them.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Bins of the batch, 1 to 2^19 − 1.
    pub bins: u32,
    /// Which share the packets hold.
    pub share: Share,
    /// The keys that open packets. Of one that is mounted again the first counts.
    pub keys: &'a [MountedPacketKey],
    /// So many packets' names are remembered whole.
    pub remembered: usize,
    /// What is known before the pass.
    pub known: &'a Known,
}

/// What is known of a batch's packets before a pass over them.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Names that came more than once in an earlier pass.
    pub repeats: Repeats,
    /// Indices of packets that other batches have answered, ascending.
    pub replays: Vec<u32>,
}

/// A packet as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecidedPacket {
    /// Its place in the batch, from 0.
    pub index: u32,
    /// What the record says of it.
    pub packet: RecordPacket,
    /// Of a packet that is in: index among the mounted keys of the one that opened it.
    pub mounted: Option<usize>,
    /// The first half of the ephemeral key's x-coordinate; of every packet that is in.
    pub ephemeral: Option<Name>,
}

/// What was opened with one packet key. Its `Debug` shows no sum.
pub struct KeySum {
    /// Index of the key among the mounted ones.
    pub mounted: usize,
    /// The sum of our shares of the packets that are in, `bins` elements.
    pub sum: Zeroizing<Vec<u32>>,
}

/// What was decided about a batch's packets as a whole. Its `Debug` shows no sum.
#[derive(Debug, Default)]
pub struct Accumulated {
    /// How many packets there are.
    pub packets: u64,
    /// How many of them are excluded, by reason.
    pub excluded: BTreeMap<PacketExclusion, u64>,
    /// The keys used, in order of first use; at most 255. The key index of packets that are in points here.
    pub keys: Vec<KeySum>,
    /// A key id that an undecryptable packet names and that isn't mounted.
    pub unmounted_key: Option<String>,
    /// Names that came more than once unnoticed. Where there are any, nothing else here counts: another pass must know them.
    pub repeats: Repeats,
}

impl fmt::Debug for KeySum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySum")
            .field("mounted", &self.mounted)
            .finish_non_exhaustive()
    }
}

impl Accumulated {
    /// How many packets are excluded for this reason.
    #[must_use]
    pub fn excluded_as(&self, reason: PacketExclusion) -> u64 {
        self.excluded.get(&reason).copied().unwrap_or_default()
    }

    /// How many packets are excluded, for any reason.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.excluded.values().sum()
    }

    fn key_index(&mut self, mounted: usize, bins: u32) -> Option<u8> {
        let index = match self.keys.iter().position(|key| key.mounted == mounted) {
            Some(index) => index,
            None => {
                self.keys.push(KeySum {
                    mounted,
                    sum: Zeroizing::new(vec![0; bins as usize]),
                });
                self.keys.len() - 1
            }
        };
        u8::try_from(index).ok().filter(|index| *index < u8::MAX)
    }

    /// Puts together what came of the packets that come next in the file's order.
    fn merge(
        &mut self,
        decided: Decided,
        bins: u32,
        each: &mut impl FnMut(&DecidedPacket) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        for decision in decided.decisions {
            let in_ = decision.outcome.map(|(mounted, message)| {
                let key = self.key_index(mounted, bins);
                key.map(|key| (mounted, PacketState::In { key, message }))
            });
            let (mounted, state) = match in_ {
                Ok(Some((mounted, state))) => (Some(mounted), state),
                // Parameters bound the number of mounted keys far below.
                Ok(None) => (None, PacketState::Excluded(PacketExclusion::Undecryptable)),
                Err(reason) => (None, PacketState::Excluded(reason)),
            };
            if let PacketState::Excluded(reason) = state {
                *self.excluded.entry(reason).or_default() += 1;
            }
            let index = u32::try_from(self.packets).unwrap_or(u32::MAX);
            self.packets += 1;
            each(&DecidedPacket {
                index,
                packet: RecordPacket {
                    uuid: decision.uuid,
                    state,
                },
                mounted,
                ephemeral: decision.ephemeral,
            })?;
        }
        if self.unmounted_key.is_none() {
            self.unmounted_key = decided.unmounted_key;
        }
        Ok(())
    }

    /// Adds what one core summed up.
    fn add(&mut self, sums: &Sums) {
        for key in &mut self.keys {
            if let Some(sum) = &sums[key.mounted] {
                proof::accumulate(&mut key.sum, sum);
            }
        }
    }
}

/// Reads packets to the end and decides each; `each` is told of them in the file's order.
///
/// # Errors
/// [`FormatError`] of the first packet that can't be read, and what `each` returns.
pub fn accumulate(
    packets: impl Iterator<Item = Result<DataSharePacket, FormatError>> + Send,
    pass: &Pass<'_>,
    each: impl FnMut(&DecidedPacket) -> Result<(), FormatError> + Send,
) -> Result<Accumulated, FormatError> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    accumulate_on(cores, packets, pass, each)
}

fn accumulate_on(
    cores: usize,
    packets: impl Iterator<Item = Result<DataSharePacket, FormatError>> + Send,
    pass: &Pass<'_>,
    mut each: impl FnMut(&DecidedPacket) -> Result<(), FormatError> + Send,
) -> Result<Accumulated, FormatError> {
    let query = ProofQuery::new(pass.bins);
    let mut result = Accumulated::default();
    let mut seen = Duplicates::new(pass.remembered, &pass.known.repeats);
    let mut replays = pass.known.replays.iter().copied().peekable();
    let marked = (0..).zip(packets).map(|(index, packet)| {
        let packet = packet?;
        let duplicate = seen.check(packet.uuid, &packet.encrypted_payload);
        let replay = replays.next_if_eq(&index).map(|_| PacketExclusion::Replay);
        Ok((packet, duplicate.or(replay)))
    });
    let put = |decided| result.merge(decided, pass.bins, &mut each);
    let sums = decide_all(cores, &query, pass, marked, put)?;
    sums.iter().for_each(|sums| result.add(sums));
    result.repeats = seen.repeats();
    Ok(result)
}

#[cfg(test)]
#[path = "accumulate_tests.rs"]
mod tests;
