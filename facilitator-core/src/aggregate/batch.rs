//! One batch of a window: its record, and what the peer says of it. Both are read side by side, and long ones as streams, so
//! that memory doesn't grow with them; long batches take turns.

use std::collections::HashMap;
use std::sync::PoisonError;

use futures::lock::{Mutex, MutexGuard};
use mailbox::{MailboxError, MailboxErrorKind};
use snafu::ResultExt;
use zeroize::Zeroizing;

use super::judge::{Heard, Held, Judged, judge_in_order};
use super::packets::Subtraction;
use crate::crypto::PublicPoint;
use crate::formats::FormatError;
use crate::formats::batch::check_digest;
use crate::formats::error::MalformedPacketsSnafu;
use crate::formats::ledger::hex;
use crate::formats::names::{BatchId, IngestionPart, ValidationPart};
use crate::formats::record::{RecordError, RecordHead, RecordPacket, RecordReader};
use crate::formats::validation::ValidationPacket;
use crate::intake::parameters_of;
use crate::own_record::StoredRecord;
use crate::peer_messages::{Found, PeerBatch, PeerHead, PeerPackets, bad, max_object_bytes, read_head};
use crate::processor::{Processor, WorkError};
use crate::stream::{ChunkReader, Source};

/// Batches that are looked at at the same time.
pub(super) const AT_A_TIME: usize = 8;

/// Bytes of records and verdicts that are kept from one look at a window's batches to the next.
const KEPT_BYTES: usize = 8 << 20;
/// The same of what is to be subtracted.
const KEPT_SUBTRACTION_BYTES: usize = 8 << 20;
/// What names and maps take beside each.
const KEPT_BESIDE: usize = 512;

/// Batches of a window, looked at some at a time. Plan, count and sum each go through all: what the plan found of short
/// records, of what the peer says and of packets that don't count is kept for the others. A record is put once, and what was
/// judged is named by the digest that the plan pins.
pub(super) struct Batches<'a> {
    processor: &'a Processor,
    /// Held while a long batch streams.
    turn: Mutex<()>,
    kept: std::sync::Mutex<Kept>,
}

/// What is kept: the first, up to so many bytes.
struct Kept {
    records: HashMap<BatchId, StoredRecord>,
    judged: HashMap<BatchId, JudgedRecord>,
    /// Bytes that there is room for: of these, and of what is to be subtracted.
    room: usize,
    subtraction_room: usize,
}

/// A record, and what the peer's messages made of it.
#[derive(Clone)]
pub(super) struct JudgedRecord {
    /// SHA-256 of its plain part.
    pub digest: [u8; 32],
    pub judged: Judged,
    /// What is to be subtracted, where it was added up.
    pub subtraction: Option<Subtraction>,
}

impl Kept {
    fn keep_record(&mut self, id: &BatchId, record: &StoredRecord) {
        if let Some(bytes) = record.held_bytes()
            && self.take_room(bytes)
        {
            self.records.insert(id.clone(), record.clone());
        }
    }

    fn keep_judged(&mut self, id: &BatchId, digest: [u8; 32], judged: &Judged) {
        let lists = size_of_val(&*judged.subtracted) + size_of_val(&*judged.not_counted);
        if self.take_room(size_of::<JudgedRecord>() + lists) {
            let record = JudgedRecord {
                digest,
                judged: judged.clone(),
                subtraction: None,
            };
            self.judged.insert(id.clone(), record);
        }
    }

    fn take_room(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(bytes + KEPT_BESIDE);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }
}

/// A record that was read to its end, its packets passed over.
pub(super) struct OpenBatch<'a> {
    processor: &'a Processor,
    id: BatchId,
    record: StoredRecord,
    /// What the record says of its batch.
    pub head: RecordHead,
    /// Public points of the packet keys used, in order of first use.
    pub packet_keys: Vec<PublicPoint>,
    /// One sealed accumulator a key; empty where it is lost.
    pub sealed: Vec<Vec<u8>>,
    /// SHA-256 of the plain part.
    pub digest: [u8; 32],
    packets: u64,
    batches: &'a Batches<'a>,
}

/// Why a batch couldn't be judged.
enum Fault {
    Record(RecordError),
    Peer(FormatError),
}

impl<'a> Batches<'a> {
    /// To plan them, to sum them, or both.
    pub(super) fn new(processor: &'a Processor) -> Self {
        Self::with_room(processor, KEPT_SUBTRACTION_BYTES)
    }

    /// To plan them where others sum them.
    pub(super) fn to_plan(processor: &'a Processor) -> Self {
        Self::with_room(processor, 0)
    }

    fn with_room(processor: &'a Processor, subtraction_room: usize) -> Self {
        Self {
            processor,
            turn: Mutex::default(),
            kept: std::sync::Mutex::new(Kept {
                records: HashMap::new(),
                judged: HashMap::new(),
                room: KEPT_BYTES,
                subtraction_room,
            }),
        }
    }

