#![allow(clippy::unwrap_used)]

mod objects;
mod retries;

use std::collections::BTreeSet;

use crds::conditions::reasons;
use crds::names::{OUTCOME_LABEL, RETRY_ANNOTATION};
use crds::processor::BatchObjects;
use facilitator_core::formats::ledger::{RejectedReason, Verdict};
use facilitator_core::formats::work::{BatchOutcome, IntakeItem, Share};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::workload::fixtures::*;
use crate::workload::{Subject, Work};

/// One processor, its mailboxes and cluster; each [`World::step`] is one decision, applied.
struct World {
    processor: DataShareProcessor,
    mailboxes: Mailboxes,
    jobs: Vec<JobView>,
    objects: Vec<Batch>,
    memory: Retries<BatchId>,
    allowance: Allowance,
    room: Room,
}

impl World {
    fn new(mailboxes: Mailboxes) -> Self {
        Self {
            processor: processor(),
            mailboxes,
            jobs: Vec::new(),
            objects: Vec::new(),
            memory: Retries::default(),
            allowance: Allowance::Free,
            room: Room { jobs: 10, pods: 10 },
        }
    }

    fn schedule(&self) -> Schedule {
        schedule(&self.processor)
    }

    fn decide(&self, now: Timestamp) -> BatchDecision {
        let schedule = self.schedule();
        let inventory = self.mailboxes.inventory(&schedule, now);
        let objects: Vec<&Batch> = self.objects.iter().collect();
        let input = BatchInput {
            processor: &self.processor,
            schedule: &schedule,
            timing: &Timing::default(),
            inventory: &inventory,
            objects: &objects,
            jobs: &self.jobs,
            allowance: self.allowance,
            room: self.room,
            memory: &self.memory,
        };
        decide(&input, now)
    }

    /// Decides and applies the objects, as the API server would; Jobs are up to the test.
    fn step(&mut self, now: &str) -> BatchDecision {
        let decision = self.decide(at(now));
        for mut object in decision.create.clone() {
            object.metadata.creation_timestamp = Some(Time(at(now)));
            object.metadata.generation = Some(1);
            self.objects.push(object);
        }
        for patch in &decision.patch {
            let object = self
                .objects
                .iter_mut()
                .find(|o| o.metadata.name.as_ref() == Some(&patch.name))
                .unwrap();
            object.status = Some(patch.status.clone());
            if let Some(labels) = &patch.labels {
                object.metadata.labels = Some(labels.clone());
            }
        }
        self.objects
            .retain(|object| !decision.delete.contains(object.metadata.name.as_ref().unwrap()));
        self.memory = decision.memory.clone();
        decision
    }

    /// The Job that the decision starts.
    fn start(&mut self, now: &str) -> JobView {
        let decision = self.step(now);
        let view = started(&decision.jobs[0], &self.processor, now);
        self.jobs = vec![view.clone()];
        view
    }

    fn outcomes(&self) -> Vec<Option<String>> {
        self.objects
            .iter()
            .map(|object| object.status.as_ref().and_then(|status| status.outcome.clone()))
            .collect()
    }
}

/// What a row of a table changes in its world.
type Change = fn(&mut World);

fn items(decision: &BatchDecision) -> Vec<Vec<IntakeItem>> {
    decision
        .jobs
        .iter()
        .flat_map(|job| match &job.work {
            Work::Intake(chunks) => chunks.clone(),
            Work::Aggregate(_) | Work::CompactClaims(_) | Work::KeyProbe { .. } | Work::Preflight { .. } => Vec::new(),
        })
        .collect()
}

fn sizes(decision: &BatchDecision) -> Vec<usize> {
    items(decision).iter().map(Vec::len).collect()
}

fn annotate(object: &mut Batch, value: &str) {
    object.metadata.annotations = Some([(RETRY_ANNOTATION.to_owned(), value.to_owned())].into());
}

#[test]
fn ready_batches_are_packed_into_one_indexed_job() {
    let world = World::new(Mailboxes::default().ingested(&kittens(10), "01:00"));
    let decision = world.decide(at("01:01"));
    assert_eq!((sizes(&decision), decision.jobs[0].parallelism), (vec![4, 4, 2], 3));
    assert!(items(&decision).iter().flatten().all(|item| !item.take_anyway));
    assert_eq!((decision.create.len(), decision.counts.waiting), (10, 10));
    assert_eq!(
        decision.create[0].metadata.labels.as_ref().unwrap()[OUTCOME_LABEL],
        "Waiting"
    );
    assert!(decision.create[0].metadata.owner_references.is_none() && decision.create[0].metadata.finalizers.is_none());
    assert!(decision.events.is_empty());
}

