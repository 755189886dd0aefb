//! Reading one ingestion batch in the order of `docs/formats.md` §2: signature, header, key, verification, packets.

use std::sync::Arc;

use mailbox::ObjectKey;

use super::Refusal;
use super::accumulate::{Accumulated, accumulate};
use super::stream::{ChunkReader, Passed, read_through};
use crate::crypto::{SignatureError, sha256};
use crate::formats::batch::{BatchHeader, MAX_HEADER_BYTES, read_header, read_signature};
use crate::formats::ingestion::{DataSharePacket, IngestionHeader};
use crate::formats::ledger::{BlockedReason, RejectedReason, short_message};
use crate::formats::names::{BatchId, IngestionPart};
use crate::formats::record::RecordHead;
use crate::formats::{BatchError, FormatError};
use crate::processor::{InternalSnafu, Processor, WorkError};
use mailbox::{MailboxError, MailboxErrorKind};

/// What reading a batch came to.
pub enum Reading {
    /// Read whole; every packet is decided.
    Taken(Box<Taken>),
    /// Bad for good, as far as one reading tells.
    Refused(Refusal),
    /// Not now.
    Blocked {
        /// Why.
        reason: BlockedReason,
        /// What a person should know.
        message: String,
    },
}

/// A batch that was read.
pub struct Taken {
    /// What its record says of it.
    pub head: RecordHead,
    /// What was decided about its packets.
    pub accumulated: Accumulated,
}

/// Reads, verifies, decrypts and decides one batch.
pub async fn read(processor: &Processor, batch: &BatchId) -> Result<Reading, WorkError> {
    let mailbox = &*processor.mailboxes.ingestion;
    let signature = match mailbox
        .read(&batch.ingestion_key(IngestionPart::Signature), MAX_HEADER_BYTES)
        .await
    {
        Ok(bytes) => bytes,
        Err(error) => return unread("signature", error),
    };
    let header_bytes = match mailbox
        .read(&batch.ingestion_key(IngestionPart::Header), MAX_HEADER_BYTES)
        .await
    {
        Ok(bytes) => bytes,
        Err(error) => return unread("header", error),
    };
    let header_digest = sha256(&header_bytes);
    let refused = |reason, message: String, packet_digest| {
        let message = short_message(&message);
        Ok(Reading::Refused(Refusal {
            reason,
            message,
            header_digest: Some(header_digest),
            packet_digest,
        }))
    };
    let header: IngestionHeader = match read_signature(&signature)
        .and_then(|signature| read_header(&signature, &header_bytes, &processor.ingestor_keys))
    {
        Ok(header) => header,
        Err(error @ BatchError::MalformedHeader { .. }) => {
            return refused(RejectedReason::HeaderMalformed, error.to_string(), None);
        }
        Err(error) => {
            let unknown = matches!(
                &error,
                BatchError::Signature {
                    source: SignatureError::UnknownKey { .. }
                }
            );
            let reason = if unknown {
                BlockedReason::SignerUnknown
            } else {
                BlockedReason::SignatureInvalid
            };
            return Ok(Reading::Blocked {
                reason,
                message: short_message(&error.to_string()),
            });
        }
    };
    if let Some(message) = mismatch(&header, batch) {
        return refused(RejectedReason::HeaderMismatch, message, None);
    }
    let bins = match header.parameters.check() {
        Ok(bins) => bins,
        Err(error) => return refused(RejectedReason::ParametersUnsupported, error.to_string(), None),
    };

    let (passed, accumulated) = read_packets(processor, batch, move |source, keys, share| {
        accumulate(DataSharePacket::stream(source), bins, share, &keys)
    })
    .await?;
    let actual = header.packet_file_digest();
    if actual != passed.digest {
        if !passed.there {
            let message = "the packet object isn't there, and the header says that there are packets".to_owned();
            return Ok(Reading::Blocked {
                reason: BlockedReason::ObjectMissing,
                message,
            });
        }
        let message = "the packet object isn't the one whose digest the signed header names".to_owned();
        return refused(RejectedReason::DigestMismatch, message, Some(passed.digest));
    }
    let accumulated = match accumulated {
        Ok(accumulated) => accumulated,
        Err(error) if error.is_retryable() => {
            return InternalSnafu {
                doing: "reading packets",
                detail: error.to_string(),
            }
            .fail();
        }
        Err(error) => return refused(RejectedReason::PacketsMalformed, error.to_string(), Some(passed.digest)),
    };
    if accumulated.packets.is_empty() {
        return refused(
            RejectedReason::Empty,
            "the batch holds no packet".to_owned(),
            Some(passed.digest),
        );
    }
    let head = head(processor, batch, &header, bins, header_digest, passed.digest);
    Ok(Reading::Taken(Box::new(Taken { head, accumulated })))
}