    pub(super) fn processor(&self) -> &'a Processor {
        self.processor
    }

    /// The batch's record, if it has one.
    ///
    /// # Errors
    /// Those of the mailbox; [`WorkError::Record`] and [`WorkError::Foreign`] where it is none of this batch.
    pub(super) async fn open(&'a self, id: &BatchId) -> Result<Option<OpenBatch<'a>>, WorkError> {
        let processor = self.processor;
        let Some(record) = self.record(id).await? else {
            return Ok(None);
        };
        let turn = wait_for_turn(&record, &self.turn).await;
        let read = |reader: RecordReader<ChunkReader>, _: &mut _| {
            let end = reader.end()?;
            let (head, keys) = (end.head.clone(), end.packet_keys.clone());
            let (digest, packets) = (end.digest, end.packets);
            Ok((head, keys, digest, packets, end.seals_there_are()))
        };
        let (head, packet_keys, digest, packets, sealed) = record.visit(processor, None, read).await?;
        drop(turn);
        Ok(Some(OpenBatch {
            processor,
            id: id.clone(),
            record,
            head,
            packet_keys,
            sealed,
            digest,
            packets,
            batches: self,
        }))
    }

    async fn record(&self, id: &BatchId) -> Result<Option<StoredRecord>, MailboxError> {
        if let Some(record) = self.kept().records.get(id) {
            return Ok(Some(record.clone()));
        }
        let held = self.processor.in_memory.object_bytes / AT_A_TIME;
        let record = StoredRecord::open_within(self.processor, id, held).await?;
        if let Some(record) = &record {
            self.kept().keep_record(id, record);
        }
        Ok(record)
    }

    /// What a look before this one made of the batch, where that is what the plan pins: SHA-256 of the record's plain part
    /// and of the peer's messages.
    pub(super) fn judged_before(&self, id: &BatchId, record: &str, messages: &str) -> Option<JudgedRecord> {
        let kept = self.kept();
        let before = kept.judged.get(id)?;
        (hex(&before.digest) == record && hex(&before.judged.messages_digest) == messages).then(|| before.clone())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenBatch<'_> {
    /// Judges the batch by the peer's messages; once more after the processor's pause where that isn't what is `wanted`: a
    /// legacy peer may be rewriting its objects (ledger rule 12).
    ///
    /// # Errors
    /// Those of the mailboxes and of the record.
    pub(super) async fn judge(&self, wanted: impl Fn(&Judged) -> bool) -> Result<Result<Judged, PeerBatch>, WorkError> {
        let first = self.judge_once().await?;
        if let Ok(judged) = &first
            && wanted(judged)
        {
            self.batches.kept().keep_judged(&self.id, self.digest, judged);
            return Ok(first);
        }
        drop(first);
        tracing::info!(batch = %self.id.path(), "reading the peer's validation batch again before deciding");
        if !self.processor.reread_pause.is_zero() {
            tokio::time::sleep(self.processor.reread_pause).await;
        }
        self.judge_once().await
    }

    async fn judge_once(&self) -> Result<Result<Judged, PeerBatch>, WorkError> {
        let _turn = wait_for_turn(&self.record, &self.batches.turn).await;
        let (processor, share) = (self.processor, self.processor.share.peer());
        let mailbox = &*processor.mailboxes.peer_validation;
        let there = match read_head(mailbox, &self.id, share, self.packets, &processor.peer_keys).await? {
            Found::There(there) => there,
            Found::Not(why) => return Ok(Err(why)),
        };
        if let Some(field) = there.header.parameters.difference(&parameters_of(&self.head)) {
            let detail = format!("it is of another batch or shape, by its {field}");
            return Ok(Err(PeerBatch::Bad { detail }));
        }
        let digest = self.digest;
        let in_order = self.read_beside(&there, move |mut record, peer| {
            let judged = judge_in_order(packets(&mut record), messages(peer))?;
            end_of_same(record, &digest).map_err(Fault::Record)?;
            Ok(judged)
        });
        match in_order.await? {
            Ok(Some(judged)) => return Ok(Ok(judged)),
            Ok(None) => {}
            Err(why) => return Ok(Err(why)),
        }
        let number_of_packets = usize::try_from(self.packets).unwrap_or(0);
        let in_any_order = self.read_beside(&there, move |mut record, peer| {
            let mut held = Held::read(packets(&mut record), number_of_packets)?;
            end_of_same(record, &digest).map_err(Fault::Record)?;
            for heard in messages(peer) {
                held.hear(heard?);
            }
            Ok(held.judged())
        });
        in_any_order.await
    }

    /// Reads the record beside the peer's packets, which are believed once their digest is the header's.
    async fn read_beside<T: Send + 'static>(
        &self,
        there: &PeerHead,
        work: impl FnOnce(RecordReader<ChunkReader>, ChunkReader) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Result<T, PeerBatch>, WorkError> {
        let processor = self.processor;
        let mailbox = &*processor.mailboxes.peer_validation;
        let key = self.id.validation_key(processor.share.peer(), ValidationPart::Packets);
        let limit = max_object_bytes(self.packets);
        let object = Source::Object {
            mailbox,
            key: &key,
            limit,
        };
        let source = match &there.packets {
            PeerPackets::Inline(packets) => Source::Bytes(packets.clone()),
            PeerPackets::Object if !self.record.is_held() => object,
            PeerPackets::Object => match object.hold().await {
                Ok((passed, bytes)) => match check_digest(&there.header, &passed.digest) {
                    Ok(()) => Source::Bytes(bytes),
                    Err(error) => return Ok(Err(bad(&error))),
                },
                Err(error) if error.kind() == MailboxErrorKind::TooLarge => return Ok(Err(too_large(&error))),
                Err(error) => return Err(error.into()),
            },
        };
        let streams = matches!(source, Source::Object { .. });
        let work = move |record, peer| match work(record, peer) {
            Ok(judged) => Ok(Ok(judged)),
            Err(Fault::Peer(error)) => Ok(Err(error)),
            Err(Fault::Record(error)) => Err(error),
        };
        let (passed, judged) = match self.record.visit_beside(processor, source, work).await {
            Ok(read) => read,
            Err(WorkError::Mailbox { source }) if source.kind() == MailboxErrorKind::TooLarge => {
                return Ok(Err(too_large(&source)));
            }
            Err(error) => return Err(error),
        };
        if streams && let Err(error) = check_digest(&there.header, &passed.digest) {
            return Ok(Err(bad(&error)));
        }
        Ok(judged.context(MalformedPacketsSnafu).map_err(|error| bad(&error)))
    }

    /// Whether there is room to keep what is to be subtracted of the batch, beside how it was judged.
    pub(super) fn has_room_for_subtraction(&self) -> bool {
        let kept = self.batches.kept();
        kept.judged.contains_key(&self.id) && self.head.bins as usize * size_of::<u32>() <= kept.subtraction_room
    }

    /// Keeps what is to be subtracted of the batch, if how it was judged is kept.
    pub(super) fn keep_subtraction(&self, judged: &Judged, subtraction: Zeroizing<Vec<u32>>) {
        let kept = &mut *self.batches.kept();
        let left = kept.subtraction_room.checked_sub(size_of_val(&**subtraction));
        if let Some(left) = left
            && let Some(before) = kept.judged.get_mut(&self.id)
            && before.digest == self.digest
            && before.judged.messages_digest == judged.messages_digest
        {
            before.subtraction = Some(subtraction.into());
            kept.subtraction_room = left;
        }
    }

    pub(super) fn processor(&self) -> &Processor {
        self.processor
    }

    /// Goes through the record beside the batch's ingestion packets. `None`: these aren't those that intake saw.
    ///
    /// # Errors
    /// Those of the mailboxes and of the record.
    pub(super) async fn beside_ingestion<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RecordReader<ChunkReader>, ChunkReader) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<Option<T>, WorkError> {
        let _turn = wait_for_turn(&self.record, &self.batches.turn).await;
        let digest = self.digest;
        let work = move |mut record: RecordReader<ChunkReader>, packets| {
            let worked = work(&mut record, packets)?;
            end_of_same(record, &digest)?;
            Ok(worked)
        };
        let key = self.id.ingestion_key(IngestionPart::Packets);
        let source = Source::Object {
            mailbox: &*self.processor.mailboxes.ingestion,
            key: &key,
            limit: u64::MAX,
        };
        let (passed, worked) = self.record.visit_beside(self.processor, source, work).await?;
        Ok((passed.digest == self.head.packet_digest).then_some(worked))
    }
}

