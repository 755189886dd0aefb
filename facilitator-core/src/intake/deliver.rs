//! The validation batch, a pure function of the record, on its way to the peer; then `delivered`.

use bytes::Bytes;
use mailbox::{Mailbox, MailboxErrorKind, PutOutcome};

use super::{IntakeOutcome, Refusal, reject};
use crate::crypto::{BatchSigningKey, sha256};
use crate::formats::ledger::{
    BlockedReason, DELIVERED, Delivered, LedgerObject, REVISION, RejectedReason, hex, short_message,
};
use crate::formats::names::{BatchId, ValidationPart};
use crate::formats::parameters::BatchParameters;
use crate::formats::plan::messages_digest;
use crate::formats::record::{Record, RecordPlain};
use crate::formats::signature::BatchSignature;
use crate::formats::validation::{ValidationHeader, ValidationPacket};
use crate::formats::work::ValidationFormat;
use crate::peer_messages::{PeerBatch, read_validation};
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::put::{BatchPut, Meaning, OwnObject, has_same_bytes, look, put_batch, put_or_read};

/// The objects of our validation batch: what comes before the signature, and the signature.
pub struct ValidationObjects {
    /// Packets and header, where they are objects of their own.
    pub parts: Vec<OwnObject>,
    /// The signature, which commits.
    pub signature: OwnObject,
}

/// The header parameters that a record stands for.
pub(crate) fn parameters_of(plain: &RecordPlain) -> BatchParameters {
    BatchParameters {
        batch_uuid: plain.batch.uuid,
        name: plain.name.clone(),
        bins: i32::try_from(plain.bins).unwrap_or(i32::MAX),
        epsilon: plain.epsilon,
        prime: i64::try_from(plain.prime).unwrap_or(i64::MAX),
        number_of_servers: i32::try_from(plain.number_of_servers).unwrap_or(i32::MAX),
        hamming_weight: plain.hamming_weight,
    }
}

/// Makes the validation batch of a record.
///
/// # Errors
/// [`WorkError::Internal`] where the signature doesn't verify.
pub fn validation_objects(record: &RecordPlain, key: &BatchSigningKey) -> Result<ValidationObjects, WorkError> {
    let packets: Vec<_> = record
        .included()
        .map(|(_, uuid, _, message)| ValidationPacket::new(uuid, message))
        .collect();
    let packets = ValidationPacket::write_all(&packets);
    let header = ValidationHeader {
        parameters: parameters_of(record),
        packet_file_digest: sha256(&packets).to_vec(),
    }
    .write();
    let signed = |result: Result<BatchSignature, crate::crypto::SigningError>| {
        result.map_err(|error| {
            InternalSnafu {
                doing: "signing the validation batch",
                detail: error.to_string(),
            }
            .build()
        })
    };
    let object = |part, bytes: Vec<u8>| OwnObject {
        key: record.batch.validation_key(record.share, part),
        bytes: Bytes::from(bytes),
    };
    Ok(match record.validation_format {
        ValidationFormat::ThreeObjects => {
            let signature = signed(BatchSignature::sign(key, &header))?.write();
            ValidationObjects {
                parts: vec![
                    object(ValidationPart::Packets, packets),
                    object(ValidationPart::Header, header),
                ],
                signature: object(ValidationPart::Signature, signature),
            }
        }
        ValidationFormat::SingleObject => {
            let signature = signed(BatchSignature::sign_inline(key, header, packets))?.write();
            ValidationObjects {
                parts: Vec::new(),
                signature: object(ValidationPart::Signature, signature),
            }
        }
    })
}

