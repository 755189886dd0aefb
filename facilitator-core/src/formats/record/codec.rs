//! Records as bytes and back: `docs/formats.md` §3.2.

use snafu::ensure;
use uuid::Uuid;

use super::bytes::{Reader, Writer};
use super::{
    Message, NotARecordSnafu, OutOfBoundsSnafu, PacketExclusion, PacketState, RECORD_REVISION, Record, RecordError,
    RecordPacket, RecordPlain, RevisionSnafu, TruncatedSnafu,
};
use crate::crypto::seal::sealed_length;
use crate::formats::names::{AggregationId, BatchId, BatchTime};
use crate::formats::parameters::MAX_BINS;
use crate::formats::work::{Share, ValidationFormat};

/// The first eight bytes of every record.
const MAGIC: &[u8; 8] = b"PRIOREC1";

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
        let batch = BatchId {
            aggregation,
            time,
            uuid: Uuid::from_bytes(from.array("batch uuid")?),
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
        let batch_start_time = from.i64("start time")?;
        let batch_end_time = from.i64("end time")?;
        let header_digest = from.array("header digest")?;
        let packet_digest = from.array("packet digest")?;
        let validation_format = match from.u8("validation format")? {
            0 => ValidationFormat::ThreeObjects,
            1 => ValidationFormat::SingleObject,
            _ => {
                return OutOfBoundsSnafu {
                    field: "validation format",
                }
                .fail();
            }
        };
        let signer = from.string("signer")?;
        let keys = from.u32("packet keys")?;
        ensure!(keys <= u32::from(u8::MAX), OutOfBoundsSnafu { field: "packet keys" });
        let packet_keys = (0..keys)
            .map(|_| from.array("packet keys"))
            .collect::<Result<Vec<_>, _>>()?;
        let count = from.u64("packets")?;
        // 17 bytes is the shortest packet: a count that can't be true must not reserve memory.
        ensure!(
            count <= from.left() as u64 / 17,
            OutOfBoundsSnafu {
                field: "number of packets"
            }
        );
        let packets = (0..count)
            .map(|_| decode_packet(&mut from, keys))
            .collect::<Result<Vec<_>, _>>()?;
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
            let message = Message {
                f: from.u32("packets")?,
                g: from.u32("packets")?,
                h: from.u32("packets")?,
            };
            PacketState::In { key, message }
        }
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
        ensure!(
            parts as usize == plain.packet_keys.len(),
            OutOfBoundsSnafu {
                field: "number of sealed parts"
            }
        );
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
                let part = if whole {
                    read_sealed(&mut from, plain.bins).ok()
                } else {
                    None
                };
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
        let Some(length) = length else {
            return TruncatedSnafu { field: "plain part" }.fail();
        };
        let plain = RecordPlain::decode(from.take(length, "plain part")?)?;
        Ok((plain, from))
    }
}

fn read_sealed(from: &mut Reader<'_>, bins: u32) -> Result<Vec<u8>, RecordError> {
    let length = from.u32("sealed parts")? as usize;
    ensure!(
        length == sealed_length(bins as usize),
        OutOfBoundsSnafu {
            field: "sealed part's length"
        }
    );
    Ok(from.take(length, "sealed parts")?.to_vec())
}
