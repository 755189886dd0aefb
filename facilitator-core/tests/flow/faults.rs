//! What is wrong with a packet or a batch costs that packet or batch, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::aggregate::{AggregateOutcome, plan_shard};
use facilitator_core::formats::ledger::{BlockedReason, DeliveredPut, RejectedReason, Verdict};
use facilitator_core::formats::names::{BatchRange, IngestionPart, ValidationPart};
use facilitator_core::formats::validation::ValidationPacket;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in, take_in_all};
use facilitator_core::sample::FaultKind;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload,
};
use tokio::sync::Notify;

use crate::support::Keys;
use crate::windows::damage_seal;
use crate::world::{NOW, World, intake, intake_both, mounted, second, verdict, window};

#[tokio::test]
async fn spoilt_packets_are_not_counted_and_the_rest_is_summed_right() {
    use FaultKind as F;
    let kinds = [
        F::WrongDimension,
        F::ElementOutOfField,
        F::InvalidProof,
        F::DuplicateUuid,
        F::DuplicatePayload,
        F::QueryPointRefused,
        F::QueryPointOutOfRange,
        F::UndecryptableFor(Share::First),
        F::UndecryptableFor(Share::Second),
    ];
    for kind in kinds {
        let world = World::new();
        let sample = world.sample(1, 30, &[(7, kind)]);
        intake_both(&world, &sample.id).await;
        for share in [Share::First, Share::Second] {
            let result = verdict(&world.processor(share), &window()).await;
            assert_eq!(
                (result.verdict, result.clients),
                (Verdict::Summed, sample.clients),
                "{kind:?} {share:?} {result:?}"
            );
        }
        assert_eq!(world.totals(&window()), sample.totals, "{kind:?}");
    }
}

#[tokio::test]
async fn a_packet_without_the_peers_message_is_not_counted() {
    let world = World::new();
    let sample = world.sample(1, 4, &[(1, FaultKind::WrongDimension)]);
    intake_both(&world, &sample.id).await;
    // First sees the dimension and answers three; Second can't see it and answers four.
    let second = verdict(&world.processor(Share::Second), &window()).await;
    assert_eq!(
        (second.clients, second.missing_peer_messages, second.excluded_packets),
        (3, 1, 0)
    );
    let first = verdict(&world.processor(Share::First), &window()).await;
    assert_eq!(
        (first.clients, first.missing_peer_messages, first.excluded_packets),
        (3, 0, 1)
    );
    assert_eq!(world.totals(&window()), sample.totals);
}

fn change(
    world: &World,
    sample: &facilitator_core::sample::Sample,
    part: IngestionPart,
    change: impl Fn(&mut Vec<u8>),
) {
    let key = sample.id.ingestion_key(part);
    let mut bytes = world.ingestion[0].snapshot()[key.as_str()].to_vec();
    change(&mut bytes);
    world.ingestion[0].replace(&key, bytes);
}

#[tokio::test]
async fn a_bad_batch_is_rejected_once_and_leaves_nothing_else() {
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let world = World::new();
    let empty = world.sample(1, 0, &[]);
    let torn = world.sample(2, 3, &[]);
    change(&world, &torn, IngestionPart::Packets, flip);
    let unusable = world.sample(
        3,
        2,
        &[(0, FaultKind::QueryPointRefused), (1, FaultKind::QueryPointOutOfRange)],
    );
    let moved = world.sample(4, 3, &[]);
    let elsewhere = facilitator_core::formats::names::BatchId {
        time: facilitator_core::formats::names::BatchTime::parse_path("2026/11/20/00/50").unwrap(),
        uuid: uuid::Uuid::from_u128(99),
        ..moved.id.clone()
    };
    for (part, bytes) in moved.first.in_put_order() {
        world.ingestion[0].replace(&elsewhere.ingestion_key(part), bytes.to_vec());
    }
    let unnumbered = world.sample_with(5, 3, 8, f64::NAN, &[]);
    let endless = world.sample_with(6, 3, 8, f64::INFINITY, &[]);
    let table = [
        (&unnumbered.id, RejectedReason::ParametersUnsupported),
        (&endless.id, RejectedReason::ParametersUnsupported),
        (&empty.id, RejectedReason::Empty),
        (&torn.id, RejectedReason::DigestMismatch),
        (&unusable.id, RejectedReason::NoUsablePackets),
        (&elsewhere, RejectedReason::HeaderMismatch),
    ];
    let processor = world.processor(Share::First);
    for (batch, expected) in table {
        for again in [false, true] {
            match intake(&processor, batch).await {
                IntakeOutcome::Rejected { reason, already, .. } => assert_eq!((reason, already), (expected, again)),
                other => panic!("{expected:?}: {other:?}"),
            }
        }
    }
    assert!(world.peer_validation[1].snapshot().is_empty());
    assert_eq!(world.ledger[0].snapshot().len(), table.len());
}

