//! Whether workers start: the `WorkersReady` condition, Jobs to remove, and the canary that finds out when to go on.

use std::collections::BTreeSet;

use crds::conditions::reasons;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::failure::{Cause, cause, cause_of_refusal};
use super::job::EXIT_CONFIGURATION;
use super::{JobEnd, JobView, Stage, Timing};

/// How long a Job may be without its work list: it is written right after the Job.
const WORK_LIST_GRACE: SignedDuration = SignedDuration::from_mins(1);

/// All that keeps workers from starting.
const CAUSES: [&str; 9] = [
    reasons::IMAGE_NOT_PULLED,
    reasons::QUOTA_EXCEEDED,
    reasons::ADMISSION_REFUSED,
    reasons::RIGHTS_MISSING,
    reasons::MOUNT_MISSING,
    reasons::SERVICE_ACCOUNT_MISSING,
    reasons::UNSCHEDULABLE,
    reasons::NOT_STARTED,
    reasons::CONFIGURATION_REFUSED,
];

/// What may be planned for a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Whatever is due.
    Free,
    /// One Job of one index.
    Canary,
    /// Nothing now.
    Wait,
}

/// All that a judgement on workers rests on.
#[derive(Clone, Copy, Debug)]
pub struct HealthInput<'a> {
    /// The processor's Jobs of both stages, finished ones too.
    pub jobs: &'a [JobView],
    /// The spec's generation.
    pub generation: i64,
    /// The workers' image of today.
    pub image: &'a str,
    /// `spec.workers.startDeadlineSeconds`.
    pub start_deadline: SignedDuration,
    /// The operator's settings.
    pub timing: &'a Timing,
    /// Refusals of Job creations since the last judgement, with the API server's message.
    pub refused: &'a [(Stage, String)],
    /// [`WorkersHealth::memory`] of the last judgement; default at start.
    pub memory: &'a HealthMemory,
}

/// What is remembered of the stages' troubles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthMemory {
    intake: Option<Trouble>,
    aggregate: Option<Trouble>,
    /// A worker ran once.
    has_run: bool,
}

impl HealthMemory {
    /// What an operator that was restarted reads from the condition of the one before: a cause stands until a Job shows
    /// that it is mended, and a Job may be tried at once.
    #[must_use]
    pub fn recall(condition: Option<&Condition>) -> Self {
        let Some(condition) = condition else {
            return Self::default();
        };
        let of = |stage| {
            (condition.status == "False")
                .then(|| Trouble::recall(condition, stage))
                .flatten()
        };
        Self {
            intake: of(Stage::Intake),
            aggregate: of(Stage::Aggregate),
            has_run: condition.status == "True",
        }
    }
}

/// A stage whose workers don't start, or refuse their configuration.
#[derive(Clone, Debug, PartialEq)]
struct Trouble {
    cause: Cause,
    /// When the cause was last met: only a Job made later can show that it is mended.
    since: Timestamp,
    /// Tries so far, the first Job among them.
    tries: u32,
    next_canary: Timestamp,
    generation: i64,
    /// UIDs of Jobs that showed it.
    shown_by: BTreeSet<String>,
    /// UIDs of those that were counted as a try.
    counted: BTreeSet<String>,
}

impl Trouble {
    /// The inverse of [`told`].
    fn recall(condition: &Condition, stage: Stage) -> Option<Self> {
        let reason = CAUSES.into_iter().find(|cause| *cause == condition.reason)?;
        let said = condition.message.strip_prefix(stage.label())?.strip_prefix(": ")?;
        let message = said.strip_suffix(&advice(reason)).unwrap_or(said).to_owned();
        let since = condition.last_transition_time.0;
        Some(Self {
            cause: Cause { reason, message },
            since,
            tries: 0,
            next_canary: since,
            generation: condition.observed_generation.unwrap_or_default(),
            shown_by: BTreeSet::new(),
            counted: BTreeSet::new(),
        })
    }
}

/// A condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// `None`: no worker ran yet.
    pub status: Option<bool>,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// What is to be done so that workers start, and what to tell.
#[derive(Clone, Debug)]
pub struct WorkersHealth {
    /// `WorkersReady`.
    pub condition: Judgement,
    /// Jobs to delete, their pods with them.
    pub remove: Vec<String>,
    /// What may be planned for intake.
    pub intake: Allowance,
    /// What may be planned for aggregation.
    pub aggregate: Allowance,
    /// For the next judgement.
    pub memory: HealthMemory,
}

