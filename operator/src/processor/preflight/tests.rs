#![allow(clippy::unwrap_used)]

mod conditions;

use crds::conditions::{PEERS_KNOWN, reasons};
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
    has_served_at: bool,
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
            has_served_at: true,
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
                has_served_at: self.has_served_at,
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

/// What became of the first stage's pod, and when.
type Change = fn(JobView) -> JobView;

const MOUNT: &str = "MountVolume.SetUp failed for volume \"batch-signing\" : secret \"batch-signing\" not found";
const ATTACH: &str = "AttachVolume.Attach failed for volume \"pvc-1\" : volume attachment is being deleted";

#[test]
fn what_passes_by_itself_has_the_start_deadline_and_what_stands_has_not() {
    let unscheduled: Change = |view| view.unscheduled("0/3 nodes are available: insufficient cpu");
    let attach: Change = |view| view.creating().event(Some(0), "FailedAttachVolume", ATTACH);
    let quota: Change = |view| view.event(None, "FailedCreate", "pods \"x\" is forbidden: exceeded quota: compute");
    let cases: [(&str, Change, &str, Option<&str>); 13] = [
        (
            "a Secret that isn't there",
            |view| view.creating().event(Some(0), "FailedMount", MOUNT),
            "02:01",
            Some(MOUNT),
        ),
        (
            "an image that isn't there",
            |view| {
                let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}});
                view.pod("Pending", waiting, "02:00")
            },
            "02:01",
            Some("manifest unknown"),
        ),
        (
            "an account that isn't there",
            |view| {
                view.event(
                    None,
                    "FailedCreate",
                    "error looking up service account a/intake: not found",
                )
            },
            "02:01",
            Some("service account"),
        ),
        (
            "a policy that refuses its pods",
            |view| view.event(None, "FailedCreate", "pods \"x\" is forbidden: violates PodSecurity"),
            "02:01",
            Some("PodSecurity"),
        ),
        ("no node yet", unscheduled, "02:01", None),
        ("no node", unscheduled, "02:05", Some("insufficient cpu")),
        ("a volume that another node still has", attach, "02:01", None),
        (
            "a volume that another node keeps",
            attach,
            "02:05",
            Some("being deleted"),
        ),
        ("no quota yet", quota, "02:01", None),
        ("no quota", quota, "02:05", Some("exceeded quota")),
        ("one that only just began", |view| view.creating(), "02:01", None),
        (
            "no pod, and nobody says why",
            |view| view,
            "02:06",
            Some("names no cause"),
        ),
        (
            "one that hangs",
            |view| view.running(),
            "02:07",
            Some("isn't over after 420 s"),
        ),
    ];
    for (what, change, now, expected) in cases {
        let removed = told_of_first(what, change, now, expected);
        assert_eq!(
            removed,
            usize::from(expected.is_some()),
            "{what}: it holds on to its room"
        );
    }
}

#[test]
fn a_job_that_is_over_keeps_its_pods_and_their_logs() {
    let cases: [(&str, Change, &str); 6] = [
        (
            "a refused configuration",
            |view| view.refused("unknown variant `Preflight`"),
            "unknown variant",
        ),
        ("a pod that said nothing", |view| view.complete(), "isn't known"),
        (
            "too little memory",
            |view| {
                let state = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
                view.crashed().pod("Failed", state, "02:00")
            },
            "its pod ended with OOMKilled (exit code 137)",
        ),
        (
            "a crash without a word",
            |view| {
                let state = json!({"terminated": {"exitCode": 101, "reason": "Error"}});
                view.crashed().pod("Failed", state, "02:00")
            },
            "its pod ended with Error (exit code 101)",
        ),
        (
            "a deadline",
            |view| view.failed("DeadlineExceeded", "Job was active longer than specified deadline"),
            "DeadlineExceeded: Job was active longer",
        ),
        (
            "more lines than there are checks",
            |view| {
                let message =
                    PreflightReport::new(vec![Line::new(Check::Clock, Outcome::Passed, "", ""); 47]).to_message();
                let state = json!({"terminated": {"exitCode": 0, "message": message}});
                view.complete().pod("Succeeded", state, "02:00")
            },
            "told 47 lines",
        ),
    ];
    for (what, change, expected) in cases {
        assert_eq!(
            told_of_first(what, change, "02:01", Some(expected)),
            0,
            "{what}: its log is gone"
        );
    }
    let world = told_lines(|view| {
        let state = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        view.crashed().pod("Failed", state, "02:00")
    });
    assert!(world[0].remedy.contains("memory"), "{world:?}");
}