/// Ends a record that was read before; what was made of it is good where it is the same: a long one is read from the store
/// each time.
fn end_of_same<R: std::io::Read>(record: RecordReader<R>, digest: &[u8; 32]) -> Result<(), RecordError> {
    match record.end()?.digest == *digest {
        true => Ok(()),
        false => Err(RecordError::Replaced),
    }
}

/// Nothing is to be held beyond the work itself: others wait for it.
async fn wait_for_turn<'a>(record: &StoredRecord, turn: &'a Mutex<()>) -> Option<MutexGuard<'a, ()>> {
    match record.is_held() {
        true => None,
        false => Some(turn.lock().await),
    }
}

fn packets<R: std::io::Read>(
    record: &mut RecordReader<R>,
) -> impl Iterator<Item = Result<RecordPacket, Fault>> + use<'_, R> {
    record.map(|packet| packet.map_err(Fault::Record))
}

fn messages(peer: ChunkReader) -> impl Iterator<Item = Result<Heard, Fault>> {
    let packets = ValidationPacket::stream(peer);
    packets.map(|packet| match packet {
        Ok(packet) => Ok((packet.uuid, packet.message())),
        Err(error) => Err(Fault::Peer(error)),
    })
}

fn too_large(error: &MailboxError) -> PeerBatch {
    PeerBatch::Bad {
        detail: error.to_string(),
    }
}
