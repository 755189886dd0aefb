//! Records: what intake decided about one ingestion batch, and the commit point. `docs/formats.md` §3.2.

mod bytes;

use sha2::{Digest, Sha256};
use snafu::{Snafu, ensure};
use uuid::Uuid;

use self::bytes::{Reader, Writer};
use super::names::{AggregationId, BatchId, BatchTime};
use super::work::{Share, ValidationFormat};
pub use crate::proof::Message;

/// The first eight bytes of every record.
const MAGIC: &[u8; 8] = b"PRIOREC1";
/// The revision of the plain part that this build writes and reads.
pub const RECORD_REVISION: u32 = 1;
/// The most bins that a record can hold: 2^19 − 1.
pub const MAX_BINS: u32 = (1 << 19) - 1;
/// Bytes that AES-256-GCM-SIV adds to a sealed accumulator.
const SEAL_TAG_BYTES: usize = 16;
/// The longest string in a record, in bytes.
const MAX_STRING_BYTES: usize = 1 << 20;

/// Why bytes are not a record.
#[derive(Debug, PartialEq, Eq, Snafu)]
#[snafu(visibility(pub(self)))]
pub enum RecordError {
    /// It doesn't begin as records do.
    #[snafu(display("these bytes are not a record; restore the object, or ask who else writes the ledger"))]
    NotARecord,
    /// It ends too early.
    #[snafu(display("the record ends before its {field}; restore the object"))]
    Truncated {
        /// What should have come.
        field: &'static str,
    },
    /// A field holds what it can't.
    #[snafu(display("the record's {field} is out of bounds; restore the object"))]
    OutOfBounds {
        /// Which field.
        field: &'static str,
    },
    /// It goes on after its end.
    #[snafu(display("the record goes on for {bytes} bytes after its end; restore the object"))]
    Trailing {
        /// How many bytes too many.
        bytes: usize,
    },
    /// A later build wrote it.
    #[snafu(display("the record has revision {revision}, this build knows 1; use the build that wrote it"))]
    Revision {
        /// Its revision.
        revision: u32,
    },
}

/// Why a packet is excluded from the record, the validation batch and every sum: ledger rule 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PacketExclusion {
    /// No mounted key opens it.
    Undecryptable = 1,
    /// The share's length doesn't fit the bins.
    WrongDimension = 2,
    /// An element of the share is p or more.
    ElementOutOfField = 3,
    /// `r_pit` is outside u32.
    QueryPointOutOfRange = 4,
    /// The query point would reveal a value or make the check meaningless: ledger rule 8.
    QueryPointRefused = 5,
    /// An earlier packet of the batch has its UUID.
    DuplicateUuid = 6,
    /// An earlier packet of the batch has its ephemeral key.
    DuplicateEphemeralKey = 7,
    /// Another batch has answered it: reserved.
    Replay = 8,
}

impl PacketExclusion {
    const ALL: [Self; 8] = [
        Self::Undecryptable,
        Self::WrongDimension,
        Self::ElementOutOfField,
        Self::QueryPointOutOfRange,
        Self::QueryPointRefused,
        Self::DuplicateUuid,
        Self::DuplicateEphemeralKey,
        Self::Replay,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == code)
    }
}

/// What intake decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketState {
    /// It is in the accumulator of key `key` and was answered with `message`.
    In {
        /// Index into [`RecordPlain::packet_keys`].
        key: u8,
        /// Our message for it.
        message: Message,
    },
    /// It has no message anywhere and was never added.
    Excluded(PacketExclusion),
}

/// One ingestion packet, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPacket {
    /// The packet's UUID.
    pub uuid: Uuid,
    /// What was decided about it.
    pub state: PacketState,
}

/// The part of a record that isn't sealed.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordPlain {
    /// The processor's name in sum-part paths.
    pub instance: String,
    /// Which share we hold.
    pub share: Share,
    /// Which batch, as its objects' names have it.
    pub batch: BatchId,
    /// `name` of the ingestion header.
    pub name: String,
    /// `bins` of the ingestion header, 1 to [`MAX_BINS`].
    pub bins: u32,
    /// `epsilon` of the ingestion header.
    pub epsilon: f64,
    /// `prime` of the ingestion header.
    pub prime: u64,
    /// `number_of_servers` of the ingestion header.
    pub number_of_servers: u32,
    /// `hamming_weight` of the ingestion header.
    pub hamming_weight: Option<i32>,
    /// `batch_start_time`, milliseconds since 1970.
    pub batch_start_time: i64,
    /// `batch_end_time`, milliseconds since 1970.
    pub batch_end_time: i64,
    /// SHA-256 of the ingestion header's bytes.
    pub header_digest: [u8; 32],
    /// SHA-256 of the packet object's bytes.
    pub packet_digest: [u8; 32],
    /// How the validation batch is written.
    pub validation_format: ValidationFormat,
    /// Id of the key that signs the validation batch.
    pub signer: String,
    /// Uncompressed public points of the packet keys used, in order of first use; at most 255.
    pub packet_keys: Vec<[u8; 65]>,
    /// Every packet of the batch, in file order.
    pub packets: Vec<RecordPacket>,
}

