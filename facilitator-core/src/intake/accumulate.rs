//! Every packet of a batch, decided in file order: opened, answered and added, or excluded (ledger rule 1). All cores
//! work on one batch; what comes out doesn't depend on how many there are. Memory doesn't grow with the packets, but for what
//! [`Duplicates`] keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::thread::{self, ScopedJoinHandle};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::opener::Opener;
use crate::crypto::ecies::ephemeral_name;
use crate::formats::FormatError;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{Message, PacketExclusion, PacketState, RecordPacket};
use crate::formats::work::Share;
use crate::guards::duplicates::{Duplicates, Name, Repeats};
use crate::processor::MountedPacketKey;
use crate::proof::{self, ProofQuery};

/// A round ends at so many packets or payload bytes for each core, whichever comes first: memory stays flat, and little
/// time passes before the first and after the last are at work.
const ROUND_PACKETS: usize = 128;
const ROUND_BYTES: usize = 1 << 20;
/// Fewer packets than this are not worth a thread.
const THREAD_PACKETS: usize = 32;

/// So many packets at the beginning may tell which key opens the others.
const TELLING_PACKETS: u32 = 16;

/// How a pass over a batch's packets decides them.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Bins of the batch, 1 to 2^19 − 1.
    pub bins: u32,
    /// Which share the packets hold.
    pub share: Share,
    /// The keys that open packets, in the order in which they are tried.
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
}

/// Reads packets to the end and decides each; `each` is told of them in the file's order.
///
/// # Errors
/// [`FormatError`] of the first packet that can't be read, and what `each` returns.
pub fn accumulate(
    packets: impl Iterator<Item = Result<DataSharePacket, FormatError>>,
    pass: &Pass<'_>,
    each: impl FnMut(&DecidedPacket) -> Result<(), FormatError>,
) -> Result<Accumulated, FormatError> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    accumulate_on(cores, packets, pass, each)
}

fn accumulate_on(
    cores: usize,
    packets: impl Iterator<Item = Result<DataSharePacket, FormatError>>,
    pass: &Pass<'_>,
    mut each: impl FnMut(&DecidedPacket) -> Result<(), FormatError>,
) -> Result<Accumulated, FormatError> {
    let query = ProofQuery::new(pass.bins);
    let worker = Worker { query: &query, pass };
    let mut result = Accumulated::default();
    let mut seen = Duplicates::new(pass.remembered, &pass.known.repeats);
    let mut replays = pass.known.replays.iter().copied().peekable();
    let mut likely = None;
    let mut telling = Opener::new(pass.bins, pass.share, pass.keys);
    // While one round is worked on, the next is read; what comes out is put together in the file's order.
    thread::scope(|scope| {
        let mut running = Vec::new();
        let mut round = Round::default();
        for (index, packet) in (0..).zip(packets) {
            let packet = packet?;
            let duplicate = seen.check(packet.uuid, &packet.encrypted_payload);
            let replay = replays.next_if_eq(&index).map(|_| PacketExclusion::Replay);
            // The first packet that any key opens tells, in or not: what a core has opened last would depend on the cores.
            if likely.is_none() && index < TELLING_PACKETS && pass.keys.len() > 1 {
                likely = telling.decrypt(&packet);
            }
            round.push(packet, duplicate.or(replay));
            if round.is_full(cores) {
                worker.finish(std::mem::take(&mut running), &mut result, &mut each)?;
                running = worker.start(scope, cores, std::mem::take(&mut round), likely);
            }
        }
        worker.finish(running, &mut result, &mut each)?;
        let rest = worker.start(scope, cores, round, likely);
        worker.finish(rest, &mut result, &mut each)
    })?;
    result.repeats = seen.repeats();
    Ok(result)
}

/// Packets that are worked on at the same time.
#[derive(Default)]
struct Round {
    packets: Vec<Read>,
    bytes: usize,
}

impl Round {
    fn push(&mut self, packet: DataSharePacket, excluded: Option<PacketExclusion>) {
        self.bytes += packet.encrypted_payload.len();
        self.packets.push((packet, excluded));
    }

    fn is_full(&self, cores: usize) -> bool {
        self.packets.len() >= ROUND_PACKETS * cores || self.bytes >= ROUND_BYTES * cores
    }
}

/// A packet read, and why it is excluded before it is opened.
type Read = (DataSharePacket, Option<PacketExclusion>);

/// A packet decided, with the mounted key that opened it.
struct Decision {
    uuid: Uuid,
    ephemeral: Option<Name>,
    outcome: Result<(usize, Message), PacketExclusion>,
}

