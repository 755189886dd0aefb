//! Every packet of a batch, decided in file order: opened, answered and added, or excluded (ledger rule 1). All cores
//! work on one batch; what comes out doesn't depend on how many there are.

use std::num::NonZero;
use std::thread;

use uuid::Uuid;
use zeroize::Zeroizing;

use crate::formats::FormatError;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{Message, PacketExclusion, PacketState, RecordPacket};
use crate::formats::work::Share;
use crate::guards::duplicates::Duplicates;
use crate::guards::query_point;
use crate::processor::MountedPacketKey;
use crate::proof::{self, ProofQuery, ShareError, parse_first_share, parse_second_share};

/// A round ends at so many packets or payload bytes for each core, whichever comes first: memory stays flat.
const ROUND_PACKETS: usize = 512;
const ROUND_BYTES: usize = 4 << 20;
/// Fewer packets than this are not worth a thread.
const THREAD_PACKETS: usize = 32;

/// What was opened with one packet key.
#[derive(Debug)]
pub struct KeySum {
    /// Index of the key among the mounted ones.
    pub mounted: usize,
    /// The sum of our shares of the packets that are in, `bins` elements.
    pub sum: Zeroizing<Vec<u32>>,
}

/// What was decided about a batch's packets.
#[derive(Debug, Default)]
pub struct Accumulated {
    /// Every packet in file order; the key index of those that are in points into `keys`.
    pub packets: Vec<RecordPacket>,
    /// The keys used, in order of first use; at most 255.
    pub keys: Vec<KeySum>,
    /// A key id that an undecryptable packet names and that isn't mounted.
    pub unmounted_key: Option<String>,
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

/// A packet that was opened and checked.
pub(crate) struct OpenedPacket {
    /// Index of the key among the mounted ones.
    pub mounted: usize,
    /// Our share: values and proof.
    pub elements: Zeroizing<Vec<u32>>,
    /// `r_pit`, not reduced.
    pub r_pit: u32,
}

/// Opens a packet and checks all that doesn't depend on other packets: decryption, length, elements, query point.
pub(crate) fn open_packet(
    packet: &DataSharePacket,
    bins: u32,
    share: Share,
    keys: &[MountedPacketKey],
) -> Result<OpenedPacket, PacketExclusion> {
    let (mounted, plaintext) = decrypt(packet, keys).ok_or(PacketExclusion::Undecryptable)?;
    let elements = match share {
        Share::First => parse_first_share(&plaintext, bins),
        Share::Second => parse_second_share(&plaintext, bins),
    };
    let elements = elements.map_err(|error| match error {
        ShareError::ElementOutOfField { .. } => PacketExclusion::ElementOutOfField,
        ShareError::WrongDimension { .. } => PacketExclusion::WrongDimension,
    })?;
    let r_pit = u32::try_from(packet.r_pit).map_err(|_| PacketExclusion::QueryPointOutOfRange)?;
    if query_point::is_refused(r_pit, bins) {
        return Err(PacketExclusion::QueryPointRefused);
    }
    Ok(OpenedPacket {
        mounted,
        elements,
        r_pit,
    })
}

/// The first key that opens the packet: those of the id that it names, then the others in order.
fn decrypt(packet: &DataSharePacket, keys: &[MountedPacketKey]) -> Option<(usize, Zeroizing<Vec<u8>>)> {
    let named = |key: &MountedPacketKey| packet.encryption_key_id.as_deref() == Some(key.id.as_str());
    let first = keys.iter().enumerate().filter(|(_, key)| named(key));
    let rest = keys.iter().enumerate().filter(|(_, key)| !named(key));
    first
        .chain(rest)
        .find_map(|(index, key)| Some((index, key.key.decrypt(&packet.encrypted_payload).ok()?)))
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
    let mut round = Vec::new();
    let mut bytes = 0;
    for packet in packets {
        let packet = packet?;
        let duplicate = seen.check(packet.uuid, &packet.encrypted_payload);
        bytes += packet.encrypted_payload.len();
        round.push((packet, duplicate));
        if round.len() >= ROUND_PACKETS * cores || bytes >= ROUND_BYTES * cores {
            worker.run_round(cores, &round, &mut result);
            round.clear();
            bytes = 0;
        }
    }
    worker.run_round(cores, &round, &mut result);
    Ok(result)
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

impl Worker<'_> {
    fn run_round(&self, cores: usize, round: &[Read], result: &mut Accumulated) {
        if round.is_empty() {
            return;
        }
        let share = round.len().div_ceil(cores).max(THREAD_PACKETS);
        let parts: Vec<Part> = if round.len() <= share {
            vec![self.run(round)]
        } else {
            thread::scope(|scope| {
                let running: Vec<_> = round.chunks(share).map(|part| scope.spawn(|| self.run(part))).collect();
                // A panic of one core is a panic of the whole, as without threads.
                running
                    .into_iter()
                    .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            })
        };
        for part in parts {
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
        for (packet, duplicate) in packets {
            let decision = match duplicate {
                Some(reason) => Err(*reason),
                None => open_packet(packet, self.bins, self.share, self.keys),
            };
            let decision = decision.map(|opened| {
                let values = &opened.elements[..self.bins as usize];
                let sum = part.sums[opened.mounted].get_or_insert_with(|| Zeroizing::new(vec![0; self.bins as usize]));
                proof::accumulate(sum, values);
                (
                    opened.mounted,
                    self.query.message(&opened.elements, opened.r_pit, self.share),
                )
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
