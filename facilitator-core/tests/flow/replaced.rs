//! A record that somebody replaces while a window is worked on: nothing is summed by what another record says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate, plan_shard};
use facilitator_core::formats::ledger::{FailedReason, Verdict};
use facilitator_core::formats::names::BatchRange;
use facilitator_core::formats::record::{PacketExclusion, PacketState, Record};
use facilitator_core::formats::work::Share;
use facilitator_core::processor::InMemory;
use facilitator_core::sample::FaultKind;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload,
};

use crate::world::{NOW, World, intake_both, second, verdict, window};

/// A ledger in which another record lies in place of one, for one of the times that it is opened.
#[derive(Debug)]
struct Swapped {
    inner: Arc<MemoryMailbox>,
    /// Holds the other.
    other: MemoryMailbox,
    record: ObjectKey,
    at: usize,
    opens: AtomicUsize,
}

#[async_trait]
impl Mailbox for Swapped {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        if *key == self.record && self.opens.fetch_add(1, Ordering::SeqCst) == self.at {
            return self.other.open(key).await;
        }
        self.inner.open(key).await
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
        self.inner.list(request).await
    }
}

#[tokio::test]
async fn a_long_record_that_is_another_at_one_of_its_reads_is_told_and_nothing_is_summed_by_it() {
    let (mut failed, mut refused) = (0, 0);
    for (is_planned, at) in [false, true]
        .into_iter()
        .flat_map(|planned| (0..20).map(move |at| (planned, at)))
    {
        let world = World::new();
        // One to be taken out, so that the packets are opened again.
        let sample = world.sample(1, 50, &[(1, FaultKind::InvalidProof)]);
        intake_both(&world, &sample.id).await;
        if is_planned {
            let (processor, whole) = (world.processor(Share::First), BatchRange::whole(&window()));
            let planned = plan_shard(&processor, &window(), &[second(NOW)], &whole).await;
            assert_eq!(planned.unwrap(), AggregateOutcome::Part);
        }
        let record = sample.id.ledger_key("records");
        let mut other = Record::decode(&world.ledger[0].snapshot()[record.as_str()]).unwrap();
        for packet in [1, 3] {
            other.plain.packets[packet].state = PacketState::Excluded(PacketExclusion::Replay);
        }
        let swapped = Arc::new(Swapped {
            inner: Arc::clone(&world.ledger[0]),
            other: MemoryMailbox::new("other"),
            record: record.clone(),
            at,
            opens: AtomicUsize::new(0),
        });
        swapped.other.replace(&record, other.encode());
        let mut processor = world.processor(Share::First);
        processor.mailboxes.ledger = Arc::clone(&swapped) as Arc<dyn Mailbox>;
        // Nothing is held: it is read from the store each time.
        processor.in_memory = InMemory {
            packets: 1,
            object_bytes: 64,
            ..InMemory::default()
        };
        let outcome = aggregate(&processor, &window(), &[second(NOW)]).await;
        let is_swapped = swapped.opens.load(Ordering::SeqCst) > at;
        let of = format!("planned {is_planned}, read {at}");
        let portal = world.portal[0].snapshot();
        match outcome {
            // Only whether it is short was asked, or it isn't read so often.
            Ok(AggregateOutcome::Done { result, .. }) if result.verdict == Verdict::Summed => {
                assert_eq!(result.clients, sample.clients, "{of}");
                verdict(&world.processor(Share::Second), &window()).await;
                assert_eq!(world.totals(&window()), sample.totals, "{of}");
            }
            Ok(AggregateOutcome::Done { result, .. }) => {
                assert_eq!(result.reason, Some(FailedReason::RecordLost), "{of}: {result:?}");
                let told = result.message.contains("isn't the one that the plan pinned");
                assert!(is_swapped && told && portal.is_empty(), "{of}: {result:?}");
                failed += 1;
            }
            Ok(outcome) => panic!("{of}: {outcome:?}"),
            // Nothing was pinned: it is planned by what is there the next time.
            Err(error) => {
                let told = error
                    .to_string()
                    .contains("the record was replaced while it was worked on");
                assert!(is_swapped && told && portal.is_empty(), "{of}: {error}");
                let result = verdict(&world.processor(Share::First), &window()).await;
                assert_eq!((result.verdict, result.clients), (Verdict::Summed, sample.clients));
                refused += 1;
            }
        }
    }
    assert!(failed >= 5 && refused >= 3, "{failed} failed, {refused} were refused");
}
