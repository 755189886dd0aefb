//! The validation batch, a pure function of the record, on its way to the peer; then `delivered`.

use std::io::{self, Write};

use bytes::Bytes;
use mailbox::{MailboxErrorKind, PutOutcome};

use super::meaning::meaning;
use super::{IntakeOutcome, Refusal, reject};
use crate::crypto::BatchSigningKey;
use crate::formats::avro::RecordWriter;
use crate::formats::ledger::{
    BlockedReason, DELIVERED, Delivered, LedgerObject, REVISION, RejectedReason, hex, short_message,
};
use crate::formats::names::{BatchId, ValidationPart};
use crate::formats::parameters::BatchParameters;
use crate::formats::record::{PacketState, RecordError, RecordHead, RecordReader};
use crate::formats::signature::BatchSignature;
use crate::formats::validation::{ValidationHeader, ValidationPacket};
use crate::formats::work::ValidationFormat;
use crate::outgoing::Outgoing;
use crate::own_record::StoredRecord;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::put::{BatchPut, ContentDigest, Meaning, OwnObject, has_same_bytes, look, put_batch, put_or_read};
use crate::stream::{ChunkReader, ChunkWriter, Hashed};

/// The header parameters that a record stands for.
pub(crate) fn parameters_of(head: &RecordHead) -> BatchParameters {
    BatchParameters {
        batch_uuid: head.batch.uuid,
        name: head.name.clone(),
        bins: i32::try_from(head.bins).unwrap_or(i32::MAX),
        epsilon: head.epsilon,
        prime: i64::try_from(head.prime).unwrap_or(i64::MAX),
        number_of_servers: i32::try_from(head.number_of_servers).unwrap_or(i32::MAX),
        hamming_weight: head.hamming_weight,
    }
}

/// What a record says, besides its packets.
pub(super) struct Summary {
    pub head: RecordHead,
    pub packets: u64,
    pub excluded: u64,
    /// SHA-256 of the plain part.
    pub digest: [u8; 32],
}

/// Writes the packets of the validation batch to `target`, where the record is to be signed by one of `signers`. What is there by
/// then is good only if there is no error.
fn write_packets<W: Write>(
    mut record: RecordReader<ChunkReader>,
    signers: &[String],
    target: W,
) -> Result<(Summary, ContentDigest, W), RecordError> {
    let is_ours = signers.contains(&record.head().signer);
    let mut packets = RecordWriter::new(Hashed::new(target));
    // The caller sees for itself what became of the target.
    let unwritten = |error: &dyn std::fmt::Display| RecordError::PassedOn {
        detail: error.to_string(),
    };
    for packet in &mut record {
        let packet = packet?;
        if let PacketState::In { message, .. } = packet.state
            && is_ours
        {
            let message = ValidationPacket::new(packet.uuid, message);
            packets.write(&message).map_err(|error| unwritten(&error))?;
        }
    }
    let end = record.end()?;
    let (target, digest) = packets.finish().map_err(|error| unwritten(&error))?.finish();
    let summary = Summary {
        head: end.head,
        packets: end.packets,
        excluded: end.excluded,
        digest: end.digest,
    };
    Ok((summary, digest, target))
}

/// The header over packets of this digest, and its signature object's bytes. `inline`: the packets of a single object.
fn signed(
    head: &RecordHead,
    packets: &ContentDigest,
    inline: Option<Vec<u8>>,
    key: &BatchSigningKey,
) -> Result<(Bytes, Bytes), WorkError> {
    let header = ValidationHeader {
        parameters: parameters_of(head),
        packet_file_digest: packets.sha256.to_vec(),
    }
    .write();
    let signature = match inline {
        None => BatchSignature::sign(key, &header),
        Some(packets) => BatchSignature::sign_inline(key, header.clone(), packets),
    };
    let signature = signature.map_err(|error| {
        InternalSnafu {
            doing: "signing the validation batch",
            detail: error.to_string(),
        }
        .build()
    })?;
    Ok((header.into(), signature.into_object().into()))
}

