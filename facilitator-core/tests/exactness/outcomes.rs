//! Every outcome of a put into a partner's bucket (ledger rule 11), and ingestion batches that change under the work.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::aggregate::AggregateOutcome;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::batch::hex;
use facilitator_core::formats::ledger::{FailedReason, LedgerObject, RejectedReason, Verdict, WindowResult};
use facilitator_core::formats::names::{BatchId, SumPartPart, ValidationPart};
use facilitator_core::formats::plan::{ExclusionReason, Plan};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::SumPart;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use facilitator_core::intake::IntakeOutcome;
use facilitator_core::processor::WorkError;
use facilitator_core::sample::FaultKind;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey,
    ObjectMeta, PutOutcome, Upload,
};

use crate::check::Truth;
use crate::gate::{Fault, Gate};
use crate::world::{Outcome, Place, SHARES, Setup, Task, Worker, World, instance, place, run, window};

/// What a partner's bucket lets us do, besides creating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grants {
    Everything,
    /// Reading is refused, and so is the put of what exists.
    List,
    /// As `List`; the store shows the hash that was set with the put.
    ListWithHashes,
    Nothing,
}

#[derive(Debug)]
struct Partner {
    inner: Arc<MemoryMailbox>,
    grants: Grants,
}

impl Partner {
    fn denied(&self, key: &ObjectKey) -> MailboxError {
        MailboxError::of_object(
            MailboxErrorKind::Denied,
            self.inner.url(),
            key,
            "the partner doesn't grant it",
        )
    }
}

#[async_trait]
impl Mailbox for Partner {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        if self.grants == Grants::Everything {
            self.inner.open(key).await
        } else {
            Err(self.denied(key))
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        if self.grants == Grants::Everything {
            self.inner.head(key).await
        } else {
            Err(self.denied(key))
        }
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        match self.inner.put_if_absent(key, content).await? {
            PutOutcome::Exists if self.grants != Grants::Everything => Err(self.denied(key)),
            outcome => Ok(outcome),
        }
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        if self.grants == Grants::Nothing {
            let detail = "the partner doesn't grant it";
            return Err(MailboxError::of_mailbox(
                MailboxErrorKind::Denied,
                self.inner.url(),
                detail,
            ));
        }
        let mut page = self.inner.list(request).await?;
        if self.grants == Grants::ListWithHashes {
            let there = self.inner.snapshot();
            for meta in &mut page.objects {
                meta.sha256 = Some(hex(&sha256(&there[meta.key.as_str()])));
            }
        }
        Ok(page)
    }
}

/// What is in the partner's bucket when the rerun comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// Ours, but for the signature.
    Unsigned,
    Ours,
    /// A predecessor's: our signature, the same said in other bytes.
    SameMeaning,
    /// Our signature over something else.
    OtherMeaning,
    /// Somebody's bytes, of another length.
    Strange,
}

const TABLE: [(Grants, There, &str); 16] = [
    (Grants::Everything, There::Nothing, "Created"),
    (Grants::Everything, There::Unsigned, "Created"),
    (Grants::Everything, There::Ours, "SameBytes"),
    (Grants::Everything, There::SameMeaning, "SameMeaning"),
    (Grants::Everything, There::OtherMeaning, "Different"),
    (Grants::Everything, There::Strange, "Different"),
    (Grants::List, There::Nothing, "Created"),
    (Grants::List, There::Unsigned, "Created"),
    // Exists, and can't be read: the lengths are the same.
    (Grants::List, There::Ours, "Unverified"),
    (Grants::List, There::Strange, "Unverified"),
    (Grants::ListWithHashes, There::Unsigned, "Created"),
    (Grants::ListWithHashes, There::Ours, "SameBytes"),
    (Grants::ListWithHashes, There::SameMeaning, "Unverified"),
    (Grants::Nothing, There::Nothing, "Created"),
    // Refused, and nothing tells whether it exists: no outcome, and nothing final is said.
    (Grants::Nothing, There::Unsigned, "denied"),
    (Grants::Nothing, There::Ours, "denied"),
];

