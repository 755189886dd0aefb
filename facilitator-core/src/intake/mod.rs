//! The intake of one ingestion batch: record, validation batch, `delivered`. Each is put once; running it again goes on
//! from what is there and changes nothing.

mod accumulate;
mod deliver;
mod read;
mod stream;

pub(crate) use accumulate::Opener;
pub use accumulate::{Accumulated, accumulate};
pub(crate) use deliver::{is_at_peer, parameters_of};
pub(crate) use read::read_packets;

use std::collections::{BTreeMap, BTreeSet};

use mailbox::{ObjectKey, PutOutcome};

use self::read::Reading;
use crate::crypto::seal::seal;
use crate::formats::ledger::{
    BlockedReason, DELIVERED, Delivered, DeliveredPut, LedgerObject, RECORDS, REJECTED, REVISION, Rejected,
    RejectedReason, hex, short_message,
};
use crate::formats::names::{BatchId, IngestionPart, parse_ingestion_name};
use crate::formats::record::{PacketExclusion, RECORD_MAX_BYTES, Record};
use crate::own_record::{decode_record, read_record};
use crate::processor::{Processor, WorkError};
use crate::put::{put_or_read, read_if_there};
use crate::uses::mark_record;

/// Batches with a signature and a header among these names: a packet object may be absent, an empty batch has none.
pub fn complete_batches<'a>(names: impl Iterator<Item = &'a ObjectKey>) -> BTreeSet<BatchId> {
    let mut parts: BTreeMap<BatchId, (bool, bool)> = BTreeMap::new();
    for (batch, part) in names.filter_map(|key| parse_ingestion_name(key.as_str())) {
        let (signature, header) = parts.entry(batch).or_default();
        *signature |= part == IngestionPart::Signature;
        *header |= part == IngestionPart::Header;
    }
    parts
        .into_iter()
        .filter(|(_, (signature, header))| *signature && *header)
        .map(|(batch, _)| batch)
        .collect()
}

/// How the intake of a batch ended.
#[derive(Clone, Debug, PartialEq)]
pub enum IntakeOutcome {
    /// The record, the validation batch and `delivered` are there.
    Validated {
        /// How our validation batch came to the peer.
        put: DeliveredPut,
        /// Packets in the batch.
        packets: u64,
        /// Packets that are excluded, for any reason.
        excluded: u64,
        /// All of it was there before: this run changed nothing.
        already: bool,
    },
    /// Refused for good; `rejected/` says so.
    Rejected {
        /// Why.
        reason: RejectedReason,
        /// What a person should know, one sentence.
        message: String,
        /// It was refused before: this run changed nothing.
        already: bool,
    },
    /// Not now: something that a person or time mends is missing. Nothing was put.
    Blocked {
        /// Why.
        reason: BlockedReason,
        /// What a person should know, one sentence.
        message: String,
        /// Packets in the batch, as far as known.
        packets: u64,
        /// Packets that would be excluded.
        excluded: u64,
    },
}

/// A final refusal before it is written.
#[derive(Clone, Debug, PartialEq)]
struct Refusal {
    reason: RejectedReason,
    message: String,
    header_digest: Option<[u8; 32]>,
    packet_digest: Option<[u8; 32]>,
}

/// Takes one ingestion batch in. `take_anyway`: the last planning before the cutoff, packets that can't be opened are
/// excluded rather than waited for (ledger rule 2).
///
/// # Errors
/// [`WorkError`]: no outcome is known yet; a rerun goes on from what is there.
pub async fn take_in(processor: &Processor, batch: &BatchId, take_anyway: bool) -> Result<IntakeOutcome, WorkError> {
    let ledger = &*processor.mailboxes.ledger;
    let delivered_key = batch.ledger_key(DELIVERED);
    if let Some(bytes) = read_if_there(ledger, &delivered_key, Delivered::MAX_BYTES).await? {
        let delivered = Delivered::from_bytes(&delivered_key, &bytes)?;
        let (packets, excluded) = match read_record(processor, batch).await? {
            Some(record) => (record.plain.packets.len() as u64, record.plain.excluded()),
            None => (0, 0),
        };
        return Ok(IntakeOutcome::Validated {
            put: delivered.put,
            packets,
            excluded,
            already: true,
        });
    }
    let rejected_key = batch.ledger_key(REJECTED);
    if let Some(bytes) = read_if_there(ledger, &rejected_key, Rejected::MAX_BYTES).await? {
        let Rejected { reason, message, .. } = Rejected::from_bytes(&rejected_key, &bytes)?;
        return Ok(IntakeOutcome::Rejected {
            reason,
            message,
            already: true,
        });
    }
    let record = match read_record(processor, batch).await? {
        Some(there) => there,
        None => match decide_record(processor, batch, take_anyway).await? {
            Decided::Record(record) => put_record(processor, batch, *record).await?,
            // Another worker may have read the batch before its writer replaced it: what is recorded is answered.
            Decided::Refused(refusal) => match read_record(processor, batch).await? {
                Some(there) => there,
                None => return reject(processor, batch, refusal).await,
            },
            Decided::Blocked(outcome) => return Ok(outcome),
        },
    };
    deliver::deliver(processor, batch, &record).await
}

