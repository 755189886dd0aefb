//! Overrides: windows that are released once more, under leave that a person gave and that expires.

use std::collections::BTreeMap;

use crds::AggregationWindow;
use crds::conditions::{OVERRIDDEN, reasons};
use crds::names::RETRY_ANNOTATION;
use crds::window::{FurtherRelease, SumPartReference};
use facilitator_core::formats::ledger::{FailedReason, Verdict, WindowResult};
use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::{AggregateItem, Approval};
use facilitator_core::window::planned_at;
use jiff::Timestamp;
use kube::ResourceExt;

use super::status::{id_of, number};
use super::{Schedule, WindowInput};
use crate::inventory::WindowInventory;
use crate::status::condition;
use crate::workload::{JobView, Retries, Try};

/// `spec.override` of an AggregationWindow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The release that it is for.
    pub id: WindowId,
    /// Batches that both sides have validated by then are in.
    pub cutoff: Timestamp,
    /// From then on it freezes no set.
    pub expires_at: Timestamp,
    /// Why.
    pub reason: String,
    /// Who approved it, if somebody did.
    pub approved_by: Option<String>,
}

/// The overrides of these windows, by first release. One that can't be read is logged: the schema refuses such.
#[must_use]
pub fn overrides(objects: &[AggregationWindow]) -> BTreeMap<WindowId, Override> {
    let read = |object: &AggregationWindow| {
        let (window, given) = (id_of(object)?, object.spec.overriding.as_ref()?);
        let read = Override {
            id: window.again(given.release).ok()?,
            cutoff: given.cutoff.parse().ok()?,
            expires_at: given.expires_at.parse().ok()?,
            reason: given.reason.clone(),
            approved_by: given.approved_by.clone(),
        };
        Some((window, read))
    };
    let mut overrides = BTreeMap::new();
    for object in objects.iter().filter(|object| object.spec.overriding.is_some()) {
        match read(object) {
            Some((window, read)) => {
                overrides.insert(window, read);
            }
            None => tracing::warn!(
                window = object.name_any(),
                "its override can't be read and is left alone"
            ),
        }
    }
    overrides
}

impl Override {
    /// Whether batches that come now still may be in it: they are taken in although the first set is frozen.
    #[must_use]
    pub fn takes_in(&self, window: &WindowInventory, now: Timestamp) -> bool {
        let frozen = window
            .further
            .get(&self.id.release())
            .is_some_and(|further| further.is_frozen());
        self.approved_by.is_some() && !frozen && now < self.cutoff && now < self.expires_at
    }
}

/// Where an override is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has approved it.
    NotApproved,
    /// The window's first release isn't over.
    Waiting,
    /// Its cutoff is to come.
    Collecting,
    /// To be planned.
    Due,
    /// In an unfinished Job.
    Summing,
    /// A worker lacks something.
    Blocked,
    /// Alone in a pod it failed three times.
    CrashesWorker,
    /// No batch was in time.
    Missed,
    /// It expired before its set was frozen.
    Expired,
    /// It has a result that couldn't be read yet.
    Unread,
    /// It is over.
    Ended(Verdict),
}

impl State {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotApproved => reasons::NOT_APPROVED,
            Self::Waiting => reasons::WAITING,
            Self::Collecting => reasons::COLLECTING,
            Self::Due | Self::Summing | Self::Unread => reasons::SUMMING,
            Self::Blocked => reasons::BLOCKED,
            Self::CrashesWorker => reasons::CRASHES_WORKER,
            Self::Missed => reasons::MISSED,
            Self::Expired => reasons::OVERRIDE_EXPIRED,
            Self::Ended(Verdict::Summed) => reasons::SUMMED,
            Self::Ended(Verdict::BelowFloor) => reasons::BELOW_FLOOR,
            Self::Ended(Verdict::Failed) => reasons::FAILED,
        }
    }

    /// Whether a person should hear of it.
    pub(super) fn is_told(self) -> bool {
        matches!(
            self,
            Self::Ended(_) | Self::Blocked | Self::CrashesWorker | Self::Missed | Self::Expired
        )
    }
}

/// A window's override as the decision sees it.
#[derive(Clone, Debug)]
pub(super) struct Further<'a> {
    pub(super) given: &'a Override,
    pub(super) state: State,
}

/// Looks at the window's override, if it has one.
pub(super) fn see<'a>(
    input: &WindowInput<'a>,
    memory: &Retries<WindowId>,
    running: &BTreeMap<WindowId, &JobView>,
    id: &WindowId,
    window: &WindowInventory,
    now: Timestamp,
) -> Option<Further<'a>> {
    let given = input.schedule.overrides.get(id)?;
    let there = window.further.get(&given.id.release());
    let state = if there.is_some_and(|there| there.finished.is_some()) {
        let result = there.and_then(|there| there.result.as_ref());
        result.map_or(State::Unread, |result| State::Ended(result.verdict))
    } else if running.contains_key(&given.id) {
        State::Summing
    } else if given.approved_by.is_none() {
        State::NotApproved
    } else if window.finished.is_none() {
        State::Waiting
    } else {
        let frozen = there.is_some_and(|there| there.is_frozen());
        open_state(input, given, memory.get(&given.id), frozen, now)
    };
    Some(Further { given, state })
}