fn change_validation(world: &World, id: &BatchId, there: There) {
    let mailbox = &world.places[place(Share::Second, Place::PeerValidation)];
    let key = |part| id.validation_key(Share::First, part);
    let all = [
        ValidationPart::Packets,
        ValidationPart::Header,
        ValidationPart::Signature,
    ];
    match there {
        There::Ours => {}
        There::Nothing => all.iter().for_each(|part| assert!(mailbox.remove(&key(*part)))),
        There::Unsigned => assert!(mailbox.remove(&key(ValidationPart::Signature))),
        There::Strange => all.iter().for_each(|part| mailbox.replace(&key(*part), "strange")),
        There::SameMeaning | There::OtherMeaning => {
            let now = mailbox.snapshot();
            let mut packets = ValidationPacket::read_all(&now[key(ValidationPart::Packets).as_str()]).unwrap();
            packets.reverse();
            if there == There::OtherMeaning {
                packets[0].f_r ^= 1;
            }
            let packets = ValidationPacket::write_all(&packets);
            let mut header = ValidationHeader::read(&now[key(ValidationPart::Header).as_str()]).unwrap();
            header.packet_file_digest = sha256(&packets).to_vec();
            let header = header.write();
            let signature = BatchSignature::sign(&world.keys.first, &header).unwrap().write();
            for (part, bytes) in all.iter().zip([packets, header, signature]) {
                mailbox.replace(&key(*part), bytes);
            }
        }
    }
}

fn change_sum_part(world: &World, there: There) {
    let mailbox = &world.places[place(Share::First, Place::Portal)];
    let key = |part| window().sum_part_key(&instance(), Share::First, part);
    let all = [SumPartPart::InvalidPackets, SumPartPart::Header, SumPartPart::Signature];
    match there {
        There::Ours => {}
        There::Nothing => all.iter().for_each(|part| assert!(mailbox.remove(&key(*part)))),
        There::Unsigned => assert!(mailbox.remove(&key(SumPartPart::Signature))),
        There::Strange => all.iter().for_each(|part| mailbox.replace(&key(*part), "strange")),
        There::SameMeaning | There::OtherMeaning => {
            let mut part = SumPart::read(&mailbox.snapshot()[key(SumPartPart::Header).as_str()]).unwrap();
            part.batch_uuids.reverse();
            if there == There::OtherMeaning {
                part.sum[0] ^= 1;
            }
            let header = part.write();
            let signature = BatchSignature::sign(&world.keys.first, &header).unwrap().write();
            mailbox.replace(&key(SumPartPart::Header), header);
            mailbox.replace(&key(SumPartPart::Signature), signature);
        }
    }
}

fn said(result: Result<Vec<Outcome>, WorkError>) -> String {
    match result {
        Err(error) if error.is_denied() => "denied".into(),
        Err(error) => format!("{error}"),
        Ok(outcomes) => match &outcomes[0] {
            Outcome::Intake(IntakeOutcome::Validated { put, .. }) => format!("{put:?}"),
            Outcome::Intake(IntakeOutcome::Rejected {
                reason: RejectedReason::PeerHasOther,
                ..
            }) => "Different".into(),
            Outcome::Aggregate(AggregateOutcome::Done { result, .. }) => match (result.put, result.reason) {
                (Some(put), None) => format!("{put:?}"),
                (None, Some(FailedReason::PortalHasOther)) => "Different".into(),
                other => format!("{other:?}"),
            },
            other => format!("{other:?}"),
        },
    }
}

#[tokio::test]
async fn every_outcome_of_a_put_is_named_and_nothing_is_overwritten() {
    let world = World::new();
    let batches = [
        world.batch(1, 3, &[(1, FaultKind::InvalidProof)]),
        world.batch(2, 2, &[]),
    ];
    let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
    for share in SHARES {
        world.run(&Setup::of(share), &intakes).await.unwrap();
    }
    let taken_in = world.content();
    world
        .run(&Setup::of(Share::First), &[Task::Aggregate(window())])
        .await
        .unwrap();
    let summed = world.content();

    for (is_sum, (grants, there, expected)) in [false, true]
        .into_iter()
        .flat_map(|is_sum| TABLE.map(|row| (is_sum, row)))
    {
        let ledger = &world.places[place(Share::First, Place::Ledger)];
        // The worker before stopped right after, or its last answer was lost.
        let (task, bucket) = if is_sum {
            world.reset(&summed);
            ledger.remove(&window().ledger_key("results"));
            change_sum_part(&world, there);
            (Task::Aggregate(window()), place(Share::First, Place::Portal))
        } else {
            world.reset(&taken_in);
            ledger.remove(&batches[0].ledger_key("delivered"));
            change_validation(&world, &batches[0], there);
            (
                Task::Intake(batches[0].clone()),
                place(Share::Second, Place::PeerValidation),
            )
        };
        let before = world.places[bucket].snapshot();
        let mut processor = world.processor(&Setup::of(Share::First), &Gate::open());
        let partner = Arc::new(Partner {
            inner: Arc::clone(&world.places[bucket]),
            grants,
        });
        if is_sum {
            processor.mailboxes.portal = partner;
        } else {
            processor.mailboxes.peer = partner;
        }
        let name = format!(
            "{} {grants:?} {there:?}",
            if is_sum { "sum part" } else { "validation" }
        );
        assert_eq!(
            said(run(&processor, std::slice::from_ref(&task)).await),
            expected,
            "{name}"
        );
        let after = world.places[bucket].snapshot();
        assert!(
            before.iter().all(|(key, bytes)| after.get(key) == Some(bytes)),
            "{name}: overwritten"
        );
        if expected != "denied" {
            let content = world.content();
            run(&processor, &[task]).await.unwrap();
            assert_eq!(world.content(), content, "{name}: a rerun changes nothing");
        }
    }
}