/// Judges both stages. A cause is told when first seen; its Job is removed at the start deadline, or at once when the spec
/// or the image has changed since; then single canary Jobs are tried until one starts.
#[must_use]
pub fn health(input: &HealthInput<'_>, now: Timestamp) -> WorkersHealth {
    let mut remove = Vec::new();
    let (seen_intake, intake) = stage(input, Stage::Intake, input.memory.intake.as_ref(), &mut remove, now);
    let (seen_aggregate, aggregate) = stage(
        input,
        Stage::Aggregate,
        input.memory.aggregate.as_ref(),
        &mut remove,
        now,
    );
    let has_run = input.memory.has_run || input.jobs.iter().any(JobView::has_started);
    let (status, reason, message) = match (&seen_intake, &seen_aggregate) {
        (Some(Trouble { cause, .. }), _) => (Some(false), cause.reason, told(Stage::Intake, cause)),
        (None, Some(Trouble { cause, .. })) => (Some(false), cause.reason, told(Stage::Aggregate, cause)),
        (None, None) if has_run => (Some(true), reasons::OK, "Worker pods start.".to_owned()),
        (None, None) => (None, reasons::PENDING, "No worker pod has run yet.".to_owned()),
    };
    let condition = Judgement {
        status,
        reason,
        message,
    };
    WorkersHealth {
        condition,
        remove,
        intake,
        aggregate,
        memory: HealthMemory {
            intake: seen_intake,
            aggregate: seen_aggregate,
            has_run,
        },
    }
}

fn stage(
    input: &HealthInput<'_>,
    stage: Stage,
    remembered: Option<&Trouble>,
    remove: &mut Vec<String>,
    now: Timestamp,
) -> (Option<Trouble>, Allowance) {
    let jobs: Vec<_> = input
        .jobs
        .iter()
        .filter(|view| view.stage() == Some(stage) && !view.is_deleted())
        .collect();
    // Refusals older than a Job that went well are history.
    let went_well = jobs
        .iter()
        .filter(|view| went_well(view))
        .filter_map(|view| view.created())
        .max();
    let mut trouble = remembered
        .cloned()
        .filter(|trouble| !jobs.iter().any(|job| mends(job, trouble)));
    if let Some(trouble) = trouble
        .as_mut()
        .filter(|trouble| trouble.generation != input.generation)
    {
        // Somebody changed the spec: find out at once whether that helped.
        (trouble.generation, trouble.next_canary, trouble.tries) = (input.generation, now, 0);
    }
    let mut met = |cause: Cause, job: Option<&JobView>, over: bool| {
        let known = trouble.get_or_insert_with(|| Trouble {
            cause: cause.clone(),
            since: now,
            tries: 0,
            next_canary: now,
            generation: input.generation,
            shown_by: BTreeSet::new(),
            counted: BTreeSet::new(),
        });
        // The kubelet words one fault in several ways: the first stands, so that status isn't written every tick.
        let is_shown = job.is_some_and(|job| known.shown_by.contains(job.uid()));
        if !is_shown || known.cause.reason != cause.reason {
            known.cause = cause;
        }
        known.shown_by.extend(job.map(|job| job.uid().to_owned()));
        if over && job.is_none_or(|job| known.counted.insert(job.uid().to_owned())) {
            known.next_canary = now
                .checked_add(wait(known.tries, input.timing))
                .unwrap_or(Timestamp::MAX);
            known.tries += 1;
            known.since = now;
        }
    };
    for view in &jobs {
        let outdated = view
            .generation()
            .is_some_and(|generation| generation != input.generation)
            || view.image().is_some_and(|image| image != input.image);
        if view.end() == Some(JobEnd::ConfigurationRefused) {
            // What an older spec got refused says nothing of this one.
            if !outdated && view.created() > went_well {
                met(refusal(view), Some(view), true);
            }
            continue;
        }
        let Some(since) = view.waiting_since() else { continue };
        let waited = now.duration_since(since);
        let found = cause(view).or_else(|| lacks_work(view, waited));
        let late = waited >= input.start_deadline;
        if found.is_some() && outdated {
            remove.push(view.name().to_owned());
        } else if late || found.as_ref().is_some_and(|_| lacks_work(view, waited).is_some()) {
            remove.push(view.name().to_owned());
            met(found.unwrap_or_else(|| unexplained(view, waited)), Some(view), true);
        } else if let Some(found) = found {
            met(found, Some(view), false);
        }
    }
    for (_, message) in input.refused.iter().filter(|(refused, _)| *refused == stage) {
        met(cause_of_refusal(message), None, true);
    }
    let allowance = match &trouble {
        None => Allowance::Free,
        Some(_) if jobs.iter().any(|view| !view.is_finished()) => Allowance::Wait,
        Some(trouble) if now >= trouble.next_canary => Allowance::Canary,
        Some(_) => Allowance::Wait,
    };
    (trouble, allowance)
}

