//! AggregationWindow objects: names, states and what they tell.

use std::collections::BTreeMap;

use crds::conditions::{AGGREGATED, OVERRIDDEN, PEER_SET_KNOWN, READY, STALLED, reasons};
use crds::names::{MANAGED_BY, PROCESSOR_LABEL};
use crds::processor::WindowCounts;
use crds::window::{SumPartReference, WindowBatches};
use crds::{AggregationWindow, AggregationWindowSpec, AggregationWindowStatus, DataShareProcessor};
use facilitator_core::formats::ledger::WindowResult;
use facilitator_core::formats::names::{AggregationId, BatchTime, WindowId};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::decide::Seen;
use super::{WindowInput, further};
use crate::batch::Tally;
use crate::digest::short_digest;
use crate::status::{Verdict, condition, condition_is_true, set_condition};
use crate::workload::{ObjectEvent, Retries, Subject, Try};

/// Where a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its next cutoff is to come.
    Collecting(Timestamp),
    /// No batch met the cutoffs so far; this is the next.
    Deferred(Timestamp),
    /// First seen after its last cutoff: its batches are taken in before a worker looks who was in time.
    TakingIn,
    /// To be planned.
    Due,
    /// In an unfinished Job.
    Summing,
    /// A worker lacks something.
    Blocked,
    /// Alone in a pod it failed three times.
    CrashesWorker,
    /// Nobody met its last cutoff.
    Missed,
    /// The same, and it was first seen after that.
    CutoffPassed,
    /// All its batches were empty.
    Empty,
    /// It has a result that couldn't be read yet.
    Unread,
    Summed,
    BelowFloor,
    Failed,
}

impl State {
    /// The reason of its conditions.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Collecting(_) => reasons::COLLECTING,
            Self::Deferred(_) => reasons::DEFERRED,
            Self::TakingIn => reasons::WAITING,
            Self::Due | Self::Summing | Self::Unread => reasons::SUMMING,
            Self::Blocked => reasons::BLOCKED,
            Self::CrashesWorker => reasons::CRASHES_WORKER,
            Self::Missed => reasons::MISSED,
            Self::CutoffPassed => reasons::CUTOFF_PASSED,
            Self::Empty => reasons::EMPTY,
            Self::Summed => reasons::SUMMED,
            Self::BelowFloor => reasons::BELOW_FLOOR,
            Self::Failed => reasons::FAILED,
        }
    }

    /// Whether it is over and well: nothing is left to do.
    fn is_settled(self) -> bool {
        matches!(self, Self::Summed | Self::Empty | Self::BelowFloor)
    }

    /// Whether nothing happens until somebody does something.
    fn is_stalled(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::CrashesWorker | Self::Missed | Self::CutoffPassed
        )
    }

    /// Whether the next looks must list it. A missed window comes back by an entry of `windows.cutoffs`, which has it
    /// listed itself.
    pub(super) fn needs_listing(self, tally: &Tally) -> bool {
        match self {
            Self::Summed | Self::BelowFloor | Self::Failed | Self::Empty | Self::Missed => false,
            Self::CutoffPassed => tally.arriving + tally.waiting + tally.running + tally.blocked > 0,
            _ => true,
        }
    }

    pub(super) fn is_overdue_after_a_while(self) -> bool {
        matches!(
            self,
            Self::TakingIn | Self::Due | Self::Summing | Self::Blocked | Self::CrashesWorker
        )
    }

    pub(super) fn count(self, counts: &mut WindowCounts) {
        Self::count_object(Some(self.reason()), counts);
    }

    /// Counts a window that today's listings don't reach by what its object says.
    pub(super) fn count_object(reason: Option<&str>, counts: &mut WindowCounts) {
        match reason {
            Some(reasons::SUMMED) => counts.summed += 1,
            Some(reasons::EMPTY | reasons::BELOW_FLOOR | reasons::MISSED | reasons::CUTOFF_PASSED) => {
                counts.without_sum += 1
            }
            Some(reasons::FAILED | reasons::CRASHES_WORKER) => counts.failed += 1,
            _ => counts.open += 1,
        }
    }
}

/// The name of a window's object: the same window always has the same.
#[must_use]
pub fn object_name(processor: &str, id: &WindowId) -> String {
    format!(
        "{processor}-{}-{}",
        id.start.to_compact(),
        short_digest([id.path().as_str()], 12)
    )
}

/// The window that an object is of; `None` where somebody made one by hand that is none.
pub(super) fn id_of(object: &AggregationWindow) -> Option<WindowId> {
    let aggregation = AggregationId::parse(&object.spec.aggregation).ok()?;
    let start = BatchTime::parse_compact(&object.spec.start).ok()?;
    WindowId::new(aggregation, start, BatchTime::parse_compact(&object.spec.end).ok()?).ok()
}

/// The reason of its `Ready` condition.
pub(super) fn ready_reason(object: &AggregationWindow) -> Option<&str> {
    reason_of(object, READY)
}

