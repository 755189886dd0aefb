//! Both parties put the same batches in: whatever one of them missed, was refused to see, or saw half written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, aggregate};
use facilitator_core::crypto::TrustedKeys;
use facilitator_core::formats::ledger::{BlockedReason, DeliveredPut, Verdict};
use facilitator_core::formats::names::{BatchId, IngestionPart, ValidationPart};
use facilitator_core::formats::plan::ExclusionReason;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::IntakeOutcome;
use facilitator_core::processor::Processor;
use facilitator_core::put::{BatchPut, Meaning, OwnObject, put_batch};
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload,
};

use crate::support::Keys;
use crate::windows::{plan, planned};
use crate::world::{NOW, World, intake, intake_both, second, verdict, window};

/// A mailbox at its worst.
#[derive(Debug)]
struct Troubled {
    inner: Arc<dyn Mailbox>,
    /// How listings fail.
    lists: Option<MailboxErrorKind>,
    /// An object that isn't there when it is opened for the first time.
    missing_once: Mutex<Option<ObjectKey>>,
    looked: AtomicBool,
}

impl Troubled {
    fn new(inner: &Arc<dyn Mailbox>) -> Self {
        Self {
            inner: Arc::clone(inner),
            lists: None,
            missing_once: Mutex::default(),
            looked: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Mailbox for Troubled {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let missing = self
            .missing_once
            .lock()
            .unwrap()
            .take_if(|missing| missing == key)
            .is_some();
        if missing {
            self.looked.store(true, Ordering::SeqCst);
            return Err(MailboxError::of_object(
                MailboxErrorKind::NotFound,
                self.url(),
                key,
                "not yet",
            ));
        }
        self.inner.open(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.inner.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        Err(MailboxError::of_object(
            MailboxErrorKind::Unsupported,
            self.url(),
            key,
            "the test knows no uploads",
        ))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.inner.put_if_absent(key, content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        match self.lists {
            Some(kind) => {
                let key = ObjectKey::parse("listing").unwrap();
                Err(MailboxError::of_object(
                    kind,
                    self.url(),
                    &key,
                    "the test refuses listings",
                ))
            }
            None => self.inner.list(request).await,
        }
    }
}

fn signature(batch: &BatchId, writer: Share) -> ObjectKey {
    batch.validation_key(writer, ValidationPart::Signature)
}

/// Two batches, taken in by both; `change` is done; then both sum. The batches in, by share, and the totals if they agree.
async fn batches_in(change: impl FnOnce(&World, &BatchId)) -> ([u64; 2], World) {
    let world = World::new();
    let (kept, changed) = (world.sample(1, 10, &[]), world.sample(2, 7, &[]));
    intake_both(&world, &kept.id).await;
    intake_both(&world, &changed.id).await;
    change(&world, &changed.id);
    let mut batches = [0; 2];
    for share in [Share::First, Share::Second] {
        let result = verdict(&world.processor(share), &window()).await;
        assert_eq!(result.verdict, Verdict::Summed, "{share:?}: {result:?}");
        batches[usize::from(share.index())] = result.batches;
    }
    let mut expected = kept.totals.clone();
    if batches[0] == 2 {
        expected
            .iter_mut()
            .zip(&changed.totals)
            .for_each(|(total, more)| *total += more);
    }
    assert_eq!(world.totals(&window()), expected);
    (batches, world)
}

#[tokio::test]
async fn a_worker_that_stopped_before_delivered_costs_no_batch() {
    let (batches, _) = batches_in(|world, batch| assert!(world.ledger[0].remove(&batch.ledger_key("delivered")))).await;
    assert_eq!(batches, [2, 2]);
}

#[tokio::test]
async fn a_refusal_by_a_worker_that_saw_other_bytes_does_not_take_out_what_the_peer_has() {
    let rejected =
        &br#"{"revision":1,"reason":"DigestMismatch","message":"","headerDigest":null,"packetDigest":null}"#[..];
    for delivered in [true, false] {
        let (batches, _) = batches_in(|world, batch| {
            world.ledger[0].replace(&batch.ledger_key("rejected"), rejected);
            if !delivered {
                world.ledger[0].remove(&batch.ledger_key("delivered"));
            }
        })
        .await;
        assert_eq!(batches, [2, 2], "delivered: {delivered}");
    }
}

#[tokio::test]
async fn other_messages_under_our_name_are_not_taken_for_ours() {
    // A predecessor's answer to other packets of the same batch.
    let elsewhere = World::new();
    let batch = elsewhere.sample(2, 3, &[]).id;
    intake(&elsewhere.processor(Share::First), &batch).await;
    let others = elsewhere.peer_validation[1].snapshot();

    let world = World::new();
    let (kept, changed) = (world.sample(1, 10, &[]), world.sample(2, 7, &[]));
    intake_both(&world, &kept.id).await;
    intake_both(&world, &changed.id).await;
    world.ledger[0].remove(&changed.id.ledger_key("delivered"));
    for (key, bytes) in &others {
        world.peer_validation[1].replace(&ObjectKey::parse(key.as_str()).unwrap(), bytes.clone());
    }
    assert_eq!(verdict(&world.processor(Share::First), &window()).await.batches, 1);
    let exclusions = plan(&world, Share::First).exclusions;
    assert_eq!(
        exclusions.iter().map(|exclusion| exclusion.reason).collect::<Vec<_>>(),
        [ExclusionReason::NotDelivered]
    );
}

#[tokio::test]
async fn what_the_peers_listing_lacks_is_not_delivered() {
    let (batches, world) = batches_in(|world, batch| {
        assert!(world.peer_validation[1].remove(&signature(batch, Share::First)));
    })
    .await;
    assert_eq!(batches, [1, 1]);
    assert_eq!(
        plan(&world, Share::First).exclusions[0].reason,
        ExclusionReason::NotDelivered
    );
}

#[tokio::test]
async fn only_a_refused_listing_lets_delivered_stand_in() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    intake_both(&world, &sample.id).await;
    let before = world.everything();
    let mut processor = world.processor(Share::First);
    let through = |processor: &Processor, kind| Troubled {
        lists: Some(kind),
        ..Troubled::new(&processor.mailboxes.peer)
    };
    processor.mailboxes.peer = Arc::new(through(&processor, MailboxErrorKind::Unavailable));
    let error = aggregate(&processor, &window(), &[second(NOW)]).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(world.everything(), before, "no plan is made of half a look");

    let mut processor = world.processor(Share::First);
    processor.mailboxes.peer = Arc::new(through(&processor, MailboxErrorKind::Denied));
    let result = verdict(&processor, &window()).await;
    assert_eq!(
        (result.batches, result.unread_times),
        (1, 0),
        "intake had read the time"
    );

    let world = World::new();
    intake_both(&world, &world.sample(1, 10, &[]).id).await;
    // Intake couldn't read it back either.
    let key = sample.id.ledger_key("delivered");
    let delivered = String::from_utf8(world.ledger[0].snapshot()[key.as_str()].to_vec()).unwrap();
    let unread = delivered.replace(
        &format!("\"storeTimeMillis\":{}", NOW * 1000),
        "\"storeTimeMillis\":null",
    );
    assert_ne!(unread, delivered);
    world.ledger[0].replace(&key, unread);
    let mut processor = world.processor(Share::First);
    processor.mailboxes.peer = Arc::new(through(&processor, MailboxErrorKind::Denied));
    let result = verdict(&processor, &window()).await;
    assert_eq!((result.batches, result.unread_times), (1, 1), "the window says so");
    assert!(plan(&world, Share::First).members[0].our_time_unread);
}

fn knowing(mut processor: Processor, keys: TrustedKeys) -> Processor {
    processor.peer_keys = keys;
    processor
}

#[tokio::test]
async fn a_peers_new_key_blocks_the_window_until_it_is_known() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    intake_both(&world, &sample.id).await;
    let blocked = |outcome: AggregateOutcome| match outcome {
        AggregateOutcome::Blocked { reason, message, .. } => {
            assert!(message.contains(&sample.id.path()), "{message}");
            reason
        }
        other => panic!("{other:?}"),
    };
    let before = world.everything();
    let stranger = knowing(world.processor(Share::First), TrustedKeys::default());
    let outcome = aggregate(&stranger, &window(), &[second(NOW)]).await.unwrap();
    assert_eq!(blocked(outcome), BlockedReason::SignerUnknown);
    assert_eq!(world.everything(), before, "nothing final was written");

    planned(&world).await;
    let outcome = aggregate(&stranger, &window(), &[second(NOW)]).await.unwrap();
    assert_eq!(blocked(outcome), BlockedReason::SignerUnknown, "after the plan");
    let result = verdict(&knowing(world.processor(Share::First), Keys::read().trusted), &window()).await;
    assert_eq!(result.verdict, Verdict::Summed);
}

#[tokio::test]
async fn a_peers_objects_caught_while_they_are_rewritten_are_read_again() {
    for plan_first in [false, true] {
        for part in [
            ValidationPart::Signature,
            ValidationPart::Header,
            ValidationPart::Packets,
        ] {
            let world = World::new();
            let sample = world.sample(1, 10, &[]);
            intake_both(&world, &sample.id).await;
            if plan_first {
                planned(&world).await;
            }
            let mut processor = world.processor(Share::First);
            let troubled = Arc::new(Troubled {
                missing_once: Mutex::new(Some(sample.id.validation_key(Share::Second, part))),
                ..Troubled::new(&processor.mailboxes.peer_validation)
            });
            processor.mailboxes.peer_validation = Arc::clone(&troubled) as Arc<dyn Mailbox>;
            let result = verdict(&processor, &window()).await;
            assert_eq!(
                (result.verdict, result.clients),
                (Verdict::Summed, 10),
                "{part:?}: {result:?}"
            );
            assert!(troubled.looked.load(Ordering::SeqCst));
        }
    }
}

#[tokio::test]
async fn what_is_recorded_is_answered_even_where_the_batch_looks_bad_by_now() {
    let world = World::new();
    let sample = world.sample(1, 10, &[]);
    // Another worker's record, made while this one read the batch half replaced.
    let elsewhere = World::new();
    elsewhere.sample(1, 10, &[]);
    intake(&elsewhere.processor(Share::First), &sample.id).await;
    let key = sample.id.ledger_key("records");
    let record = elsewhere.ledger[0].snapshot()[key.as_str()].clone();
    world.ingestion[0].replace(&sample.id.ingestion_key(IngestionPart::Packets), b"half".to_vec());

    let mut processor = world.processor(Share::First);
    world.ledger[0].replace(&key, record);
    let late = Troubled {
        missing_once: Mutex::new(Some(key)),
        ..Troubled::new(&processor.mailboxes.ledger)
    };
    processor.mailboxes.ledger = Arc::new(late);
    let outcome = intake(&processor, &sample.id).await;
    assert!(
        matches!(outcome, IntakeOutcome::Validated { packets: 10, .. }),
        "{outcome:?}"
    );
    assert!(
        !world.ledger[0]
            .snapshot()
            .keys()
            .any(|key| key.starts_with("rejected/"))
    );
}

#[tokio::test]
async fn a_signature_is_put_at_once_however_long() {
    // A multipart upload's time is when it began: the peer would count the batch, and we wouldn't.
    let world = World::new();
    let processor = world.processor(Share::First);
    let mailbox = Troubled::new(&processor.mailboxes.peer);
    let key = signature(&world.sample(1, 1, &[]).id, Share::First);
    let long = OwnObject::new(key, vec![1; 9 << 20].into());
    let put = put_batch(&mailbox, Vec::new(), long, async || {
        Ok::<_, MailboxError>(Meaning::Other)
    })
    .await
    .unwrap();
    assert_eq!(put, BatchPut::There(DeliveredPut::Created));
}
