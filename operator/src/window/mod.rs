//! Windows: when each is summed, and what its AggregationWindow says. Pure.

mod decide;
mod further;
mod parts;
mod plan;
mod projection;
mod scope;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crds::processor::WindowCounts;
use crds::{AggregationWindow, AggregationWindowStatus, DataShareProcessor, DataShareProcessorSpec};
use facilitator_core::formats::names::{AggregationId, BatchTime, NameError, WindowId};
use facilitator_core::formats::work::Share;
use facilitator_core::window::{Window, WindowError, WindowSettings};
use jiff::{SignedDuration, Timestamp};
use snafu::{ResultExt, Snafu};

pub use decide::decide;
pub use further::{Override, overrides};
pub use scope::{Range, Scope};
pub use status::object_name;

use crate::batch::Tally;
use crate::inventory::Inventory;
use crate::workload::{Allowance, JobView, ObjectEvent, PlannedJob, Retries, Room, Timing};

/// Why a spec has no schedule: shown as `Stalled`, reason `InvalidSpec`.
#[derive(Debug, Snafu)]
pub enum ScheduleError {
    /// The period is no window's.
    #[snafu(display("spec.windows.periodSeconds: {source}"))]
    Period {
        /// Why.
        source: WindowError,
    },
    /// The aggregation of a cutoff is malformed.
    #[snafu(display("spec.windows.cutoffs[{index}].aggregation: {source}"))]
    CutoffAggregation {
        /// Which entry, from 0.
        index: usize,
        /// Why.
        source: NameError,
    },
    /// The start of a cutoff's window is malformed.
    #[snafu(display("spec.windows.cutoffs[{index}].start: {source}"))]
    CutoffStart {
        /// Which entry, from 0.
        index: usize,
        /// Why.
        source: NameError,
    },
    /// A cutoff is malformed.
    #[snafu(display(
        "spec.windows.cutoffs[{index}].cutoff: {source}; write RFC 3339, for instance 2026-11-20T12:00:00Z"
    ))]
    CutoffTime {
        /// Which entry, from 0.
        index: usize,
        /// Why.
        source: jiff::Error,
    },
}

/// A processor's schedule: what of the spec, the ledger and the settings says which windows are ours and when they are due.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Period, grace, settle, defers.
    pub settings: WindowSettings,
    /// Windows that begin before it aren't ours.
    pub start_at: Timestamp,
    /// Cutoffs that both parties agreed on for old windows, by aggregation and start.
    pub agreed: BTreeMap<(AggregationId, BatchTime), Timestamp>,
    /// [`overrides`] of the processor's windows, by first release; those of no spec until they are set.
    pub overrides: BTreeMap<WindowId, Override>,
    /// Aggregations to process; empty: all.
    pub aggregations: BTreeSet<String>,
    /// How long AggregationWindows are kept.
    pub history: SignedDuration,
    /// Which share is ours.
    pub share: Share,
    /// The peer runs the original.
    pub legacy_peer: bool,
    /// How long a signed batch waits for its packet object.
    pub missing_packet: SignedDuration,
}

impl Schedule {
    /// Reads the spec. `start_at` is the ledger's once there is one.
    ///
    /// # Errors
    /// [`ScheduleError`], naming the field.
    pub fn of(spec: &DataShareProcessorSpec, start_at: Timestamp, timing: &Timing) -> Result<Self, ScheduleError> {
        let windows = &spec.windows;
        Window::holding(start_at, windows.period_seconds).context(PeriodSnafu)?;
        let agreed = windows.cutoffs.iter().enumerate().map(|(index, entry)| {
            let aggregation = AggregationId::parse(&entry.aggregation).context(CutoffAggregationSnafu { index })?;
            let start = BatchTime::parse_compact(&entry.start).context(CutoffStartSnafu { index })?;
            let cutoff = entry.cutoff.parse().context(CutoffTimeSnafu { index })?;
            Ok(((aggregation, start), cutoff))
        });
        Ok(Self {
            settings: WindowSettings {
                period_seconds: windows.period_seconds,
                grace_period_seconds: windows.grace_period_seconds,
                settle_seconds: windows.settle_seconds,
                max_defers: windows.max_defers,
            },
            start_at,
            agreed: agreed.collect::<Result<_, _>>()?,
            overrides: BTreeMap::new(),
            aggregations: spec.aggregations.names.iter().cloned().collect(),
            history: SignedDuration::from_hours(24 * i64::from(windows.history_days)),
            share: match spec.share {
                crds::processor::Share::First => Share::First,
                crds::processor::Share::Second => Share::Second,
            },
            legacy_peer: spec.peer.legacy,
            missing_packet: timing.missing_packet,
        })
    }