/// The lines of a preflight of which the first stage's Job became that, and the second's is well.
fn told_lines(change: Change) -> Vec<crds::processor::PreflightLine> {
    let mut world = World::begun();
    world.ended(1, vec![passed()]);
    world.jobs[0] = change(world.jobs[0].clone());
    let lines = world.look("02:01").status.unwrap().lines;
    let failed = lines
        .into_iter()
        .filter(|line| line.outcome == PreflightOutcome::Failed);
    failed.collect()
}

/// Looks at a preflight of which the first stage's Job became that; `expected`: what its line must say, if it is over.
/// Returns how many Jobs are removed.
fn told_of_first(what: &str, change: Change, now: &str, expected: Option<&str>) -> usize {
    let mut world = World::begun();
    world.ended(1, vec![passed()]);
    world.jobs[0] = change(world.jobs[0].clone());
    let decision = world.look(now);
    let Some(expected) = expected else {
        assert_eq!(told(&decision).1, reasons::RUNNING, "{what}");
        return decision.remove.len();
    };
    let lines = decision.status.clone().unwrap().lines;
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line.outcome == PreflightOutcome::Failed)
        .collect();
    assert_eq!(failed.len(), 1, "{what}: {lines:?}");
    let line = failed[0];
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
    let others = lines.iter().filter(|line| line.stage == PreflightStage::Aggregate);
    assert_eq!(others.count(), 1, "{what}: the other stage's are all there");
    decision.remove.len()
}

#[test]
fn a_full_report_of_both_stages_fits_into_a_status_and_a_terminal_obeys_no_line() {
    let mut world = World::begun();
    let hostile = |n: usize| Line {
        detail: format!("\u{1b}[2J{n}"),
        ..Line::new(Check::Clock, Outcome::Failed, "", "")
    };
    for stage in 0..2 {
        world.ended(stage, (0..46).map(hostile).collect());
    }
    let lines = world.look("02:01").status.unwrap().lines;
    assert_eq!(lines.len(), 1 + 2 * 46);
    assert!(lines.iter().all(|line| !line.detail.contains('\u{1b}')));
}

#[test]
fn jobs_that_are_refused_are_told_at_once_where_waiting_is_of_no_use() {
    let mut world = World::new();
    world.look("02:00");
    let policy = "jobs.batch is forbidden: Secret batch-signing is not listed".to_owned();
    world.refused = vec![(Stage::Intake, policy.clone()), (Stage::Aggregate, policy)];
    let decision = world.look("02:01");
    assert!(
        told(&decision).2.starts_with("Intake Pod: jobs.batch is forbidden"),
        "{decision:?}"
    );

    let mut world = World::new();
    world.look("02:00");
    let quota = "jobs.batch is forbidden: exceeded quota: jobs".to_owned();
    world.refused = vec![(Stage::Intake, quota.clone()), (Stage::Aggregate, quota)];
    let decision = world.look("02:01");
    let (_, reason, message) = told(&decision);
    assert!(
        reason == reasons::RUNNING && message.contains("exceeded quota"),
        "{message}"
    );
    assert_eq!(told(&world.look("02:05")).1, reasons::FAILED);
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
    // One that is over, too: a spec that is put back is looked at anew.
    world.ended(0, vec![passed()]);
    world.inputs = "two";
    let decision = world.look("02:01");
    assert_eq!((decision.remove, decision.start.len()), (old, 2));
    let Work::Preflight { inputs, .. } = &decision.start[0].work else {
        panic!("{:?}", decision.start);
    };
    assert_eq!(inputs, "two");
}
