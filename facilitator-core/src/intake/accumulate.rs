//! Every packet of a batch, decided in file order: opened, answered and added, or excluded (ledger rule 1). All cores
//! work on one batch; what comes out doesn't depend on how many there are.

use std::fmt;
use std::num::NonZero;
use std::thread::{self, ScopedJoinHandle};

use uuid::Uuid;
use zeroize::Zeroizing;

use crate::formats::FormatError;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{Message, PacketExclusion, PacketState, RecordPacket};
use crate::formats::work::Share;
use crate::guards::duplicates::Duplicates;
use crate::guards::query_point;
use crate::processor::MountedPacketKey;
use crate::proof::{self, ProofQuery, ShareError, parse_first_share_into, parse_second_share_into};

/// A round ends at so many packets or payload bytes for each core, whichever comes first: memory stays flat, and little
/// time passes before the first and after the last are at work.
const ROUND_PACKETS: usize = 128;
const ROUND_BYTES: usize = 1 << 20;
/// Fewer packets than this are not worth a thread.
const THREAD_PACKETS: usize = 32;

/// What was opened with one packet key. Its `Debug` shows no sum.
pub struct KeySum {
    /// Index of the key among the mounted ones.
    pub mounted: usize,
    /// The sum of our shares of the packets that are in, `bins` elements.
    pub sum: Zeroizing<Vec<u32>>,
}

/// What was decided about a batch's packets. Its `Debug` shows no sum.
#[derive(Debug, Default)]
pub struct Accumulated {
    /// Every packet in file order; the key index of those that are in points into `keys`.
    pub packets: Vec<RecordPacket>,
    /// The keys used, in order of first use; at most 255.
    pub keys: Vec<KeySum>,
    /// A key id that an undecryptable packet names and that isn't mounted.
    pub unmounted_key: Option<String>,
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
        self.packets
            .iter()
            .filter(|packet| packet.state == PacketState::Excluded(reason))
            .count() as u64
    }

    /// How many packets are excluded, for any reason.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.packets
            .iter()
            .filter(|packet| matches!(packet.state, PacketState::Excluded(_)))
            .count() as u64
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

/// A packet that was opened and checked; its share is in the opener.
pub(crate) struct OpenedPacket {
    /// Index of the key among the mounted ones.
    pub mounted: usize,
    /// `r_pit`, not reduced.
    pub r_pit: u32,
}

/// Opens packet after packet of one batch in the same buffers, which are wiped once, at the end.
pub(crate) struct Opener<'a> {
    bins: u32,
    share: Share,
    keys: &'a [MountedPacketKey],
    plaintext: Zeroizing<Vec<u8>>,
    elements: Zeroizing<Vec<u32>>,
}

impl<'a> Opener<'a> {
    pub fn new(bins: u32, share: Share, keys: &'a [MountedPacketKey]) -> Self {
        Self {
            bins,
            share,
            keys,
            plaintext: Zeroizing::default(),
            elements: Zeroizing::default(),
        }
    }

    /// Opens a packet and checks all that doesn't depend on other packets: decryption, length, elements, query point.
    pub fn open(&mut self, packet: &DataSharePacket) -> Result<OpenedPacket, PacketExclusion> {
        let mounted = self.decrypt(packet).ok_or(PacketExclusion::Undecryptable)?;
        let parsed = match self.share {
            Share::First => parse_first_share_into(&self.plaintext, self.bins, &mut self.elements),
            Share::Second => parse_second_share_into(&self.plaintext, self.bins, &mut self.elements),
        };
        parsed.map_err(|error| match error {
            ShareError::ElementOutOfField { .. } => PacketExclusion::ElementOutOfField,
            ShareError::WrongDimension { .. } => PacketExclusion::WrongDimension,
        })?;
        let r_pit = u32::try_from(packet.r_pit).map_err(|_| PacketExclusion::QueryPointOutOfRange)?;
        if query_point::is_refused(r_pit, self.bins) {
            return Err(PacketExclusion::QueryPointRefused);
        }
        Ok(OpenedPacket { mounted, r_pit })
    }

    /// The share of the packet opened last: values and proof.
    pub fn elements(&self) -> &[u32] {
        &self.elements
    }

    /// The values of the packet opened last, one a bin.
    pub fn values(&self) -> &[u32] {
        &self.elements[..self.bins as usize]
    }

    /// The first key that opens the packet: those of the id that it names, then the others in order.
    fn decrypt(&mut self, packet: &DataSharePacket) -> Option<usize> {
        let named = |key: &MountedPacketKey| packet.encryption_key_id.as_deref() == Some(key.id.as_str());
        let first = self.keys.iter().enumerate().filter(|(_, key)| named(key));
        let rest = self.keys.iter().enumerate().filter(|(_, key)| !named(key));
        let plaintext = &mut self.plaintext;
        first
            .chain(rest)
            .find(|(_, key)| key.key.decrypt_into(&packet.encrypted_payload, plaintext).is_ok())
            .map(|(index, _)| index)
    }
}

/// Reads packets to the end and decides each.
///
/// # Errors
/// [`FormatError`] of the first packet that can't be read.
pub fn accumulate(
    packets: impl Iterator<Item = Result<DataSharePacket, FormatError>>,
    bins: u32,
    share: Share,
    keys: &[MountedPacketKey],
) -> Result<Accumulated, FormatError> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    accumulate_on(cores, packets, bins, share, keys)
}

