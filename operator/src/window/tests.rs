#![allow(clippy::unwrap_used)]

mod further;
mod objects;
mod parts;
mod troubles;

use crds::conditions::{AGGREGATED, READY, STALLED};
use crds::names::RETRY_ANNOTATION;
use crds::processor::Cutoff;
use facilitator_core::formats::ledger::{RejectedReason, Verdict};
use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::{AggregateItem, BatchOutcome, WindowOutcome};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::batch::{self, BatchInput};
use crate::status::condition_is_true;
use crate::workload::fixtures::*;
use crate::workload::{Stage, Work};

/// One processor, its mailboxes and cluster; each [`World::step`] is one decision on batches and windows, applied.
struct World {
    processor: DataShareProcessor,
    mailboxes: Mailboxes,
    jobs: Vec<JobView>,
    objects: Vec<AggregationWindow>,
    batches: Retries<BatchId>,
    memory: Retries<WindowId>,
}

impl World {
    fn new(mailboxes: Mailboxes) -> Self {
        let (jobs, objects) = (Vec::new(), Vec::new());
        Self {
            processor: processor(),
            mailboxes,
            jobs,
            objects,
            batches: Retries::default(),
            memory: Retries::default(),
        }
    }

    fn step(&mut self, now: &str) -> WindowDecision {
        let mut schedule = schedule(&self.processor);
        schedule.overrides = overrides(&self.objects);
        let inventory = self.mailboxes.inventory(&schedule, at(now));
        let timing = Timing::default();
        let room = Room { jobs: 10, pods: 10 };
        let of = |stage| {
            self.jobs
                .iter()
                .filter(|view| view.stage() == Some(stage))
                .cloned()
                .collect::<Vec<_>>()
        };
        let (intake, aggregate) = (of(Stage::Intake), of(Stage::Aggregate));
        let batches = batch::decide(
            &BatchInput {
                processor: &self.processor,
                schedule: &schedule,
                timing: &timing,
                inventory: &inventory,
                objects: &[],
                jobs: &intake,
                allowance: Allowance::Free,
                room,
                memory: &self.batches,
            },
            at(now),
        );
        self.batches = batches.memory;
        let input = WindowInput {
            processor: &self.processor,
            schedule: &schedule,
            timing: &timing,
            inventory: &inventory,
            tallies: &batches.windows,
            objects: &self.objects,
            jobs: &aggregate,
            allowance: Allowance::Free,
            room,
            memory: &self.memory,
        };
        let decision = decide(&input, at(now));
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
        }
        self.objects
            .retain(|object| !decision.delete.contains(object.metadata.name.as_ref().unwrap()));
        self.memory = decision.memory.clone();
        decision
    }

    /// The operator starts again.
    fn forget(&mut self) {
        (self.batches, self.memory, self.jobs) = (Retries::default(), Retries::default(), Vec::new());
    }

    /// The Job that the decision starts.
    fn start(&mut self, now: &str) -> JobView {
        let decision = self.step(now);
        assert_eq!(decision.jobs.len(), 1, "a Job starts at {now}");
        let view = started(&decision.jobs[0], &self.processor, now);
        self.jobs = vec![view.clone()];
        view
    }

    /// A Job starts and reports.
    fn report(&mut self, now: &str, outcome: WindowOutcome) {
        let job = self.start(now).complete().window_report(WINDOW, outcome, "");
        self.jobs = vec![job];
    }

    fn status(&self) -> &AggregationWindowStatus {
        self.objects[0].status.as_ref().unwrap()
    }

    /// The one window's Ready reason, cutoff as HH:MM and defers.
    fn says(&self) -> (&str, &str, i32) {
        let status = self.status();
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == READY)
            .unwrap();
        let cutoff = status.cutoff.as_deref().map_or("", |cutoff| &cutoff[11..16]);
        (ready.reason.as_str(), cutoff, status.defers.unwrap_or(0))
    }

    fn is(&self, condition: &str) -> bool {
        condition_is_true(&self.status().conditions, condition) == Some(true)
    }

    fn agree(&mut self, cutoff: &str) {
        self.processor.spec.windows.cutoffs = vec![Cutoff {
            aggregation: "kittens-seen".to_owned(),
            start: "202611200000".to_owned(),
            cutoff: at(cutoff).to_string(),
        }];
    }
}