/// Brings the validation batch to the peer and says so in the ledger.
pub(super) async fn deliver(
    processor: &Processor,
    batch: &BatchId,
    record: &Record,
) -> Result<IntakeOutcome, WorkError> {
    let plain = &record.plain;
    let (packets, excluded) = (plain.packets.len() as u64, plain.excluded());
    let Some(signing_key) = processor.signer(&plain.signer) else {
        let message = format!(
            "the record is to be signed by {:?}, and {} is mounted: mount that key until the batch is delivered",
            plain.signer,
            processor.signer_ids()
        );
        let reason = BlockedReason::SigningKeyNotMounted;
        return Ok(IntakeOutcome::Blocked {
            reason,
            message: short_message(&message),
            packets,
            excluded,
        });
    };
    let objects = validation_objects(plain, signing_key)?;
    let peer = &*processor.mailboxes.peer;
    let put = put_batch(peer, &objects.parts, &objects.signature, async || {
        meaning(processor, peer, plain).await
    })
    .await?;
    let put = match put {
        BatchPut::There(put) => put,
        BatchPut::Different(object) => {
            let refusal = Refusal {
                reason: RejectedReason::PeerHasOther,
                message: format!(
                    "the peer's mailbox holds other messages of ours in {object}; nothing was overwritten"
                ),
                header_digest: Some(plain.header_digest),
                packet_digest: Some(plain.packet_digest),
            };
            return reject(processor, batch, refusal).await;
        }
    };
    let store_time_millis = match look(peer, &objects.signature.key).await {
        Ok(meta) => meta.map(|meta| meta.modified.as_millisecond()),
        Err(error) if error.kind() == MailboxErrorKind::Denied => None,
        Err(error) => return Err(error.into()),
    };
    let delivered = Delivered {
        revision: REVISION,
        record_digest: hex(&plain.digest()),
        signature_object: objects.signature.key.as_str().to_owned(),
        store_time_millis,
        put,
    };
    let key = batch.ledger_key(DELIVERED);
    let bytes = delivered.to_bytes()?.into();
    let (bytes, outcome) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Delivered::MAX_BYTES).await?;
    let Delivered { put, .. } = Delivered::from_bytes(&key, &bytes)?;
    Ok(IntakeOutcome::Validated {
        put,
        packets,
        excluded,
        already: outcome == PutOutcome::Exists,
    })
}

/// Whether the signature that the peer's mailbox shows under our name is over the record's validation batch, where no
/// `delivered` says so: a worker stopped between the two, or a predecessor put other messages. What can't be told is not
/// ours.
///
/// # Errors
/// As [`validation_objects`], and those of the mailbox.
pub(crate) async fn is_at_peer(processor: &Processor, plain: &RecordPlain) -> Result<bool, WorkError> {
    let peer = &*processor.mailboxes.peer;
    if let Some(signing_key) = processor.signer(&plain.signer) {
        let objects = validation_objects(plain, signing_key)?;
        if has_same_bytes(peer, &objects.signature).await? {
            return Ok(true);
        }
    }
    Ok(meaning(processor, peer, plain).await? == Meaning::Same)
}

/// Whether what is there under our names is signed by us and says what the record says.
async fn meaning(
    processor: &Processor,
    peer: &dyn Mailbox,
    plain: &RecordPlain,
) -> Result<Meaning, mailbox::MailboxError> {
    let there = match read_validation(
        peer,
        &plain.batch,
        plain.share,
        plain.packets.len(),
        &processor.own_keys(),
    )
    .await
    {
        Ok(there) => there,
        Err(error) if error.kind() == MailboxErrorKind::Denied => return Ok(Meaning::Unread),
        Err(error) => return Err(error),
    };
    let ours = messages_digest(plain.included().map(|(_, uuid, _, message)| (uuid, message)));
    Ok(match there {
        PeerBatch::Read { parameters, messages } => {
            let same_batch = parameters.difference(&parameters_of(plain)).is_none();
            if same_batch && messages_digest(messages) == ours {
                Meaning::Same
            } else {
                Meaning::Other
            }
        }
        PeerBatch::Absent | PeerBatch::SignerUnknown { .. } | PeerBatch::Bad { .. } => Meaning::Other,
    })
}
