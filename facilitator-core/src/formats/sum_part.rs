//! The sum part and the invalid list: what a share processor gives the portal.

use uuid::Uuid;

use super::FormatError;
use super::avro::{self, Decoder, Encoder, Fields, Record};
use crate::proof;

/// One share processor's share of a window's totals.
#[derive(Clone, Debug, PartialEq)]
pub struct SumPart {
    /// The batches summed.
    pub batch_uuids: Vec<Uuid>,
    /// The aggregation.
    pub name: String,
    /// Values summed.
    pub bins: i32,
    /// Of the ingestion headers.
    pub epsilon: f64,
    /// The field's prime.
    pub prime: i64,
    /// 2.
    pub number_of_servers: i32,
    /// Of the ingestion headers.
    pub hamming_weight: Option<i32>,
    /// Our share of each bin's total, 0 to p − 1.
    pub sum: Vec<i64>,
    /// The window's start, milliseconds since 1970.
    pub aggregation_start_time: i64,
    /// The window's end, milliseconds since 1970.
    pub aggregation_end_time: i64,
    /// SHA-256 of the invalid list's bytes (of none at all where it is absent).
    pub packet_file_digest: Vec<u8>,
    /// Clients counted.
    pub total_individual_clients: i64,
}

impl Record for SumPart {
    const NAME: &'static str = "PrioSumPart";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioSumPart","fields":[{"name":"batch_uuids","type":{"type":"array","items":{"type":"string","logicalType":"uuid"}}},{"name":"name","type":"string"},{"name":"bins","type":"int"},{"name":"epsilon","type":"double"},{"name":"prime","type":"long"},{"name":"number_of_servers","type":"int"},{"name":"hamming_weight","type":["int","null"]},{"name":"sum","type":{"type":"array","items":"long"}},{"name":"aggregation_start_time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"aggregation_end_time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"packet_file_digest","type":"bytes"},{"name":"total_individual_clients","type":"long"}]}"#;
    // 2^19 − 1 sums, and the batches of a window.
    const MAX_ITEMS: usize = 1 << 20;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            batch_uuids: fields.uuids("batch_uuids")?,
            name: fields.short_text("name")?,
            bins: fields.int("bins")?,
            epsilon: fields.double("epsilon")?,
            prime: fields.long_or("prime", i64::from(proof::PRIME))?,
            number_of_servers: fields.int_or("number_of_servers", 2)?,
            hamming_weight: fields.optional_int("hamming_weight")?,
            sum: fields.longs("sum")?,
            aggregation_start_time: fields.millis("aggregation_start_time")?,
            aggregation_end_time: fields.millis("aggregation_end_time")?,
            packet_file_digest: fields.bytes("packet_file_digest")?,
            total_individual_clients: fields.long("total_individual_clients")?,
        })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.list(&self.batch_uuids, |encoder, uuid| encoder.uuid(*uuid));
        encoder.bytes(self.name.as_bytes());
        encoder.int(self.bins);
        encoder.double(self.epsilon);
        encoder.long(self.prime);
        encoder.int(self.number_of_servers);
        encoder.int_or_null(self.hamming_weight);
        encoder.list(&self.sum, |encoder, value| encoder.long(*value));
        encoder.long(self.aggregation_start_time);
        encoder.long(self.aggregation_end_time);
        encoder.bytes(&self.packet_file_digest);
        encoder.long(self.total_individual_clients);
    }
}

impl SumPart {
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

/// A packet of the window that isn't counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvalidPacket {
    /// The packet's UUID.
    pub uuid: Uuid,
}

impl Record for InvalidPacket {
    const NAME: &'static str = "PrioInvalidPacket";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioInvalidPacket","fields":[{"name":"uuid","type":{"type":"string","logicalType":"uuid"}}]}"#;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            uuid: fields.uuid("uuid")?,
        })
    }

    const DECODES: bool = true;

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self { uuid: decoder.uuid()? })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.uuid(self.uuid);
    }
}

impl InvalidPacket {
    /// Reads a list; 0 bytes hold none.
    ///
    /// # Errors
    /// [`FormatError`] of the first that can't be read.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, FormatError> {
        avro::read_all(bytes)
    }

    /// Writes a list; 0 bytes for none, for which no object is put.
    #[must_use]
    pub fn write_all(packets: &[Self]) -> Vec<u8> {
        avro::write_all(packets)
    }
}