fn items(decision: &WindowDecision) -> Vec<Vec<AggregateItem>> {
    decision
        .jobs
        .iter()
        .flat_map(|job| match &job.work {
            Work::Aggregate(chunks) => chunks.clone(),
            Work::Intake(_) | Work::CompactClaims(_) | Work::KeyProbe { .. } | Work::Preflight { .. } => Vec::new(),
        })
        .collect()
}

fn cutoffs(decision: &WindowDecision) -> Vec<i64> {
    items(decision)
        .concat()
        .iter()
        .flat_map(|item| item.cutoffs.clone())
        .collect()
}

/// Two batches of the first window, in time and answered.
fn in_time() -> Mailboxes {
    let ids = kittens(2);
    Mailboxes::default()
        .ingested(&ids, "01:00")
        .delivered(&ids, "01:10")
        .answered(&ids, 1, "01:10")
}

#[test]
fn a_window_is_collected_summed_and_done() {
    let mut world = World::new(in_time());
    let decision = world.step("01:11");
    assert_eq!(
        (decision.create.len(), decision.jobs.len(), decision.counts.open),
        (1, 0, 1)
    );
    let owner = &decision.create[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller),
        ("DataShareProcessor", Some(true))
    );
    // True needs a right on the owner's finalizers wherever OwnerReferencesPermissionEnforcement is on (OpenShift).
    assert_eq!(owner.block_owner_deletion, Some(false));
    assert_eq!(world.says(), ("Collecting", "03:50", 0));
    assert_eq!((decision.open.len(), decision.next_cutoff), (1, Some(at("03:50"))));
    for quiet in ["01:12", "03:50", "2026-11-20T03:59:59Z"] {
        let decision = world.step(quiet);
        assert!(
            decision.patch.is_empty() && decision.jobs.is_empty(),
            "{quiet}: nothing is written"
        );
    }
    let job = world.start("04:00");
    assert_eq!(world.says().0, "Summing");
    assert_eq!(world.step("04:01").jobs.len(), 0, "one Job at a time");
    world.mailboxes = world.mailboxes.finished(WINDOW, Verdict::Summed, "04:01");
    world.jobs = vec![job.complete().window_report(WINDOW, WindowOutcome::Summed, "")];
    let decision = world.step("04:02");
    assert_eq!(
        (decision.jobs.len(), decision.counts.summed, decision.open.len()),
        (0, 1, 0)
    );
    assert_eq!(
        (decision.events[0].warning, decision.events[0].reason),
        (false, "Summed")
    );
    let status = world.status();
    assert_eq!(
        (status.clients, status.batches.as_ref().unwrap().matched),
        (Some(39), 2)
    );
    assert_eq!(
        status.batches.as_ref().unwrap().late,
        1,
        "the result knows of late batches"
    );
    let sum_part = status.sum_part.as_ref().unwrap();
    assert_eq!(
        sum_part.name,
        "us-ct-g-enpa/kittens-seen/202611200000-202611200300.sum_0"
    );
    assert!(world.is(READY) && world.is(AGGREGATED) && !world.is(STALLED));
    assert_eq!(world.status().duration_seconds, Some(7_260));
    world.jobs.clear();
    let decision = world.step("04:30");
    assert!(
        decision.patch.is_empty() && decision.events.is_empty(),
        "what the Job told stays"
    );
}

#[test]
fn verdicts_and_what_they_count_as() {
    let table = [
        (Verdict::Summed, "Summed", true, true, false, (1, 0, 0)),
        (Verdict::BelowFloor, "BelowFloor", true, false, false, (0, 1, 0)),
        (Verdict::Failed, "Failed", false, false, true, (0, 0, 1)),
    ];
    for (verdict, reason, ready, aggregated, stalled, counts) in table {
        let mut world = World::new(in_time().finished(WINDOW, verdict, "04:01"));
        let decision = world.step("04:02");
        assert_eq!(world.says().0, reason);
        assert_eq!(
            (world.is(READY), world.is(AGGREGATED), world.is(STALLED)),
            (ready, aggregated, stalled),
            "{reason}"
        );
        assert_eq!(
            (
                decision.counts.summed,
                decision.counts.without_sum,
                decision.counts.failed
            ),
            counts,
            "{reason}"
        );
        assert_eq!((decision.jobs.len(), decision.events.len()), (0, 1), "{reason}");
    }
}

