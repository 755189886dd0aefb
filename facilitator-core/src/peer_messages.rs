//! The head of a validation batch, in three objects or one: what is signed. Its packets are read by whoever needs them.

use bytes::Bytes;
use mailbox::{Mailbox, MailboxError, MailboxErrorKind};

use crate::crypto::{SignatureError, TrustedKeys, sha256};
use crate::formats::BatchError;
use crate::formats::batch::{MAX_HEADER_BYTES, check_digest, read_header, read_signature};
use crate::formats::names::{BatchId, ValidationPart};
use crate::formats::validation::ValidationHeader;
use crate::formats::work::Share;

/// What a validation packet may take in its writer's encoding, in bytes. A message takes 52 at most, ours and the original's:
/// the UUID as text of 36, three numbers below 2^32 of 5, and a length. What blocks have around their packets comes on top.
const MAX_PACKET_BYTES: u64 = 256;
/// As [`MAX_PACKET_BYTES`], of packets in the signature object, which are held in memory whole: enough for a block around each.
const MAX_INLINE_PACKET_BYTES: u64 = 96;

/// The largest object of the validation batch of so many packets, in bytes.
pub(crate) fn max_object_bytes(packets: u64) -> u64 {
    MAX_HEADER_BYTES + MAX_PACKET_BYTES * packets
}

/// The largest signature object of the validation batch of so many packets, in bytes.
fn max_signature_bytes(packets: u64) -> u64 {
    MAX_HEADER_BYTES + MAX_INLINE_PACKET_BYTES * packets
}

/// Why there are no messages of a validation batch.
#[derive(Debug)]
pub(crate) enum PeerBatch {
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

/// The head of a validation batch: signed by a trusted key.
pub(crate) struct PeerHead {
    /// Its header.
    pub header: ValidationHeader,
    /// Where its packets are.
    pub packets: PeerPackets,
}

/// Where the packets of a validation batch are.
pub(crate) enum PeerPackets {
    /// In the signature object; these are the header's.
    Inline(Bytes),
    /// An object of their own, whose digest isn't compared yet; one that isn't there is 0 bytes.
    Object,
}

/// What reading a head came to.
pub(crate) enum Found {
    There(PeerHead),
    Not(PeerBatch),
}

/// Reads the head of the validation batch that `share` wrote. `packets`: how many the ingestion batch has at most; there can't be
/// more messages.
///
/// # Errors
/// Those of the mailbox, but what a missing or too long object means is in [`PeerBatch`].
pub(crate) async fn read_head(
    mailbox: &dyn Mailbox,
    batch: &BatchId,
    share: Share,
    packets: u64,
    keys: &TrustedKeys,
) -> Result<Found, MailboxError> {
    let key = |part| batch.validation_key(share, part);
    let bound = max_signature_bytes(packets);
    let signature = match mailbox.read(&key(ValidationPart::Signature), bound).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == MailboxErrorKind::NotFound => return Ok(Found::Not(PeerBatch::Absent)),
        Err(error) => return bad_or(error).map(Found::Not),
    };
    let mut signature = match read_signature(&signature) {
        Ok(signature) => signature,
        Err(error) => return Ok(Found::Not(bad(&error))),
    };
    if let Some((header, packets)) = signature.inline() {
        let head = read_header::<ValidationHeader>(&signature, header, keys).and_then(|header| {
            check_digest(&header, &sha256(packets))?;
            Ok(header)
        });
        return Ok(match head {
            Ok(header) => Found::There(PeerHead {
                header,
                packets: PeerPackets::Inline(signature.packets.take().unwrap_or_default().into()),
            }),
            Err(error) => Found::Not(bad(&error)),
        });
    }
    let header = match mailbox.read(&key(ValidationPart::Header), MAX_HEADER_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return bad_or(error).map(Found::Not),
    };
    Ok(match read_header::<ValidationHeader>(&signature, &header, keys) {
        Ok(header) => Found::There(PeerHead {
            header,
            packets: PeerPackets::Object,
        }),
        Err(error) => Found::Not(bad(&error)),
    })
}

pub(crate) fn bad(error: &BatchError) -> PeerBatch {
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::formats::validation::ValidationPacket;

    #[test]
    fn inline_packets_have_room_for_the_longest_messages_in_blocks_of_their_own_and_not_for_twice_as_much() {
        for packets in [1, 999, 1_000, 1_001, 200_000] {
            let longest = |n: u64| ValidationPacket {
                uuid: Uuid::from_u64_pair(n, u64::MAX),
                f_r: u32::MAX.into(),
                g_r: u32::MAX.into(),
                h_r: u32::MAX.into(),
            };
            let all: Vec<_> = (0..packets).map(longest).collect();
            let bytes = ValidationPacket::write_all(&all).len() as u64;
            let bound = max_signature_bytes(packets);
            // Around each a block's count, length and marker.
            assert!(bytes + packets * 19 < bound, "{packets}: {bytes} of {bound}");
            // A header, a signature and their names are a few hundred bytes.
            assert!(bytes + (1 << 16) < bound, "{packets}: {bytes} of {bound}");
            assert!(bound < MAX_HEADER_BYTES + bytes * 2, "{packets}: {bytes} of {bound}");
        }
    }
}
