//! Reading a validation batch, in three objects or one.

use std::collections::HashSet;

use mailbox::{Mailbox, MailboxError, MailboxErrorKind};
use uuid::Uuid;

use crate::crypto::TrustedKeys;
use crate::formats::BatchError;
use crate::formats::batch::{MAX_HEADER_BYTES, MAX_SINGLE_OBJECT_BYTES, read_header, read_packets, read_signature};
use crate::formats::names::{BatchId, ValidationPart};
use crate::formats::parameters::BatchParameters;
use crate::formats::record::Message;
use crate::formats::validation::{ValidationHeader, ValidationPacket};
use crate::formats::work::Share;

/// The largest packet object of a validation batch, in bytes: as inline packets may be.
const MAX_PACKETS_BYTES: u64 = MAX_SINGLE_OBJECT_BYTES;

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
    /// There, and not to be believed.
    Bad {
        /// Why.
        detail: String,
    },
}

/// Reads the validation batch that `share` wrote.
///
/// # Errors
/// Those of the mailbox, but what a missing or too long object means is in [`PeerBatch`].
pub async fn read_validation(
    mailbox: &dyn Mailbox,
    batch: &BatchId,
    share: Share,
    keys: &TrustedKeys,
) -> Result<PeerBatch, MailboxError> {
    let key = |part| batch.validation_key(share, part);
    let signature = match mailbox
        .read(&key(ValidationPart::Signature), MAX_SINGLE_OBJECT_BYTES)
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
    let packets = match mailbox.read(&key(ValidationPart::Packets), MAX_PACKETS_BYTES).await {
        Ok(bytes) => bytes,
        // A missing packet object is 0 bytes; the digest decides.
        Err(error) if error.kind() == MailboxErrorKind::NotFound => bytes::Bytes::new(),
        Err(error) => return bad_or(error),
    };
    Ok(believed(Ok(header), &packets))
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
    PeerBatch::Bad {
        detail: error.to_string(),
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