#[test]
fn without_a_member_the_cutoff_moves_then_the_window_is_missed_then_reopened() {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.step("01:01");
    // Nothing delivered: nothing to ask a worker.
    let decision = world.step("04:00");
    assert_eq!((decision.jobs.len(), world.says()), (0, ("Deferred", "06:50", 1)));
    assert!(world.step("04:01").patch.is_empty());
    world.forget();
    assert!(
        world.step("04:02").patch.is_empty(),
        "a restarted operator knows it from the object"
    );
    // Delivered too late for the first cutoff, and the peer silent: a worker is asked at the second.
    world.mailboxes = world.mailboxes.delivered(&ids, "05:00");
    assert!(world.step("06:59").jobs.is_empty());
    world.report("07:00", WindowOutcome::NoMembers);
    let decision = world.step("07:01");
    assert_eq!(world.says(), ("Missed", "06:50", 1));
    assert_eq!(
        (
            decision.counts.without_sum,
            decision.events[0].reason,
            decision.open.len()
        ),
        (1, "Missed", 1),
        "the peer's answers are looked for, to be told when a cutoff is agreed on"
    );
    assert!(world.is(STALLED) && !world.is(READY));
    world.forget();
    assert!(world.step("08:00").patch.is_empty());
    world.agree("12:00");
    assert!(world.step("08:01").jobs.is_empty());
    assert_eq!(world.says(), ("Collecting", "12:00", 1));
    assert!(!world.is(STALLED));
    let decision = world.step("12:10");
    assert_eq!(
        cutoffs(&decision),
        ["03:50", "06:50", "12:00"].map(|time| at(time).as_millisecond())
    );
}

#[test]
fn a_member_at_a_later_cutoff_is_summed_with_every_due_cutoff_told() {
    let mut world = World::new(in_time());
    world.step("01:00");
    world.report("04:00", WindowOutcome::NoMembers);
    world.step("04:01");
    assert_eq!(world.says(), ("Deferred", "06:50", 1));
    world.jobs.clear();
    let decision = world.step("07:00");
    assert_eq!(
        cutoffs(&decision),
        ["03:50", "06:50"].map(|time| at(time).as_millisecond())
    );
}

#[test]
fn an_old_window_is_taken_in_looked_at_once_and_waits_for_an_agreed_cutoff() {
    let ids = kittens(2);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    let decision = world.step("2026-11-25T00:00:00Z");
    assert_eq!(
        (decision.jobs.len(), decision.overdue.len(), world.says().0),
        (0, 0, "Waiting")
    );
    world.mailboxes = world.mailboxes.delivered(&ids, "2026-11-25T00:01:00Z");
    world.report("2026-11-25T00:02:00Z", WindowOutcome::NoMembers);
    let decision = world.step("2026-11-25T00:03:00Z");
    assert_eq!((world.says().0, decision.counts.without_sum), ("CutoffPassed", 1));
    assert!(
        decision.events[0]
            .message
            .contains("aggregation kittens-seen, start 202611200000")
    );
    assert!(decision.overdue.is_empty());
    // For a day the peer's answers are looked for: who agrees on a cutoff wants to know that all are there.
    let is_listed = |decision: &WindowDecision| decision.open.contains(&window(WINDOW));
    assert!(is_listed(&decision) && is_listed(&world.step("2026-11-25T23:59:59Z")));
    assert!(!is_listed(&world.step("2026-11-26T00:00:00Z")));
    assert!(world.step("2026-11-26T00:00:00Z").jobs.is_empty());
    world.agree("2026-11-26T00:00:15Z");
    assert!(world.step("2026-11-26T00:00:01Z").jobs.is_empty());
    assert_eq!(world.says().0, "Collecting");
    assert_eq!(world.step("2026-11-26T00:10:15Z").jobs.len(), 1);
}