struct Worker<'a> {
    query: &'a ProofQuery,
    pass: &'a Pass<'a>,
}

/// What one core did of a round.
struct Part {
    decisions: Vec<Decision>,
    sums: Vec<Option<Zeroizing<Vec<u32>>>>,
    unmounted_key: Option<String>,
}

/// A part of a round that is done, or that another core is at.
enum Running<'scope> {
    Done(Part),
    Elsewhere(ScopedJoinHandle<'scope, Part>),
}

impl Worker<'_> {
    /// Starts a round: a part on each core, or all of it at once where that isn't worth a thread. `likely`: which key to try
    /// first.
    fn start<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        cores: usize,
        round: Round,
        likely: Option<usize>,
    ) -> Vec<Running<'scope>> {
        let mut packets = round.packets;
        let share = packets.len().div_ceil(cores).max(THREAD_PACKETS);
        if packets.len() <= share {
            return if packets.is_empty() {
                Vec::new()
            } else {
                vec![Running::Done(self.run(&packets, likely))]
            };
        }
        let mut running = Vec::with_capacity(cores);
        while !packets.is_empty() {
            let rest = packets.split_off(share.min(packets.len()));
            let part = std::mem::replace(&mut packets, rest);
            running.push(Running::Elsewhere(scope.spawn(move || self.run(&part, likely))));
        }
        running
    }

    fn finish(
        &self,
        running: Vec<Running<'_>>,
        result: &mut Accumulated,
        each: &mut impl FnMut(&DecidedPacket) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        for part in running {
            let part = match part {
                Running::Done(part) => part,
                // A panic of one core is a panic of the whole, as without threads.
                Running::Elsewhere(part) => part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            };
            self.merge(part, result, each)?;
        }
        Ok(())
    }

    fn run(&self, packets: &[Read], likely: Option<usize>) -> Part {
        let Pass { bins, share, keys, .. } = *self.pass;
        let sums = (0..keys.len()).map(|_| None).collect();
        let mut part = Part {
            decisions: Vec::with_capacity(packets.len()),
            sums,
            unmounted_key: None,
        };
        let mut opener = Opener::new(bins, share, keys).likely(likely);
        let mut buffer = self.query.buffer();
        for (packet, excluded) in packets {
            let opened = match excluded {
                Some(reason) => Err(*reason),
                None => opener.open(packet),
            };
            let outcome = opened.map(|opened| {
                let sum = part.sums[opened.mounted].get_or_insert_with(|| Zeroizing::new(vec![0; bins as usize]));
                proof::accumulate(sum, opener.values());
                let message = self
                    .query
                    .message_in(&mut buffer, opener.elements(), opened.r_pit, share);
                (opened.mounted, message)
            });
            if outcome == Err(PacketExclusion::Undecryptable) && part.unmounted_key.is_none() {
                let id = packet
                    .encryption_key_id
                    .as_deref()
                    .filter(|id| keys.iter().all(|key| key.id != *id));
                part.unmounted_key = id.map(str::to_owned);
            }
            part.decisions.push(Decision {
                uuid: packet.uuid,
                ephemeral: ephemeral_name(&packet.encrypted_payload),
                outcome,
            });
        }
        part
    }

    fn merge(
        &self,
        part: Part,
        result: &mut Accumulated,
        each: &mut impl FnMut(&DecidedPacket) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        for decision in part.decisions {
            let in_ = decision.outcome.map(|(mounted, message)| {
                let key = result.key_index(mounted, self.pass.bins);
                key.map(|key| (mounted, PacketState::In { key, message }))
            });
            let (mounted, state) = match in_ {
                Ok(Some((mounted, state))) => (Some(mounted), state),
                // Parameters bound the number of mounted keys far below.
                Ok(None) => (None, PacketState::Excluded(PacketExclusion::Undecryptable)),
                Err(reason) => (None, PacketState::Excluded(reason)),
            };
            if let PacketState::Excluded(reason) = state {
                *result.excluded.entry(reason).or_default() += 1;
            }
            let index = u32::try_from(result.packets).unwrap_or(u32::MAX);
            result.packets += 1;
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
        for key in &mut result.keys {
            if let Some(sum) = &part.sums[key.mounted] {
                proof::accumulate(&mut key.sum, sum);
            }
        }
        if result.unmounted_key.is_none() {
            result.unmounted_key = part.unmounted_key;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "accumulate_tests.rs"]
mod tests;
