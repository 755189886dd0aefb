#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use crds::conditions::reasons;
use crds::names::{OUTCOME_LABEL, RETRY_ANNOTATION};
use crds::processor::BatchObjects;
use facilitator_core::formats::ledger::{RejectedReason, Verdict};
use facilitator_core::formats::work::{BatchOutcome, IntakeItem, Share};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::workload::Work;
use crate::workload::fixtures::*;

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
        let inventory = self.mailboxes.inventory(&schedule);
        let input = BatchInput {
            processor: &self.processor,
            schedule: &schedule,
            timing: &Timing::default(),
            inventory: &inventory,
            objects: &self.objects,
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
            let object = self.objects.iter_mut().find(|o| o.metadata.name.as_ref() == Some(&patch.name)).unwrap();
            object.status = Some(patch.status.clone());
            object.metadata.labels = Some(patch.labels.clone());
        }
        self.objects.retain(|object| !decision.delete.contains(object.metadata.name.as_ref().unwrap()));
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
        self.objects.iter().map(|object| object.status.as_ref().and_then(|status| status.outcome.clone())).collect()
    }
}

/// What a row of a table changes in its world.
type Change = fn(&mut World);

fn items(decision: &BatchDecision) -> Vec<Vec<IntakeItem>> {
    decision.jobs.iter().flat_map(|job| match &job.work {
        Work::Intake(chunks) => chunks.clone(),
        Work::Aggregate(_) => Vec::new(),
    }).collect()
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
    assert_eq!(decision.create[0].metadata.labels.as_ref().unwrap()[OUTCOME_LABEL], "Waiting");
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
        ("a pod each", |w| w.processor.spec.workers.batches_per_pod = 1, vec![1; 10], 3),
    ];
    for (name, change, chunks, parallelism) in table {
        let mut world = World::new(Mailboxes::default().ingested(&kittens(10), "01:00"));
        change(&mut world);
        let decision = world.decide(at("01:01"));
        assert_eq!(sizes(&decision), chunks, "{name}");
        assert_eq!(decision.jobs.first().map_or(0, |job| job.parallelism), parallelism, "{name}");
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
    assert_eq!((taken.len(), taken.iter().filter(|item| item.aggregation == "b-few").count()), (2_000, 30));
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
    assert!(world.step("01:03").jobs.is_empty(), "nothing while a Job holds nobody knows what");
    world.jobs[0].work = known;
    world.mailboxes = Mailboxes::default().ingested(&kittens(5), "01:01");
    world.objects.clear();
    assert_eq!(world.step("01:04").create.len(), 5, "deleted by hand, made again");
}

#[test]
fn what_waits_for_packets_a_header_or_a_legacy_first_is_not_ready() {
    let id = batch("kittens-seen", "01/00", 1);
    let parts = |parts: &[&str]| parts.iter().fold(Mailboxes::default(), |m, part| m.named(&format!("{id}.batch{part}"), "01:00"));
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
        ("no packets yet", parts(&["", ".sig"]), "2026-11-20T01:09:59Z", none, false),
        ("no packets for ten minutes", parts(&["", ".sig"]), "01:10", none, true),
        ("legacy First silent", whole.clone(), "02:00", legacy, false),
        ("legacy First, our own share's name", whole.clone().answered(ids, 1, "01:05"), "02:00", legacy, false),
        ("legacy First answered", whole.clone().answered(ids, 0, "01:05"), "02:00", legacy, true),
        ("whole", whole, "01:00", none, true),
    ];
    for (name, mailboxes, now, change, planned) in table {
        let mut world = World::new(mailboxes);
        change(&mut world);
        let decision = world.decide(at(now));
        assert_eq!((decision.jobs.len() == 1, decision.counts.waiting), (planned, 1), "{name}");
    }
}