/// The reason of a condition.
pub(super) fn reason_of<'a>(object: &'a AggregationWindow, kind: &str) -> Option<&'a str> {
    let conditions = &object.status.as_ref()?.conditions;
    condition(conditions, kind).map(|condition| condition.reason.as_str())
}

/// Whether it was summed: that never reverts.
pub(super) fn is_aggregated(object: &AggregationWindow) -> bool {
    let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    condition_is_true(conditions, AGGREGATED) == Some(true)
}

/// A new object. It goes with its processor.
pub(super) fn new(
    processor: &DataShareProcessor,
    name: String,
    id: &WindowId,
    status: AggregationWindowStatus,
) -> AggregationWindow {
    let labels = [
        ("app.kubernetes.io/managed-by", MANAGED_BY.to_owned()),
        (PROCESSOR_LABEL, processor.name_any()),
    ];
    AggregationWindow {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: processor.namespace(),
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
            ),
            owner_references: Some(vec![crate::processor::parameters::owner(processor)]),
            ..ObjectMeta::default()
        },
        spec: AggregationWindowSpec {
            processor: processor.name_any(),
            aggregation: id.aggregation.to_string(),
            start: id.start.to_compact(),
            end: id.end.to_compact(),
            overriding: None,
        },
        status: Some(status),
    }
}

/// The whole status. What only a passing Job tells stays from before.
pub(super) fn status(
    input: &WindowInput<'_>,
    memory: &Retries<WindowId>,
    one: &Seen<'_>,
    state: State,
    object: Option<&AggregationWindow>,
    now: Timestamp,
) -> AggregationWindowStatus {
    let known = memory.get(one.id);
    let mut status = object.and_then(|object| object.status.clone()).unwrap_or_default();
    let generation = object.and_then(|object| object.metadata.generation).or(Some(1));
    let (reason, message) = (state.reason(), message(one, state, known));
    let mut set = |kind, met, reason: &str, message: &str| {
        set_condition(
            &mut status.conditions,
            &Verdict::new(kind, met, reason, message),
            generation,
            now,
        );
    };
    set(READY, Some(state.is_settled()), reason, &message);
    set(AGGREGATED, Some(state == State::Summed), reason, &message);
    set(STALLED, Some(state.is_stalled()), reason, &message);
    let later = "The two sides exchange the digests of their plans in a later version.";
    set(PEER_SET_KNOWN, None, reasons::NOT_EXCHANGED, later);
    match &one.further {
        Some(further) => {
            let met = further.state == further::State::Ended(facilitator_core::formats::ledger::Verdict::Summed);
            let message = further::message(further, one.inventory, memory.get(&further.given.id));
            set(OVERRIDDEN, Some(met), further.state.reason(), &message);
        }
        None => status.conditions.retain(|condition| condition.type_ != OVERRIDDEN),
    }
    status.further_releases = further::releases(one.inventory);

    status.observed_generation = generation;
    let cutoff = match state {
        State::Collecting(cutoff) | State::Deferred(cutoff) => Some(cutoff),
        State::Missed | State::CutoffPassed => one.cutoffs.last().copied(),
        // Once it is over, cutoffs that pass later have nothing to do with it.
        _ => one
            .due
            .iter()
            .copied()
            .rfind(|cutoff| one.inventory.finished.is_none_or(|at| *cutoff < at)),
    };
    status.cutoff = cutoff.map(|cutoff| cutoff.to_string()).or(status.cutoff);
    let tried = known.and_then(|known| known.tried);
    let defers = one.cutoffs.iter().filter(|cutoff| Some(**cutoff) <= tried).count();
    let most = usize::try_from(input.schedule.settings.max_defers).unwrap_or(usize::MAX);
    if let State::Collecting(_) | State::Deferred(_) | State::Missed | State::CutoffPassed = state {
        status.defers = i32::try_from(defers.min(most)).ok();
    }
    let result = one.inventory.result.as_ref();
    let tally = &one.tally;
    status.batches = Some(batches(tally, result, status.batches));
    if let Some(result) = result {
        status.clients = Some(number(result.clients));
        status.plan_digest = result.plan_digest.clone();
        status.sum_part = result.sum_part.clone().map(|name| SumPartReference {
            name,
            digest: result.sum_part_digest.clone().unwrap_or_default(),
        });
    }
    let jobs = || input.jobs.iter().filter(|view| view.holds_window(one.id));
    if let Some(job) = jobs().next_back() {
        status.job = Some(job.name().to_owned());
        // A large window has several.
        let started = jobs()
            .filter_map(|view| view.job.status.as_ref()?.start_time.as_ref())
            .map(|time| time.0)
            .min();
        if let (Some(started), Some(finished), None) = (started, one.inventory.finished, status.duration_seconds) {
            status.duration_seconds = Some(finished.duration_since(started).as_secs().max(0));
        }
    }
    status
}

