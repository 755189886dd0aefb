//! Bytes as records, whole or as a stream: `docs/formats.md` §3.2.

use std::io::Read;

use snafu::ensure;
use uuid::Uuid;

use super::bytes::Reader;
use super::encode::{END_OF_PACKETS, MAGIC, PACKET_BYTES};
use super::{
    Message, NotARecordSnafu, OutOfBoundsSnafu, PacketExclusion, PacketState, RECORD_REVISION, Record, RecordError,
    RecordHead, RecordPacket, RecordPlain, RevisionSnafu,
};
use crate::crypto::PublicPoint;
use crate::crypto::seal::sealed_length;
use crate::formats::names::{AggregationId, BatchId, BatchTime};
use crate::formats::parameters::MAX_BINS;
use crate::formats::work::{Share, ValidationFormat};

/// Reads a record in flat memory: its head at once, then its packets one after another, in file order, then
/// [`RecordReader::end`].
///
/// Nothing is to be believed before `end` says that the plain part is whole; its digest says whether it is the one that
/// is meant.
pub struct RecordReader<R> {
    from: Reader<R>,
    head: RecordHead,
    packets: u64,
    excluded: u64,
    /// Keys that packets have named: one more than the largest index.
    keys: u32,
    /// The last packet was read, or an error.
    done: bool,
    failed: Option<RecordError>,
}

impl<R: Read> RecordReader<R> {
    /// Reads what comes before the packets. Reads from `source` in small pieces: it should be buffered.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn new(source: R) -> Result<Self, RecordError> {
        let mut from = Reader::new(source);
        let mut magic = [0; MAGIC.len()];
        match from.fill(&mut magic, "mark") {
            Err(RecordError::Truncated { .. }) => return NotARecordSnafu.fail(),
            filled => filled?,
        }
        ensure!(&magic == MAGIC, NotARecordSnafu);
        let head = read_head(&mut from)?;
        Ok(Self {
            from,
            head,
            packets: 0,
            excluded: 0,
            keys: 0,
            done: false,
            failed: None,
        })
    }

    /// What the record says of its batch.
    #[must_use]
    pub fn head(&self) -> &RecordHead {
        &self.head
    }

    /// Reads the end of the plain part; packets that weren't asked for are read over.
    ///
    /// # Errors
    /// [`RecordError`]: the first one, where the packets had one.
    pub fn end(mut self) -> Result<RecordEnd<R>, RecordError> {
        for packet in self.by_ref() {
            packet?;
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut from = self.from;
        let keys = from.u32("packet keys")?;
        ensure!(keys <= u32::from(u8::MAX), OutOfBoundsSnafu { field: "packet keys" });
        let packet_keys = (0..keys)
            .map(|_| from.array("packet keys"))
            .collect::<Result<Vec<_>, _>>()?;
        ensure!(self.keys <= keys, OutOfBoundsSnafu { field: "packet's key" });
        let digest = from.digest();
        Ok(RecordEnd {
            head: self.head,
            packets: self.packets,
            excluded: self.excluded,
            packet_keys,
            digest,
            from,
        })
    }

    fn next_packet(&mut self) -> Result<Option<RecordPacket>, RecordError> {
        let mut bytes = [0; PACKET_BYTES];
        self.from.fill(&mut bytes[..1], "packets")?;
        let length = match bytes[0] {
            0 => PACKET_BYTES,
            END_OF_PACKETS => {
                self.from.hash(&bytes[..1]);
                return Ok(None);
            }
            _ => 17,
        };
        self.from.fill(&mut bytes[1..length], "packets")?;
        self.from.hash(&bytes[..length]);
        let element = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let state = match bytes[0] {
            0 => PacketState::In {
                key: bytes[17],
                message: Message {
                    f: element(18),
                    g: element(22),
                    h: element(26),
                },
            },
            code => match PacketExclusion::from_code(code) {
                Some(reason) => PacketState::Excluded(reason),
                None => {
                    return OutOfBoundsSnafu {
                        field: "packet's state",
                    }
                    .fail();
                }
            },
        };
        match state {
            PacketState::In { key, .. } => self.keys = self.keys.max(u32::from(key) + 1),
            PacketState::Excluded(_) => self.excluded += 1,
        }
        self.packets += 1;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[1..17]);
        Ok(Some(RecordPacket {
            uuid: Uuid::from_bytes(uuid),
            state,
        }))
    }
}

impl<R: Read> Iterator for RecordReader<R> {
    type Item = Result<RecordPacket, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_packet();
        self.done = !matches!(next, Ok(Some(_)));
        if let Err(error) = &next {
            self.failed = Some(error.clone());
        }
        next.transpose()
    }
}

