//! The order in which a partner's batch is believed: signature, key, header bytes, header, digest, packets.

use super::avro;
use super::avro::Record;
use super::error::{
    BatchError, DigestMismatchSnafu, MalformedHeaderSnafu, MalformedPacketsSnafu, MalformedSignatureSnafu,
};
use super::ingestion::IngestionHeader;
use super::signature::BatchSignature;
use super::sum_part::SumPart;
use super::validation::ValidationHeader;
use crate::crypto::{TrustedKeys, sha256};
use snafu::{ResultExt, ensure};

/// The largest header object, and signature object of three, in bytes.
pub const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The largest signature object of a single-object validation, in bytes.
pub const MAX_SINGLE_OBJECT_BYTES: u64 = 1 << 30;

/// A header: what a signature is over.
pub trait BatchHeader: Record {
    /// SHA-256 of the packet object's bytes, as the header says.
    fn packet_file_digest(&self) -> &[u8];
}

impl BatchHeader for IngestionHeader {
    fn packet_file_digest(&self) -> &[u8] {
        &self.packet_file_digest
    }
}

impl BatchHeader for ValidationHeader {
    fn packet_file_digest(&self) -> &[u8] {
        &self.packet_file_digest
    }
}

impl BatchHeader for SumPart {
    fn packet_file_digest(&self) -> &[u8] {
        &self.packet_file_digest
    }
}

/// Reads a signature object.
///
/// # Errors
/// [`BatchError::MalformedSignature`].
pub fn read_signature(bytes: &[u8]) -> Result<BatchSignature, BatchError> {
    BatchSignature::read(bytes).context(MalformedSignatureSnafu)
}

/// Verifies the signature over a header's bytes by the key that it names, then reads the header.
///
/// # Errors
/// [`BatchError::Signature`] before anything is parsed, [`BatchError::MalformedHeader`] after.
pub fn read_header<H: BatchHeader>(
    signature: &BatchSignature,
    header: &[u8],
    keys: &TrustedKeys,
) -> Result<H, BatchError> {
    keys.verify(&signature.key_identifier, header, &signature.batch_header_signature)?;
    avro::read_one(header).context(MalformedHeaderSnafu)
}

/// Compares the digest of the packet bytes (of none at all where the object is missing) with the header's.
///
/// # Errors
/// [`BatchError::DigestMismatch`].
pub fn check_digest(header: &impl BatchHeader, packets_digest: &[u8; 32]) -> Result<(), BatchError> {
    let expected = header.packet_file_digest();
    ensure!(
        expected == packets_digest,
        DigestMismatchSnafu {
            expected: hex(expected),
            actual: hex(packets_digest)
        }
    );
    Ok(())
}

/// Checks the digest of packet bytes in memory, then reads them.
///
/// # Errors
/// [`BatchError::DigestMismatch`], [`BatchError::MalformedPackets`].
pub fn read_packets<P: Record>(header: &impl BatchHeader, packets: &[u8]) -> Result<Vec<P>, BatchError> {
    check_digest(header, &sha256(packets))?;
    avro::read_all(packets).context(MalformedPacketsSnafu)
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // A String takes everything.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