/// What is frozen is finished, whenever it expires.
fn open_state(input: &WindowInput<'_>, given: &Override, known: Option<&Try>, frozen: bool, now: Timestamp) -> State {
    if !frozen {
        if given.expires_at <= now {
            return State::Expired;
        }
        if planned_at(given.cutoff, &input.schedule.settings) > now {
            return State::Collecting;
        }
    }
    let generation = input.processor.metadata.generation.unwrap_or_default();
    match known {
        Some(known) if known.crashes() => State::CrashesWorker,
        Some(known) if !frozen && known.tried >= Some(given.cutoff) => State::Missed,
        Some(known) if !known.is_due(generation, input.timing.blocked_retry, false, now) => State::Blocked,
        _ => State::Due,
    }
}

/// What a worker is told.
pub(super) fn item(given: &Override) -> AggregateItem {
    AggregateItem {
        aggregation: given.id.aggregation.to_string(),
        start: given.id.start.to_compact(),
        end: given.id.end.to_compact(),
        cutoffs: vec![given.cutoff.as_millisecond()],
        part: None,
        approval: Some(Approval {
            release: given.id.release(),
            expires_at_millis: given.expires_at.as_millisecond(),
            approved_by: given.approved_by.clone().unwrap_or_default(),
            reason: given.reason.clone(),
        }),
    }
}

/// After a restart: what crashed its worker or had no member isn't tried again just because nobody remembers.
pub(super) fn recall(schedule: &Schedule, id: &WindowId, object: &AggregationWindow, memory: &mut Retries<WindowId>) {
    let Some(given) = schedule
        .overrides
        .get(id)
        .filter(|given| memory.get(&given.id).is_none())
    else {
        return;
    };
    let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let before = condition(conditions, OVERRIDDEN);
    // Of another override before this one it says nothing.
    let before = before.filter(|condition| condition.observed_generation == object.metadata.generation);
    match before.map(|condition| condition.reason.as_str()) {
        Some(reasons::CRASHES_WORKER) => {
            let answered = object.annotations().get(RETRY_ANNOTATION).cloned();
            *memory.entry(&given.id) = Try {
                answered,
                ..Try::crashed()
            };
        }
        Some(reasons::MISSED) => memory.entry(&given.id).tried = Some(given.cutoff),
        _ => {}
    }
}

/// What the condition says.
pub(super) fn message(further: &Further<'_>, window: &WindowInventory, known: Option<&Try>) -> String {
    let Further { given, state } = further;
    let release = given.id.release();
    let result = window.further.get(&release).and_then(|there| there.result.as_ref());
    let clients = result.map_or(0, |result| result.clients);
    match state {
        State::NotApproved => {
            "Nobody has approved it: whoever may, sets override.approvedBy to their own name.".to_owned()
        }
        State::Waiting => {
            "The window's first release isn't over; to sum it at another time, use windows.cutoffs.".to_owned()
        }
        State::Collecting => format!(
            "Batches that both sides have validated by {} are in; it expires at {}.",
            given.cutoff, given.expires_at
        ),
        State::Due => "Due: a worker is started as soon as there is room.".to_owned(),
        State::Summing | State::Unread => format!("A worker plans and sums release {release}."),
        State::Blocked => match known.and_then(|known| known.blocked.as_ref()) {
            Some(blocked) => format!(
                "{}: {}. It is tried again.",
                blocked.reason,
                blocked.message.trim_end_matches('.')
            ),
            None => "A worker lacks a key or a right; it is tried again.".to_owned(),
        },
        State::CrashesWorker => format!(
            "Alone in a pod it failed three times. See the log of Job {}; annotate this object with {} to try again.",
            known.and_then(|known| known.job.as_deref()).unwrap_or("(gone)"),
            RETRY_ANNOTATION
        ),
        State::Missed => {
            "No batch was with both sides at the override's cutoff: set another override with a later one.".to_owned()
        }
        State::Expired => format!(
            "It expired at {}, before its set was frozen: nothing was released. Set another override if it is still wanted.",
            given.expires_at
        ),
        State::Ended(Verdict::Summed) => {
            format!("Release {release}, of {clients} clients, is with the portal beside the first.")
        }
        State::Ended(Verdict::BelowFloor) => {
            format!("{clients} valid clients are fewer than windows.minClients: nothing is released.")
        }
        State::Ended(Verdict::Failed) => result.map_or_else(
            || "It failed for good; the ledger's results/ says why.".to_owned(),
            refused,
        ),
    }
}

fn refused(result: &WindowResult) -> String {
    let message = result.message.trim_end_matches('.');
    let end = match result.reason {
        Some(FailedReason::SetsTooClose | FailedReason::EarlierSetLost) => "Nothing is released under this override",
        _ => "This is final; docs/operations.md says what it means",
    };
    let reason = result.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
    format!("{reason}{message}. {end}.")
}

/// What the ledger says was released beside the first sum part.
pub(super) fn releases(window: &WindowInventory) -> Vec<FurtherRelease> {
    let released = window.further.iter().filter_map(|(release, further)| {
        let result = further.result.as_ref()?;
        let name = result.sum_part.clone()?;
        Some(FurtherRelease {
            release: *release,
            clients: number(result.clients),
            plan_digest: result.plan_digest.clone().unwrap_or_default(),
            sum_part: SumPartReference {
                name,
                digest: result.sum_part_digest.clone().unwrap_or_default(),
            },
        })
    });
    released.collect()
}