#[test]
fn caps_suspend_and_workers_that_do_not_start_hold_work_back() {
    let table: [(&str, Change, Vec<usize>, u32); 7] = [
        ("cap on pods", |w| w.room.pods = 2, vec![4, 4, 2], 2),
        ("no pods", |w| w.room.pods = 0, vec![], 0),
        ("no Jobs", |w| w.room.jobs = 0, vec![], 0),
        ("suspend", |w| w.processor.spec.suspend = true, vec![], 0),
        ("wait", |w| w.allowance = Allowance::Wait, vec![], 0),
        ("canary", |w| w.allowance = Allowance::Canary, vec![4], 1),
        (
            "a pod each",
            |w| w.processor.spec.workers.batches_per_pod = 1,
            vec![1; 10],
            3,
        ),
    ];
    for (name, change, chunks, parallelism) in table {
        let mut world = World::new(Mailboxes::default().ingested(&kittens(10), "01:00"));
        change(&mut world);
        let decision = world.decide(at("01:01"));
        assert_eq!(sizes(&decision), chunks, "{name}");
        assert_eq!(
            decision.jobs.first().map_or(0, |job| job.parallelism),
            parallelism,
            "{name}"
        );
        assert_eq!(decision.create.len(), chunks.iter().sum::<usize>(), "{name}");
    }
}

#[test]
fn a_job_takes_two_thousand_batches_in_turn_from_each_aggregation() {
    let many: Vec<_> = (0..3_000).map(|n| batch("a-many", "01/00", n)).collect();
    let few: Vec<_> = (0..30).map(|n| batch("b-few", "01/00", n)).collect();
    let mut world = World::new(Mailboxes::default().ingested(&many, "01:00").ingested(&few, "01:00"));
    world.processor.spec.workers.batches_per_pod = 100;
    let decision = world.decide(at("01:01"));
    let taken = items(&decision).concat();
    assert_eq!(
        (
            taken.len(),
            taken.iter().filter(|item| item.aggregation == "b-few").count()
        ),
        (2_000, 30)
    );
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 2_000);
}

#[test]
fn what_a_running_job_holds_is_not_planned_again() {
    let mut world = World::new(Mailboxes::default().ingested(&kittens(3), "01:00"));
    let job = world.start("01:01");
    world.mailboxes = Mailboxes::default().ingested(&kittens(5), "01:01");
    let decision = world.step("01:02");
    assert_eq!(sizes(&decision), [2]);
    assert_eq!((decision.counts.running, decision.counts.waiting), (3, 2));
    world.jobs = vec![job.running(), started(&decision.jobs[0], &world.processor, "01:02")];
    assert!(world.step("01:03").jobs.is_empty());
    assert_eq!(world.objects.len(), 5);
    let known = world.jobs[0].work.take();
    world.mailboxes = Mailboxes::default().ingested(&kittens(6), "01:01");
    assert!(
        world.step("01:03").jobs.is_empty(),
        "nothing while a Job holds nobody knows what"
    );
    world.jobs[0].work = known;
    world.mailboxes = Mailboxes::default().ingested(&kittens(5), "01:01");
    world.objects.clear();
    assert_eq!(world.step("01:04").create.len(), 5, "deleted by hand, made again");
}

