//! Batches of any size come out as if they had been worked on in memory: these are small ones, treated as large.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::ledger::{BlockedReason, DeliveredPut};
use facilitator_core::formats::names::{BatchId, IngestionPart, ValidationPart};
use facilitator_core::formats::record::{PacketExclusion, PacketState, Record};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::intake::{DecidedPacket, Drafted, IntakeOutcome, Look, Replays, Witness, draft, take_in};
use facilitator_core::processor::{InMemory, Processor};
use facilitator_core::sample::{FaultKind, Sample};
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload,
};

use crate::world::{World, intake, verdict, window};

const SHARES: [Share; 2] = [Share::First, Share::Second];

/// From nothing in memory to everything.
const SIZES: [InMemory; 4] = [sized(0, 0), sized(1, 700), sized(7, 2_000), sized(1 << 14, 8 << 20)];

const fn sized(packets: usize, object_bytes: usize) -> InMemory {
    InMemory {
        packets,
        object_bytes,
        worth_listing: 32,
    }
}

const FAULTS: [(usize, FaultKind); 10] = [
    (1, FaultKind::InvalidProof),
    (2, FaultKind::WrongDimension),
    (3, FaultKind::UndecryptableFor(Share::First)),
    (4, FaultKind::ElementOutOfField),
    (5, FaultKind::QueryPointRefused),
    (6, FaultKind::QueryPointOutOfRange),
    (8, FaultKind::DuplicateUuid),
    (20, FaultKind::DuplicatePayload),
    (40, FaultKind::DuplicateUuid),
    (41, FaultKind::DuplicatePayload),
];

fn no_upload_is_left(world: &World) {
    for mailbox in world.ledger.iter().chain(&world.peer_validation) {
        assert_eq!(mailbox.open_uploads(), 0);
    }
}

#[tokio::test]
async fn every_size_gives_the_same_bytes() {
    for format in [ValidationFormat::ThreeObjects, ValidationFormat::SingleObject] {
        let mut expected = None;
        for in_memory in SIZES {
            let world = World::new();
            let sample = world.sample(1, 50, &FAULTS);
            for share in SHARES {
                let mut processor = world.processor(share);
                processor.in_memory = in_memory;
                processor.validation_format = format;
                let outcome = take_in(&processor, &sample.id, true).await.unwrap();
                let excluded = [9, 6][usize::from(share.index())];
                assert!(
                    matches!(outcome, IntakeOutcome::Validated { packets: 50, excluded: there, already: false, put: DeliveredPut::Created } if there == excluded),
                    "{share:?}, {in_memory:?}: {outcome:?}"
                );
                assert!(matches!(
                    intake(&processor, &sample.id).await,
                    IntakeOutcome::Validated {
                        packets: 50,
                        already: true,
                        ..
                    }
                ));
            }
            no_upload_is_left(&world);
            let all = world.everything();
            assert!(
                expected.get_or_insert_with(|| all.clone()) == &all,
                "{format:?}, {in_memory:?}"
            );
            for share in SHARES {
                verdict(&world.processor(share), &window()).await;
            }
            assert_eq!(world.totals(&window()), sample.totals);
        }
    }
}

/// The original's server answered each of two packets of one UUID, and didn't write in our order.
fn rewrite(mailbox: &MemoryMailbox, batch: &BatchId, processor: &Processor, change: fn(&mut Vec<ValidationPacket>)) {
    let key = |part| batch.validation_key(processor.share, part);
    let there = mailbox.snapshot();
    let mut packets = ValidationPacket::read_all(&there[key(ValidationPart::Packets).as_str()]).unwrap();
    change(&mut packets);
    let packets = ValidationPacket::write_all(&packets);
    let mut header = ValidationHeader::read(&there[key(ValidationPart::Header).as_str()]).unwrap();
    header.packet_file_digest = sha256(&packets).to_vec();
    let header = header.write();
    let signature = BatchSignature::sign(&processor.signing_key, &header).unwrap().write();
    for (part, bytes) in [
        (ValidationPart::Packets, packets),
        (ValidationPart::Header, header),
        (ValidationPart::Signature, signature),
    ] {
        mailbox.replace(&key(part), bytes);
    }
}