#[test]
fn an_old_window_needs_no_listing_any_more_once_the_peer_has_answered_all() {
    let ids = kittens(2);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.step("2026-11-25T00:00:00Z");
    world.mailboxes = world.mailboxes.delivered(&ids, "2026-11-25T00:01:00Z");
    world.report("2026-11-25T00:02:00Z", WindowOutcome::NoMembers);
    let mut looked = |mailboxes: Mailboxes, now: &str| {
        world.mailboxes = mailboxes;
        let decision = world.step(now);
        assert_eq!(world.says().0, "CutoffPassed");
        (
            world.status().batches.as_ref().unwrap().matched,
            !decision.open.is_empty(),
        )
    };
    let delivered = Mailboxes::default()
        .ingested(&ids, "01:00")
        .delivered(&ids, "2026-11-25T00:01:00Z");
    let one = delivered.clone().answered(&ids[..1], 1, "2026-11-25T00:03:00Z");
    let both = one.clone().answered(&ids[1..], 1, "2026-11-25T00:04:00Z");
    assert_eq!(looked(delivered, "2026-11-25T00:03:00Z"), (0, true));
    assert_eq!(looked(one, "2026-11-25T00:04:00Z"), (1, true));
    assert_eq!(looked(both, "2026-11-25T00:05:00Z"), (2, false));
}

#[test]
fn an_old_window_with_members_is_summed_when_first_seen() {
    let mut world = World::new(in_time());
    let decision = world.step("2026-11-25T00:00:00Z");
    assert_eq!(cutoffs(&decision).len(), 2);
}

#[test]
fn an_old_window_whose_batches_are_blocked_still_needs_the_listing() {
    let ids = kittens(1);
    let mut world = World::new(Mailboxes::default().ingested(&ids, "01:00"));
    world.step("2026-11-25T00:00:00Z");
    let item = facilitator_core::formats::work::IntakeItem {
        aggregation: "kittens-seen".to_owned(),
        time: ids[0].time.to_path(),
        uuid: ids[0].uuid,
        take_anyway: false,
    };
    let planned = PlannedJob {
        work: Work::Intake(vec![vec![item]]),
        parallelism: 1,
        attempt: 0,
        canary: false,
    };
    let job = started(&planned, &world.processor, "2026-11-25T00:00:00Z").complete();
    world.jobs = vec![job.batch_report(&ids[0], BatchOutcome::Blocked, "SignerUnknown")];
    let decision = world.step("2026-11-25T00:01:00Z");
    assert_eq!(
        (world.says().0, decision.open),
        ("CutoffPassed", [window(WINDOW)].into())
    );
    assert_eq!(world.status().batches.as_ref().unwrap().blocked, 1);
}

#[test]
fn a_window_of_empty_batches_ends_without_a_job() {
    let ids = kittens(2);
    let empty = Mailboxes::default()
        .ingested(&ids, "01:00")
        .rejected(&ids, RejectedReason::Empty, "01:10");
    let mut world = World::new(empty.clone());
    world.step("01:11");
    assert_eq!(world.says().0, "Collecting", "others may come");
    let decision = world.step("04:00");
    assert_eq!(
        (decision.jobs.len(), decision.counts.without_sum, world.says().0),
        (0, 1, "Empty")
    );
    assert!(world.is(READY) && !world.is(AGGREGATED));
    let other = [batch("kittens-seen", "01/00", 9)];
    let mut world = World::new(empty.ingested(&other, "01:00").rejected(
        &other,
        RejectedReason::DigestMismatch,
        "01:10",
    ));
    world.step("01:11");
    world.step("04:00");
    assert_eq!(world.says().0, "Deferred", "a bad batch is not an empty one");
}

#[test]
fn a_frozen_window_without_a_result_is_run_again_and_one_with_a_result_never() {
    let mut world = World::new(in_time().planned(WINDOW, "04:01"));
    assert_eq!(world.step("05:00").jobs.len(), 1, "killed after the plan");
    let mut world = World::new(in_time().finished(WINDOW, Verdict::Summed, "04:01"));
    assert!(
        world.step("2026-12-01T00:00:00Z").jobs.is_empty(),
        "everything deleted and applied again"
    );
    assert_eq!(world.says().0, "Summed");
    assert_eq!(world.status().clients, Some(39));
}

#[test]
fn summed_never_reverts() {
    let mut world = World::new(in_time().finished(WINDOW, Verdict::Summed, "04:01"));
    world.step("04:02");
    world.mailboxes = in_time();
    let decision = world.step("04:03");
    assert!(decision.patch.is_empty());
    assert!(world.is(AGGREGATED));
}
