//! What the plan step looks at: one full listing of all prefixes, then a look into the batches that may be members.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use mailbox::{ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, ObjectMeta};

use super::membership::{Candidate, Content, OurTime, Pinned, batches_of, by_times};
use crate::crypto::sha256;
use crate::formats::batch::MAX_HEADER_BYTES;
use crate::formats::ledger::{BlockedReason, DELIVERED, Delivered, LedgerObject, RECORDS, REJECTED};
use crate::formats::names::{BatchId, IngestionPart, ValidationPart, WindowId, parse_validation_name};
use crate::formats::plan::{ExclusionReason, Shape, messages_digest};
use crate::formats::record::RecordPlain;
use crate::intake::{complete_batches, is_at_peer, parameters_of};
use crate::own_record::read_record;
use crate::peer_messages::{PeerBatch, read_peers};
use crate::processor::{Processor, WorkError};

/// Batches that are looked into at the same time.
const LOOKS: usize = 8;

/// What a person must mend before the window can be planned.
type Blocked = (BlockedReason, String);

/// Every batch of the window's time, sorted by name. Contents are read of those that times admit at `last_cutoff`.
pub(super) async fn candidates(
    processor: &Processor,
    window: &WindowId,
    last_cutoff: Option<Timestamp>,
) -> Result<Result<Vec<Candidate>, Blocked>, WorkError> {
    let mailboxes = &processor.mailboxes;
    let ingestion = list(&*mailboxes.ingestion, "", window).await?;
    let peers = list(&*mailboxes.peer_validation, "", window).await?;
    let records = list(&*mailboxes.ledger, RECORDS, window).await?;
    let rejected = list(&*mailboxes.ledger, REJECTED, window).await?;
    let delivered = list(&*mailboxes.ledger, DELIVERED, window).await?;
    let ours = match list(&*mailboxes.peer, "", window).await {
        Ok(page) => Some(signatures(&page, processor.share)),
        // An aggregate worker need not have rights there: `delivered` has the times too.
        Err(error) if error.kind() == MailboxErrorKind::Denied => None,
        Err(error) => return Err(error.into()),
    };

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

    let mut candidates = Vec::with_capacity(names.len());
    for batch in names {
        let ours = our_time(processor, &batch, ours.as_ref(), delivered.get(&batch).copied()).await?;
        let theirs = theirs.get(&batch).copied();
        let (rejected, recorded) = (rejected.contains(&batch), recorded.contains(&batch));
        candidates.push(Candidate {
            batch,
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
                match look_into(processor, &candidate.batch).await? {
                    Ok(content) => candidate.content = Some(content),
                    Err(blocked) => return Ok(Err(blocked)),
                }
            }
            Ok::<_, WorkError>(Ok(candidate))
        })
        .buffered(LOOKS)
        .try_collect()
        .await?;
    Ok(looked.into_iter().collect())
}

async fn list(mailbox: &dyn Mailbox, folder: &str, window: &WindowId) -> Result<ListPage, MailboxError> {
    let aggregation = window.aggregation.as_str();
    let prefix = if folder.is_empty() {
        format!("{aggregation}/")
    } else {
        format!("{folder}/{aggregation}/")
    };
    let request = ListRequest {
        start_after: Some(format!("{prefix}{}", window.start.to_path())),
        end_before: Some(format!("{prefix}{}", window.end.to_path())),
        prefix,
        ..ListRequest::default()
    };
    mailbox.list_all(&request).await
}

fn keys(page: &ListPage) -> impl Iterator<Item = &mailbox::ObjectKey> {
    page.objects.iter().map(|meta| &meta.key)
}

/// The store times of the signature objects that `share` wrote.
fn signatures(page: &ListPage, share: crate::formats::work::Share) -> BTreeMap<BatchId, Timestamp> {
    page.objects
        .iter()
        .filter_map(|meta| match parse_validation_name(meta.key.as_str())? {
            (batch, writer, ValidationPart::Signature) if writer == share => Some((batch, to_millis(meta.modified))),
            _ => None,
        })
        .collect()
}

/// When the peer's store made our signature visible (ledger rule 3); `None`: not delivered. What the store shows counts,
/// whether or not we came to say so in the ledger: the peer looks at the same listing.
async fn our_time(
    processor: &Processor,
    batch: &BatchId,
    listed: Option<&BTreeMap<BatchId, Timestamp>>,
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
        time: *time,
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
    let shown = delivered
        .store_time_millis
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    Ok(OurTime {
        time: shown.unwrap_or(to_millis(meta.modified)),
        unread: shown.is_none(),
    })
}

/// Times are compared as the ledger and the work list hold them.
fn to_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// The plain part of the batch's record, if it has one that can be read and is of this batch.
async fn read_plain(processor: &Processor, batch: &BatchId) -> Result<Option<RecordPlain>, WorkError> {
    match read_record(processor, batch).await {
        Ok(record) => Ok(record.map(|record| record.plain)),
        Err(error @ (WorkError::Record { .. } | WorkError::Foreign { .. })) => {
            tracing::warn!(%error, "the batch counts as one without a record");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads record, ingestion header and the peer's messages.
async fn look_into(processor: &Processor, batch: &BatchId) -> Result<Result<Content, Blocked>, WorkError> {
    let mailboxes = &processor.mailboxes;
    let bad = |reason| Ok(Ok(Content::Bad(reason)));
    let Some(plain) = read_plain(processor, batch).await? else {
        return bad(ExclusionReason::NoRecord);
    };
    let header_key = batch.ingestion_key(IngestionPart::Header);
    let header = match mailboxes.ingestion.read(&header_key, MAX_HEADER_BYTES).await {
        Ok(header) => Some(header),
        // Gone or grown: changed in any case.
        Err(error) if matches!(error.kind(), MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge) => None,
        Err(error) => return Err(error.into()),
    };
    if header.is_none_or(|header| sha256(&header) != plain.head.header_digest) {
        return bad(ExclusionReason::Overwritten);
    }
    let parameters = parameters_of(&plain.head);
    let wanted = |read: &PeerBatch| matches!(read, PeerBatch::Read { parameters: theirs, .. } if theirs.difference(&parameters).is_none());
    let (theirs, _) = read_peers(processor, batch, plain.packets.len(), wanted).await?;
    let messages = match theirs {
        PeerBatch::SignerUnknown { detail } => {
            let message = format!("the peer's validation batch of {}: {detail}", batch.path());
            return Ok(Err((BlockedReason::SignerUnknown, message)));
        }
        PeerBatch::Absent => return bad(ExclusionReason::NoPeerMessages),
        PeerBatch::Bad { detail } => {
            tracing::warn!(batch = %batch.path(), detail, "the peer's validation batch is bad");
            return bad(ExclusionReason::PeerBad);
        }
        PeerBatch::Read {
            parameters: theirs,
            messages,
        } => match theirs.difference(&parameters) {
            None => messages,
            Some(field) => {
                tracing::warn!(batch = %batch.path(), field, "the peer's validation batch is of another batch or shape");
                return bad(ExclusionReason::PeerBad);
            }
        },
    };
    Ok(Ok(Content::Good(Box::new(Pinned {
        record_digest: plain.digest(),
        messages_digest: messages_digest(messages),
        shape: Shape::of(&plain.head),
    }))))
}
