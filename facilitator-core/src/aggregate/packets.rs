//! A batch's packets, opened once more: those that don't count, to take them out of sound accumulators, and those that do,
//! in place of a damaged one. The set is the record's.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::batch::OpenBatch;
use super::judge::{Judged, Subtracted};
use crate::formats::FormatError;
use crate::formats::avro::Record as _;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::{PacketState, RecordError, RecordReader};
use crate::formats::work::Share;
use crate::intake::Opener;
use crate::processor::{MountedPacketKey, WorkError};
use crate::proof;
use crate::stream::ChunkReader;

/// One packet of so many at most must be subtracted for the plan to add up: of more, decrypting takes longest of all, which is
/// in vain where no sum follows, and reading once more costs little.
const WORTH_ADDING_UP: u64 = 16;

/// What completes the sum of a batch's accumulators where all are sound: less its packets that don't count, one value a bin,
/// modulo p.
pub(super) type Subtraction = Arc<Zeroizing<Vec<u32>>>;

/// A packet key that a record's packets were opened with.
#[derive(Clone, Copy)]
pub(super) struct UsedKey {
    /// Its index among the mounted ones.
    pub mounted: usize,
    /// Its accumulator is lost.
    pub damaged: bool,
}

/// Which packets of a batch are opened, and with what.
struct Opening {
    bins: u32,
    share: Share,
    mounted: Arc<[MountedPacketKey]>,
    /// The record's.
    keys: Vec<UsedKey>,
    subtracted: Arc<Vec<Subtracted>>,
}

/// What the opened packets come to.
pub(super) struct OpenedPackets {
    /// What completes the sum of the sound accumulators, one value a bin, modulo p.
    pub sum: Zeroizing<Vec<u32>>,
    /// Packets that intake opened, and that don't open any more.
    pub closed: u64,
}

impl Opening {
    fn run(
        &self,
        record: &mut RecordReader<ChunkReader>,
        packets: ChunkReader,
    ) -> Result<Result<OpenedPackets, FormatError>, RecordError> {
        let mut sum = Zeroizing::new(vec![0; self.bins as usize]);
        let (mut closed, mut subtracted) = (0, self.subtracted.iter().peekable());
        let mut packets = DataSharePacket::stream(packets);
        let opener =
            |key: &UsedKey| Opener::new(self.bins, self.share, std::slice::from_ref(&self.mounted[key.mounted]));
        let mut openers: Vec<Opener<'_>> = self.keys.iter().map(opener).collect();
        for (index, decided) in record.enumerate() {
            let state = decided?.state;
            let packet = match packets.next() {
                Some(Ok(packet)) => packet,
                Some(Err(error)) => return Ok(Err(error)),
                None => {
                    return Ok(Err(FormatError::NoRecord {
                        record: DataSharePacket::NAME,
                    }));
                }
            };
            let PacketState::In { key, .. } = state else { continue };
            let key = usize::from(key);
            let (Some(UsedKey { damaged, .. }), Some(opener)) = (self.keys.get(key), openers.get_mut(key)) else {
                return Err(RecordError::Replaced);
            };
            let counts = subtracted.next_if(|packet| packet.index as usize == index).is_none();
            if counts != *damaged {
                continue;
            }
            if opener.open(&packet).is_err() {
                closed += 1;
            } else if *damaged {
                proof::accumulate(&mut sum, opener.values());
            } else {
                proof::subtract_from(&mut sum, opener.values());
            }
        }
        Ok(Ok(OpenedPackets { sum, closed }))
    }
}

impl OpenBatch<'_> {
    /// Opens the packets that count in damaged accumulators, and those that are `subtracted` in sound ones. `keys` are the
    /// record's, in its order. `None`: the packets aren't those that intake saw.
    ///
    /// # Errors
    /// Those of the mailboxes and of the record.
    pub(super) async fn open_packets(
        &self,
        keys: Vec<UsedKey>,
        subtracted: Arc<Vec<Subtracted>>,
    ) -> Result<Option<Result<OpenedPackets, FormatError>>, WorkError> {
        let processor = self.processor();
        let opening = Opening {
            bins: self.head.bins,
            share: processor.share,
            mounted: Arc::clone(&processor.packet_keys),
            keys,
            subtracted,
        };
        self.beside_ingestion(move |record, packets| opening.run(record, packets))
            .await
    }

    /// Whether the ingestion packets, of which some don't count, are those that intake saw. Where these are few, what they
    /// come to is kept for the sum, if it follows here: to read packets takes longest then.
    ///
    /// # Errors
    /// Those of the mailboxes and of the record.
    pub(super) async fn has_its_packets(&self, judged: &Judged) -> Result<bool, WorkError> {
        let is_worth_it = judged.subtracted.len() as u64 * WORTH_ADDING_UP <= judged.packets;
        let add_up = is_worth_it && self.has_room_for_subtraction();
        let Some(keys) = self.mounted_keys().filter(|_| add_up) else {
            return Ok(self.beside_ingestion(|_, _| Ok(())).await?.is_some());
        };
        let opened = self.open_packets(keys, Arc::new(judged.subtracted.clone())).await?;
        let there = opened.is_some();
        // What else is wrong with them fails the window, by name, where it is summed.
        if let Some(Ok(OpenedPackets { sum, closed: 0 })) = opened {
            self.keep_subtraction(judged, sum);
        }
        Ok(there)
    }

    /// The record's keys, where all are mounted, their accumulators taken for sound.
    fn mounted_keys(&self) -> Option<Vec<UsedKey>> {
        let mounted = self.packet_keys.iter().map(|point| {
            let mounted = self.processor().mounted(point)?;
            Some(UsedKey {
                mounted,
                damaged: false,
            })
        });
        mounted.collect()
    }
}
