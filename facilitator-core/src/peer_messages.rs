//! Reading a validation batch, in three objects or one.

use std::collections::HashSet;

use mailbox::{Mailbox, MailboxError, MailboxErrorKind};
use uuid::Uuid;

use crate::crypto::{SignatureError, TrustedKeys};
use crate::formats::BatchError;
use crate::formats::batch::{MAX_HEADER_BYTES, read_header, read_packets, read_signature};
use crate::formats::names::{BatchId, ValidationPart};
use crate::formats::parameters::BatchParameters;
use crate::formats::record::Message;
use crate::formats::validation::{ValidationHeader, ValidationPacket};
use crate::formats::work::Share;
use crate::processor::Processor;

/// What a validation packet may take in its writer's encoding, in bytes; ours take 56 at most.
const MAX_PACKET_BYTES: u64 = 256;

/// The largest object of the validation batch of so many packets, in bytes.
fn max_object_bytes(packets: usize) -> u64 {
    MAX_HEADER_BYTES + MAX_PACKET_BYTES * packets as u64
}

/// What reading a validation batch came to.
#[derive(Debug)]
pub enum PeerBatch {
    /// Signed by a trusted key and whole.
    Read {
        /// What its header says.
        parameters: BatchParameters,
        /// The first message of each UUID, in file order; one whose elements are outside u32 is none.
        messages: Vec<(Uuid, Message)>,
    },
    /// No signature object.
    Absent,
    /// Signed under a key that isn't among the trusted ones: theirs may be new to us.
    SignerUnknown {
        /// What a person should know.
        detail: String,
    },
    /// There, and not to be believed.
    Bad {
        /// Why.
        detail: String,
    },
}

/// Reads the validation batch that `share` wrote. `packets`: how many the ingestion batch has; there can't be more messages.
///
/// # Errors
/// Those of the mailbox, but what a missing or too long object means is in [`PeerBatch`].
pub async fn read_validation(
    mailbox: &dyn Mailbox,
    batch: &BatchId,
    share: Share,
    packets: usize,
    keys: &TrustedKeys,
) -> Result<PeerBatch, MailboxError> {
    let key = |part| batch.validation_key(share, part);
    let signature = match mailbox
        .read(&key(ValidationPart::Signature), max_object_bytes(packets))
        .await
    {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == MailboxErrorKind::NotFound => return Ok(PeerBatch::Absent),
        Err(error) => return bad_or(error),
    };
    let signature = match read_signature(&signature) {
        Ok(signature) => signature,
        Err(error) => return Ok(bad(&error)),
    };
    if let Some((header, packets)) = signature.inline() {
        let header = read_header::<ValidationHeader>(&signature, header, keys);
        return Ok(believed(header, packets));
    }
    let header = match mailbox.read(&key(ValidationPart::Header), MAX_HEADER_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return bad_or(error),
    };
    let header = match read_header::<ValidationHeader>(&signature, &header, keys) {
        Ok(header) => header,
        Err(error) => return Ok(bad(&error)),
    };
    let packets = match mailbox
        .read(&key(ValidationPart::Packets), max_object_bytes(packets))
        .await
    {
        Ok(bytes) => bytes,
        // A missing packet object is 0 bytes; the digest decides.
        Err(error) if error.kind() == MailboxErrorKind::NotFound => bytes::Bytes::new(),
        Err(error) => return bad_or(error),
    };
    Ok(believed(Ok(header), &packets))
}

/// Reads the peer's validation batch and takes from it what is `wanted`; once more after the processor's pause where that
/// isn't there: a legacy peer may be rewriting its objects (ledger rule 12).
///
/// # Errors
/// As [`read_validation`].
pub(crate) async fn read_peers<T>(
    processor: &Processor,
    batch: &BatchId,
    packets: usize,
    wanted: impl Fn(&PeerBatch) -> Option<T>,
) -> Result<Result<T, PeerBatch>, MailboxError> {
    let mailbox = &*processor.mailboxes.peer_validation;
    let read = async || read_validation(mailbox, batch, processor.share.peer(), packets, &processor.peer_keys).await;
    let first = read().await?;
    if let Some(wanted) = wanted(&first) {
        return Ok(Ok(wanted));
    }
    tracing::info!(batch = %batch.path(), "reading the peer's validation batch again before deciding");
    drop(first);
    if !processor.reread_pause.is_zero() {
        tokio::time::sleep(processor.reread_pause).await;
    }
    let second = read().await?;
    Ok(wanted(&second).ok_or(second))
}

fn believed(header: Result<ValidationHeader, BatchError>, packets: &[u8]) -> PeerBatch {
    let read = header.and_then(|header| {
        let packets = read_packets::<ValidationPacket>(&header, packets)?;
        Ok((header, packets))
    });
    match read {
        Ok((header, packets)) => PeerBatch::Read {
            parameters: header.parameters,
            messages: first_of_each(&packets),
        },
        Err(error) => bad(&error),
    }
}

/// The first message of each UUID. Where its elements are outside u32, the packet has no message, and a later one of the
/// same UUID doesn't take its place.
fn first_of_each(packets: &[ValidationPacket]) -> Vec<(Uuid, Message)> {
    let mut seen = HashSet::new();
    packets
        .iter()
        .filter(|packet| seen.insert(packet.uuid))
        .filter_map(|packet| Some((packet.uuid, packet.message()?)))
        .collect()
}

fn bad(error: &BatchError) -> PeerBatch {
    let detail = error.to_string();
    match error {
        BatchError::Signature {
            source: SignatureError::UnknownKey { .. },
        } => PeerBatch::SignerUnknown { detail },
        _ => PeerBatch::Bad { detail },
    }
}

fn bad_or(error: MailboxError) -> Result<PeerBatch, MailboxError> {
    match error.kind() {
        MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge => Ok(PeerBatch::Bad {
            detail: error.to_string(),
        }),
        _ => Err(error),
    }
}