/// Brings the validation batch to the peer and says so in the ledger.
pub(super) async fn deliver(
    processor: &Processor,
    batch: &BatchId,
    record: &StoredRecord,
) -> Result<IntakeOutcome, WorkError> {
    let peer = &*processor.mailboxes.peer;
    let key = |part| batch.validation_key(processor.share, part);
    let mut packets = Outgoing::new(peer, key(ValidationPart::Packets), processor.in_memory.object_bytes);
    let signers = processor.signer_ids();
    let write = move |record: RecordReader<ChunkReader>, writer: &mut ChunkWriter| {
        if record.head().validation_format == ValidationFormat::SingleObject {
            // All of it goes into the signature object, which is put by a single call.
            writer.hold();
        }
        write_packets(record, &signers, writer).map(|(summary, digest, _)| (summary, digest))
    };
    let (summary, digest) = match record.visit(processor, Some(&mut packets), write).await {
        Ok(written) => written,
        Err(error) => {
            packets.abort().await;
            return Err(error);
        }
    };
    let head = &summary.head;
    let Some(signing_key) = processor.signer(&head.signer) else {
        let message = format!(
            "the record is to be signed by {:?}, and {:?} is mounted: mount that key until the batch is delivered",
            head.signer,
            processor.signer_ids()
        );
        let reason = BlockedReason::SigningKeyNotMounted;
        return Ok(IntakeOutcome::Blocked {
            reason,
            message: short_message(&message),
            packets: summary.packets,
            excluded: summary.excluded,
        });
    };
    let signature_key = key(ValidationPart::Signature);
    let (parts, signature) = match head.validation_format {
        ValidationFormat::ThreeObjects => {
            let (header, signature) = signed(head, &digest, None, signing_key)?;
            let packets = OwnObject::outgoing(key(ValidationPart::Packets), packets, digest);
            let header = OwnObject::new(key(ValidationPart::Header), header);
            (vec![packets, header], signature)
        }
        ValidationFormat::SingleObject => {
            let packets = packets.into_held();
            let (_, signature) = signed(head, &digest, Some(packets), signing_key)?;
            (Vec::new(), signature)
        }
    };
    let signature = OwnObject::new(signature_key.clone(), signature);
    let put = put_batch(peer, parts, signature, async || {
        meaning(processor, record, &summary).await
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
                signature_digest: None,
                header_digest: Some(head.header_digest),
                packet_digest: Some(head.packet_digest),
            };
            return reject(processor, batch, refusal).await;
        }
    };
    let store_time_millis = match look(peer, &signature_key).await {
        Ok(meta) => meta.map(|meta| meta.modified.as_millisecond()),
        Err(error) if error.kind() == MailboxErrorKind::Denied => None,
        Err(error) => return Err(error.into()),
    };
    let delivered = Delivered {
        revision: REVISION,
        record_digest: hex(&summary.digest),
        signature_object: signature_key.as_str().to_owned(),
        store_time_millis,
        put,
    };
    let key = batch.ledger_key(DELIVERED);
    let bytes = delivered.to_bytes()?.into();
    let (bytes, outcome) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Delivered::MAX_BYTES).await?;
    let Delivered { put, .. } = Delivered::from_bytes(&key, &bytes)?;
    Ok(IntakeOutcome::Validated {
        put,
        packets: summary.packets,
        excluded: summary.excluded,
        already: outcome == PutOutcome::Exists,
    })
}

/// Whether the signature that the peer's mailbox shows under our name is over the record's validation batch, where no
/// `delivered` says so: a worker stopped between the two, or a predecessor put other messages. What can't be told is not
/// ours.
///
/// # Errors
/// [`WorkError`]: those of the mailboxes, and a record that can't be read or isn't ours.
pub(crate) async fn is_at_peer(processor: &Processor, batch: &BatchId) -> Result<bool, WorkError> {
    let Some(record) = StoredRecord::open(processor, batch).await? else {
        return Ok(false);
    };
    let signers = processor.signer_ids();
    let write = move |record: RecordReader<ChunkReader>, _: &mut ChunkWriter| {
        // Of three objects the header has the packets' digest alone.
        if record.head().validation_format == ValidationFormat::ThreeObjects {
            return write_packets(record, &signers, io::sink()).map(|(summary, digest, _)| (summary, digest, None));
        }
        write_packets(record, &signers, Vec::new()).map(|(summary, digest, packets)| (summary, digest, Some(packets)))
    };
    let (summary, digest, inline) = record.visit(processor, None, write).await?;
    let head = &summary.head;
    if let Some(signing_key) = processor.signer(&head.signer) {
        let (_, signature) = signed(head, &digest, inline, signing_key)?;
        let key = batch.validation_key(processor.share, ValidationPart::Signature);
        if has_same_bytes(&*processor.mailboxes.peer, &key, &signature).await? {
            return Ok(true);
        }
    }
    Ok(meaning(processor, &record, &summary).await? == Meaning::Same)
}