/// The batches of a window that was over long ago are no longer listed: what was counted before stays, and without that
/// the result tells.
fn batches(tally: &Tally, result: Option<&WindowResult>, before: Option<WindowBatches>) -> WindowBatches {
    let late = result.map_or(0, |result| result.late_batches);
    match (result, before) {
        (Some(_), Some(before)) if tally.seen == 0 => WindowBatches {
            late: before.late.max(number(late)),
            ..before
        },
        (Some(result), None) if tally.seen == 0 => WindowBatches {
            seen: number(result.batches.saturating_add(late)),
            delivered: number(result.batches),
            matched: number(result.batches),
            late: number(late),
            ..WindowBatches::default()
        },
        _ => WindowBatches {
            seen: number(tally.seen),
            delivered: number(tally.delivered),
            matched: number(tally.matched),
            rejected: number(tally.rejected),
            blocked: number(tally.blocked),
            late: number(tally.late.max(late)),
        },
    }
}

pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn message(one: &Seen<'_>, state: State, known: Option<&Try>) -> String {
    let entry = format!(
        "To sum it, agree with the peer on a cutoff and set it on both sides: windows.cutoffs, aggregation {}, start {}.",
        one.id.aggregation,
        one.id.start.to_compact()
    );
    let result = one.inventory.result.as_ref();
    match state {
        State::Collecting(cutoff) => format!("Batches that both sides have validated by {cutoff} are in."),
        State::Deferred(cutoff) => format!("No batch was in time so far; the cutoff has moved to {cutoff}."),
        State::TakingIn => {
            "First seen after its last cutoff: its batches are taken in before anything is summed.".to_owned()
        }
        State::Due => "Due: a worker is started as soon as there is room.".to_owned(),
        State::Summing if !one.inventory.partials.is_empty() => {
            "Its parts are summed by several workers, and then put together by one.".to_owned()
        }
        State::Summing if !one.inventory.shards.is_empty() => {
            "Its parts are planned and summed by several workers.".to_owned()
        }
        State::Summing | State::Unread => "A worker plans and sums it.".to_owned(),
        State::Blocked => known.and_then(|known| known.blocked.as_ref()).map_or_else(
            || "A worker lacks a key or a right; it is tried again.".to_owned(),
            |blocked| {
                format!(
                    "{}: {}. It is tried again.",
                    blocked.reason,
                    blocked.message.trim_end_matches('.')
                )
            },
        ),
        State::CrashesWorker => format!(
            "Alone in a pod it failed three times. See the log of Job {}; annotate this object with {} to try again.",
            known.and_then(|known| known.job.as_deref()).unwrap_or("(gone)"),
            crds::names::RETRY_ANNOTATION
        ),
        State::Missed => format!("No batch was in time at its last cutoff. {entry}"),
        State::CutoffPassed => format!("It was first seen after its last cutoff, and no batch was in time. {entry}"),
        State::Empty => "All its batches are empty: there is nothing to sum.".to_owned(),
        State::Summed => format!(
            "The sum part of {} clients is with the portal.",
            result.map_or(0, |result| result.clients)
        ),
        State::BelowFloor => format!(
            "{} valid clients are fewer than windows.minClients: no sum is released.",
            result.map_or(0, |result| result.clients)
        ),
        State::Failed => match result {
            Some(result) => {
                let reason = result.reason.map(|reason| format!("{reason:?}: ")).unwrap_or_default();
                format!(
                    "{reason}{}. This is final; docs/operations.md says what it means.",
                    result.message.trim_end_matches('.')
                )
            }
            None => "It failed for good; the ledger's results/ says why.".to_owned(),
        },
    }
}

/// What came of an override, told once.
pub(super) fn override_event(
    one: &Seen<'_>,
    name: &str,
    object: Option<&AggregationWindow>,
    status: &AggregationWindowStatus,
) -> Option<ObjectEvent> {
    let further = one.further.as_ref().filter(|further| further.state.is_told())?;
    let condition = condition(&status.conditions, OVERRIDDEN)?;
    let news = object.is_none_or(|object| reason_of(object, OVERRIDDEN) != Some(condition.reason.as_str()));
    news.then(|| ObjectEvent {
        subject: Subject::Window(name.to_owned()),
        warning: condition.status != "True",
        reason: further.state.reason(),
        message: format!("{}: override: {}", further.given.id, condition.message),
    })
}

/// Events are for exceptions, and for the sum.
pub(super) fn event(id: &WindowId, name: &str, state: State, status: &AggregationWindowStatus) -> Option<ObjectEvent> {
    let told = matches!(state, State::Summed | State::BelowFloor | State::Blocked) || state.is_stalled();
    let message = condition(&status.conditions, READY).map(|ready| ready.message.clone());
    told.then(|| ObjectEvent {
        subject: Subject::Window(name.to_owned()),
        warning: state != State::Summed,
        reason: state.reason(),
        message: format!("{id}: {}", message.unwrap_or_default()),
    })
}