#[test]
fn outcomes_are_told_once_when_the_job_is_over() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let job = world.start("01:01");
    world.mailboxes = world.mailboxes.delivered(&ids[..1], "01:02").rejected(&ids[1..2], RejectedReason::DigestMismatch, "01:02");
    let decision = world.step("01:02");
    assert!(decision.patch.is_empty() && decision.jobs.is_empty(), "the Job still runs");
    assert_eq!((decision.counts.validated, decision.counts.rejected, decision.counts.running), (1, 1, 1));
    let job = job
        .complete()
        .batch_report(&ids[0], BatchOutcome::Validated, "")
        .batch_report(&ids[1], BatchOutcome::Rejected, "DigestMismatch")
        .batch_report(&ids[2], BatchOutcome::Blocked, "PacketKeyNotMounted");
    world.jobs = vec![job.clone()];
    let decision = world.step("01:03");
    assert_eq!(decision.patch.len(), 3);
    let status = |n: usize| world.objects[n].status.as_ref().unwrap();
    assert_eq!((status(0).packets, status(0).excluded, status(0).job.as_deref()), (Some(20), Some(1), Some(job.name())));
    let told: Vec<_> = decision.events.iter().map(|event| (event.warning, event.reason)).collect();
    assert_eq!(told, [(true, "Rejected"), (true, "Blocked")]);
    let why = &status(1).conditions[0].message;
    assert!(why.contains("the batch is bad") && why.contains("tell the ingestor"), "{why}");
    assert_eq!(status(2).reason.as_deref(), Some("PacketKeyNotMounted"));
    assert_eq!(world.objects[2].metadata.labels.as_ref().unwrap()[OUTCOME_LABEL], "Blocked");
    for now in ["01:04", "01:12"] {
        let decision = world.step(now);
        assert!(decision.patch.is_empty() && decision.jobs.is_empty() && decision.events.is_empty());
    }
    world.jobs.clear();
    let decision = world.step("2026-11-20T01:12:59Z");
    assert!(decision.patch.is_empty(), "what the report told stays when the Job is gone: {:?}", decision.patch);
}

/// A world whose only batch is blocked since 01:03.
fn blocked() -> World {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let job = world.start("01:01").complete().batch_report(&ids[0], BatchOutcome::Blocked, "SignerUnknown");
    world.jobs = vec![job];
    assert!(world.step("01:03").jobs.is_empty());
    assert_eq!(world.outcomes(), [Some("Blocked".to_owned())]);
    world
}

#[test]
fn blocked_batches_are_tried_again_when_something_may_have_changed() {
    let nothing: Change = |_| {};
    let table: [(&str, Change, &str, Option<bool>); 6] = [
        ("too early", nothing, "2026-11-20T01:12:59Z", None),
        ("after ten minutes", nothing, "01:13", Some(false)),
        ("the spec has changed", |w| w.processor.metadata.generation = Some(4), "01:04", Some(false)),
        ("asked for", |w| annotate(&mut w.objects[0], "now"), "01:04", Some(false)),
        ("the last planning before the cutoff", nothing, "03:40", Some(true)),
        ("after the last cutoff", nothing, "09:00", Some(false)),
    ];
    for (name, change, now, expected) in table {
        let mut world = blocked();
        change(&mut world);
        let decision = world.step(now);
        assert_eq!(items(&decision).concat().first().map(|item| item.take_anyway), expected, "{name}");
        if expected.is_some() {
            assert_eq!(decision.jobs[0].attempt, 1, "{name}: another Job than before");
            assert_eq!(world.outcomes(), [Some("Blocked".to_owned())], "{name}: no write until there is news");
        }
    }
    let mut world = blocked();
    annotate(&mut world.objects[0], "now");
    let job = world.start("01:04").complete().batch_report(&kittens(1)[0], BatchOutcome::Blocked, "SignerUnknown");
    world.jobs = vec![job];
    assert!(world.step("01:05").jobs.is_empty(), "an annotation is answered once");
    annotate(&mut world.objects[0], "again");
    assert_eq!(world.step("01:06").jobs.len(), 1);
}