enum Decided {
    Record(Box<Record>),
    Refused(Refusal),
    Blocked(IntakeOutcome),
}

/// Reads, verifies and decides, without writing. What looks bad is read once more first: a batch may be caught while its
/// writer replaces it.
async fn decide_record(processor: &Processor, batch: &BatchId, take_anyway: bool) -> Result<Decided, WorkError> {
    let reading = match read::read(processor, batch).await? {
        Reading::Refused(first) => {
            tracing::info!(batch = %batch.path(), reason = %first.reason, "reading the batch again before refusing it");
            read::read(processor, batch).await?
        }
        reading => reading,
    };
    match reading {
        Reading::Refused(refusal) => Ok(Decided::Refused(refusal)),
        Reading::Blocked { reason, message } => Ok(Decided::Blocked(IntakeOutcome::Blocked {
            reason,
            message,
            packets: 0,
            excluded: 0,
        })),
        Reading::Taken(taken) => {
            if let Some(outcome) = wait_for_keys(&taken.accumulated, take_anyway) {
                return Ok(Decided::Blocked(outcome));
            }
            if taken.accumulated.keys.is_empty() {
                return Ok(Decided::Refused(Refusal {
                    reason: RejectedReason::NoUsablePackets,
                    message: "every packet of the batch is excluded, none for want of a key".to_owned(),
                    header_digest: Some(taken.plain.header_digest),
                    packet_digest: Some(taken.plain.packet_digest),
                }));
            }
            Ok(Decided::Record(Box::new(seal_record(processor, *taken))))
        }
    }
}

/// Whether packets that can't be opened make the batch wait: ledger rule 2.
fn wait_for_keys(accumulated: &Accumulated, take_anyway: bool) -> Option<IntakeOutcome> {
    let packets = accumulated.packets.len() as u64;
    let undecryptable = accumulated.excluded_as(PacketExclusion::Undecryptable);
    let none_remains = accumulated.keys.is_empty() && undecryptable > 0;
    if take_anyway && !none_remains {
        return None;
    }
    let many = undecryptable > 1 && undecryptable * 20 > packets;
    let (reason, message) = if let Some(id) = &accumulated.unmounted_key {
        let message = format!(
            "{undecryptable} of {packets} packets can't be opened, and one names the key {id:?}, which isn't mounted: \
             add its Secret to keys.packetDecryption"
        );
        (BlockedReason::PacketKeyNotMounted, message)
    } else if many || none_remains {
        let message = format!(
            "{undecryptable} of {packets} packets can't be opened by any mounted key: see whether a packet key is missing"
        );
        (BlockedReason::TooManyUndecryptable, message)
    } else {
        return None;
    };
    let excluded = accumulated.excluded();
    Some(IntakeOutcome::Blocked {
        reason,
        message: short_message(&message),
        packets,
        excluded,
    })
}

/// Seals the accumulators under the packet keys that they were opened with.
fn seal_record(processor: &Processor, taken: read::Taken) -> Record {
    let read::Taken { mut plain, accumulated } = taken;
    let Accumulated { packets, keys, .. } = accumulated;
    plain.packets = packets;
    plain.packet_keys = keys
        .iter()
        .map(|key| *processor.packet_keys[key.mounted].key.public_point())
        .collect();
    let digest = plain.digest();
    let sealed = keys
        .iter()
        .map(|key| {
            let packet_key = &processor.packet_keys[key.mounted].key;
            seal(packet_key, &plain.header_digest, plain.share, &digest, &key.sum)
        })
        .collect();
    Record { plain, sealed }
}

async fn put_record(processor: &Processor, batch: &BatchId, record: Record) -> Result<Record, WorkError> {
    mark_record(processor, batch, &record).await?;
    let key = batch.ledger_key(RECORDS);
    let bytes = record.encode();
    match put_or_read(&*processor.mailboxes.ledger, &key, bytes.into(), RECORD_MAX_BYTES).await? {
        (_, PutOutcome::Created) => Ok(record),
        (bytes, PutOutcome::Exists) => decode_record(processor, batch, &bytes),
    }
}

/// Writes a final refusal; where one is there, that one counts.
async fn reject(processor: &Processor, batch: &BatchId, refusal: Refusal) -> Result<IntakeOutcome, WorkError> {
    let key = batch.ledger_key(REJECTED);
    let rejected = Rejected {
        revision: REVISION,
        reason: refusal.reason,
        message: short_message(&refusal.message),
        header_digest: refusal.header_digest.map(|digest| hex(&digest)),
        packet_digest: refusal.packet_digest.map(|digest| hex(&digest)),
    };
    let bytes = rejected.to_bytes()?.into();
    let (bytes, put) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Rejected::MAX_BYTES).await?;
    let Rejected { reason, message, .. } = Rejected::from_bytes(&key, &bytes)?;
    Ok(IntakeOutcome::Rejected {
        reason,
        message,
        already: put == PutOutcome::Exists,
    })
}
