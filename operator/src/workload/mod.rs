//! Jobs: how they are built, what became of them, and whether workers start at all. Pure.

mod canary;
mod failure;
mod job;
mod mounts;
mod retry;
mod stores;
mod view;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use facilitator_core::formats::work::{AggregateItem, CompactItem, IntakeItem, ProbedKey};
use jiff::SignedDuration;

pub use canary::{Allowance, HealthInput, HealthMemory, WorkersHealth, health};
pub(crate) use failure::cause;
pub use failure::{Cause, cause_of_refusal};
pub use job::{WorkerContext, build, owned_by};
pub use mounts::{KeySet, Mount};
pub use retry::{Blocked, Retries, Try};
pub use view::{JobEnd, JobView, free_pods, last_seen};

/// Label of a Job and its pods: the Job is a canary, tried because earlier ones didn't start.
pub const CANARY_LABEL: &str = "prio-operator.io/canary";
/// Annotation of a Job: the generation of the spec that it was made for.
pub const GENERATION_ANNOTATION: &str = "prio-operator.io/generation";

/// What a worker pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Takes ingestion batches in.
    Intake,
    /// Sums windows.
    Aggregate,
}

impl Stage {
    /// Both: each has an account, mailboxes and rights of its own.
    pub const ALL: [Self; 2] = [Self::Intake, Self::Aggregate];

    /// `intake` or `aggregate`: the value of [`crds::names::STAGE_LABEL`].
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Aggregate => "aggregate",
        }
    }

    /// The label's value of preflight Jobs.
    #[must_use]
    pub fn preflight_label(self) -> &'static str {
        match self {
            Self::Intake => "intake-preflight",
            Self::Aggregate => "aggregate-preflight",
        }
    }

    /// The label's value of Jobs that only look for keys.
    #[must_use]
    pub fn probe_label(self) -> &'static str {
        match self {
            Self::Intake => "intake-keys",
            Self::Aggregate => "aggregate-keys",
        }
    }
}

/// The chunks of a Job, one per completion index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Batches to take in.
    Intake(Vec<Vec<IntakeItem>>),
    /// Windows to sum.
    Aggregate(Vec<Vec<AggregateItem>>),
    /// Days of claims to compact.
    CompactClaims(Vec<Vec<CompactItem>>),
    /// Checks to make, as a stage's pods would find things.
    Preflight {
        /// Under whose account, with whose volumes.
        stage: Stage,
        /// Digest of what it rests on.
        inputs: String,
        /// Our own manifest as it is published.
        manifest: Option<String>,
    },
    /// Keys to look for, as a stage's pods would find them.
    KeyProbe {
        /// Under whose account, with whose volumes.
        stage: Stage,
        /// Keys that must sign.
        signing: Vec<ProbedKey>,
        /// Keys that must open packets.
        packets: Vec<ProbedKey>,
    },
}

impl Work {
    /// The value of [`crds::names::STAGE_LABEL`]: a probe or a preflight is no Job of its stage.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Intake(_) | Self::CompactClaims(_) => Stage::Intake.label(),
            Self::Aggregate(_) => Stage::Aggregate.label(),
            Self::KeyProbe { stage, .. } => stage.probe_label(),
            Self::Preflight { stage, .. } => stage.preflight_label(),
        }
    }
}

/// A Job to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedJob {
    /// What its pods do.
    pub work: Work,
    /// Pods at once, 1 or more.
    pub parallelism: u32,
    /// How many Jobs had the same work before: part of the name, so that another try is another Job.
    pub attempt: u32,
    /// Only tried to see whether workers start again.
    pub canary: bool,
}

impl PlannedJob {
    /// Which stage's pods it runs. Claims are intake's.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.work {
            Work::Intake(_) | Work::CompactClaims(_) => Stage::Intake,
            Work::Aggregate(_) => Stage::Aggregate,
            Work::KeyProbe { stage, .. } | Work::Preflight { stage, .. } => stage,
        }
    }

    /// Whether it only looks for keys.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(self.work, Work::KeyProbe { .. })
    }
}

/// What the operator's caps on Jobs and pods leave for one decision. The caller takes off what was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Jobs that may still be started.
    pub jobs: u32,
    /// Pods that may still be started.
    pub pods: u32,
}

impl Room {
    /// Cuts a plan to the room; true: it wanted more.
    #[must_use]
    pub fn fit(self, planned: Option<PlannedJob>) -> (Option<PlannedJob>, bool) {
        let Some(wanted) = planned else { return (None, false) };
        let pods = if self.jobs == 0 {
            0
        } else {
            self.pods.min(wanted.parallelism)
        };
        let short = pods < wanted.parallelism;
        (
            (pods > 0).then_some(PlannedJob {
                parallelism: pods,
                ..wanted
            }),
            short,
        )
    }
}

/// The operator's own settings of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a signed batch waits for its packet object.
    pub missing_packet: SignedDuration,
    /// How often blocked work is tried again.
    pub blocked_retry: SignedDuration,
    /// How long after a window is due it counts as overdue.
    pub overdue_after: SignedDuration,
    /// How long a Batch stays after its end.
    pub batch_retention: SignedDuration,
    /// Wait before the first canary Job; doubles up to [`Timing::canary_last`].
    pub canary_first: SignedDuration,
    /// Longest wait between two canary Jobs.
    pub canary_last: SignedDuration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            missing_packet: SignedDuration::from_mins(10),
            blocked_retry: SignedDuration::from_mins(10),
            overdue_after: SignedDuration::from_hours(1),
            batch_retention: SignedDuration::from_hours(2),
            canary_first: SignedDuration::from_mins(1),
            canary_last: SignedDuration::from_mins(15),
        }
    }
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A Batch, by name.
    Batch(String),
    /// An AggregationWindow, by name.
    Window(String),
    /// The processor, for what has no object of its own.
    Processor,
}

/// An Event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEvent {
    /// What it is about.
    pub subject: Subject,
    /// Warning, else Normal.
    pub warning: bool,
    /// One of [`crds::conditions::reasons`].
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}
