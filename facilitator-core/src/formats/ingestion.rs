//! The ingestion batch: an ingestor's header and encrypted packets.

use std::io::Read;

use uuid::Uuid;

use super::FormatError;
use super::avro::{self, Decoder, Encoder, Fields, Record, RecordReader};
use super::parameters::BatchParameters;

/// The header of an ingestion batch.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestionHeader {
    /// What it has in common with the validation header.
    pub parameters: BatchParameters,
    /// When the first packet may have come, milliseconds since 1970.
    pub batch_start_time: i64,
    /// When the last packet may have come, milliseconds since 1970.
    pub batch_end_time: i64,
    /// SHA-256 of the packet object's bytes.
    pub packet_file_digest: Vec<u8>,
}

impl Record for IngestionHeader {
    const NAME: &'static str = "PrioIngestionHeader";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioIngestionHeader","fields":[{"name":"batch_uuid","type":{"type":"string","logicalType":"uuid"}},{"name":"name","type":"string"},{"name":"bins","type":"int"},{"name":"epsilon","type":"double"},{"name":"prime","type":"long","default":4293918721},{"name":"number_of_servers","type":"int","default":2},{"name":"hamming_weight","type":["int","null"]},{"name":"batch_start_time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"batch_end_time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"packet_file_digest","type":"bytes"}]}"#;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            parameters: BatchParameters::from_fields(fields)?,
            batch_start_time: fields.millis("batch_start_time")?,
            batch_end_time: fields.millis("batch_end_time")?,
            packet_file_digest: fields.bytes("packet_file_digest")?,
        })
    }

    const DECODES: bool = true;

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            parameters: BatchParameters::decode(decoder)?,
            batch_start_time: decoder.long()?,
            batch_end_time: decoder.long()?,
            packet_file_digest: decoder.bytes()?,
        })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        self.parameters.encode(encoder);
        encoder.long(self.batch_start_time);
        encoder.long(self.batch_end_time);
        encoder.bytes(&self.packet_file_digest);
    }
}

impl IngestionHeader {
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

/// One client's share, encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSharePacket {
    /// The packet's UUID, the same at both parties.
    pub uuid: Uuid,
    /// See [`crate::crypto::ecies`].
    pub encrypted_payload: Vec<u8>,
    /// A hint at the packet decryption key; may be wrong.
    pub encryption_key_id: Option<String>,
    /// Where the proof is queried. Outside u32 the packet is excluded, which is not this format's business.
    pub r_pit: i64,
    /// The client's configuration; not used.
    pub version_configuration: Option<String>,
    /// The client device's nonce; not used.
    pub device_nonce: Option<Vec<u8>>,
}

impl Record for DataSharePacket {
    const NAME: &'static str = "PrioDataSharePacket";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioDataSharePacket","fields":[{"name":"uuid","type":{"type":"string","logicalType":"uuid"}},{"name":"encrypted_payload","type":"bytes"},{"name":"encryption_key_id","type":["null","string"]},{"name":"r_pit","type":"long"},{"name":"version_configuration","type":["null","string"]},{"name":"device_nonce","type":["null","bytes"]}]}"#;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            uuid: fields.uuid("uuid")?,
            encrypted_payload: fields.bytes("encrypted_payload")?,
            encryption_key_id: fields.short_optional_text("encryption_key_id")?,
            r_pit: fields.long("r_pit")?,
            version_configuration: fields.short_optional_text("version_configuration")?,
            device_nonce: fields.short_optional_bytes("device_nonce")?,
        })
    }

    const DECODES: bool = true;

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            uuid: decoder.uuid()?,
            encrypted_payload: decoder.bytes()?,
            encryption_key_id: decoder.optional(Decoder::short_text)?,
            r_pit: decoder.long()?,
            version_configuration: decoder.optional(Decoder::short_text)?,
            device_nonce: decoder.optional(Decoder::short_bytes)?,
        })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.uuid(self.uuid);
        encoder.bytes(&self.encrypted_payload);
        encoder.optional_bytes(self.encryption_key_id.as_deref().map(str::as_bytes));
        encoder.long(self.r_pit);
        encoder.optional_bytes(self.version_configuration.as_deref().map(str::as_bytes));
        encoder.optional_bytes(self.device_nonce.as_deref());
    }
}

impl DataSharePacket {
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
