#![allow(clippy::unwrap_used)]
use crds::conditions::{MANIFEST_PUBLISHED, PEERS_KNOWN, reasons};
use crds::processor::{PreflightOutcome, PreflightStage, PreflightStatus};
use facilitator_core::formats::preflight::{Check, Line, Outcome, Place, PreflightReport};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::{PreflightDecision, PreflightInput, decide};
use crate::status::{Verdict, set_condition};
use crate::workload::fixtures::{at, processor, started};
use crate::workload::{JobView, PlannedJob, Stage, Work};

/// A processor's preflight, look by look.
struct World {
    inputs: &'static str,
    asked: Option<&'static str>,
    hold: Option<&'static str>,
    room: u32,
    status: Option<PreflightStatus>,
    conditions: Vec<Condition>,
    jobs: Vec<JobView>,
    refused: Vec<(Stage, String)>,
}

impl World {
    fn new() -> Self {
        let mut conditions = Vec::new();
        let known = Verdict::new(
            PEERS_KNOWN,
            Some(true),
            reasons::OK,
            "All parties are written in the spec.",
        );
        set_condition(&mut conditions, &known, Some(3), Timestamp::UNIX_EPOCH);
        Self {
            inputs: "one",
            asked: None,
            hold: None,
            room: 5,
            status: None,
            conditions,
            jobs: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn look(&mut self, now: &str) -> PreflightDecision {
        let decision = decide(
            &PreflightInput {
                inputs: self.inputs,
                asked: self.asked,
                manifest: None,
                before: self.status.as_ref(),
                conditions: &self.conditions,
                generation: 3,
                jobs: &self.jobs,
                hold: self.hold,
                room: self.room,
                start_deadline: SignedDuration::from_mins(5),
                refused: &self.refused,
            },
            at(now),
        );
        self.status.clone_from(&decision.status);
        decision
    }

    /// Both Jobs, as they were started.
    fn begun() -> Self {
        let mut world = World::new();
        let decision = world.look("02:00");
        assert_eq!(
            decision.start.iter().map(PlannedJob::stage).collect::<Vec<_>>(),
            [Stage::Intake, Stage::Aggregate]
        );
        world.jobs = decision
            .start
            .iter()
            .map(|job| started(job, &processor(), "02:00"))
            .collect();
        world
    }

    fn ended(&mut self, n: usize, lines: Vec<Line>) {
        let message = PreflightReport::new(lines).to_message();
        let state = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": message}});
        self.jobs[n] = self.jobs[n].clone().complete().pod("Succeeded", state, "02:00");
    }
}

fn passed() -> Line {
    Line::new(Check::SigningKey, Outcome::Passed, "it is ours", "")
}

fn told(decision: &PreflightDecision) -> (Option<bool>, &str, &str) {
    let verdict = &decision.verdict;
    (verdict.status, &verdict.reason, &verdict.message)
}

#[test]
fn both_stages_are_tried_once_and_their_lines_are_kept() {
    let mut world = World::begun();
    assert_eq!(told(&world.look("02:00")).1, reasons::RUNNING);
    world.ended(0, vec![passed()]);
    let decision = world.look("02:01");
    assert_eq!((decision.start.len(), told(&decision).1), (0, reasons::RUNNING));
    let unknown = Line::new(Check::Expiry, Outcome::NotCheckable, "may not look", "").of(Place::Ledger);
    world.ended(1, vec![passed(), unknown]);
    let decision = world.look("02:02");
    let (status, reason, message) = told(&decision);
    assert_eq!((status, reason), (Some(true), reasons::PASSED));
    assert!(message.contains("1 can't be made from here"), "{message}");
    let lines = decision.status.clone().unwrap().lines;
    let stages: Vec<_> = lines.iter().map(|line| line.stage).collect();
    use PreflightStage::{Aggregate, Intake, Operator};
    assert_eq!(stages, [Operator, Intake, Aggregate, Aggregate]);
    assert_eq!(
        (lines[0].check.as_str(), lines[3].mailbox.as_deref()),
        (PEERS_KNOWN, Some("ledger"))
    );

    // Gone Jobs and further looks change nothing; other inputs begin anew.
    world.jobs.clear();
    assert_eq!(
        world.look("03:00"),
        PreflightDecision {
            remove: vec![],
            ..decision
        }
    );
    world.inputs = "two";
    world.asked = Some("now");
    let decision = world.look("03:01");
    assert_eq!((decision.start.len(), told(&decision).1), (2, reasons::RUNNING));
    assert_eq!(decision.status.unwrap().asked.as_deref(), Some("now"));
}

#[test]
fn the_condition_names_the_first_thing_that_failed_and_what_to_do() {
    let mut world = World::begun();
    let bad = Line::new(Check::Write, Outcome::Failed, "access denied", "ask the peer").of(Place::Peer);
    world.ended(0, vec![passed(), bad.clone(), bad]);
    world.ended(1, vec![passed()]);
    let decision = world.look("02:01");
    let (status, reason, message) = told(&decision);
    assert_eq!((status, reason), (Some(false), reasons::FAILED));
    assert!(
        message.starts_with("Intake Write peer: access denied; ask the peer. 1 more failed."),
        "{message}"
    );
}

#[test]
fn pods_that_do_not_start_or_do_not_tell_are_lines_of_their_own() {
    type Change = fn(JobView) -> JobView;
    let mount = "MountVolume.SetUp failed for volume \"batch-signing\" : secret \"batch-signing\" not found";
    let cases: [(&str, Change, &str, Option<&str>); 5] = [
        (
            "a Secret that isn't there",
            |view| {
                let mount =
                    "MountVolume.SetUp failed for volume \"batch-signing\" : secret \"batch-signing\" not found";
                view.creating().event(Some(0), "FailedMount", mount)
            },
            "02:01",
            Some(mount),
        ),
        ("one that only just began", |view| view.creating(), "02:01", None),
        (
            "no pod, and nobody says why",
            |view| view,
            "02:06",
            Some("names no cause"),
        ),
        (
            "a refused configuration",
            |view| view.refused("unknown variant `Preflight`"),
            "02:01",
            Some("unknown variant"),
        ),
        (
            "a pod that said nothing",
            |view| view.complete(),
            "02:01",
            Some("isn't known"),
        ),
    ];
    for (what, change, now, expected) in cases {
        let mut world = World::begun();
        world.ended(1, vec![passed()]);
        world.jobs[0] = change(world.jobs[0].clone());
        let decision = world.look(now);
        let Some(expected) = expected else {
            assert_eq!(told(&decision).1, reasons::RUNNING, "{what}");
            continue;
        };
        let lines = decision.status.clone().unwrap().lines;
        let line = lines
            .iter()
            .find(|line| line.outcome == PreflightOutcome::Failed)
            .unwrap();
        assert_eq!(
            (line.stage, line.check.as_str()),
            (PreflightStage::Intake, "Pod"),
            "{what}"
        );
        assert!(
            line.detail.contains(expected) && !line.remedy.is_empty(),
            "{what}: {line:?}"
        );
        assert_eq!(told(&decision).1, reasons::FAILED, "{what}");
        assert_eq!(decision.remove.len(), 1, "{what}");
    }
    let mut world = World::new();
    world.look("02:00");
    let policy = "jobs.batch is forbidden: Secret batch-signing is not listed".to_owned();
    world.refused = vec![(Stage::Intake, policy.clone()), (Stage::Aggregate, policy)];
    let decision = world.look("02:01");
    assert!(
        told(&decision).2.starts_with("Intake Pod: jobs.batch is forbidden"),
        "{decision:?}"
    );
}

#[test]
fn it_waits_for_room_and_for_a_person_and_takes_old_jobs_away() {
    let mut world = World::new();
    world.room = 1;
    assert_eq!(world.look("02:00").start.len(), 1);
    world.room = 0;
    assert_eq!(world.look("02:00").start, []);
    let mut world = World::new();
    world.hold = Some("the processor is suspended");
    let decision = world.look("02:00");
    assert_eq!((decision.start.len(), told(&decision).1), (0, reasons::UNKNOWN));
    assert!(decision.status.is_none() && told(&decision).2.contains("suspended"));

    let mut world = World::begun();
    let old: Vec<_> = world.jobs.iter().map(|view| view.name().to_owned()).collect();
    world.inputs = "two";
    let decision = world.look("02:01");
    assert_eq!((decision.remove, decision.start.len()), (old, 2));
    let Work::Preflight { inputs, .. } = &decision.start[0].work else {
        panic!("{:?}", decision.start);
    };
    assert_eq!(inputs, "two");
}

#[test]
fn what_passes_by_itself_is_waited_for_and_then_told() {
    let mut world = World::begun();
    world.ended(0, vec![passed()]);
    world.ended(1, vec![passed()]);
    let lags = Verdict::new(
        MANIFEST_PUBLISHED,
        Some(false),
        reasons::NOT_SERVED,
        "the one of before.",
    );
    set_condition(&mut world.conditions, &lags, Some(3), Timestamp::UNIX_EPOCH);
    assert_eq!(told(&world.look("02:01")).1, reasons::RUNNING);
    let decision = world.look("02:03");
    assert_eq!(told(&decision).1, reasons::FAILED);
    assert!(
        told(&decision)
            .2
            .starts_with("Operator ManifestPublished: the one of before;"),
        "{decision:?}"
    );
}
