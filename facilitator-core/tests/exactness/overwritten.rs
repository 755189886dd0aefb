//! Ingestion batches that change under the work: all of a batch, or one of its objects.

use std::collections::BTreeMap;

use facilitator_core::formats::ledger::{FailedReason, LedgerObject, Rejected, RejectedReason, Verdict, WindowResult};
use facilitator_core::formats::names::{BatchId, IngestionPart};
use facilitator_core::formats::plan::{ExclusionReason, Plan};
use facilitator_core::formats::record::Record;
use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;

use crate::batches::INGESTION_PARTS;
use crate::cases::answered;
use crate::gate::{Fault, Gate};
use crate::truth::Truth;
use crate::work::{Task, Worker, in_parts, window};
use crate::world::{Content, Place, SHARES, Setup, TINY, World, place};

/// All of a batch, then each object alone.
const PARTS: [&[IngestionPart]; 4] = [
    &INGESTION_PARTS,
    &[IngestionPart::Packets],
    &[IngestionPart::Header],
    &[IngestionPart::Signature],
];

/// Packets of a batch with one to subtract: so few that the sum reads them, and so many that the plan adds up on its way.
const FEW: usize = 3;
const ADDED_UP: usize = 17;

/// Who works and how: records are held, or stream where next to nothing is.
fn setups() -> [Setup; 4] {
    let [first, second] = SHARES;
    [Setup::of(first), Setup::of(second), streaming(first), streaming(second)]
}

fn streaming(share: Share) -> Setup {
    Setup {
        in_memory: TINY,
        ..Setup::of(share)
    }
}

/// Two batches, one of so many packets with one to subtract, answered by some.
async fn two_batches(shares: &[Share], packets: usize) -> (World, [BatchId; 2]) {
    let world = World::new();
    let batches = [
        world.batch(1, packets, &[(1, FaultKind::InvalidProof)]),
        world.batch(2, 2, &[]),
    ];
    answered(&world, shares, &batches).await;
    (world, batches)
}

/// A world in which a party's batch is overwritten while that party works.
struct Careless {
    world: World,
    setup: Setup,
    begin: Content,
    truth: Truth,
    batch: BatchId,
    other: [Vec<u8>; 3],
    tasks: Vec<Task>,
}

impl Careless {
    fn new(world: World, setup: Setup, batch: BatchId, tasks: Vec<Task>) -> Self {
        let (begin, other) = (world.content(), world.reordered(setup.share, &batch));
        let mut truth = Truth::of(&world);
        world.overwrite_parts(setup.share, &batch, &other, &INGESTION_PARTS);
        truth.learn(&world);
        Self {
            world,
            setup,
            begin,
            truth,
            batch,
            other,
            tasks,
        }
    }

    fn overwrite(&self, parts: &[IngestionPart]) {
        self.world
            .overwrite_parts(self.setup.share, &self.batch, &self.other, parts);
    }

    /// Overwritten before call `at`: the worker goes on or is stopped there. Whether it came that far.
    async fn run(&mut self, parts: &[IngestionPart], at: usize, stops: bool) -> bool {
        self.world.reset(&self.begin);
        self.truth.restart(&self.begin);
        let gate = Gate::closed();
        let processor = self.world.processor(&self.setup, &gate);
        let tasks = self.tasks.clone();
        let mut worker = Worker::begin(gate, &processor, &tasks).await;
        for _ in 0..at {
            worker.step(Fault::None).await;
        }
        if worker.next().is_none() {
            return false;
        }
        self.overwrite(parts);
        while worker.next().is_some() && !stops {
            worker.step(Fault::None).await;
            self.check(&format!("{parts:?} before call {at}"));
        }
        drop(worker);
        self.rerun(&tasks).await;
        true
    }

    async fn rerun(&mut self, tasks: &[Task]) {
        self.world.run(&self.setup, tasks).await.unwrap();
        self.check("a rerun");
    }

    fn check(&mut self, when: &str) {
        let checked = self.truth.check(&self.world);
        let setup = self.setup;
        checked.unwrap_or_else(|violation| panic!("{when}: {violation} ({setup:?})"));
    }

    fn read<T>(&self, folder: &str, read: impl Fn(&[u8]) -> T) -> Option<T> {
        let ledger = self.world.places[place(self.setup.share, Place::Ledger)].snapshot();
        ledger
            .get(self.batch.ledger_key(folder).as_str())
            .map(|bytes| read(bytes))
    }

    /// What became of the batch.
    fn became(&self) -> &'static str {
        let old_packets = facilitator_core::crypto::sha256(
            &self.begin[place(self.setup.share, Place::Ingestion)]
                [self.batch.ingestion_key(IngestionPart::Packets).as_str()],
        );
        let rejected = self.read("rejected", |bytes| {
            let key = self.batch.ledger_key("rejected");
            Rejected::from_bytes(&key, bytes).unwrap().reason
        });
        let record = self.read("records", |bytes| {
            Record::decode(bytes).unwrap().plain.head.packet_digest
        });
        match (record, rejected, self.read("delivered", |_| ())) {
            (Some(packets), None, Some(())) if packets == old_packets => "old",
            (Some(_), None, Some(())) => "new",
            (None, None, None) => "blocked",
            (None, Some(RejectedReason::DigestMismatch), None) => "mismatch",
            other => panic!("{other:?}"),
        }
    }

    fn result(&self) -> WindowResult {
        let key = window().ledger_key("results");
        let there = self.world.places[place(self.setup.share, Place::Ledger)].snapshot();
        WindowResult::from_bytes(&key, &there[key.as_str()]).unwrap()
    }
}

