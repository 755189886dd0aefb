//! Many batches at a time: what the ledger has of them is listed rather than looked for, and a listing may be old.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::formats::names::{BatchId, IngestionPart};
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in_all};
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, ObjectBody, ObjectKey, ObjectMeta, PutOutcome, Upload,
};

use crate::world::{World, intake};

/// A ledger whose listings of records and refusals are as old as is wished, and whose reads of what isn't there are counted.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn Mailbox>,
    /// Such a listing has nothing: all of it came since.
    is_old: bool,
    missed: Arc<AtomicUsize>,
}

#[async_trait]
impl Mailbox for Watched {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let opened = self.inner.open(key).await;
        self.missed.fetch_add(usize::from(opened.is_err()), Ordering::Relaxed);
        opened
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.inner.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.inner.put_if_absent(key, content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        let is_of_batches = ["records/", "rejected/"]
            .iter()
            .any(|folder| request.prefix.starts_with(folder));
        match self.is_old && is_of_batches {
            true => Ok(ListPage::default()),
            false => self.inner.list(request).await,
        }
    }
}

/// So many are listed.
const MANY: u8 = 40;

async fn all(world: &World, batches: &[BatchId], is_old: bool) -> (Vec<IntakeOutcome>, usize) {
    let missed = Arc::new(AtomicUsize::new(0));
    let watched = |mailbox: Arc<dyn Mailbox>| -> Arc<dyn Mailbox> {
        match mailbox.url() == world.ledger[0].url() {
            true => Arc::new(Watched {
                inner: mailbox,
                is_old,
                missed: Arc::clone(&missed),
            }),
            false => mailbox,
        }
    };
    let processor = world.processor_through(Share::First, watched);
    let wanted: Vec<Wanted> = batches
        .iter()
        .map(|batch| Wanted {
            batch: batch.clone(),
            take_anyway: false,
        })
        .collect();
    let results = take_in_all(&processor, &wanted).await;
    let outcomes = results.into_iter().map(Result::unwrap).collect();
    (outcomes, missed.load(Ordering::Relaxed))
}

/// Every seventh batch is refused.
fn sampled(world: &World) -> Vec<BatchId> {
    let sampled = |n| {
        let id = world.sample(n, 2, &[]).id;
        if n % 7 == 0 {
            world.ingestion[0].replace(&id.ingestion_key(IngestionPart::Packets), &b"torn"[..]);
        }
        id
    };
    (1..=MANY).map(sampled).collect()
}

fn already(outcome: &IntakeOutcome) -> bool {
    matches!(
        outcome,
        IntakeOutcome::Validated { already: true, .. } | IntakeOutcome::Rejected { already: true, .. }
    )
}

#[tokio::test]
async fn new_batches_are_not_looked_for_one_by_one_and_those_of_before_are_found() {
    let world = World::new();
    let batches = sampled(&world);
    let before = 16;
    for batch in &batches[..before] {
        intake(&world.processor(Share::First), batch).await;
    }
    let (outcomes, missed) = all(&world, &batches, false).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(already(outcome), index < before, "{index}: {outcome:?}");
        let is_rejected = matches!(outcome, IntakeOutcome::Rejected { .. });
        assert_eq!(is_rejected, (index + 1) % 7 == 0, "{index}: {outcome:?}");
    }
    // What is bad is looked at once more, and whatever is to be refused is looked for right before.
    let refused = outcomes[before..]
        .iter()
        .filter(|outcome| matches!(outcome, IntakeOutcome::Rejected { .. }));
    assert_eq!(missed, refused.count() * 3);
}

#[tokio::test]
async fn what_came_since_the_listing_counts_and_nothing_is_written_again() {
    let world = World::new();
    let batches = sampled(&world);
    for batch in &batches {
        intake(&world.processor(Share::First), batch).await;
    }
    let before = world.everything();
    let (outcomes, _) = all(&world, &batches, true).await;
    assert!(outcomes.iter().all(already), "{outcomes:?}");
    let mut after = world.everything();
    // The batches were claimed again, by themselves.
    after.retain(|name, _| before.contains_key(name) || !name.contains("claims/"));
    assert_eq!(after, before);
}