#[test]
fn what_was_blocked_just_before_the_cutoff_is_taken_anyway_once() {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "03:35"));
    let job = world.start("03:38").complete().batch_report(&ids[0], BatchOutcome::Blocked, "PacketKeyNotMounted");
    world.jobs = vec![job];
    assert!(world.step("03:39").jobs.is_empty());
    let decision = world.step("03:41");
    assert!(items(&decision)[0][0].take_anyway);
    let job = started(&decision.jobs[0], &world.processor, "03:41").complete();
    world.jobs = vec![job.batch_report(&ids[0], BatchOutcome::Blocked, "AccessDenied")];
    assert!(world.step("03:42").jobs.is_empty(), "then every ten minutes again");
}

#[test]
fn a_failed_index_is_planned_in_halves_and_a_batch_that_fails_alone_three_times_crashes_its_worker() {
    let ids = kittens(4);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let mut names = BTreeSet::new();
    let mut fail = |world: &mut World, now: &str| {
        let job = world.start(now);
        assert!(names.insert(job.name().to_owned()), "each try is another Job");
        world.jobs = vec![job.crashed()];
        let shape = match &world.jobs[0].work {
            Some(facilitator_core::formats::work::WorkList::Intake { chunks, .. }) => chunks.iter().map(Vec::len).collect(),
            _ => Vec::new(),
        };
        shape
    };
    assert_eq!(fail(&mut world, "01:01"), [4]);
    assert_eq!(fail(&mut world, "01:02"), [2, 2]);
    // Three of the four turn out to be good.
    world.mailboxes = world.mailboxes.delivered(&ids[..3], "01:03");
    assert_eq!(fail(&mut world, "01:04"), [1]);
    assert_eq!(fail(&mut world, "01:05"), [1]);
    assert_eq!(fail(&mut world, "01:06"), [1]);
    let decision = world.step("01:07");
    assert!(decision.jobs.is_empty());
    assert_eq!(decision.events.last().unwrap().reason, reasons::CRASHES_WORKER);
    assert_eq!(world.outcomes()[3].as_deref(), Some("CrashesWorker"));
    assert_eq!(decision.windows[&window(WINDOW)].blocked, 1);

    world.jobs.clear();
    world.memory = Retries::default();
    assert!(world.step("05:00").jobs.is_empty(), "a restarted operator leaves it");
    annotate(world.objects.iter_mut().find(|o| o.status.as_ref().unwrap().outcome.as_deref() == Some("CrashesWorker")).unwrap(), "1");
    assert_eq!(sizes(&world.step("05:01")), [1], "until somebody asks");
}

#[test]
fn a_report_that_never_came_and_a_removed_job_are_read_from_the_ledger_first() {
    let ids = kittens(2);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let job = world.start("01:01");
    world.mailboxes = world.mailboxes.delivered(&ids[..1], "01:02");
    world.jobs.clear();
    let decision = world.decide(at("01:03"));
    assert_eq!((sizes(&decision), decision.jobs[0].attempt), (vec![1], 0), "a Job that is gone was no attempt");
    world.jobs = vec![job.complete()];
    let decision = world.decide(at("01:03"));
    assert_eq!((sizes(&decision), decision.jobs[0].attempt), (vec![1], 1));
}

#[test]
fn a_job_that_was_refused_costs_no_attempt_alone() {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    for now in ["01:01", "01:02", "01:03", "01:04"] {
        let job = world.start(now);
        world.jobs = vec![job.refused("bad key")];
    }
    assert_eq!(world.step("01:05").jobs[0].attempt, 4);
}

#[test]
fn an_empty_cluster_over_a_full_ledger_plans_nothing() {
    let ids = kittens(6);
    let mailboxes = Mailboxes::default()
        .ingested(&ids, "01:00")
        .delivered(&ids[..3], "01:10")
        .rejected(&ids[3..4], RejectedReason::Empty, "01:10")
        .finished(WINDOW, Verdict::Summed, "04:01");
    let mut world = World::new(mailboxes.clone());
    let decision = world.step("09:00");
    assert!(decision.jobs.is_empty() && decision.create.is_empty() && decision.events.is_empty());
    assert_eq!(decision.counts.late, 2);
    let tally = decision.windows[&window(WINDOW)];
    assert_eq!((tally.seen, tally.delivered, tally.rejected, tally.empty, tally.late), (6, 3, 1, 1, 2));
    let decision = World::new(mailboxes).step("02:00");
    assert_eq!((decision.jobs.len(), decision.create.len()), (0, 6), "what is news is shown again");
}