/// The ingestion mailbox while its writer is at it.
#[derive(Debug)]
struct BeingWritten {
    inner: MemoryMailbox,
    packets: ObjectKey,
    /// How often packets were read.
    reads: AtomicUsize,
    read: Notify,
    /// What the writer does after each read.
    then: fn(&MemoryMailbox, &ObjectKey, usize),
}

#[async_trait]
impl Mailbox for BeingWritten {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let body = self.inner.open(key).await;
        if *key == self.packets {
            (self.then)(&self.inner, key, self.reads.fetch_add(1, Ordering::SeqCst));
            self.read.notify_one();
        }
        body
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
async fn a_batch_whose_writer_is_at_it_is_looked_at_again_after_the_pause() {
    let world = World::new();
    let sample = world.sample(1, 3, &[]);
    let whole = world.ingestion[0].snapshot();
    let later = [IngestionPart::Header, IngestionPart::Signature].map(|part| sample.id.ingestion_key(part));
    // What was there before: another batch of the same name, of which the packets are replaced already.
    let before = world.sample(1, 4, &[]);
    let packets = sample.id.ingestion_key(IngestionPart::Packets);
    world.ingestion[0].replace(&packets, whole[packets.as_str()].clone());
    let others = [world.sample(2, 3, &[]), world.sample(3, 3, &[])];
    change(&world, &others[0], IngestionPart::Packets, |bytes| bytes.truncate(100));
    let mailbox = Arc::new(BeingWritten {
        inner: (*world.ingestion[0]).clone(),
        packets,
        reads: AtomicUsize::new(0),
        read: Notify::new(),
        then: |_, _, _| (),
    });
    let mut processor = world.processor(Share::First);
    processor.mailboxes.ingestion = Arc::clone(&mailbox) as Arc<dyn Mailbox>;
    processor.reread_pause = Duration::from_millis(300);
    let writer = async {
        mailbox.read.notified().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        for key in &later {
            world.ingestion[0].replace(key, whole[key.as_str()].clone());
        }
    };
    let wanted = [&sample.id, &others[0].id, &others[1].id].map(|batch| Wanted {
        batch: batch.clone(),
        take_anyway: false,
    });
    let (results, ()) = tokio::join!(take_in_all(&processor, &wanted), writer);
    let outcomes: Vec<IntakeOutcome> = results.into_iter().map(Result::unwrap).collect();
    assert!(
        matches!(
            &outcomes[..],
            [
                IntakeOutcome::Validated { packets: 3, .. },
                IntakeOutcome::Rejected {
                    reason: RejectedReason::DigestMismatch,
                    ..
                },
                IntakeOutcome::Validated { packets: 3, .. },
            ]
        ),
        "{outcomes:?}"
    );
    assert_eq!((before.id, mailbox.reads.load(Ordering::SeqCst)), (sample.id, 2));
}

#[tokio::test]
async fn a_batch_that_is_bad_in_another_way_each_time_is_not_refused_for_good() {
    let world = World::new();
    let sample = world.sample(1, 3, &[]);
    let mailbox = Arc::new(BeingWritten {
        inner: (*world.ingestion[0]).clone(),
        packets: sample.id.ingestion_key(IngestionPart::Packets),
        reads: AtomicUsize::new(0),
        read: Notify::new(),
        then: |mailbox, key, reads| mailbox.replace(key, vec![0; reads]),
    });
    change(&world, &sample, IngestionPart::Packets, |bytes| bytes.truncate(100));
    let mut processor = world.processor(Share::First);
    processor.mailboxes.ingestion = Arc::clone(&mailbox) as Arc<dyn Mailbox>;
    let outcome = intake(&processor, &sample.id).await;
    assert!(
        matches!(
            outcome,
            IntakeOutcome::Blocked {
                reason: BlockedReason::ObjectMissing,
                ..
            }
        ),
        "{outcome:?}"
    );
    assert!(mailbox.reads.load(Ordering::SeqCst) < 9);
    assert!(world.ledger[0].snapshot().is_empty());
}

#[tokio::test]
async fn packets_of_which_few_do_not_count_are_read_once_where_one_pod_plans_and_sums() {
    // Packets, how many of them have no proof that holds, whether the seal is damaged, whether another pod has planned; reads.
    let table = [
        (40, 0, false, false, 0),
        (40, 2, false, false, 1),
        (40, 3, false, false, 2),
        (40, 2, true, false, 2),
        (40, 2, false, true, 1),
    ];
    for (packets, invalid, is_damaged, is_planned, reads) in table {
        let of = format!("{invalid} of {packets}, damaged: {is_damaged}, planned: {is_planned}");
        let world = World::new();
        let faults: Vec<_> = (0..invalid).map(|n| (3 * n + 1, FaultKind::InvalidProof)).collect();
        let sample = world.sample(1, packets, &faults);
        intake_both(&world, &sample.id).await;
        if is_damaged {
            damage_seal(&world, &sample);
        }
        let mut processor = world.processor(Share::First);
        if is_planned {
            let whole = BatchRange::whole(&window());
            let planned = plan_shard(&processor, &window(), &[second(NOW)], &whole).await;
            assert_eq!(planned.unwrap(), AggregateOutcome::Part);
        }
        let mailbox = Arc::new(BeingWritten {
            inner: (*world.ingestion[0]).clone(),
            packets: sample.id.ingestion_key(IngestionPart::Packets),
            reads: AtomicUsize::new(0),
            read: Notify::new(),
            then: |_, _, _| (),
        });
        processor.mailboxes.ingestion = Arc::clone(&mailbox) as Arc<dyn Mailbox>;
        let result = verdict(&processor, &window()).await;
        assert_eq!(result.clients, sample.clients, "{of}");
        verdict(&world.processor(Share::Second), &window()).await;
        assert_eq!(world.totals(&window()), sample.totals, "{of}");
        assert_eq!(mailbox.reads.load(Ordering::SeqCst), reads, "{of}");
    }
}

#[tokio::test]
async fn what_may_be_mended_is_blocked_and_leaves_nothing() {
    let world = World::new();
    let missing = world.sample(1, 3, &[]);
    world.ingestion[0].remove(&missing.id.ingestion_key(IngestionPart::Packets));
    let forged = world.sample(2, 3, &[]);
    change(&world, &forged, IngestionPart::Header, |bytes| {
        *bytes.last_mut().unwrap() ^= 1
    });
    let good = world.sample(3, 3, &[]);
    let many = world.sample(4, 30, &[(1, FaultKind::Undecryptable), (2, FaultKind::Undecryptable)]);
    let processor = world.processor(Share::First);
    let blocked = |outcome: IntakeOutcome| match outcome {
        IntakeOutcome::Blocked { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        blocked(intake(&processor, &missing.id).await),
        BlockedReason::ObjectMissing
    );
    assert_eq!(
        blocked(intake(&processor, &forged.id).await),
        BlockedReason::SignatureInvalid
    );
    assert_eq!(
        blocked(intake(&processor, &many.id).await),
        BlockedReason::TooManyUndecryptable
    );
    let mut stranger = world.processor(Share::First);
    stranger.ingestor_keys = facilitator_core::crypto::TrustedKeys::default();
    assert_eq!(blocked(intake(&stranger, &good.id).await), BlockedReason::SignerUnknown);
    let mut keyless = world.processor(Share::First);
    keyless.packet_keys = Arc::new([mounted("other", Keys::read().second_packets)]);
    assert_eq!(
        blocked(intake(&keyless, &good.id).await),
        BlockedReason::PacketKeyNotMounted
    );
    let anyway = take_in(&keyless, &good.id, true).await.unwrap();
    assert_eq!(blocked(anyway), BlockedReason::PacketKeyNotMounted, "none remains");
    assert!(world.ledger[0].snapshot().is_empty());

    let anyway = take_in(&processor, &many.id, true).await.unwrap();
    assert!(
        matches!(
            anyway,
            IntakeOutcome::Validated {
                packets: 30,
                excluded: 2,
                ..
            }
        ),
        "{anyway:?}"
    );
}

#[tokio::test]
async fn a_peer_whose_mailbox_cannot_be_read_gets_the_batch_and_delivered_says_so() {
    let world = World::new();
    let sample = world.sample(1, 3, &[]);
    world.peer_validation[1].refuse_reads(true);
    let processor = world.processor(Share::First);
    let outcome = intake(&processor, &sample.id).await;
    assert!(matches!(
        outcome,
        IntakeOutcome::Validated {
            put: DeliveredPut::Created,
            ..
        }
    ));
    world.ledger[0].remove(&sample.id.ledger_key("delivered"));
    let outcome = intake(&processor, &sample.id).await;
    assert!(
        matches!(
            outcome,
            IntakeOutcome::Validated {
                put: DeliveredPut::Unverified,
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn other_messages_of_ours_at_the_peer_are_named_and_not_overwritten() {
    let world = World::new();
    let sample = world.sample(1, 3, &[]);
    let key = sample.id.validation_key(Share::First, ValidationPart::Packets);
    let strange = ValidationPacket::write_all(&[ValidationPacket {
        uuid: uuid::Uuid::nil(),
        f_r: 1,
        g_r: 2,
        h_r: 3,
    }]);
    world.peer_validation[1].replace(&key, strange.clone());
    let outcome = intake(&world.processor(Share::First), &sample.id).await;
    assert!(
        matches!(
            outcome,
            IntakeOutcome::Rejected {
                reason: RejectedReason::PeerHasOther,
                ..
            }
        ),
        "{outcome:?}"
    );
    let there = world.peer_validation[1].snapshot();
    assert_eq!((there.len(), &there[key.as_str()][..]), (1, &strange[..]));
}