/// A whole record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What can be read by whoever may read the ledger.
    pub plain: RecordPlain,
    /// One sealed accumulator per packet key, in the order of [`RecordPlain::packet_keys`].
    pub sealed: Vec<Vec<u8>>,
}

/// The bound on a record's size, in bytes: 64 B × packets + 16 B × bins × keys + 4 KiB.
#[must_use]
pub fn record_bound(packets: u64, bins: u32, keys: u64) -> u64 {
    64 * packets + 16 * u64::from(bins) * keys + 4096
}

/// No record is longer, in bytes: batches have at most 2^24 packets, and 255 keys.
pub const RECORD_MAX_BYTES: u64 = 4 << 30;

impl RecordPlain {
    /// The plain part's bytes; their SHA-256 is what the sealed parts are bound to.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(512 + self.packets.len() * 30);
        out.u32(RECORD_REVISION);
        out.string(&self.instance);
        out.u8(self.share.index());
        out.string(self.batch.aggregation.as_str());
        out.string(&self.batch.time.to_path());
        out.raw(self.batch.uuid.as_bytes());
        out.string(&self.name);
        out.u32(self.bins);
        out.u64(self.epsilon.to_bits());
        out.u64(self.prime);
        out.u32(self.number_of_servers);
        out.u8(u8::from(self.hamming_weight.is_some()));
        out.i32(self.hamming_weight.unwrap_or_default());
        out.i64(self.batch_start_time);
        out.i64(self.batch_end_time);
        out.raw(&self.header_digest);
        out.raw(&self.packet_digest);
        out.u8(match self.validation_format {
            ValidationFormat::ThreeObjects => 0,
            ValidationFormat::SingleObject => 1,
        });
        out.string(&self.signer);
        out.count32(self.packet_keys.len());
        for key in &self.packet_keys {
            out.raw(key);
        }
        out.u64(self.packets.len() as u64);
        for packet in &self.packets {
            out.raw(packet.uuid.as_bytes());
            match packet.state {
                PacketState::In { key, message } => {
                    out.u8(0);
                    out.u8(key);
                    out.u32(message.f);
                    out.u32(message.g);
                    out.u32(message.h);
                }
                PacketState::Excluded(reason) => out.u8(reason as u8),
            }
        }
        out.into_bytes()
    }

    /// SHA-256 of the plain part: the additional data of the sealed parts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }

    /// The packets that are in, with their index in the file.
    pub fn included(&self) -> impl Iterator<Item = (usize, Uuid, u8, Message)> + '_ {
        self.packets.iter().enumerate().filter_map(|(index, packet)| match packet.state {
            PacketState::In { key, message } => Some((index, packet.uuid, key, message)),
            PacketState::Excluded(_) => None,
        })
    }

    /// How many packets are excluded, for any reason.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.packets.iter().filter(|packet| matches!(packet.state, PacketState::Excluded(_))).count() as u64
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes);
        let revision = from.u32("revision")?;
        ensure!(revision == RECORD_REVISION, RevisionSnafu { revision });
        let instance = from.string("instance")?;
        let share = match from.u8("share")? {
            0 => Share::First,
            1 => Share::Second,
            _ => return OutOfBoundsSnafu { field: "share" }.fail(),
        };
        let named = |field| move |_| RecordError::OutOfBounds { field };
        let aggregation = AggregationId::parse(&from.string("aggregation")?).map_err(named("aggregation"))?;
        let time = BatchTime::parse_path(&from.string("time")?).map_err(named("time"))?;
        let batch = BatchId { aggregation, time, uuid: Uuid::from_bytes(from.array("batch uuid")?) };
        let name = from.string("name")?;
        let bins = from.u32("bins")?;
        ensure!((1..=MAX_BINS).contains(&bins), OutOfBoundsSnafu { field: "bins" });
        let epsilon = f64::from_bits(from.u64("epsilon")?);
        let prime = from.u64("prime")?;
        let number_of_servers = from.u32("number of servers")?;
        let hamming_weight = match (from.u8("Hamming weight")?, from.i32("Hamming weight")?) {
            (0, 0) => None,
            (1, weight) => Some(weight),
            _ => return OutOfBoundsSnafu { field: "Hamming weight" }.fail(),
        };
        let batch_start_time = from.i64("start time")?;
        let batch_end_time = from.i64("end time")?;
        let header_digest = from.array("header digest")?;
        let packet_digest = from.array("packet digest")?;
        let validation_format = match from.u8("validation format")? {
            0 => ValidationFormat::ThreeObjects,
            1 => ValidationFormat::SingleObject,
            _ => return OutOfBoundsSnafu { field: "validation format" }.fail(),
        };
        let signer = from.string("signer")?;
        let keys = from.u32("packet keys")?;
        ensure!(keys <= u32::from(u8::MAX), OutOfBoundsSnafu { field: "packet keys" });
        let packet_keys = (0..keys).map(|_| from.array("packet keys")).collect::<Result<Vec<_>, _>>()?;
        let count = from.u64("packets")?;
        // 17 bytes is the shortest packet: a count that can't be true must not reserve memory.
        ensure!(count <= from.left() as u64 / 17, OutOfBoundsSnafu { field: "number of packets" });
        let packets = (0..count).map(|_| decode_packet(&mut from, keys)).collect::<Result<Vec<_>, _>>()?;
        from.end()?;
        Ok(Self {
            instance,
            share,
            batch,
            name,
            bins,
            epsilon,
            prime,
            number_of_servers,
            hamming_weight,
            batch_start_time,
            batch_end_time,
            header_digest,
            packet_digest,
            validation_format,
            signer,
            packet_keys,
            packets,
        })
    }
}