fn accumulate_on(
    cores: usize,
    packets: impl Iterator<Item = Result<DataSharePacket, FormatError>>,
    bins: u32,
    share: Share,
    keys: &[MountedPacketKey],
) -> Result<Accumulated, FormatError> {
    let query = ProofQuery::new(bins);
    let worker = Worker {
        query: &query,
        bins,
        share,
        keys,
    };
    let mut result = Accumulated::default();
    let mut seen = Duplicates::default();
    // While one round is worked on, the next is read; what comes out is put together in the file's order.
    thread::scope(|scope| {
        let mut running = Vec::new();
        let mut round = Round::default();
        for packet in packets {
            let packet = packet?;
            let duplicate = seen.check(packet.uuid, &packet.encrypted_payload);
            round.push(packet, duplicate);
            if round.is_full(cores) {
                worker.finish(std::mem::take(&mut running), &mut result);
                running = worker.start(scope, cores, std::mem::take(&mut round));
            }
        }
        worker.finish(running, &mut result);
        let rest = worker.start(scope, cores, round);
        worker.finish(rest, &mut result);
        Ok(result)
    })
}

/// Packets that are worked on at the same time.
#[derive(Default)]
struct Round {
    packets: Vec<Read>,
    bytes: usize,
}

impl Round {
    fn push(&mut self, packet: DataSharePacket, duplicate: Option<PacketExclusion>) {
        self.bytes += packet.encrypted_payload.len();
        self.packets.push((packet, duplicate));
    }

    fn is_full(&self, cores: usize) -> bool {
        self.packets.len() >= ROUND_PACKETS * cores || self.bytes >= ROUND_BYTES * cores
    }
}

/// A packet read, and whether it is a duplicate.
type Read = (DataSharePacket, Option<PacketExclusion>);

/// A packet decided, with the mounted key that opened it.
type Decision = (Uuid, Result<(usize, Message), PacketExclusion>);

struct Worker<'a> {
    query: &'a ProofQuery,
    bins: u32,
    share: Share,
    keys: &'a [MountedPacketKey],
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
    /// Starts a round: a part on each core, or all of it at once where that isn't worth a thread.
    fn start<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        cores: usize,
        round: Round,
    ) -> Vec<Running<'scope>> {
        let mut packets = round.packets;
        let share = packets.len().div_ceil(cores).max(THREAD_PACKETS);
        if packets.len() <= share {
            return if packets.is_empty() {
                Vec::new()
            } else {
                vec![Running::Done(self.run(&packets))]
            };
        }
        let mut running = Vec::with_capacity(cores);
        while !packets.is_empty() {
            let rest = packets.split_off(share.min(packets.len()));
            let part = std::mem::replace(&mut packets, rest);
            running.push(Running::Elsewhere(scope.spawn(move || self.run(&part))));
        }
        running
    }

    fn finish(&self, running: Vec<Running<'_>>, result: &mut Accumulated) {
        for part in running {
            let part = match part {
                Running::Done(part) => part,
                // A panic of one core is a panic of the whole, as without threads.
                Running::Elsewhere(part) => part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            };
            self.merge(part, result);
        }
    }

    fn run(&self, packets: &[Read]) -> Part {
        let sums = (0..self.keys.len()).map(|_| None).collect();
        let mut part = Part {
            decisions: Vec::with_capacity(packets.len()),
            sums,
            unmounted_key: None,
        };
        let mut opener = Opener::new(self.bins, self.share, self.keys);
        let mut buffer = self.query.buffer();
        for (packet, duplicate) in packets {
            let decision = match duplicate {
                Some(reason) => Err(*reason),
                None => opener.open(packet),
            };
            let decision = decision.map(|opened| {
                let sum = part.sums[opened.mounted].get_or_insert_with(|| Zeroizing::new(vec![0; self.bins as usize]));
                proof::accumulate(sum, opener.values());
                let message = self
                    .query
                    .message_in(&mut buffer, opener.elements(), opened.r_pit, self.share);
                (opened.mounted, message)
            });
            if decision == Err(PacketExclusion::Undecryptable) && part.unmounted_key.is_none() {
                let id = packet
                    .encryption_key_id
                    .as_deref()
                    .filter(|id| self.keys.iter().all(|key| key.id != *id));
                part.unmounted_key = id.map(str::to_owned);
            }
            part.decisions.push((packet.uuid, decision));
        }
        part
    }

    fn merge(&self, part: Part, result: &mut Accumulated) {
        for (uuid, decision) in part.decisions {
            let state = match decision {
                Ok((mounted, message)) => match result.key_index(mounted, self.bins) {
                    Some(key) => PacketState::In { key, message },
                    // Parameters bound the number of mounted keys far below.
                    None => PacketState::Excluded(PacketExclusion::Undecryptable),
                },
                Err(reason) => PacketState::Excluded(reason),
            };
            result.packets.push(RecordPacket { uuid, state });
        }
        for key in &mut result.keys {
            if let Some(sum) = &part.sums[key.mounted] {
                proof::accumulate(&mut key.sum, sum);
            }
        }
        if result.unmounted_key.is_none() {
            result.unmounted_key = part.unmounted_key;
        }
    }
}

#[cfg(test)]
#[path = "accumulate_tests.rs"]
mod tests;
