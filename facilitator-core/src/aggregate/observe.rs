//! What the plan step looks at: one full listing of all prefixes, then a look into the batches that may be members.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use mailbox::{ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, ObjectMeta};

use super::membership::{Candidate, Content, Pinned, batches_of, by_times};
use crate::crypto::sha256;
use crate::formats::batch::MAX_HEADER_BYTES;
use crate::formats::ledger::{DELIVERED, Delivered, LedgerObject, RECORDS, REJECTED};
use crate::formats::names::{
    BatchId, IngestionPart, ValidationPart, WindowId, parse_ingestion_name, parse_validation_name,
};
use crate::formats::plan::{ExclusionReason, Shape, messages_digest};
use crate::formats::record::{RECORD_MAX_BYTES, Record};
use crate::intake::parameters_of;
use crate::peer_messages::{PeerBatch, read_validation};
use crate::processor::{Processor, WorkError};
use crate::put::read_if_there;

/// Batches that are looked into at the same time.
const LOOKS: usize = 8;

/// Every batch of the window's time, sorted by name. Contents are read of those that times admit at `last_cutoff`.
pub(super) async fn candidates(
    processor: &Processor,
    window: &WindowId,
    last_cutoff: Option<Timestamp>,
) -> Result<Vec<Candidate>, WorkError> {
    let mailboxes = &processor.mailboxes;
    let ingestion = list(&*mailboxes.ingestion, "", window).await?;
    let peers = list(&*mailboxes.peer_validation, "", window).await?;
    let records = list(&*mailboxes.ledger, RECORDS, window).await?;
    let rejected = list(&*mailboxes.ledger, REJECTED, window).await?;
    let delivered = list(&*mailboxes.ledger, DELIVERED, window).await?;
    // An aggregate worker need not have rights there: `delivered` has the times too.
    let ours = list(&*mailboxes.peer, "", window).await.unwrap_or_default();

    let theirs = signatures(&peers, processor.share.peer());
    let ours = signatures(&ours, processor.share);
    let recorded: BTreeSet<_> = batches_of(keys(&records), RECORDS).collect();
    let rejected: BTreeSet<_> = batches_of(keys(&rejected), REJECTED).collect();
    let delivered: BTreeMap<_, _> = delivered
        .objects
        .iter()
        .filter_map(|meta| Some((batches_of(std::iter::once(&meta.key), DELIVERED).next()?, meta)))
        .collect();
    let mut names = complete_ingestion(&ingestion);
    names.extend(recorded.iter().cloned());
    names.extend(rejected.iter().cloned());

    let mut candidates = Vec::with_capacity(names.len());
    for batch in names {
        let ours = match (delivered.get(&batch), ours.get(&batch)) {
            (None, _) => None,
            (Some(_), Some(time)) => Some(*time),
            (Some(meta), None) => Some(delivered_time(processor, meta).await?),
        };
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
        return Ok(candidates);
    };
    let looked: Vec<Candidate> = futures::stream::iter(candidates)
        .map(|mut candidate| async move {
            if by_times(&candidate, last_cutoff, processor.legacy_peer).is_none() {
                candidate.content = Some(look_into(processor, &candidate.batch).await?);
            }
            Ok::<_, WorkError>(candidate)
        })
        .buffered(LOOKS)
        .try_collect()
        .await?;
    Ok(looked)
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

/// Batches with a signature and a header: a packet object may be absent, an empty batch has none.
fn complete_ingestion(page: &ListPage) -> BTreeSet<BatchId> {
    let mut parts: BTreeMap<BatchId, (bool, bool)> = BTreeMap::new();
    for (batch, part) in keys(page).filter_map(|key| parse_ingestion_name(key.as_str())) {
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

/// When ours came to the peer, where the peer's store isn't asked: what `delivered` has of it, or else its own time.
async fn delivered_time(processor: &Processor, meta: &ObjectMeta) -> Result<Timestamp, WorkError> {
    let bytes = processor.mailboxes.ledger.read(&meta.key, Delivered::MAX_BYTES).await?;
    let delivered = Delivered::from_bytes(&meta.key, &bytes)?;
    let shown = delivered
        .store_time_millis
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    Ok(shown.unwrap_or(to_millis(meta.modified)))
}

/// Times are compared as the ledger and the work list hold them.
fn to_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// Reads record, ingestion header and the peer's messages.
async fn look_into(processor: &Processor, batch: &BatchId) -> Result<Content, WorkError> {
    let mailboxes = &processor.mailboxes;
    let bad = |reason| Ok(Content::Bad(reason));
    let key = batch.ledger_key(RECORDS);
    let Some(bytes) = read_if_there(&*mailboxes.ledger, &key, RECORD_MAX_BYTES).await? else {
        return bad(ExclusionReason::NoRecord);
    };
    let plain = match Record::decode_despite_seals(&bytes) {
        Ok(record) if record.plain.batch == *batch && record.plain.share == processor.share => record.plain,
        Ok(_) => {
            tracing::warn!(record = %key, "the record is of another batch or share");
            return bad(ExclusionReason::NoRecord);
        }
        Err(error) => {
            tracing::warn!(record = %key, %error, "the record can't be read");
            return bad(ExclusionReason::NoRecord);
        }
    };
    let header_key = batch.ingestion_key(IngestionPart::Header);
    let header = match mailboxes.ingestion.read(&header_key, MAX_HEADER_BYTES).await {
        Ok(header) => Some(header),
        // Gone or grown: changed in any case.
        Err(error) if matches!(error.kind(), MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge) => None,
        Err(error) => return Err(error.into()),
    };
    if header.is_none_or(|header| sha256(&header) != plain.header_digest) {
        return bad(ExclusionReason::Overwritten);
    }
    let peer = &*mailboxes.peer_validation;
    let messages = match read_validation(peer, batch, processor.share.peer(), &processor.peer_keys).await? {
        PeerBatch::Absent => return bad(ExclusionReason::NoPeerMessages),
        PeerBatch::Bad { detail } => {
            tracing::warn!(batch = %batch.path(), detail, "the peer's validation batch is bad");
            return bad(ExclusionReason::PeerBad);
        }
        PeerBatch::Read { parameters, messages } => match parameters.difference(&parameters_of(&plain)) {
            None => messages,
            Some(field) => {
                tracing::warn!(batch = %batch.path(), field, "the peer's validation batch is of another batch or shape");
                return bad(ExclusionReason::PeerBad);
            }
        },
    };
    Ok(Content::Good(Box::new(Pinned {
        record_digest: plain.digest(),
        messages_digest: messages_digest(messages),
        shape: Shape::of(&plain),
    })))
}
