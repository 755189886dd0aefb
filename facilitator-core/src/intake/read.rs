//! Reading one ingestion batch in the order of `docs/formats.md` §2: signature, header, key, verification, packets.

use std::sync::Arc;

use mailbox::{MailboxError, MailboxErrorKind, ObjectKey};

use super::Refusal;
use super::accumulate::{Known, Pass, accumulate};
use super::draft::{Draft, Witness};
use crate::crypto::{SignatureError, sha256};
use crate::formats::batch::{BatchHeader, MAX_HEADER_BYTES, read_header, read_signature};
use crate::formats::ingestion::{DataSharePacket, IngestionHeader};
use crate::formats::ledger::{BlockedReason, RECORDS, RejectedReason, short_message};
use crate::formats::names::{BatchId, IngestionPart};
use crate::formats::record::{RecordEncoder, RecordHead};
use crate::formats::{BatchError, FormatError};
use crate::outgoing::Outgoing;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::stream::{ChunkWriter, Passed, Source, transform};

/// What reading a batch came to.
pub enum Reading<'a, W> {
    /// Read whole; every packet is decided.
    Taken(Box<Draft<'a, W>>),
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

/// One pass: reads, verifies, decrypts and decides a batch, and writes its record up to the last packet, uncommitted.
/// `witness` is told of the packets that are in.
pub async fn read<'a, W: Witness>(
    processor: &'a Processor,
    batch: &BatchId,
    known: &Arc<Known>,
    witness: W,
) -> Result<Reading<'a, W>, WorkError> {
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
    let (signature_digest, header_digest) = (sha256(&signature), sha256(&header_bytes));
    let refused = |reason, message: String, packet_digest| {
        let message = short_message(&message);
        Ok(Reading::Refused(Refusal {
            reason,
            message,
            signature_digest: Some(signature_digest),
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

    let head = head(processor, batch, &header, bins, header_digest);
    let key = batch.ledger_key(RECORDS);
    let mut record = Outgoing::new(&*processor.mailboxes.ledger, key, processor.in_memory.object_bytes);
    let reading = match decide_packets(processor, &head, known, witness, &mut record).await {
        Err(error) => Err(error),
        Ok((passed, _)) if header.packet_file_digest() != passed.digest => {
            if passed.there {
                let message = "the packet object isn't the one whose digest the signed header names".to_owned();
                refused(RejectedReason::DigestMismatch, message, Some(passed.digest))
            } else {
                let message = "the packet object isn't there, and the header says that there are packets".to_owned();
                let reason = BlockedReason::ObjectMissing;
                Ok(Reading::Blocked { reason, message })
            }
        }
        Ok((_, Ok((accumulated, encoder, witness)))) if accumulated.packets > 0 => {
            return Ok(Reading::Taken(Box::new(Draft {
                head,
                accumulated,
                witness,
                encoder,
                record,
            })));
        }
        Ok((passed, Ok(_))) => {
            let message = "the batch holds no packet".to_owned();
            refused(RejectedReason::Empty, message, Some(passed.digest))
        }
        Ok((_, Err(error))) if error.is_retryable() => InternalSnafu {
            doing: "reading packets",
            detail: error.to_string(),
        }
        .fail(),
        Ok((passed, Err(error))) => refused(RejectedReason::PacketsMalformed, error.to_string(), Some(passed.digest)),
    };
    record.abort().await;
    reading
}

/// What comes of a pass: all but the record's bytes.
type DecidedPackets<W> = (super::Accumulated, RecordEncoder, W);

/// Decides the packets of a verified header, and writes the record's head and packets to `record`.
async fn decide_packets<W: Witness>(
    processor: &Processor,
    head: &RecordHead,
    known: &Arc<Known>,
    mut witness: W,
    record: &mut Outgoing<'_>,
) -> Result<(Passed, Result<DecidedPackets<W>, FormatError>), WorkError> {
    let key = head.batch.ingestion_key(IngestionPart::Packets);
    let source = Source::Object {
        mailbox: &*processor.mailboxes.ingestion,
        key: &key,
        limit: u64::MAX,
    };
    let (head, known) = (head.clone(), Arc::clone(known));
    let (keys, remembered) = (Arc::clone(&processor.packet_keys), processor.in_memory.packets);
    let decide = move |source, writer: &mut ChunkWriter| {
        let unwritten = |source| FormatError::Write {
            record: "record",
            source,
        };
        let pass = Pass {
            bins: head.bins,
            share: head.share,
            keys: &keys,
            remembered,
            known: &known,
        };
        let mut encoder = RecordEncoder::begin(&head, writer).map_err(unwritten)?;
        let accumulated = accumulate(DataSharePacket::stream(source), &pass, |decided| {
            witness.decided(decided);
            encoder.packet(&decided.packet, writer).map_err(unwritten)
        })?;
        Ok((accumulated, encoder, witness))
    };
    let (passed, decided) = transform(source, Some(record), decide).await?;
    Ok((passed, unless_panicked(decided, &key)?))
}

fn unless_panicked<T>(result: Option<T>, key: &ObjectKey) -> Result<T, WorkError> {
    result.ok_or_else(|| {
        InternalSnafu {
            doing: "reading packets",
            detail: format!("the reader of {key} panicked"),
        }
        .build()
    })
}

fn unread<'a, W>(what: &str, error: MailboxError) -> Result<Reading<'a, W>, WorkError> {
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
        // Of another length it is none, and the batch is refused once its packets were hashed.
        packet_digest: header.packet_file_digest().try_into().unwrap_or_default(),
        validation_format: processor.validation_format,
        signer: processor.signing_key.id().to_owned(),
    }
}
