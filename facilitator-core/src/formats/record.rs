//! Records: what intake decided about one ingestion batch, and the commit point. `docs/formats.md` §3.2.
//!
//! A record of millions of packets is written and read as a stream, in flat memory: [`RecordEncoder`] and
//! [`RecordReader`]. [`Record`] is a whole one.

mod bytes;
mod decode;
mod encode;

use snafu::Snafu;
use uuid::Uuid;

pub use self::decode::{RecordEnd, RecordReader};
pub use self::encode::{RecordEncoder, write_seals};
use crate::crypto::PublicPoint;

use super::names::BatchId;
pub use super::parameters::MAX_BINS;
use super::work::{Share, ValidationFormat};
pub use crate::proof::Message;

/// The revision of the plain part that this build writes and reads.
pub const RECORD_REVISION: u32 = 1;
/// The longest string in a record, in bytes.
const MAX_STRING_BYTES: usize = 1 << 20;

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
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
    #[snafu(display("the record goes on after its end; restore the object"))]
    Trailing,
    /// The bytes could not be had.
    #[snafu(display("reading the record failed: {detail}"))]
    Read {
        /// Why.
        detail: String,
    },
    /// Read again, it is another one: only ever in place of one that a store must keep as it is.
    #[snafu(display(
        "the record was replaced while it was worked on; restore the object, or ask who else writes the ledger"
    ))]
    Replaced,
    /// What was made of it could not be passed on.
    #[snafu(display("passing on what the record says failed: {detail}"))]
    PassedOn {
        /// Why.
        detail: String,
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
    /// Another batch has answered it: ledger rule 1, claims.
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

/// What a record says of its batch, before its packets.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordHead {
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
}

/// The part of a record that isn't sealed.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordPlain {
    /// What it says of its batch.
    pub head: RecordHead,
    /// Every packet of the batch, in file order.
    pub packets: Vec<RecordPacket>,
    /// Public points of the packet keys used, in order of first use; at most 255.
    pub packet_keys: Vec<PublicPoint>,
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
    /// The packets that are in, with their index in the file.
    pub fn included(&self) -> impl Iterator<Item = (usize, Uuid, u8, Message)> + '_ {
        self.packets
            .iter()
            .enumerate()
            .filter_map(|(index, packet)| match packet.state {
                PacketState::In { key, message } => Some((index, packet.uuid, key, message)),
                PacketState::Excluded(_) => None,
            })
    }

    /// How many packets are excluded, for any reason.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.packets
            .iter()
            .filter(|packet| matches!(packet.state, PacketState::Excluded(_)))
            .count() as u64
    }
}

#[cfg(test)]
pub(crate) mod tests;
