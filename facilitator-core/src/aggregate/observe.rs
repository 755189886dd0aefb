//! What the plan step looks at: one full listing of all prefixes, then a look into the batches that may be members. Of a
//! large window each worker looks at a range of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use mailbox::{ListPage, Mailbox, MailboxError, MailboxErrorKind, ObjectMeta};

use super::batch::{AT_A_TIME, Batches};
use super::membership::{Candidate, Content, OurTime, Pinned, by_times};
use crate::crypto::sha256;
use crate::formats::batch::MAX_HEADER_BYTES;
use crate::formats::ledger::{BlockedReason, DELIVERED, Delivered, LedgerObject, RECORDS, REJECTED, hex};
use crate::formats::names::{
    AggregationId, BatchId, BatchRange, IngestionPart, ValidationPart, batches_of, parse_validation_name,
};
use crate::formats::plan::{ExclusionReason, Shape};
use crate::intake::{complete_batches, is_at_peer};
use crate::peer_messages::PeerBatch;
use crate::processor::{Processor, WorkError};

/// How far behind ours a store's clock is waited for.
const CLOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What a person must mend before the window can be planned.
type Blocked = (BlockedReason, String);

/// Every batch of the range, sorted by name. Contents are read of those that times admit at `last_cutoff`.
pub(super) async fn candidates(
    batches: &Batches<'_>,
    aggregation: &AggregationId,
    range: &BatchRange,
    last_cutoff: Option<Timestamp>,
) -> Result<Result<Vec<Candidate>, Blocked>, WorkError> {
    let processor = batches.processor();
    let mailboxes = &processor.mailboxes;
    // Times first: what they show in time has its record by then, however long a store's clock was waited for.
    let peers = match list_past(&*mailboxes.peer_validation, "", aggregation, range, last_cutoff).await? {
        Ok(page) => page,
        Err(blocked) => return Ok(Err(blocked)),
    };
    let delivered = match list_past(&*mailboxes.ledger, DELIVERED, aggregation, range, last_cutoff).await? {
        Ok(page) => page,
        Err(blocked) => return Ok(Err(blocked)),
    };
    let ours = match list_past(&*mailboxes.peer, "", aggregation, range, last_cutoff).await {
        Ok(Ok(page)) => Some(signatures(&page, processor.share)),
        Ok(Err(blocked)) => return Ok(Err(blocked)),
        // An aggregate worker need not have rights there: `delivered` has the times too.
        Err(error) if error.kind() == MailboxErrorKind::Denied => None,
        Err(error) => return Err(error.into()),
    };
    let ingestion = list(&*mailboxes.ingestion, "", aggregation, range).await?;
    let records = list(&*mailboxes.ledger, RECORDS, aggregation, range).await?;
    let rejected = list(&*mailboxes.ledger, REJECTED, aggregation, range).await?;

    let theirs = signatures(&peers, processor.share.peer());
    let recorded: BTreeSet<_> = batches_of(keys(&records), RECORDS).collect();
    let rejected: BTreeSet<_> = batches_of(keys(&rejected), REJECTED).collect();
    let delivered: BTreeMap<_, _> = delivered
        .objects
        .iter()
        .filter_map(|meta| Some((batches_of(std::iter::once(&meta.key), DELIVERED).next()?, meta)))
        .collect();
    let mut names = complete_batches(keys(&ingestion));
    names.extend(recorded.iter().cloned());
    names.extend(rejected.iter().cloned());
    names.retain(|batch| range.contains(batch.time, batch.uuid));

    let mut candidates = Vec::with_capacity(names.len());
    for batch in names {
        let ours = our_time(processor, &batch, ours.as_ref(), delivered.get(&batch).copied()).await?;
        let theirs = theirs.get(&batch).copied();
        let (rejected, recorded) = (rejected.contains(&batch), recorded.contains(&batch));
        candidates.push(Candidate {
            time: batch.time,
            uuid: batch.uuid,
            rejected,
            recorded,
            ours,
            theirs,
            content: None,
        });
    }
    let Some(last_cutoff) = last_cutoff else {
        return Ok(Ok(candidates));
    };
    let looked: Vec<Result<Candidate, Blocked>> = futures::stream::iter(candidates)
        .map(|mut candidate| async move {
            if by_times(&candidate, last_cutoff, processor.legacy_peer).is_none() {
                let batch = BatchId {
                    aggregation: aggregation.clone(),
                    time: candidate.time,
                    uuid: candidate.uuid,
                };
                match look_into(batches, &batch).await? {
                    Ok(content) => candidate.content = Some(content),
                    Err(blocked) => return Ok(Err(blocked)),
                }
            }
            Ok::<_, WorkError>(Ok(candidate))
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    Ok(looked.into_iter().collect())
}

/// Lists a store whose clock is past the cutoff: what it shows later is later, and so in neither party's set. Our own clock
/// and the operator's may be ahead of it.
async fn list_past(
    mailbox: &dyn Mailbox,
    folder: &str,
    aggregation: &AggregationId,
    range: &BatchRange,
    cutoff: Option<Timestamp>,
) -> Result<Result<ListPage, Blocked>, MailboxError> {
    let page = list(mailbox, folder, aggregation, range).await?;
    let Some(early) = before_end_of(cutoff, &page) else {
        return Ok(Ok(page));
    };
    if early <= CLOCK_PATIENCE {
        tokio::time::sleep(early).await;
        let page = list(mailbox, folder, aggregation, range).await?;
        if before_end_of(cutoff, &page).is_none() {
            return Ok(Ok(page));
        }
    }
    let message = format!(
        "the clock of {} is {} s before the end of the cutoff: nothing is planned until it is past; see whose clock is wrong",
        mailbox.url(),
        early.as_secs()
    );
    Ok(Err((BlockedReason::ClockAhead, message)))
}

/// How long it is, by the listed store's clock, until the cutoff's second is over.
fn before_end_of(cutoff: Option<Timestamp>, page: &ListPage) -> Option<Duration> {
    let past = cutoff?.as_second() + 1;
    let left = u64::try_from(past - page.time?.as_second()).ok()?;
    (left > 0).then(|| Duration::from_secs(left))
}

async fn list(
    mailbox: &dyn Mailbox,
    folder: &str,
    aggregation: &AggregationId,
    range: &BatchRange,
) -> Result<ListPage, MailboxError> {
    let prefix = if folder.is_empty() {
        format!("{aggregation}/")
    } else {
        format!("{folder}/{aggregation}/")
    };
    mailbox.list_all(&range.listing(prefix)).await
}

fn keys(page: &ListPage) -> impl Iterator<Item = &mailbox::ObjectKey> {
    page.objects.iter().map(|meta| &meta.key)
}

/// The store times of the signature objects that `share` wrote.
fn signatures(page: &ListPage, share: crate::formats::work::Share) -> BTreeMap<BatchId, i64> {
    page.objects
        .iter()
        .filter_map(|meta| match parse_validation_name(meta.key.as_str())? {
            (batch, writer, ValidationPart::Signature) if writer == share => {
                Some((batch, meta.modified.as_millisecond()))
            }
            _ => None,
        })
        .collect()
}

/// When the peer's store made our signature visible (ledger rule 3); `None`: not delivered. What the store shows counts,
/// whether or not we came to say so in the ledger: the peer looks at the same listing.
async fn our_time(
    processor: &Processor,
    batch: &BatchId,
    listed: Option<&BTreeMap<BatchId, i64>>,
    delivered: Option<&ObjectMeta>,
) -> Result<Option<OurTime>, WorkError> {
    let Some(listed) = listed else {
        return match delivered {
            Some(meta) => Ok(Some(delivered_time(processor, meta).await?)),
            None => Ok(None),
        };
    };
    let Some(time) = listed.get(batch) else { return Ok(None) };
    let shown = OurTime {
        millis: *time,
        unread: false,
    };
    if delivered.is_some() {
        return Ok(Some(shown));
    }
    let ours = match is_at_peer(processor, batch).await {
        Err(error @ (WorkError::Record { .. } | WorkError::Foreign { .. })) => {
            tracing::warn!(%error, "the batch counts as one without a record");
            false
        }
        compared => compared?,
    };
    if !ours {
        tracing::warn!(batch = %batch.path(), "the peer has a validation batch under our name that isn't known to be the record's");
    }
    Ok(ours.then_some(shown))
}

/// When ours came to the peer, where the peer's store isn't asked: what `delivered` has of it, or else its own time.
async fn delivered_time(processor: &Processor, meta: &ObjectMeta) -> Result<OurTime, WorkError> {
    let bytes = processor.mailboxes.ledger.read(&meta.key, Delivered::MAX_BYTES).await?;
    let delivered = Delivered::from_bytes(&meta.key, &bytes)?;
    Ok(OurTime {
        millis: delivered.store_time_millis.unwrap_or(meta.modified.as_millisecond()),
        unread: delivered.store_time_millis.is_none(),
    })
}

/// Reads record, ingestion header and the peer's messages.
async fn look_into(batches: &Batches<'_>, batch: &BatchId) -> Result<Result<Content, Blocked>, WorkError> {
    let mailboxes = &batches.processor().mailboxes;
    let bad = |reason| Ok(Ok(Content::Bad(reason)));
    let open = match batches.open(batch).await {
        Ok(Some(open)) => open,
        Ok(None) => return bad(ExclusionReason::NoRecord),
        Err(error @ (WorkError::Record { .. } | WorkError::Foreign { .. })) => {
            tracing::warn!(%error, "the batch counts as one without a record");
            return bad(ExclusionReason::NoRecord);
        }
        Err(error) => return Err(error),
    };
    let header_key = batch.ingestion_key(IngestionPart::Header);
    let header = match mailboxes.ingestion.read(&header_key, MAX_HEADER_BYTES).await {
        Ok(header) => Some(header),
        // Gone or grown: changed in any case.
        Err(error) if matches!(error.kind(), MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge) => None,
        Err(error) => return Err(error.into()),
    };
    if header.is_none_or(|header| sha256(&header) != open.head.header_digest) {
        return bad(ExclusionReason::Overwritten);
    }
    let judged = match open.judge(|_| true).await? {
        Ok(judged) => judged,
        Err(PeerBatch::SignerUnknown { detail }) => {
            let message = format!("the peer's validation batch of {}: {detail}", batch.path());
            return Ok(Err((BlockedReason::SignerUnknown, message)));
        }
        Err(PeerBatch::Absent) => return bad(ExclusionReason::NoPeerMessages),
        Err(why) => {
            tracing::warn!(batch = %batch.path(), ?why, "the peer's validation batch is bad");
            return bad(ExclusionReason::PeerBad);
        }
    };
    // Intake's packets are needed once more where some don't count.
    if !judged.subtracted.is_empty() && !open.has_its_packets(&judged).await? {
        return bad(ExclusionReason::Overwritten);
    }
    Ok(Ok(Content::Good(Box::new(Pinned {
        record_digest: hex(&open.digest),
        messages_digest: hex(&judged.messages_digest),
        shape: Shape::of(&open.head),
    }))))
}
