//! The intake of one ingestion batch: record, validation batch, `delivered`. Each is put once; running it again goes on
//! from what is there and changes nothing. Before a record is put, the packets that it answers are claimed
//! ([`crate::claims`]), of many batches together ([`take_in_all`]).
//!
//! Memory doesn't grow with the batch: packets are decided and written to the record as they stream in ([`draft()`]), and the
//! validation batch is made of the record as that streams in. [`crate::processor::InMemory`] says up to what size all of it
//! is in memory.

mod accumulate;
mod deliver;
mod draft;
mod group;
mod listed;
mod meaning;
mod opener;
mod read;
mod workers;

pub use accumulate::{Accumulated, DecidedPacket, Known, Pass, accumulate};
pub(crate) use deliver::{is_at_peer, parameters_of};
pub use draft::{Draft, Drafted, Look, Replays, Witness, draft};
pub use group::{Wanted, take_in_all};
pub(crate) use opener::Opener;

use std::collections::{BTreeMap, BTreeSet};

use mailbox::{ObjectKey, PutOutcome};

use self::listed::Listed;
use crate::formats::ledger::{
    BlockedReason, DELIVERED, Delivered, DeliveredPut, LedgerObject, REJECTED, REVISION, Rejected, RejectedReason, hex,
    short_message,
};
use crate::formats::names::{BatchId, IngestionPart, parse_ingestion_name};
use crate::formats::record::{PacketExclusion, RecordReader};
use crate::own_record::StoredRecord;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::put::{put_or_read, read_if_there};

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
pub struct Refusal {
    reason: RejectedReason,
    message: String,
    /// SHA-256 of the signature object that was read.
    signature_digest: Option<[u8; 32]>,
    header_digest: Option<[u8; 32]>,
    packet_digest: Option<[u8; 32]>,
}

/// Takes one ingestion batch in. `take_anyway`: the last planning before the cutoff, packets that can't be opened are
/// excluded rather than waited for (ledger rule 2).
///
/// # Errors
/// [`WorkError`]: no outcome is known yet; a rerun goes on from what is there.
pub async fn take_in(processor: &Processor, batch: &BatchId, take_anyway: bool) -> Result<IntakeOutcome, WorkError> {
    let wanted = Wanted {
        batch: batch.clone(),
        take_anyway,
    };
    match take_in_all(processor, &[wanted]).await.pop() {
        Some(result) => result,
        None => InternalSnafu {
            doing: "taking a batch in",
            detail: "it has no result",
        }
        .fail(),
    }
}

/// A batch's intake up to where its packets are claimed.
enum Begun<'a, W> {
    /// It is at its end: it was decided before, or nothing is to be answered.
    Ended(IntakeOutcome),
    /// Its packets are decided, none is answered yet.
    Drafted(Box<Draft<'a, W>>),
    /// It looks bad, and may be being replaced: another look decides.
    Doubtful(Refusal),
}

/// Goes on from what is there: a batch with a record is answered as the record says, and claims nothing. `doubted`: what an
/// earlier look found wrong with it; `listed`: what the ledger had.
async fn begin<'a, W: Witness>(
    processor: &'a Processor,
    batch: &BatchId,
    take_anyway: bool,
    doubted: Option<&Refusal>,
    listed: &Listed,
    witness: impl FnMut() -> W,
) -> Result<Begun<'a, W>, WorkError> {
    let ledger = &*processor.mailboxes.ledger;
    let record = match listed.may_be_recorded(batch) {
        true => StoredRecord::open(processor, batch).await?,
        false => None,
    };
    // Nothing is delivered before its record is there: a new batch costs no look for it.
    if let Some(record) = &record {
        let key = batch.ledger_key(DELIVERED);
        if let Some(bytes) = read_if_there(ledger, &key, Delivered::MAX_BYTES).await? {
            let Delivered { put, .. } = Delivered::from_bytes(&key, &bytes)?;
            let count = |reader: RecordReader<_>, _: &mut _| reader.end().map(|end| (end.packets, end.excluded));
            let (packets, excluded) = record.visit(processor, None, count).await?;
            return Ok(Begun::Ended(IntakeOutcome::Validated {
                put,
                packets,
                excluded,
                already: true,
            }));
        }
    }
    let rejected_key = batch.ledger_key(REJECTED);
    if listed.may_be_rejected(batch)
        && let Some(bytes) = read_if_there(ledger, &rejected_key, Rejected::MAX_BYTES).await?
    {
        let Rejected { reason, message, .. } = Rejected::from_bytes(&rejected_key, &bytes)?;
        return Ok(Begun::Ended(IntakeOutcome::Rejected {
            reason,
            message,
            already: true,
        }));
    }
    if let Some(record) = record {
        return Ok(Begun::Ended(deliver::deliver(processor, batch, &record).await?));
    }
    let look = doubted.map_or(Look::First, Look::Doubting);
    Ok(match draft(processor, batch, take_anyway, look, witness).await? {
        Drafted::Draft(draft) => Begun::Drafted(draft),
        Drafted::Doubtful(refusal) => Begun::Doubtful(refusal),
        Drafted::Refused(refusal) => Begun::Ended(refuse(processor, batch, refusal).await?),
        Drafted::Blocked(outcome) => Begun::Ended(outcome),
    })
}

/// Refuses a batch for good, unless another worker read it before its writer replaced it: what is recorded is answered.
async fn refuse(processor: &Processor, batch: &BatchId, refusal: Refusal) -> Result<IntakeOutcome, WorkError> {
    match StoredRecord::open(processor, batch).await? {
        Some(record) => deliver::deliver(processor, batch, &record).await,
        None => reject(processor, batch, refusal).await,
    }
}

/// The outcome of a batch that isn't the same from one look to the next.
fn changing() -> IntakeOutcome {
    IntakeOutcome::Blocked {
        reason: BlockedReason::ObjectMissing,
        message: "the batch changes while it is read: its writer may not be done".to_owned(),
        packets: 0,
        excluded: 0,
    }
}

/// Whether packets that can't be opened make the batch wait: ledger rule 2.
fn wait_for_keys(accumulated: &Accumulated, take_anyway: bool) -> Option<IntakeOutcome> {
    let packets = accumulated.packets;
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