/// A torn batch is never answered, and one that was answered counts as what it was, or not at all.
#[tokio::test]
async fn a_batch_overwritten_before_each_call_of_an_intake_is_answered_whole_or_not_at_all() {
    let expected: [&[&str]; 4] = [
        &["new", "old"],
        &["mismatch", "old"],
        &["blocked", "old"],
        &["blocked", "old"],
    ];
    for setup in setups() {
        let (world, batches) = two_batches(&[setup.share.peer()], FEW).await;
        answered(&world, &[setup.share], &batches[1..]).await;
        let intake = vec![Task::Intake(batches[0].clone())];
        let mut careless = Careless::new(world, setup, batches[0].clone(), intake);
        for (parts, expected) in PARTS.into_iter().zip(expected) {
            let tally = careless.during_intake(parts).await;
            let outcomes: Vec<&str> = tally.keys().copied().collect();
            assert_eq!(outcomes, expected, "{parts:?}: {tally:?} ({setup:?})");
        }
    }
}

impl Careless {
    /// What becomes of the batch, overwritten before each call of its intake: the intake goes on or is stopped there.
    async fn during_intake(&mut self, parts: &[IngestionPart]) -> BTreeMap<&'static str, usize> {
        let (intake, setup) = (self.tasks.clone(), self.setup);
        let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
        for stops in [false, true] {
            for at in 0.. {
                if !self.run(parts, at, stops).await {
                    break;
                }
                let before = self.became();
                *tally.entry(before).or_default() += 1;
                // The writer puts the rest.
                self.overwrite(&INGESTION_PARTS);
                self.rerun(&intake).await;
                let after = self.became();
                let changed = matches!((before, after), ("blocked", "new"));
                assert!(
                    before == after || changed,
                    "{parts:?} before call {at}: {before}, then {after} ({setup:?})"
                );
                self.rerun(&[Task::Aggregate(window())]).await;
                let result = self.result();
                // Two clients in each: the third packet of the first doesn't count.
                let clients = if after == "new" { 4 } else { 2 };
                assert_eq!((result.verdict, result.clients), (Verdict::Summed, clients), "{after}");
            }
        }
        tally
    }
}

#[tokio::test]
async fn a_batch_overwritten_after_its_intake_is_named_in_the_plan_and_left_out() {
    for setup in setups() {
        let (world, batches) = two_batches(&SHARES, FEW).await;
        let mut careless = Careless::new(world, setup, batches[0].clone(), Vec::new());
        careless.rerun(&[Task::Aggregate(window())]).await;
        let key = window().ledger_key("plans");
        let there = careless.world.places[place(setup.share, Place::Ledger)].snapshot();
        let plan = Plan::from_bytes(&key, &there[key.as_str()]).unwrap();
        let members: Vec<_> = plan.members.iter().map(|member| member.uuid).collect();
        assert_eq!(members, [batches[1].uuid]);
        let exclusions = plan.exclusions.iter();
        let excluded: Vec<_> = exclusions.map(|exclusion| (exclusion.uuid, exclusion.reason)).collect();
        assert_eq!(excluded, [(batches[0].uuid, ExclusionReason::Overwritten)]);
        assert_eq!(careless.result().verdict, Verdict::Summed);
    }
}

/// Overwritten before each call of an aggregation, by one worker or in parts: it goes on or is stopped there, and a rerun
/// follows.
#[tokio::test]
async fn a_batch_overwritten_after_the_plan_fails_the_window_by_name_or_changes_nothing() {
    let whole = setups().map(|setup| (setup, vec![Task::Aggregate(window())]));
    let parted = [Setup::of(Share::First), streaming(Share::Second)].map(|setup| (setup, in_parts(&[2])));
    let of_few = whole
        .into_iter()
        .chain(parted)
        .map(|(setup, tasks)| (setup, tasks, FEW));
    let of_more = [Setup::of(Share::First), streaming(Share::Second)];
    let of_more = of_more.map(|setup| (setup, vec![Task::Aggregate(window())], ADDED_UP));
    for (setup, tasks, packets) in of_few.chain(of_more) {
        let (world, batches) = two_batches(&SHARES, packets).await;
        let mut careless = Careless::new(world, setup, batches[0].clone(), tasks.clone());
        for parts in PARTS {
            let name = format!("{parts:?} ({setup:?}, {} tasks, {packets} packets)", tasks.len());
            let (mut failed, mut summed, mut left_out) = (0, 0, 0);
            for stops in [false, true] {
                for at in 0.. {
                    if !careless.run(parts, at, stops).await {
                        break;
                    }
                    let result = careless.result();
                    match (result.verdict, result.reason) {
                        (Verdict::Summed, None) if result.batches == 1 => left_out += 1,
                        (Verdict::Summed, None) => summed += 1,
                        (Verdict::Failed, Some(FailedReason::IngestionChanged)) => {
                            assert!(result.message.contains(&batches[0].path()), "{}", result.message);
                            failed += 1;
                        }
                        other => panic!("{name} overwritten before call {at}: {other:?}"),
                    }
                }
            }
            let tally = (failed, summed, left_out);
            assert!(summed > 5, "{name}: {tally:?}");
            if parts.contains(&IngestionPart::Header) {
                assert!(left_out > 5, "{name}: {tally:?}");
            }
            if parts.contains(&IngestionPart::Packets) {
                assert!(failed > 5, "{name}: {tally:?}");
            }
            if parts == [IngestionPart::Signature] {
                assert_eq!(
                    (failed, left_out),
                    (0, 0),
                    "the record has the digest of what was signed"
                );
            }
        }
    }
}