/// Two batches, one with a packet to subtract, both sides done with intake.
async fn taken_in() -> (World, [BatchId; 2]) {
    let world = World::new();
    let batches = [
        world.batch(1, 3, &[(1, FaultKind::InvalidProof)]),
        world.batch(2, 2, &[]),
    ];
    let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
    for share in SHARES {
        world.run(&Setup::of(share), &intakes).await.unwrap();
    }
    (world, batches)
}

fn result_of(world: &World) -> Option<WindowResult> {
    let key = window().ledger_key("results");
    let there = world.places[place(Share::First, Place::Ledger)].snapshot();
    there
        .get(key.as_str())
        .map(|bytes| WindowResult::from_bytes(&key, bytes).unwrap())
}

#[tokio::test]
async fn a_batch_overwritten_after_its_intake_is_named_in_the_plan_and_left_out() {
    let (world, batches) = taken_in().await;
    let mut truth = Truth::of(&world);
    world.overwrite(Share::First, &batches[0]);
    world
        .run(&Setup::of(Share::First), &[Task::Aggregate(window())])
        .await
        .unwrap();
    truth.check(&world).unwrap();
    let key = window().ledger_key("plans");
    let plan = Plan::from_bytes(
        &key,
        &world.places[place(Share::First, Place::Ledger)].snapshot()[key.as_str()],
    )
    .unwrap();
    assert_eq!(
        plan.members.iter().map(|member| member.uuid).collect::<Vec<_>>(),
        [batches[1].uuid]
    );
    let excluded: Vec<_> = plan
        .exclusions
        .iter()
        .map(|exclusion| (exclusion.uuid, exclusion.reason))
        .collect();
    assert_eq!(excluded, [(batches[0].uuid, ExclusionReason::Overwritten)]);
    assert_eq!(result_of(&world).unwrap().verdict, Verdict::Summed);
}

/// Overwritten before each call of an aggregation: it goes on or is stopped there, and a rerun follows.
#[tokio::test]
async fn a_batch_overwritten_after_the_plan_fails_the_window_by_name_or_changes_nothing() {
    let (world, batches) = taken_in().await;
    let begin = world.content();
    let mut truth = Truth::of(&world);
    let tasks = [Task::Aggregate(window())];
    let (mut failed, mut summed, mut left_out) = (0, 0, 0);
    for stops in [false, true] {
        for at in 0.. {
            world.reset(&begin);
            truth.restart(&begin);
            let gate = Gate::closed();
            let processor = world.processor(&Setup::of(Share::First), &gate);
            let mut worker = Worker::begin(gate, &processor, &tasks).await;
            let mut calls = 0;
            while worker.next().is_some() && calls < at {
                worker.step(Fault::None).await;
                calls += 1;
            }
            if worker.next().is_none() {
                break;
            }
            world.overwrite(Share::First, &batches[0]);
            while worker.next().is_some() && !stops {
                worker.step(Fault::None).await;
                truth
                    .check(&world)
                    .unwrap_or_else(|detail| panic!("overwritten before call {at}: {detail}"));
            }
            drop(worker);
            world.run(&Setup::of(Share::First), &tasks).await.unwrap();
            truth
                .check(&world)
                .unwrap_or_else(|detail| panic!("overwritten before call {at}, rerun: {detail}"));
            let result = result_of(&world).unwrap();
            match (result.verdict, result.reason) {
                (Verdict::Summed, None) if result.batches == 1 => left_out += 1,
                (Verdict::Summed, None) => summed += 1,
                (Verdict::Failed, Some(FailedReason::IngestionChanged)) => {
                    assert!(result.message.contains(&batches[0].path()), "{}", result.message);
                    failed += 1;
                }
                other => panic!("overwritten before call {at}: {other:?}"),
            }
        }
    }
    assert!(failed > 5 && summed > 5 && left_out > 5, "{failed} {summed} {left_out}");
}