#[test]
fn batches_after_the_plan_are_late_and_never_taken_in() {
    let ids = kittens(2);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "04:30").planned(WINDOW, "04:00"));
    let decision = world.step("04:31");
    assert!(decision.jobs.is_empty());
    assert_eq!((decision.create.len(), decision.counts.late, decision.events.len()), (2, 2, 2));
    assert_eq!(world.outcomes(), [Some("Late".to_owned()), Some("Late".to_owned())]);
    assert!(world.step("04:32").patch.is_empty());
    assert_eq!(world.step("06:30").delete.len(), 2);
    assert!(world.step("06:31").create.is_empty(), "and not made again");
}

#[test]
fn objects_go_two_hours_after_the_end_and_are_at_most_so_many() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.max_batch_objects = 2;
    world.start("01:01");
    assert_eq!(world.objects.len(), 2);
    world.jobs.clear();
    world.mailboxes = world.mailboxes.delivered(&ids, "01:02");
    assert_eq!(world.step("01:03").patch.len(), 2);
    assert!(world.step("2026-11-20T03:01:59Z").delete.is_empty());
    assert_eq!(world.step("03:02").delete.len(), 2);
    assert!(world.step("03:03").create.is_empty());
    // Those whose names the mailboxes no longer show go two hours after they were made.
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.start("01:01");
    (world.jobs, world.mailboxes) = (Vec::new(), Mailboxes::default());
    assert!(world.step("03:00").delete.is_empty());
    assert_eq!(world.step("03:01").delete.len(), 3);
}

#[test]
fn exceptions_alone_get_objects_where_that_is_asked_for() {
    let ids = kittens(3);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.processor.spec.workers.batch_objects = BatchObjects::Exceptions;
    let job = world.start("01:01");
    assert!(world.objects.is_empty());
    world.mailboxes = world.mailboxes.delivered(&ids[..1], "01:02").rejected(&ids[1..2], RejectedReason::Empty, "01:02");
    world.jobs = vec![job.complete().batch_report(&ids[2], BatchOutcome::Blocked, "SignerUnknown")];
    world.step("01:03");
    assert_eq!(world.outcomes(), [Some("Rejected".to_owned()), Some("Blocked".to_owned())]);
}

#[test]
fn the_schedule_says_which_batches_are_ours_and_foreign_names_are_counted() {
    let mine = batch("kittens-seen", "01/00", 1);
    let mailboxes = Mailboxes::default()
        .ingested(&[mine.clone(), batch("puppies-seen", "01/00", 2)], "01:00")
        .named("kittens-seen/2026/11/18/23/59/00000000-0000-0000-0000-000000000003.batch", "01:00")
        .named("kittens-seen/README", "01:00")
        .named("kittens-seen/2026/13/20/00/00/00000000-0000-0000-0000-000000000004.batch.sig", "01:00")
        .named("task-markers/intake-kittens-seen", "01:00")
        .answered(&[batch("kittens-seen", "02/00", 9)], 1, "01:00");
    let mut processor = processor();
    processor.spec.aggregations.names = vec!["kittens-seen".to_owned()];
    let schedule = schedule(&processor);
    assert_eq!(schedule.share, Share::First);
    let inventory = mailboxes.inventory(&schedule);
    assert_eq!(inventory.unknown_names, 2);
    let found: Vec<_> = inventory.windows.values().flat_map(|window| window.batches.keys()).collect();
    assert_eq!(found, [&mine]);
    let matched = mailboxes.answered(std::slice::from_ref(&mine), 1, "01:20").inventory(&schedule);
    assert!(matched.find(&mine, &schedule).unwrap().1.peer);
}