/// Whether the Job shows that the trouble is over. To start is enough, unless the configuration was refused: that is
/// known only when a later Job got further.
fn mends(view: &JobView, trouble: &Trouble) -> bool {
    let is_newer = view.created() >= Some(trouble.since);
    if trouble.cause.reason == reasons::CONFIGURATION_REFUSED {
        return is_newer && went_well(view);
    }
    view.is_running() && (is_newer || trouble.shown_by.contains(view.uid()))
        || view.is_finished() && trouble.shown_by.contains(view.uid())
        || is_newer && view.has_started()
}

/// Whether an index is done, or failed for another reason than its configuration.
fn went_well(view: &JobView) -> bool {
    let worked = view
        .job
        .status
        .as_ref()
        .is_some_and(|status| status.succeeded.unwrap_or(0) > 0);
    match view.end() {
        Some(JobEnd::ConfigurationRefused) => false,
        Some(JobEnd::Complete | JobEnd::Failed) => true,
        None => worked,
    }
}

fn refusal(view: &JobView) -> Cause {
    let said = view
        .termination_message(EXIT_CONFIGURATION)
        .unwrap_or_else(|| "see the pod's log".to_owned());
    Cause {
        reason: reasons::CONFIGURATION_REFUSED,
        message: format!("Job {}: {said}", view.name()),
    }
}

fn unexplained(view: &JobView, waited: SignedDuration) -> Cause {
    let message = format!(
        "Job {}: no pod runs after {} s, and Kubernetes names no cause",
        view.name(),
        waited.as_secs()
    );
    Cause {
        reason: reasons::NOT_STARTED,
        message,
    }
}

fn lacks_work(view: &JobView, waited: SignedDuration) -> Option<Cause> {
    (view.work.is_none() && waited >= WORK_LIST_GRACE).then(|| Cause {
        reason: reasons::MOUNT_MISSING,
        message: format!("Job {}: its ConfigMap with the work list is missing", view.name()),
    })
}

/// 1, 2, 4, … minutes, at most 15.
fn wait(tries: u32, timing: &Timing) -> SignedDuration {
    let factor = 1_i32
        .checked_shl(tries)
        .filter(|factor| *factor > 0)
        .unwrap_or(i32::MAX);
    timing
        .canary_first
        .checked_mul(factor)
        .unwrap_or(timing.canary_last)
        .min(timing.canary_last)
}

fn told(stage: Stage, cause: &Cause) -> String {
    format!(
        "{}: {}{}",
        stage.label(),
        cause.message.trim_end_matches('.'),
        advice(cause.reason)
    )
}

fn advice(reason: &str) -> String {
    let advice = match reason {
        reasons::IMAGE_NOT_PULLED => "Check the image's name and the pull Secrets",
        reasons::QUOTA_EXCEEDED => "Raise the namespace's quota or limit, or lower spec.workers",
        reasons::ADMISSION_REFUSED => "Ask who keeps the cluster's admission policies",
        reasons::RIGHTS_MISSING => "Give the operator's account the rights of the party chart's Role",
        reasons::MOUNT_MISSING => "Create what is missing, or correct its name in the spec",
        reasons::SERVICE_ACCOUNT_MISSING => "Create the service account, or correct its name in spec.workers",
        reasons::UNSCHEDULABLE => "Check nodes, spec.workers.nodeSelector, tolerations and resources",
        reasons::CONFIGURATION_REFUSED => "Correct the keys, the spec or the ledger",
        _ => "Look at the Job's pods and Events",
    };
    format!(". {advice}; a Job is tried again from time to time.")
}