    /// Whether the window is ours to process.
    #[must_use]
    pub fn takes(&self, window: &WindowId) -> bool {
        let named = self.aggregations.is_empty() || self.aggregations.contains(window.aggregation.as_str());
        named && window.start.timestamp() >= self.start_at
    }

    /// Second lets a legacy First go ahead (ledger rule 13).
    #[must_use]
    pub fn waits_for_first(&self) -> bool {
        self.legacy_peer && self.share == Share::Second
    }

    /// The cutoffs of a window, ascending.
    #[must_use]
    pub fn cutoffs(&self, window: &WindowId) -> Vec<Timestamp> {
        let agreed = self.agreed.get(&(window.aggregation.clone(), window.start)).copied();
        match Window::new(window.start.timestamp(), window.end.timestamp()) {
            Ok(bounds) => bounds.cutoffs(&self.settings, agreed),
            Err(_) => agreed.into_iter().collect(),
        }
    }
}

/// All that a decision on windows rests on.
#[derive(Clone, Copy, Debug)]
pub struct WindowInput<'a> {
    /// The processor, as last read.
    pub processor: &'a DataShareProcessor,
    /// Its schedule.
    pub schedule: &'a Schedule,
    /// The operator's settings.
    pub timing: &'a Timing,
    /// What the mailboxes hold.
    pub inventory: &'a Inventory,
    /// [`crate::batch::BatchDecision::windows`] of the same observation.
    pub tallies: &'a BTreeMap<WindowId, Tally>,
    /// The processor's AggregationWindows.
    pub objects: &'a [AggregationWindow],
    /// The processor's aggregate Jobs, finished ones too.
    pub jobs: &'a [JobView],
    /// [`crate::workload::WorkersHealth::aggregate`].
    pub allowance: Allowance,
    /// What the caps leave.
    pub room: Room,
    /// [`WindowDecision::memory`] of the last decision; default at start.
    pub memory: &'a Retries<WindowId>,
}

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowPatch {
    /// The object's name.
    pub name: String,
    /// Its whole status.
    pub status: AggregationWindowStatus,
}

/// What to do about windows.
#[derive(Clone, Debug, Default)]
pub struct WindowDecision {
    /// AggregationWindows to create, each with a status to write next.
    pub create: Vec<AggregationWindow>,
    /// Statuses that changed (times aside).
    pub patch: Vec<WindowPatch>,
    /// AggregationWindows to delete.
    pub delete: Vec<String>,
    /// Jobs to start.
    pub jobs: Vec<PlannedJob>,
    /// More would start if others left more room.
    pub short_of_room: bool,
    /// For the processor's status.
    pub counts: WindowCounts,
    /// Windows past their time and not over: `WindowsOnTime` is False.
    pub overdue: Vec<WindowId>,
    /// Windows that the next looks must list, for [`Scope::new`].
    pub open: BTreeSet<WindowId>,
    /// The next cutoff of a window that isn't over.
    pub next_cutoff: Option<Timestamp>,
    /// Events for people.
    pub events: Vec<ObjectEvent>,
    /// For the next decision.
    pub memory: Retries<WindowId>,
}
