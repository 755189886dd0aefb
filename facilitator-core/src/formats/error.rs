//! What can be wrong with an object of the protocol.

use std::io;

use snafu::Snafu;

use crate::crypto::SignatureError;

/// An object that isn't what its format says, named by the record that was expected in it.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum FormatError {
    /// Not an Avro object container, or a damaged one.
    #[snafu(display("{record}: this is no Avro object container: {detail}; ask its writer for the object again"))]
    Container {
        /// The record expected.
        record: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A codec that we don't read.
    #[snafu(display("{record}: codec {codec:?} isn't read here; write it with null, deflate or snappy"))]
    Codec {
        /// The record expected.
        record: &'static str,
        /// The codec that the container names.
        codec: String,
    },
    /// The writer's schema can't be read.
    #[snafu(display("{record}: the schema in the container can't be used: {detail}"))]
    Schema {
        /// The record expected.
        record: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A block or a record that can't be decoded.
    #[snafu(display("{record}: record {index} can't be decoded: {detail}"))]
    Record {
        /// The record expected.
        record: &'static str,
        /// Its place in the object, from 0.
        index: u64,
        /// What is wrong.
        detail: String,
    },
    /// A field without which the record means nothing.
    #[snafu(display("{record}: the field {field:?} is missing"))]
    MissingField {
        /// The record expected.
        record: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field of another type, or with a value that its type doesn't allow.
    #[snafu(display("{record}: the field {field:?} holds no {expected}"))]
    WrongType {
        /// The record expected.
        record: &'static str,
        /// The field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// More than the format allows.
    #[snafu(display("{record}: {what} is beyond the bound of {limit}"))]
    TooLarge {
        /// The record expected.
        record: &'static str,
        /// What is too large.
        what: &'static str,
        /// The bound, in bytes; of records, their number.
        limit: u64,
    },
    /// The object must hold one record and holds none.
    #[snafu(display("{record}: the object holds no record, where exactly one is expected"))]
    NoRecord {
        /// The record expected.
        record: &'static str,
    },
    /// The object must hold one record and holds more.
    #[snafu(display("{record}: the object holds more than the one record that is expected"))]
    ExtraRecord {
        /// The record expected.
        record: &'static str,
    },
    /// The bytes could not be had.
    #[snafu(display("{record}: reading failed: {source}"))]
    Read {
        /// The record expected.
        record: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The bytes could not be written.
    #[snafu(display("{record}: writing failed: {source}"))]
    Write {
        /// The record written.
        record: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl FormatError {
    /// Whether the same object may read well later: only where the bytes could not be had.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. })
    }
}

/// Why a batch of partner objects is not believed; each step of the reading order has its own.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum BatchError {
    /// The signature object can't be read.
    #[snafu(display("the signature object is malformed: {source}"))]
    MalformedSignature {
        /// What is wrong.
        source: FormatError,
    },
    /// The key is unknown or the signature is not of these header bytes.
    #[snafu(transparent)]
    Signature {
        /// Which of the two.
        source: SignatureError,
    },
    /// The header verifies and can't be read.
    #[snafu(display("the header is malformed: {source}"))]
    MalformedHeader {
        /// What is wrong.
        source: FormatError,
    },
    /// The packets are not those that the header speaks of.
    #[snafu(display("the packet object's SHA-256 is {actual}, the signed header says {expected}"))]
    DigestMismatch {
        /// From the header, lower-case hex.
        expected: String,
        /// Of the bytes, lower-case hex.
        actual: String,
    },
    /// The packets are those of the header and can't be read.
    #[snafu(display("the packet object is malformed: {source}"))]
    MalformedPackets {
        /// What is wrong.
        source: FormatError,
    },
}

impl BatchError {
    /// Whether reading again may end otherwise: only where bytes could not be had.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::MalformedSignature { source }
            | Self::MalformedHeader { source }
            | Self::MalformedPackets { source } => source.is_retryable(),
            Self::Signature { .. } | Self::DigestMismatch { .. } => false,
        }
    }
}