/// The plain part of a record was whole; its seals come next.
pub struct RecordEnd<R> {
    /// What it says of its batch.
    pub head: RecordHead,
    /// How many packets it has.
    pub packets: u64,
    /// How many of them are excluded, for any reason.
    pub excluded: u64,
    /// Public points of the packet keys used, in order of first use.
    pub packet_keys: Vec<PublicPoint>,
    /// SHA-256 of the plain part: what the seals are bound to, and what plans pin.
    pub digest: [u8; 32],
    from: Reader<R>,
}

impl<R: Read> RecordEnd<R> {
    /// Reads the sealed parts, in the order of the keys, and that nothing comes after them.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn seals(mut self) -> Result<Vec<Vec<u8>>, RecordError> {
        let parts = self.from.u32("sealed parts")?;
        ensure!(
            parts as usize == self.packet_keys.len(),
            OutOfBoundsSnafu {
                field: "number of sealed parts"
            }
        );
        let sealed = (0..parts).map(|_| self.seal()).collect::<Result<Vec<_>, _>>()?;
        self.from.end()?;
        Ok(sealed)
    }

    /// As [`RecordEnd::seals`], but a sealed part that is lost or cut becomes an empty one, which no key opens: set and
    /// messages come from the plain part, and a sum can be made without the seals (ledger rule 5).
    #[must_use]
    pub fn seals_there_are(mut self) -> Vec<Vec<u8>> {
        let mut whole = self.from.u32("sealed parts").is_ok();
        (0..self.packet_keys.len())
            .map(|_| {
                let part = if whole { self.seal().ok() } else { None };
                whole = part.is_some();
                part.unwrap_or_default()
            })
            .collect()
    }

    fn seal(&mut self) -> Result<Vec<u8>, RecordError> {
        let length = self.from.u32("sealed parts")? as usize;
        ensure!(
            length == sealed_length(self.head.bins as usize),
            OutOfBoundsSnafu {
                field: "sealed part's length"
            }
        );
        self.from.take(length, "sealed parts")
    }
}

impl Record {
    /// Reads an object's bytes; every field's bounds are checked, the seals are not.
    ///
    /// # Errors
    /// [`RecordError`], naming the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (packets, end) = Self::decode_plain(bytes)?;
        let plain = plain(packets, &end);
        Ok(Self {
            plain,
            sealed: end.seals()?,
        })
    }

    /// As [`Record::decode`], but with those seals that there are: see [`RecordEnd::seals_there_are`].
    ///
    /// # Errors
    /// [`RecordError`] where the plain part can't be read.
    pub fn decode_despite_seals(bytes: &[u8]) -> Result<Self, RecordError> {
        let (packets, end) = Self::decode_plain(bytes)?;
        let plain = plain(packets, &end);
        Ok(Self {
            plain,
            sealed: end.seals_there_are(),
        })
    }

    fn decode_plain(bytes: &[u8]) -> Result<(Vec<RecordPacket>, RecordEnd<&[u8]>), RecordError> {
        let mut reader = RecordReader::new(bytes)?;
        let mut packets = Vec::with_capacity(bytes.len() / PACKET_BYTES);
        for packet in &mut reader {
            packets.push(packet?);
        }
        Ok((packets, reader.end()?))
    }
}

fn plain(packets: Vec<RecordPacket>, end: &RecordEnd<&[u8]>) -> RecordPlain {
    RecordPlain {
        head: end.head.clone(),
        packets,
        packet_keys: end.packet_keys.clone(),
    }
}

fn read_head(from: &mut Reader<impl Read>) -> Result<RecordHead, RecordError> {
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
    let uuid = Uuid::from_bytes(from.array("batch uuid")?);
    let batch = BatchId {
        aggregation,
        time,
        uuid,
    };
    let name = from.string("name")?;
    let bins = from.u32("bins")?;
    ensure!((1..=MAX_BINS).contains(&bins), OutOfBoundsSnafu { field: "bins" });
    let epsilon = f64::from_bits(from.u64("epsilon")?);
    let prime = from.u64("prime")?;
    let number_of_servers = from.u32("number of servers")?;
    let hamming_weight = match (from.u8("Hamming weight")?, from.i32("Hamming weight")?) {
        (0, 0) => None,
        (1, weight) => Some(weight),
        _ => {
            return OutOfBoundsSnafu {
                field: "Hamming weight",
            }
            .fail();
        }
    };
    Ok(RecordHead {
        instance,
        share,
        batch,
        name,
        bins,
        epsilon,
        prime,
        number_of_servers,
        hamming_weight,
        batch_start_time: from.i64("start time")?,
        batch_end_time: from.i64("end time")?,
        header_digest: from.array("header digest")?,
        packet_digest: from.array("packet digest")?,
        validation_format: match from.u8("validation format")? {
            0 => ValidationFormat::ThreeObjects,
            1 => ValidationFormat::SingleObject,
            _ => {
                return OutOfBoundsSnafu {
                    field: "validation format",
                }
                .fail();
            }
        },
        signer: from.string("signer")?,
    })
}
