//! What of a preflight is to be started, what came of it, and what to tell. Pure.

use crds::conditions::{KEYS_LOADED, MAILBOXES_LISTED, MANIFEST_PUBLISHED, PEERS_KNOWN, PREFLIGHT, reasons};
use crds::processor::{PreflightLine, PreflightOutcome, PreflightStage, PreflightStatus};
use facilitator_core::formats::work::WorkList;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::judge::{Progress, age, judge, stands};
use super::lines::{checker, no_pod, short, told};
use super::remedy::remedy;
use crate::status::{Verdict, condition};
use crate::workload::{JobView, PlannedJob, Stage, Work, cause_of_refusal};

/// What the operator itself says of a processor, by its conditions.
const CONDITIONS: [&str; 4] = [PEERS_KNOWN, MAILBOXES_LISTED, KEYS_LOADED, MANIFEST_PUBLISHED];
/// How long a Job may be without its work list, which comes a moment after it.
const WORK_LIST_GRACE: SignedDuration = SignedDuration::from_mins(1);
/// What passes by itself is waited for that long: web servers lag a minute or two behind what was written.
const SETTLING: SignedDuration = SignedDuration::from_mins(2);
/// Such reasons.
const PASSING: [&str; 2] = [reasons::NOT_SERVED, reasons::PROBING];
/// What makes a look at what partners get.
const SAY_WHERE: &str = "set manifest.servedAt to the URL that partners read, and the operator looks";

/// All that a decision rests on.
pub struct PreflightInput<'a> {
    /// Digest of what a preflight rests on.
    pub inputs: &'a str,
    /// The annotation's value.
    pub asked: Option<&'a str>,
    /// Our own manifest as it is published.
    pub manifest: Option<&'a str>,
    /// Whether `spec.manifest.servedAt` says where partners get it: else nobody looks there.
    pub has_served_at: bool,
    /// What the status says.
    pub before: Option<&'a PreflightStatus>,
    /// The conditions of the last look.
    pub conditions: &'a [Condition],
    /// The spec's generation.
    pub generation: i64,
    /// The processor's preflight Jobs, finished ones too.
    pub jobs: &'a [JobView],
    /// Why no Job may start now.
    pub hold: Option<&'a str>,
    /// Jobs that may be started.
    pub room: u32,
    /// `spec.workers.startDeadlineSeconds`.
    pub start_deadline: SignedDuration,
    /// Refusals of preflight Jobs since the last decision, in the API server's words.
    pub refused: &'a [(Stage, String)],
}

impl PreflightInput<'_> {
    /// Whether a condition is of the spec as it is now.
    fn is_current(&self, condition: &Condition) -> bool {
        condition.observed_generation == Some(self.generation)
    }
}

/// What is decided. A status has at most [`super::judge::MAX_LINES_OF_STAGE`] lines of each stage and the operator's four.
#[derive(Clone, Debug, PartialEq)]
pub struct PreflightDecision {
    /// Jobs to start.
    pub start: Vec<PlannedJob>,
    /// Jobs to delete: they are another preflight's, or don't come to an end.
    pub remove: Vec<String>,
    /// What the status is to say; `None`: nothing was ever begun.
    pub status: Option<PreflightStatus>,
    /// The condition.
    pub verdict: Verdict,
}

/// Decides.
#[must_use]
pub fn decide(input: &PreflightInput<'_>, now: Timestamp) -> PreflightDecision {
    let jobs = input.jobs.iter().filter(|view| !view.is_deleted());
    let (current, old): (Vec<&JobView>, Vec<&JobView>) = jobs.partition(|view| is_of(view, input.inputs));
    // Those that are over, too: what a spec asks for again isn't answered by what was so before.
    let mut remove: Vec<String> = old
        .into_iter()
        .filter(|view| view.work.is_some() || age(view, now) >= WORK_LIST_GRACE)
        .map(|view| view.name().to_owned())
        .collect();
    let known = input.before.filter(|before| before.inputs == input.inputs);
    if known.is_none() && input.hold.is_some() {
        let said = input.hold.unwrap_or_default();
        return PreflightDecision {
            start: Vec::new(),
            remove,
            status: input.before.cloned(),
            verdict: Verdict::new(
                PREFLIGHT,
                None,
                reasons::UNKNOWN,
                format!("No preflight of what is so now: {said}."),
            ),
        };
    }
    let mut status = known.cloned().unwrap_or_else(|| PreflightStatus {
        inputs: input.inputs.to_owned(),
        asked: input.asked.map(str::to_owned),
        started: now.to_string(),
        finished: None,
        lines: Vec::new(),
    });
    let (mut start, mut waits) = (Vec::new(), Vec::new());
    for stage in Stage::ALL {
        if status.finished.is_some() || status.lines.iter().any(|line| line.stage == checker(stage)) {
            continue;
        }
        let view = current
            .iter()
            .copied()
            .find(|view| view.preflight_stage() == Some(stage));
        let refused = input.refused.iter().find(|(of, _)| *of == stage);
        match (view, refused) {
            (Some(view), _) => match judge(view, input.start_deadline, now) {
                Progress::Over(lines) => status.lines.extend(lines.into_iter().map(|line| told(stage, line))),
                Progress::Stuck(detail, what_to_do) => {
                    status.lines.push(no_pod(stage, &detail, &what_to_do));
                    // Of one that is over, the pods' logs are all that is left to look at.
                    if !view.is_finished() {
                        remove.push(view.name().to_owned());
                    }
                }
                Progress::Running(waiting) => waits.push(format!("Job {}{waiting}", view.name())),
            },
            (None, Some((_, message))) => {
                let cause = cause_of_refusal(message);
                let begun: Option<Timestamp> = status.started.parse().ok();
                let for_long = begun.is_none_or(|begun| now.duration_since(begun) >= input.start_deadline);
                if stands(&cause) || for_long {
                    status.lines.push(no_pod(stage, &cause.message, remedy(cause.reason)));
                } else {
                    waits.push(format!("the API server, which says: {}", cause.message));
                }
            }
            (None, None) if start.len() < input.room as usize && input.hold.is_none() => {
                start.push(planned(stage, input));
                waits.push(format!("a Job under the account of {}", stage.label()));
            }
            (None, None) => waits.push(input.hold.unwrap_or("room for a Job").to_owned()),
        }
    }
    if status.finished.is_none() && waits.is_empty() {
        waits.extend(settling(&status, input, now));
    }
    if status.finished.is_none() && waits.is_empty() {
        let own = CONDITIONS.into_iter().filter_map(|kind| own(kind, input));
        let mut lines: Vec<PreflightLine> = own.collect();
        status.lines.sort_by_key(|line| line.stage == PreflightStage::Aggregate);
        lines.append(&mut status.lines);
        status.lines = lines;
        status.finished = Some(now.to_string());
    }
    let verdict = verdict(&status, &waits);
    PreflightDecision {
        start,
        remove,
        status: Some(status),
        verdict,
    }
}