#[tokio::test]
async fn a_predecessors_messages_are_compared_by_what_they_say() {
    type Change = fn(&mut Vec<ValidationPacket>);
    let later = |packets: &mut Vec<ValidationPacket>| {
        let mut again = packets[0];
        again.f_r ^= 1;
        packets.push(again);
    };
    let table: [(&str, Change, bool); 8] = [
        ("the same", |_| {}, true),
        ("another order", |packets| packets.reverse(), true),
        ("a second message for a UUID", later, true),
        (
            "another first message for a UUID",
            |packets| {
                let mut again = packets[0];
                again.f_r ^= 1;
                packets.insert(0, again);
            },
            false,
        ),
        (
            "one less",
            |packets| {
                packets.pop();
            },
            false,
        ),
        (
            "one more",
            |packets| {
                let mut other = packets[0];
                other.uuid = uuid::Uuid::from_u128(1);
                packets.push(other);
            },
            false,
        ),
        (
            "no message where there was one",
            |packets| {
                packets[3].g_r = -1;
                let mut again = packets[3];
                again.g_r = 5;
                packets.push(again);
            },
            false,
        ),
        (
            "two messages with their UUIDs exchanged",
            |packets| {
                let uuid = packets[0].uuid;
                packets[0].uuid = packets[1].uuid;
                packets[1].uuid = uuid;
            },
            false,
        ),
    ];
    for (name, change, same) in table {
        for in_memory in SIZES {
            let world = World::new();
            let sample = world.sample(1, 10, &[]);
            let mut processor = world.processor(Share::First);
            processor.in_memory = in_memory;
            intake(&processor, &sample.id).await;
            rewrite(&world.peer_validation[1], &sample.id, &processor, change);
            assert!(world.ledger[0].remove(&sample.id.ledger_key("delivered")));
            let outcome = intake(&processor, &sample.id).await;
            let is_same = matches!(
                outcome,
                IntakeOutcome::Validated {
                    put: DeliveredPut::SameMeaning | DeliveredPut::SameBytes,
                    ..
                }
            );
            assert_eq!(is_same, same, "{name}, {in_memory:?}: {outcome:?}");
            no_upload_is_left(&world);
        }
    }
}

#[tokio::test]
async fn what_is_blocked_or_refused_leaves_nothing() {
    for in_memory in SIZES {
        let world = World::new();
        let lost: Vec<_> = (0..5).map(|n| (n, FaultKind::Undecryptable)).collect();
        let (blocked, empty) = (world.sample(1, 5, &lost), world.sample(2, 0, &[]));
        let torn = world.sample(3, 50, &[]);
        let packets = world.ingestion[0].snapshot()[torn.id.ingestion_key(IngestionPart::Packets).as_str()].clone();
        world.ingestion[0].replace(
            &torn.id.ingestion_key(IngestionPart::Packets),
            packets.slice(..packets.len() - 1),
        );
        let mut processor = world.processor(Share::First);
        processor.in_memory = in_memory;
        for (sample, expected) in [(&blocked, "Blocked"), (&empty, "Rejected"), (&torn, "Rejected")] {
            let outcome = intake(&processor, &sample.id).await;
            assert!(format!("{outcome:?}").starts_with(expected), "{outcome:?}");
        }
        no_upload_is_left(&world);
        assert!(
            world.ledger[0]
                .snapshot()
                .keys()
                .all(|name| name.starts_with("rejected/"))
        );
        assert!(world.peer_validation[1].snapshot().is_empty());
    }
}

/// An ingestion mailbox whose batch is replaced after so many opens of its packets.
#[derive(Debug)]
struct Replaced {
    inner: Arc<MemoryMailbox>,
    opens: AtomicUsize,
    /// What comes after each open; the last stays.
    next: Mutex<Vec<Sample>>,
}