#[test]
fn what_waits_for_packets_a_header_or_a_legacy_first_is_not_ready() {
    let id = batch("kittens-seen", "01/00", 1);
    let parts = |parts: &[&str]| {
        parts.iter().fold(Mailboxes::default(), |m, part| {
            m.named(&format!("{id}.batch{part}"), "01:00")
        })
    };
    let legacy: Change = |w| {
        w.processor.spec.share = crds::processor::Share::Second;
        w.processor.spec.peer.legacy = true;
    };
    let whole = parts(&["", ".sig", ".avro"]);
    let ids = std::slice::from_ref(&id);
    let none: Change = |_| {};
    let table = [
        ("no signature", parts(&["", ".avro"]), "02:00", none, false),
        ("no header", parts(&[".avro", ".sig"]), "02:00", none, false),
        (
            "no packets yet",
            parts(&["", ".sig"]),
            "2026-11-20T01:09:59Z",
            none,
            false,
        ),
        ("no packets for ten minutes", parts(&["", ".sig"]), "01:10", none, true),
        ("legacy First silent", whole.clone(), "02:00", legacy, false),
        (
            "legacy First, our own share's name",
            whole.clone().answered(ids, 1, "01:05"),
            "02:00",
            legacy,
            false,
        ),
        (
            "legacy First answered",
            whole.clone().answered(ids, 0, "01:05"),
            "02:00",
            legacy,
            true,
        ),
        ("whole", whole, "01:00", none, true),
    ];
    for (name, mailboxes, now, change, planned) in table {
        let mut world = World::new(mailboxes);
        change(&mut world);
        let decision = world.decide(at(now));
        assert_eq!(
            (decision.jobs.len() == 1, decision.counts.waiting),
            (planned, 1),
            "{name}"
        );
    }
}

#[test]
fn a_job_cut_off_at_its_deadline_blames_only_the_indexes_that_failed() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.batches_per_pod = 1;
    let condition =
        serde_json::json!({"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": ""});
    for now in ["01:01", "01:02", "01:03"] {
        let job = world.start(now);
        assert_eq!(job.job.spec.as_ref().unwrap().completions, Some(3), "{now}");
        world.jobs = vec![job.status(serde_json::json!({"failedIndexes": "1", "conditions": [condition]}))];
    }
    let decision = world.step("01:04");
    assert_eq!(world.memory.get(&ids[1]).map(crate::workload::Try::crashes), Some(true));
    assert_eq!(
        (items(&decision).len(), decision.jobs[0].attempt),
        (2, 3),
        "the others never ran, or not to their end"
    );
}

#[test]
fn work_that_finds_no_room_waits_for_others_and_work_that_may_not_start_does_not() {
    let table: [(&str, Change, bool); 6] = [
        ("room enough", |_| {}, false),
        ("fewer pods than it wants", |w| w.room.pods = 2, true),
        ("no Job", |w| w.room.jobs = 0, true),
        (
            "suspended",
            |w| (w.processor.spec.suspend, w.room.jobs) = (true, 0),
            false,
        ),
        (
            "its workers don't start",
            |w| (w.allowance, w.room.jobs) = (Allowance::Wait, 0),
            false,
        ),
        (
            "nothing to do",
            |w| (w.mailboxes, w.room.jobs) = (Mailboxes::default(), 0),
            false,
        ),
    ];
    for (name, change, short) in table {
        let mut world = World::new(Mailboxes::default().ingested(&kittens(10), "01:00"));
        change(&mut world);
        assert_eq!(world.decide(at("01:01")).short_of_room, short, "{name}");
    }
}

#[test]
fn the_schedule_says_which_batches_are_ours_and_foreign_names_are_counted() {
    let mine = batch("kittens-seen", "01/00", 1);
    let mailboxes = Mailboxes::default()
        .ingested(&[mine.clone(), batch("puppies-seen", "01/00", 2)], "01:00")
        .named(
            "kittens-seen/2026/11/18/23/59/00000000-0000-0000-0000-000000000003.batch",
            "01:00",
        )
        .named("kittens-seen/README", "01:00")
        .named(
            "kittens-seen/2026/13/20/00/00/00000000-0000-0000-0000-000000000004.batch.sig",
            "01:00",
        )
        .named("task-markers/intake-kittens-seen", "01:00")
        .answered(&[batch("kittens-seen", "02/00", 9)], 1, "01:00");
    let mut processor = processor();
    processor.spec.aggregations.names = vec!["kittens-seen".to_owned()];
    let schedule = schedule(&processor);
    assert_eq!(schedule.share, Share::First);
    let inventory = mailboxes.inventory(&schedule, at("02:00"));
    assert_eq!(inventory.unknown_names, 2);
    let found: Vec<_> = inventory
        .windows
        .values()
        .flat_map(|window| window.batches.keys())
        .collect();
    assert_eq!(found, [&mine]);
    let matched = mailboxes
        .answered(std::slice::from_ref(&mine), 1, "01:20")
        .inventory(&schedule, at("02:00"));
    assert!(matched.find(&mine, &schedule).unwrap().1.peer);
}
