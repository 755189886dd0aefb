//! The validation batch: what one share processor tells the other of each packet's proof.

use std::io::Read;

use uuid::Uuid;

use super::FormatError;
use super::avro::{self, Decoder, Encoder, Fields, Record, RecordReader};
use super::parameters::BatchParameters;
use crate::proof::Message;

/// The header of a validation batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidationHeader {
    /// Those of the ingestion header.
    pub parameters: BatchParameters,
    /// SHA-256 of the packet object's bytes (or of the inline packets).
    pub packet_file_digest: Vec<u8>,
}

impl Record for ValidationHeader {
    const NAME: &'static str = "PrioValidityHeader";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioValidityHeader","fields":[{"name":"batch_uuid","type":{"type":"string","logicalType":"uuid"}},{"name":"name","type":"string"},{"name":"bins","type":"int"},{"name":"epsilon","type":"double"},{"name":"prime","type":"long","default":4293918721},{"name":"number_of_servers","type":"int","default":2},{"name":"hamming_weight","type":["int","null"]},{"name":"packet_file_digest","type":"bytes"}]}"#;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            parameters: BatchParameters::from_fields(fields)?,
            packet_file_digest: fields.bytes("packet_file_digest")?,
        })
    }

    const DECODES: bool = true;

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            parameters: BatchParameters::decode(decoder)?,
            packet_file_digest: decoder.bytes()?,
        })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        self.parameters.encode(encoder);
        encoder.bytes(&self.packet_file_digest);
    }
}

impl ValidationHeader {
    /// Reads the object, which holds exactly one.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        avro::read_one(bytes)
    }

    /// Writes the object.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        avro::write_one(self)
    }
}

/// The verification message of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationPacket {
    /// The packet's UUID.
    pub uuid: Uuid,
    /// A field element; as partners write it, so perhaps out of range.
    pub f_r: i64,
    /// See `f_r`.
    pub g_r: i64,
    /// See `f_r`.
    pub h_r: i64,
}

impl ValidationPacket {
    /// The packet that carries `message`.
    #[must_use]
    pub fn new(uuid: Uuid, message: Message) -> Self {
        Self {
            uuid,
            f_r: message.f.into(),
            g_r: message.g.into(),
            h_r: message.h.into(),
        }
    }

    /// The message, each element reduced modulo p; `None` where an element is outside u32.
    #[must_use]
    pub fn message(&self) -> Option<Message> {
        let element = |value: i64| u32::try_from(value).ok().map(crate::proof::reduce);
        Some(Message {
            f: element(self.f_r)?,
            g: element(self.g_r)?,
            h: element(self.h_r)?,
        })
    }

    /// Reads the packets of an object one by one; 0 bytes hold none.
    pub fn stream<R: Read>(source: R) -> RecordReader<R, Self> {
        RecordReader::new(source)
    }

    /// Reads all packets of an object; 0 bytes hold none.
    ///
    /// # Errors
    /// [`FormatError`] of the first that can't be read.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, FormatError> {
        avro::read_all(bytes)
    }

    /// Writes the object; 0 bytes for no packets.
    #[must_use]
    pub fn write_all(packets: &[Self]) -> Vec<u8> {
        avro::write_all(packets)
    }
}

impl Record for ValidationPacket {
    const NAME: &'static str = "PrioValidityPacket";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioValidityPacket","fields":[{"name":"uuid","type":{"type":"string","logicalType":"uuid"}},{"name":"f_r","type":"long"},{"name":"g_r","type":"long"},{"name":"h_r","type":"long"}]}"#;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            uuid: fields.uuid("uuid")?,
            f_r: fields.long("f_r")?,
            g_r: fields.long("g_r")?,
            h_r: fields.long("h_r")?,
        })
    }

    const DECODES: bool = true;

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            uuid: decoder.uuid()?,
            f_r: decoder.long()?,
            g_r: decoder.long()?,
            h_r: decoder.long()?,
        })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.uuid(self.uuid);
        encoder.long(self.f_r);
        encoder.long(self.g_r);
        encoder.long(self.h_r);
    }
}