#[async_trait]
impl Mailbox for Replaced {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let body = self.inner.open(key).await?;
        if key.as_str().ends_with(".avro") {
            self.opens.fetch_add(1, Ordering::SeqCst);
            if let Some(sample) = self.next.lock().unwrap().pop() {
                for (part, bytes) in sample.first.in_put_order() {
                    self.inner.replace(&sample.id.ingestion_key(part), bytes.to_vec());
                }
            }
        }
        Ok(body)
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

/// Batches of one name, each with other packets twice.
fn versions(count: usize) -> Vec<Sample> {
    let elsewhere = World::new();
    let sample = |n: usize| {
        let faults = [
            (10 + n, FaultKind::DuplicateUuid),
            (20 + n, FaultKind::DuplicatePayload),
        ];
        elsewhere.sample_of(1, 40 + n, 8, &faults)
    };
    (0..count).map(sample).collect()
}

#[tokio::test]
async fn what_one_pass_found_is_not_believed_of_a_batch_that_replaced_it() {
    let versions = versions(8);
    for (replacements, blocked) in [(0, false), (1, false), (2, false), (7, true)] {
        let world = World::new();
        let mut next = versions[..=replacements].to_vec();
        next.reverse();
        let last = versions[replacements].clone();
        let first = next.pop().unwrap();
        for (part, bytes) in first.first.in_put_order() {
            world.ingestion[0].replace(&first.id.ingestion_key(part), bytes.to_vec());
        }
        let replaced = Arc::new(Replaced {
            inner: Arc::clone(&world.ingestion[0]),
            opens: AtomicUsize::new(0),
            next: Mutex::new(next),
        });
        let mut processor = world.processor(Share::First);
        processor.in_memory = SIZES[0];
        processor.mailboxes.ingestion = Arc::clone(&replaced) as Arc<dyn Mailbox>;
        let outcome = intake(&processor, &first.id).await;
        no_upload_is_left(&world);
        if blocked {
            let expected = matches!(
                outcome,
                IntakeOutcome::Blocked {
                    reason: BlockedReason::ObjectMissing,
                    ..
                }
            );
            assert!(expected, "{outcome:?}");
            assert!(world.ledger[0].snapshot().is_empty());
            continue;
        }
        // As one worker sees it who comes when everything is over.
        let after = World::new();
        for (part, bytes) in last.first.in_put_order() {
            after.ingestion[0].replace(&last.id.ingestion_key(part), bytes.to_vec());
        }
        intake(&after.processor(Share::First), &last.id).await;
        assert!(
            world.ledger[0].snapshot() == after.ledger[0].snapshot(),
            "{replacements} replacements"
        );
    }
}

#[derive(Default)]
struct Told(Vec<DecidedPacket>);

impl Witness for Told {
    fn decided(&mut self, packet: &DecidedPacket) {
        self.0.push(*packet);
    }
}

#[tokio::test]
async fn claims_are_told_of_the_pass_that_stands_and_replays_are_excluded() {
    for in_memory in SIZES {
        let world = World::new();
        let sample = world.sample(1, 50, &FAULTS);
        let mut processor = world.processor(Share::Second);
        processor.in_memory = in_memory;
        let Drafted::Draft(mut drafted) = draft(&processor, &sample.id, true, Look::First, Told::default)
            .await
            .unwrap()
        else {
            panic!("no draft")
        };
        drafted.abort().await;
        no_upload_is_left(&world);
        let told = &drafted.witness.0;
        assert!(told.iter().map(|packet| packet.index).eq(0..50));
        let included: Vec<u32> = told
            .iter()
            .filter(|packet| packet.mounted.is_some() && packet.ephemeral.is_some())
            .map(|packet| packet.index)
            .collect();
        assert_eq!(included.len(), 44, "of one pass alone");
        assert!(
            told.iter()
                .all(|packet| packet.mounted.is_some() == matches!(packet.packet.state, PacketState::In { .. }))
        );

        let replays = Replays {
            header_digest: drafted.head.header_digest,
            packets: vec![included[0], included[7], included[43]],
        };
        let again = draft(&processor, &sample.id, true, Look::Without(&replays), Told::default)
            .await
            .unwrap();
        let Drafted::Draft(mut again) = again else {
            panic!("no draft")
        };
        let replayed: Vec<u32> = again
            .witness
            .0
            .iter()
            .filter(|packet| packet.packet.state == PacketState::Excluded(PacketExclusion::Replay))
            .map(|packet| packet.index)
            .collect();
        assert_eq!(replayed, replays.packets);
        assert_eq!(again.accumulated.excluded(), 9);
        again.abort().await;

        let other = Replays {
            header_digest: [0; 32],
            ..replays
        };
        let of_another = draft(&processor, &sample.id, true, Look::Without(&other), Told::default)
            .await
            .unwrap();
        assert!(matches!(
            of_another,
            Drafted::Blocked(IntakeOutcome::Blocked {
                reason: BlockedReason::ObjectMissing,
                ..
            })
        ));
        no_upload_is_left(&world);
        assert!(world.ledger[1].snapshot().is_empty());
    }
}

#[tokio::test]
async fn a_record_that_is_too_long_to_hold_is_gone_on_from() {
    let world = World::new();
    let sample = world.sample(1, 50, &FAULTS);
    let mut processor = world.processor(Share::First);
    processor.in_memory = SIZES[0];
    take_in(&processor, &sample.id, true).await.unwrap();
    let before = world.everything();
    let key = sample.id.ledger_key("records");
    let record = Record::decode(&world.ledger[0].snapshot()[key.as_str()]).unwrap();
    // Cut in its packets: nothing is delivered of half a record.
    for part in [
        ValidationPart::Packets,
        ValidationPart::Header,
        ValidationPart::Signature,
    ] {
        assert!(world.peer_validation[1].remove(&sample.id.validation_key(Share::First, part)));
    }
    assert!(world.ledger[0].remove(&sample.id.ledger_key("delivered")));
    world.ledger[0].replace(&key, record.encode()[..700].to_vec());
    assert!(take_in(&processor, &sample.id, true).await.is_err());
    assert!(world.peer_validation[1].snapshot().is_empty());
    no_upload_is_left(&world);
    world.ledger[0].replace(&key, record.encode());
    take_in(&processor, &sample.id, true).await.unwrap();
    assert!(world.everything() == before);
}
