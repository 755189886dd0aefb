//! Records as bytes, written as their packets are decided: `docs/formats.md` §3.2.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};

use super::bytes::Writer;
use super::{PacketState, RECORD_REVISION, Record, RecordHead, RecordPacket, RecordPlain};
use crate::crypto::PublicPoint;
use crate::formats::work::ValidationFormat;

/// The first eight bytes of every record.
pub(super) const MAGIC: &[u8; 8] = b"PRIOREC1";
/// Stands where a packet's state would, after the last one.
pub(super) const END_OF_PACKETS: u8 = 255;
/// A packet that is in: state, uuid, key, f, g, h.
pub(super) const PACKET_BYTES: usize = 1 + 16 + 1 + 12;

/// Writes the plain part of a record packet by packet, and hashes it on the way. Every call is given the target, so that
/// it may be another one from some packet on.
///
/// The order: [`RecordEncoder::begin`], every packet in file order, [`RecordEncoder::end`], then [`write_seals`].
pub struct RecordEncoder {
    digest: Context,
}

impl RecordEncoder {
    /// Writes all that comes before the packets.
    ///
    /// # Errors
    /// Those of the target.
    pub fn begin(head: &RecordHead, target: &mut impl Write) -> io::Result<Self> {
        let mut encoder = Self {
            digest: Context::new(&SHA256),
        };
        target.write_all(MAGIC)?;
        let mut out = Writer::default();
        out.u32(RECORD_REVISION);
        out.string(&head.instance);
        out.u8(head.share.index());
        out.string(head.batch.aggregation.as_str());
        out.string(&head.batch.time.to_path());
        out.raw(head.batch.uuid.as_bytes());
        out.string(&head.name);
        out.u32(head.bins);
        out.u64(head.epsilon.to_bits());
        out.u64(head.prime);
        out.u32(head.number_of_servers);
        out.u8(u8::from(head.hamming_weight.is_some()));
        out.i32(head.hamming_weight.unwrap_or_default());
        out.i64(head.batch_start_time);
        out.i64(head.batch_end_time);
        out.raw(&head.header_digest);
        out.raw(&head.packet_digest);
        out.u8(match head.validation_format {
            ValidationFormat::ThreeObjects => 0,
            ValidationFormat::SingleObject => 1,
        });
        out.string(&head.signer);
        encoder.hashed(out.as_bytes(), target)?;
        Ok(encoder)
    }

    /// Appends a packet.
    ///
    /// # Errors
    /// Those of the target.
    pub fn packet(&mut self, packet: &RecordPacket, target: &mut impl Write) -> io::Result<()> {
        let mut bytes = [0; PACKET_BYTES];
        bytes[1..17].copy_from_slice(packet.uuid.as_bytes());
        let length = match packet.state {
            PacketState::In { key, message } => {
                bytes[17] = key;
                for (place, element) in bytes[18..].chunks_exact_mut(4).zip([message.f, message.g, message.h]) {
                    place.copy_from_slice(&element.to_le_bytes());
                }
                PACKET_BYTES
            }
            PacketState::Excluded(reason) => {
                bytes[0] = reason as u8;
                17
            }
        };
        self.hashed(&bytes[..length], target)
    }

    /// Ends the plain part with the keys that packets were opened with, and says its SHA-256: what the sealed parts are
    /// bound to.
    ///
    /// # Errors
    /// Those of the target.
    pub fn end(mut self, packet_keys: &[PublicPoint], target: &mut impl Write) -> io::Result<[u8; 32]> {
        let mut out = Writer::default();
        out.u8(END_OF_PACKETS);
        out.count32(packet_keys.len());
        for key in packet_keys {
            out.raw(key);
        }
        self.hashed(out.as_bytes(), target)?;
        let mut digest = [0; 32];
        digest.copy_from_slice(self.digest.finish().as_ref());
        Ok(digest)
    }

    fn hashed(&mut self, bytes: &[u8], target: &mut impl Write) -> io::Result<()> {
        self.digest.update(bytes);
        target.write_all(bytes)
    }
}

/// Writes the sealed accumulators, which end a record: one for each packet key, in their order.
///
/// # Errors
/// Those of the target.
pub fn write_seals(sealed: &[Vec<u8>], target: &mut impl Write) -> io::Result<()> {
    let mut out = Writer::default();
    out.count32(sealed.len());
    for part in sealed {
        out.count32(part.len());
        out.raw(part);
    }
    target.write_all(out.as_bytes())
}

impl RecordPlain {
    /// SHA-256 of the plain part: the additional data of the sealed parts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.write(&mut io::sink()).expect("a sink takes everything")
    }

    fn write(&self, target: &mut impl Write) -> io::Result<[u8; 32]> {
        let mut encoder = RecordEncoder::begin(&self.head, target)?;
        for packet in &self.packets {
            encoder.packet(packet, target)?;
        }
        encoder.end(&self.packet_keys, target)
    }
}

impl Record {
    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let sealed: usize = self.sealed.iter().map(|part| part.len() + 4).sum();
        let mut out = Vec::with_capacity(512 + self.plain.packets.len() * PACKET_BYTES + sealed);
        let written = self.plain.write(&mut out);
        written
            .and_then(|_| write_seals(&self.sealed, &mut out))
            .expect("a Vec takes everything");
        out
    }
}
