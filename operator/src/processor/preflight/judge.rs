//! How far a preflight's Job is, and whether it still comes to an end. Pure.

use crds::conditions::reasons;
use facilitator_core::formats::preflight::{Line, PreflightReport};
use jiff::{SignedDuration, Timestamp};

use super::remedy::remedy;
use crate::workload::{Cause, JobEnd, JobView, cause};

/// The most lines that a pod may tell: of both stages, with the operator's own four, as many as a status holds.
pub(super) const MAX_LINES_OF_STAGE: usize = 46;
/// A cause that keeps a pod from starting is believed once it has stood for so long: caches of a node lag.
const CAUSE_STANDS: SignedDuration = SignedDuration::from_secs(20);
/// A pod is done within a minute. One that still runs so long after the last moment at which it may start hangs.
const LONGEST: SignedDuration = SignedDuration::from_secs(90);
/// The kubelet's word for a container that took more memory than it may.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// How far a Job is.
#[derive(Debug)]
pub(super) enum Progress {
    /// What its pod told.
    Over(Vec<Line>),
    /// It won't tell: what is wrong, and what to do.
    Stuck(String, String),
    /// And what keeps it, if anything does.
    Running(String),
}

/// Looks at one Job.
pub(super) fn judge(view: &JobView, start_deadline: SignedDuration, now: Timestamp) -> Progress {
    match view.end() {
        Some(JobEnd::Complete) => {
            let message = view.termination_message(0);
            match message.as_deref().and_then(PreflightReport::from_message) {
                Some(report) if report.lines.len() > MAX_LINES_OF_STAGE => Progress::Stuck(
                    format!(
                        "Job {} told {} lines; {MAX_LINES_OF_STAGE} at most are believed",
                        view.name(),
                        report.lines.len()
                    ),
                    "find out what image the pod ran".to_owned(),
                ),
                Some(report) if !report.lines.is_empty() => Progress::Over(report.lines),
                _ => Progress::Stuck(
                    format!("Job {} ended, and what its pod found isn't known", view.name()),
                    "run the preflight again, with workers of the operator's version".to_owned(),
                ),
            }
        }
        Some(_) => {
            let said = [78, 77, 70, 69]
                .into_iter()
                .find_map(|code| view.termination_message(code));
            let ended = view.failed_container().map(|how| format!("its pod ended with {how}"));
            let remedy = if ended.as_ref().is_some_and(|ended| ended.contains(OUT_OF_MEMORY)) {
                "give the stage's pods more memory: spec.workers, resources".to_owned()
            } else {
                "run workers of the operator's version; else mend what it names. For some minutes the pod is there, with its log"
                    .to_owned()
            };
            let said = said.or(ended).or_else(|| view.failure());
            let said = said.unwrap_or_else(|| "it failed, and nobody says why".to_owned());
            Progress::Stuck(format!("Job {}: {said}", view.name()), remedy)
        }
        None => wait(view, start_deadline, now),
    }
}

fn wait(view: &JobView, start_deadline: SignedDuration, now: Timestamp) -> Progress {
    let waited = view.waiting_since().map(|since| now.duration_since(since));
    let for_long = |limit| waited.is_some_and(|waited| waited >= limit);
    let age = age(view, now);
    match cause(view) {
        Some(cause) if for_long(start_deadline) || (stands(&cause) && for_long(CAUSE_STANDS)) => {
            Progress::Stuck(cause.message, remedy(cause.reason).to_owned())
        }
        Some(cause) => Progress::Running(format!(" ({})", cause.message)),
        None if for_long(start_deadline) => Progress::Stuck(
            format!("no pod of Job {} started, and Kubernetes names no cause", view.name()),
            remedy(reasons::NOT_STARTED).to_owned(),
        ),
        None if waited.is_none() && age >= start_deadline + LONGEST => Progress::Stuck(
            format!("Job {} isn't over after {} s", view.name(), age.as_secs()),
            "run the preflight again, and look at its pods meanwhile".to_owned(),
        ),
        None => Progress::Running(String::new()),
    }
}

/// Whether what keeps a pod away stays until somebody does something. Nodes come, quotas get free, volumes are let go.
pub(super) fn stands(cause: &Cause) -> bool {
    match cause.reason {
        reasons::IMAGE_NOT_PULLED
        | reasons::SERVICE_ACCOUNT_MISSING
        | reasons::ADMISSION_REFUSED
        | reasons::RIGHTS_MISSING => true,
        reasons::MOUNT_MISSING => {
            let names = ["secret \"", "configmap \"", "persistentvolumeclaim \""];
            cause.message.contains("not found") && names.iter().any(|name| cause.message.contains(name))
        }
        _ => false,
    }
}

pub(super) fn age(view: &JobView, now: Timestamp) -> SignedDuration {
    view.created()
        .map(|created| now.duration_since(created))
        .unwrap_or_default()
}