/// Whether a Job was made for these inputs.
fn is_of(view: &JobView, wanted: &str) -> bool {
    matches!(&view.work, Some(WorkList::Preflight { inputs, .. }) if inputs == wanted)
}

fn planned(stage: Stage, input: &PreflightInput<'_>) -> PlannedJob {
    PlannedJob {
        work: Work::Preflight {
            stage,
            inputs: input.inputs.to_owned(),
            manifest: input.manifest.map(str::to_owned),
        },
        parallelism: 1,
        attempt: 0,
        canary: false,
    }
}

/// What the operator waits for itself, and needn't much longer.
fn settling(status: &PreflightStatus, input: &PreflightInput<'_>, now: Timestamp) -> Option<String> {
    let started: Timestamp = status.started.parse().ok()?;
    if now.duration_since(started) >= SETTLING {
        return None;
    }
    // A look that can't list mailboxes doesn't come to the keys.
    let listed = condition(input.conditions, MAILBOXES_LISTED).filter(|listed| input.is_current(listed));
    let ends_early = listed.is_some_and(|listed| listed.status == "False");
    let mut own = input
        .conditions
        .iter()
        .filter(|condition| CONDITIONS.contains(&condition.type_.as_str()))
        .filter(|condition| !(ends_early && condition.type_ == KEYS_LOADED && !input.is_current(condition)));
    own.find_map(|condition| {
        let Condition { type_, message, .. } = condition;
        if !input.is_current(condition) {
            return Some(format!("a look at the spec as it is now, for {type_}"));
        }
        let passes = condition.status == "False" && PASSING.contains(&condition.reason.as_str());
        passes.then(|| format!("{type_}: {}", message.trim_end_matches('.')))
    })
}

/// What a condition of this spec says, as a line.
fn own(kind: &str, input: &PreflightInput<'_>) -> Option<PreflightLine> {
    let condition = condition(input.conditions, kind)?;
    let reason = condition.reason.as_str();
    let (outcome, what_to_do) = match condition.status.as_str() {
        _ if !input.is_current(condition) => (PreflightOutcome::NotCheckable, ""),
        "True" if reasons::TO_MEND.contains(&reason) => (PreflightOutcome::Failed, remedy(reason)),
        // What was written isn't what partners get.
        "True" if kind == MANIFEST_PUBLISHED && !input.has_served_at => (PreflightOutcome::NotCheckable, SAY_WHERE),
        "True" => (PreflightOutcome::Passed, ""),
        "False" => (PreflightOutcome::Failed, remedy(reason)),
        _ => (PreflightOutcome::NotCheckable, ""),
    };
    Some(PreflightLine {
        stage: PreflightStage::Operator,
        check: kind.to_owned(),
        mailbox: None,
        outcome,
        detail: short(&condition.message),
        remedy: what_to_do.to_owned(),
    })
}

fn verdict(status: &PreflightStatus, waits: &[String]) -> Verdict {
    let Some(finished) = &status.finished else {
        let message = format!("It waits for {}.", waits.join(" and "));
        return Verdict::new(PREFLIGHT, None, reasons::RUNNING, message);
    };
    let of = |outcome| status.lines.iter().filter(move |line| line.outcome == outcome);
    let Some(first) = of(PreflightOutcome::Failed).next() else {
        let open = match of(PreflightOutcome::NotCheckable).count() {
            0 => String::new(),
            count => format!(" {count} can't be made from here."),
        };
        let message = format!("Nothing failed at {finished}.{open}");
        return Verdict::new(PREFLIGHT, Some(true), reasons::PASSED, message);
    };
    let mailbox = first
        .mailbox
        .as_ref()
        .map(|mailbox| format!(" {mailbox}"))
        .unwrap_or_default();
    let others = match of(PreflightOutcome::Failed).count() {
        1 => String::new(),
        count => format!(" {} more failed.", count - 1),
    };
    let message = format!(
        "{:?} {}{mailbox}: {}; {}.{others} As of {finished}.",
        first.stage,
        first.check,
        first.detail.trim_end_matches('.'),
        first.remedy.trim_end_matches('.'),
    );
    Verdict::new(PREFLIGHT, Some(false), reasons::FAILED, message)
}