fn decode_packet(from: &mut Reader<'_>, keys: u32) -> Result<RecordPacket, RecordError> {
    let uuid = Uuid::from_bytes(from.array("packets")?);
    let state = match from.u8("packets")? {
        0 => {
            let key = from.u8("packets")?;
            ensure!(u32::from(key) < keys, OutOfBoundsSnafu { field: "packet's key" });
            let message =
                Message { f: from.u32("packets")?, g: from.u32("packets")?, h: from.u32("packets")? };
            PacketState::In { key, message }
        }
        code => match PacketExclusion::from_code(code) {
            Some(reason) => PacketState::Excluded(reason),
            None => return OutOfBoundsSnafu { field: "packet's state" }.fail(),
        },
    };
    Ok(RecordPacket { uuid, state })
}

impl Record {
    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let plain = self.plain.encode();
        let sealed: usize = self.sealed.iter().map(|part| part.len() + 4).sum();
        let mut out = Writer::with_capacity(MAGIC.len() + 12 + plain.len() + sealed);
        out.raw(MAGIC);
        out.u64(plain.len() as u64);
        out.raw(&plain);
        out.count32(self.sealed.len());
        for part in &self.sealed {
            out.count32(part.len());
            out.raw(part);
        }
        out.into_bytes()
    }

    /// Reads an object's bytes; every field's bounds are checked, the seals are not.
    ///
    /// # Errors
    /// [`RecordError`], naming the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (plain, mut from) = Self::decode_plain(bytes)?;
        let parts = from.u32("sealed parts")?;
        ensure!(parts as usize == plain.packet_keys.len(), OutOfBoundsSnafu { field: "number of sealed parts" });
        let mut sealed = Vec::with_capacity(parts as usize);
        for _ in 0..parts {
            sealed.push(read_sealed(&mut from, plain.bins)?);
        }
        from.end()?;
        Ok(Self { plain, sealed })
    }

    /// As [`Record::decode`], but a sealed part that is lost or cut becomes an empty one, which no key opens: set and
    /// messages come from the plain part, and a sum can be made without the seals (ledger rule 5).
    ///
    /// # Errors
    /// [`RecordError`] where the plain part can't be read.
    pub fn decode_despite_seals(bytes: &[u8]) -> Result<Self, RecordError> {
        let (plain, mut from) = Self::decode_plain(bytes)?;
        let mut whole = from.u32("sealed parts").is_ok();
        let sealed = plain
            .packet_keys
            .iter()
            .map(|_| {
                let part = if whole { read_sealed(&mut from, plain.bins).ok() } else { None };
                whole = part.is_some();
                part.unwrap_or_default()
            })
            .collect();
        Ok(Self { plain, sealed })
    }

    fn decode_plain(bytes: &[u8]) -> Result<(RecordPlain, Reader<'_>), RecordError> {
        let mut from = Reader::new(bytes);
        let magic: [u8; 8] = from.array("mark").map_err(|_| RecordError::NotARecord)?;
        ensure!(&magic == MAGIC, NotARecordSnafu);
        let length = from.u64("plain part's length")?;
        let length = usize::try_from(length).ok().filter(|length| *length <= from.left());
        let Some(length) = length else { return TruncatedSnafu { field: "plain part" }.fail() };
        let plain = RecordPlain::decode(from.take(length, "plain part")?)?;
        Ok((plain, from))
    }
}

fn read_sealed(from: &mut Reader<'_>, bins: u32) -> Result<Vec<u8>, RecordError> {
    let length = from.u32("sealed parts")? as usize;
    ensure!(length == sealed_bytes(bins), OutOfBoundsSnafu { field: "sealed part's length" });
    Ok(from.take(length, "sealed parts")?.to_vec())
}

/// The length of a sealed accumulator of `bins` bins, in bytes.
fn sealed_bytes(bins: u32) -> usize {
    bins as usize * 4 + SEAL_TAG_BYTES
}

#[cfg(test)]
mod tests;
