//! What the ledger has of many batches: two listings, where each batch would be looked for twice.

use std::collections::{BTreeMap, BTreeSet};

use mailbox::{ListRequest, Mailbox, MailboxError};

use super::Wanted;
use crate::formats::ledger::{RECORDS, REJECTED};
use crate::formats::names::{AggregationId, BatchId, BatchTime, batches_of};
use crate::processor::Processor;

/// Names of others between the first batch and the last, at most, for each that is wanted.
const OTHERS: usize = 4;

/// What was listed. What isn't in it may have come since, by another worker that was given the same batches: then they are read
/// and claimed again, and whoever puts goes by what is there by then (ledger rule 11).
#[derive(Debug, Default)]
pub(super) struct Listed {
    recorded: Folder,
    rejected: Folder,
}

/// What one folder has.
#[derive(Debug, Default)]
struct Folder {
    aggregations: BTreeSet<AggregationId>,
    batches: BTreeSet<BatchId>,
}

impl Folder {
    fn may_have(&self, batch: &BatchId) -> bool {
        !self.aggregations.contains(&batch.aggregation) || self.batches.contains(batch)
    }
}

impl Listed {
    /// Lists what is worth it. An error is none: what isn't known is looked for.
    pub(super) async fn of(processor: &Processor, wanted: &[Wanted]) -> Self {
        let (ledger, worth) = (&*processor.mailboxes.ledger, processor.in_memory.worth_listing);
        let mut times: BTreeMap<&AggregationId, Vec<BatchTime>> = BTreeMap::new();
        for Wanted { batch, .. } in wanted {
            times.entry(&batch.aggregation).or_default().push(batch.time);
        }
        let mut listed = Self::default();
        for (aggregation, times) in times.into_iter().filter(|(_, times)| times.len() >= worth) {
            for (folder, name) in [(&mut listed.recorded, RECORDS), (&mut listed.rejected, REJECTED)] {
                match names(ledger, name, aggregation, &times).await {
                    Ok(Some(batches)) => {
                        folder.aggregations.insert(aggregation.clone());
                        folder.batches.extend(batches);
                    }
                    Ok(None) => {}
                    Err(error) => tracing::info!(%error, "looking for each batch, since {name} can't be listed"),
                }
            }
        }
        listed
    }

    /// Whether the batch may have a record.
    pub(super) fn may_be_recorded(&self, batch: &BatchId) -> bool {
        self.recorded.may_have(batch)
    }

    /// Whether the batch may be refused.
    pub(super) fn may_be_rejected(&self, batch: &BatchId) -> bool {
        self.rejected.may_have(batch)
    }
}

/// The batches that a folder of the ledger has from the first of these times to the last. `None`: too many others.
async fn names(
    ledger: &dyn Mailbox,
    folder: &str,
    aggregation: &AggregationId,
    times: &[BatchTime],
) -> Result<Option<Vec<BatchId>>, MailboxError> {
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return Ok(None);
    };
    let prefix = format!("{folder}/{aggregation}/");
    let mut request = ListRequest {
        start_after: Some(format!("{prefix}{}", first.to_path())),
        // '0' comes right after '/'.
        end_before: Some(format!("{prefix}{}0", last.to_path())),
        prefix,
        ..ListRequest::default()
    };
    let mut batches = Vec::new();
    loop {
        let page = ledger.list(&request).await?;
        batches.extend(batches_of(page.objects.iter().map(|meta| &meta.key), folder));
        match page.next {
            Some(_) if batches.len() > times.len() * OTHERS => return Ok(None),
            Some(next) => request.start_after = Some(next),
            None => return Ok(Some(batches)),
        }
    }
}