/// Reads a batch's packet object through `consume`, in a thread of its own, and hashes it whole.
pub(crate) async fn read_packets<T: Send + 'static>(
    processor: &Processor,
    batch: &BatchId,
    consume: impl FnOnce(
        ChunkReader,
        Arc<[crate::processor::MountedPacketKey]>,
        crate::formats::work::Share,
    ) -> Result<T, FormatError>
    + Send
    + 'static,
) -> Result<(Passed, Result<T, FormatError>), WorkError> {
    let key: ObjectKey = batch.ingestion_key(IngestionPart::Packets);
    let keys = Arc::clone(&processor.packet_keys);
    let share = processor.share;
    let (passed, result) = read_through(&*processor.mailboxes.ingestion, &key, move |source| {
        consume(source, keys, share)
    })
    .await?;
    match result {
        Some(result) => Ok((passed, result)),
        None => InternalSnafu {
            doing: "reading packets",
            detail: format!("the reader of {key} panicked"),
        }
        .fail(),
    }
}

fn unread(what: &str, error: MailboxError) -> Result<Reading, WorkError> {
    let (reason, message) = match error.kind() {
        MailboxErrorKind::NotFound => (
            BlockedReason::ObjectMissing,
            format!("the {what} object isn't there: its writer may not be done"),
        ),
        // What can't be read whole can't be verified.
        MailboxErrorKind::TooLarge => (BlockedReason::SignatureInvalid, format!("the {what} object: {error}")),
        _ => return Err(error.into()),
    };
    Ok(Reading::Blocked {
        reason,
        message: short_message(&message),
    })
}

/// In what the header speaks of another batch than its path.
fn mismatch(header: &IngestionHeader, batch: &BatchId) -> Option<String> {
    let parameters = &header.parameters;
    if parameters.batch_uuid != batch.uuid {
        return Some(format!("the header is of batch {}", parameters.batch_uuid));
    }
    (parameters.name != batch.aggregation.as_str())
        .then(|| format!("the header is of aggregation {:?}", parameters.name))
}

fn head(
    processor: &Processor,
    batch: &BatchId,
    header: &IngestionHeader,
    bins: u32,
    header_digest: [u8; 32],
    packet_digest: [u8; 32],
) -> RecordHead {
    let parameters = &header.parameters;
    RecordHead {
        instance: processor.instance.as_str().to_owned(),
        share: processor.share,
        batch: batch.clone(),
        name: parameters.name.clone(),
        bins,
        epsilon: parameters.epsilon,
        // Both are checked: the prime is p, the servers are two.
        prime: parameters.prime.unsigned_abs(),
        number_of_servers: parameters.number_of_servers.unsigned_abs(),
        hamming_weight: parameters.hamming_weight,
        batch_start_time: header.batch_start_time,
        batch_end_time: header.batch_end_time,
        header_digest,
        packet_digest,
        validation_format: processor.validation_format,
        signer: processor.signing_key.id().to_owned(),
    }
}
