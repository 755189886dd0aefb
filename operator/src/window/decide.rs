//! The decision on windows: states, and what remembers them.

use std::collections::{BTreeMap, BTreeSet};

use crds::AggregationWindow;
use crds::conditions::reasons;
use crds::names::RETRY_ANNOTATION;
use facilitator_core::formats::ledger::Verdict;
use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::{AggregateItem, WindowOutcome, WindowReport, WorkList};
use facilitator_core::window::{due, planned_at, planned_at_with_legacy_peer};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::further::{self, Further};
use super::parts::Parted;
use super::plan::{plan, planned_windows};
use super::projection::project;
use super::status::{self, State};
use super::{WindowDecision, WindowInput};
use crate::batch::Tally;
use crate::inventory::WindowInventory;
use crate::workload::{Blocked, JobView, Retries, Try};

/// So long after its last cutoff, or after it was first seen, the peer's validations of a window are still looked for.
const AWAITED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// One window as the decision sees it.
pub(super) struct Seen<'a> {
    pub(super) id: &'a WindowId,
    pub(super) inventory: &'a WindowInventory,
    pub(super) tally: Tally,
    /// Every cutoff, ascending.
    pub(super) cutoffs: Vec<Timestamp>,
    /// Those that may be planned by now.
    pub(super) due: Vec<Timestamp>,
    pub(super) first_seen: Timestamp,
    /// Validations of the peer's are missing of what we have delivered, and may still come.
    awaits_answers: bool,
    pub(super) state: State,
    /// Its override, if it has one.
    pub(super) further: Option<Further<'a>>,
}

/// Decides on every window of the inventory.
#[must_use]
pub fn decide(input: &WindowInput<'_>, now: Timestamp) -> WindowDecision {
    let generation = input.processor.metadata.generation.unwrap_or_default();
    let objects: BTreeMap<WindowId, &AggregationWindow> = input
        .objects
        .iter()
        .filter_map(|object| Some((status::id_of(object)?, object)))
        .collect();
    let mut memory = input.memory.clone();
    for (id, object) in &objects {
        if memory.get(id).is_none() {
            recall(input, id, object, &mut memory);
        }
        further::recall(input.schedule, id, object, &mut memory);
    }
    count_finished(input, &mut memory, generation, now);
    for (id, object) in &objects {
        if let Some(value) = object.annotations().get(RETRY_ANNOTATION) {
            memory.ask_again(id, value);
            if let Some(given) = input.schedule.overrides.get(id) {
                memory.ask_again(&given.id, value);
            }
        }
    }
    let running = running(input.jobs);
    let mut seen = Vec::new();
    for (id, inventory) in &input.inventory.windows {
        let object = objects.get(id).copied();
        seen.push(see(
            input,
            &mut memory,
            &running,
            id,
            inventory,
            object,
            generation,
            now,
        ));
    }

    let (planned, short_of_room) = input.room.fit(plan(input, &memory, &seen));
    let planned_windows: BTreeSet<WindowId> = planned.iter().flat_map(planned_windows).collect();
    for one in &mut seen {
        if planned_windows.contains(one.id) {
            one.state = State::Summing;
        }
        if let Some(further) = one
            .further
            .as_mut()
            .filter(|further| planned_windows.contains(&further.given.id))
        {
            further.state = further::State::Summing;
        }
    }
    let mut decision = WindowDecision {
        jobs: planned.into_iter().collect(),
        short_of_room,
        ..Default::default()
    };
    for one in &seen {
        if one.is_overdue(input, now) {
            decision.overdue.push(one.id.clone());
        }
        if one.needs_listing() {
            decision.open.insert(one.id.clone());
        }
        if let State::Collecting(cutoff) | State::Deferred(cutoff) = one.state {
            decision.next_cutoff = Some(decision.next_cutoff.map_or(cutoff, |next| next.min(cutoff)));
        }
    }
    project(input, &memory, &objects, &seen, &mut decision, now);
    decision.counts.overdue = i64::try_from(decision.overdue.len()).unwrap_or(i64::MAX);

    let jobs = input.jobs.iter().map(JobView::uid).collect();
    let further = seen.iter().filter_map(|one| Some(&one.further.as_ref()?.given.id));
    let known: BTreeSet<&WindowId> = seen.iter().map(|one| one.id).chain(further).collect();
    memory.keep(&jobs, |id| known.contains(id));
    decision.memory = memory;
    decision
}

/// After a restart: the cutoffs before the one in force were tried, and what crashed its worker stays.
fn recall(input: &WindowInput<'_>, id: &WindowId, object: &AggregationWindow, memory: &mut Retries<WindowId>) {
    let Some(status) = &object.status else { return };
    let cutoff: Option<Timestamp> = status.cutoff.as_ref().and_then(|cutoff| cutoff.parse().ok());
    let before = |cutoff| input.schedule.cutoffs(id).into_iter().filter(|one| *one < cutoff).max();
    let tried = match (status::ready_reason(object), cutoff) {
        (Some(reasons::MISSED | reasons::CUTOFF_PASSED), cutoff) => cutoff,
        (Some(reasons::DEFERRED | reasons::COLLECTING), Some(cutoff)) => before(cutoff),
        (Some(reasons::CRASHES_WORKER), _) => {
            let answered = object.annotations().get(RETRY_ANNOTATION).cloned();
            *memory.entry(id) = Try {
                answered,
                ..Try::crashed()
            };
            return;
        }
        _ => None,
    };
    if tried.is_some() {
        memory.entry(id).tried = tried;
    }
}

pub(super) fn chunks(view: &JobView) -> &[Vec<AggregateItem>] {
    match &view.work {
        Some(WorkList::Aggregate { chunks, .. }) => chunks,
        _ => &[],
    }
}

fn id_of(aggregation: &str, start: &str, end: &str, release: Option<u8>) -> Option<WindowId> {
    let window = WindowId::parse(&format!("{aggregation}/{start}-{end}")).ok()?;
    match release {
        None => Some(window),
        Some(release) => window.again(release).ok(),
    }
}

pub(super) fn id_of_item(item: &AggregateItem) -> Option<WindowId> {
    let release = item.approval.as_ref().map(|approval| approval.release);
    id_of(&item.aggregation, &item.start, &item.end, release)
}

fn id_of_report(report: &WindowReport) -> Option<WindowId> {
    id_of(&report.aggregation, &report.start, &report.end, report.release)
}

/// The windows that unfinished Jobs hold, with the Job.
fn running(jobs: &[JobView]) -> BTreeMap<WindowId, &JobView> {
    let unfinished = jobs.iter().filter(|view| !view.is_finished());
    unfinished
        .flat_map(|view| {
            chunks(view)
                .iter()
                .flatten()
                .filter_map(move |item| Some((id_of_item(item)?, view)))
        })
        .collect()
}

/// Counts Jobs that ended since the last decision; what has a result is done.
fn count_finished(input: &WindowInput<'_>, memory: &mut Retries<WindowId>, generation: i64, now: Timestamp) {
    for view in input.jobs.iter().filter(|view| view.is_finished()) {
        if !memory.count_job(view.uid()) {
            continue;
        }
        if let Some(parted) = Parted::of(view) {
            parted.count(input, memory, generation, now);
            continue;
        }
        let reports: BTreeMap<WindowId, &WindowReport> = view
            .reports
            .iter()
            .flat_map(|report| &report.windows)
            .filter_map(|window| Some((id_of_report(window)?, window)))
            .collect();
        for (index, chunk) in chunks(view).iter().enumerate() {
            let mut left = Vec::new();
            for (item, id) in chunk.iter().filter_map(|item| Some((item, id_of_item(item)?))) {
                if input.inventory.is_over(&id) != Some(false) {
                    continue;
                }
                let Some(report) = reports.get(&id) else {
                    left.push(id);
                    continue;
                };
                let known = memory.entry(&id);
                match report.outcome {
                    WindowOutcome::NoMembers => known.tried = known.tried.max(last_cutoff(item)),
                    WindowOutcome::Blocked => {
                        known.attempts += 1;
                        known.blocked = Some(blocked(view, report, generation, now));
                    }
                    // The result that it speaks of isn't there.
                    _ => left.push(id),
                }
            }
            memory.index_over(view, index, &left, chunk.len());
        }
    }
}

/// The last cutoff that a work list told of.
pub(super) fn last_cutoff(item: &AggregateItem) -> Option<Timestamp> {
    item.cutoffs
        .last()
        .and_then(|cutoff| Timestamp::from_millisecond(*cutoff).ok())
}

/// What a worker reported that lacks something.
pub(super) fn blocked(view: &JobView, report: &WindowReport, generation: i64, now: Timestamp) -> Blocked {
    Blocked {
        reason: report.reason.clone(),
        message: report.message.clone(),
        at: now,
        generation: view.generation().unwrap_or(generation),
        taken_anyway: false,
    }
}

#[allow(clippy::too_many_arguments)]
fn see<'a>(
    input: &WindowInput<'a>,
    memory: &mut Retries<WindowId>,
    running: &BTreeMap<WindowId, &JobView>,
    id: &'a WindowId,
    inventory: &'a WindowInventory,
    object: Option<&AggregationWindow>,
    generation: i64,
    now: Timestamp,
) -> Seen<'a> {
    let schedule = input.schedule;
    let tally = input.tallies.get(id).copied().unwrap_or_default();
    let cutoffs = schedule.cutoffs(id);
    let mut due = due(&cutoffs, &schedule.settings, now);
    if schedule.legacy_peer {
        // Rule 3: at most one period for a legacy peer's answers to what was delivered by then.
        let unanswered = |cutoff: Timestamp| {
            inventory
                .batches
                .values()
                .any(|batch| !batch.peer && batch.delivered.is_some_and(|at| at <= cutoff))
        };
        due.retain(|cutoff| planned_at_with_legacy_peer(*cutoff, &schedule.settings, unanswered(*cutoff)) <= now);
    }
    let first_seen = object
        .and_then(|object| object.metadata.creation_timestamp.as_ref())
        .map_or(now, |time| time.0);
    let last = cutoffs.last().copied().map_or(first_seen, |last| last.max(first_seen));
    let mut one = Seen {
        id,
        inventory,
        awaits_answers: tally.matched < tally.delivered && now.duration_since(last) < AWAITED_FOR,
        tally,
        cutoffs,
        due,
        first_seen,
        state: State::Due,
        further: further::see(input, memory, running, id, inventory, now),
    };
    one.state = if inventory.finished.is_some() {
        match inventory.result.as_ref().map(|result| result.verdict) {
            Some(Verdict::Summed) => State::Summed,
            Some(Verdict::BelowFloor) => State::BelowFloor,
            Some(Verdict::Failed) => State::Failed,
            None => State::Unread,
        }
    } else if running.contains_key(id) {
        State::Summing
    } else {
        one.open_state(input, memory, generation, now)
    };
    one
}

impl Seen<'_> {
    /// Where a window is that has no result and no Job.
    fn open_state(
        &self,
        input: &WindowInput<'_>,
        memory: &mut Retries<WindowId>,
        generation: i64,
        now: Timestamp,
    ) -> State {
        let known = memory.get(self.id).cloned().unwrap_or_default();
        if known.crashes() {
            return State::CrashesWorker;
        }
        let Some(last_due) = self.due.last().copied() else {
            return if self.inventory.is_frozen() {
                State::Due
            } else {
                self.before(known.tried)
            };
        };
        if !self.inventory.is_frozen() {
            if self.tally.seen > 0 && self.tally.empty == self.tally.seen {
                return State::Empty;
            }
            if known.tried >= Some(last_due) {
                return self.after(known.tried, input);
            }
            if self.is_seen_too_late() && self.tally.waiting + self.tally.running > 0 {
                return State::TakingIn;
            }
            // A member was delivered: without one there is nothing to ask a worker.
            if self.tally.delivered == 0 {
                memory.entry(self.id).tried = Some(last_due);
                return self.after(Some(last_due), input);
            }
        }
        match known.is_due(generation, input.timing.blocked_retry, false, now) {
            true => State::Due,
            false => State::Blocked,
        }
    }

    /// Its first due cutoff is to come.
    fn before(&self, tried: Option<Timestamp>) -> State {
        self.cutoffs
            .iter()
            .copied()
            .find(|cutoff| Some(*cutoff) > tried)
            .map_or(State::Missed, State::Collecting)
    }

    /// The due cutoffs were tried in vain: the next one, if any.
    fn after(&self, tried: Option<Timestamp>, input: &WindowInput<'_>) -> State {
        let next = self.cutoffs.iter().copied().find(|cutoff| Some(*cutoff) > tried);
        match next {
            Some(next) if input.schedule.agreed.get(&(self.id.aggregation.clone(), self.id.start)) == Some(&next) => {
                State::Collecting(next)
            }
            Some(next) => State::Deferred(next),
            None if self.is_seen_too_late() => State::CutoffPassed,
            None => State::Missed,
        }
    }

    /// It was first seen after its last cutoff.
    fn is_seen_too_late(&self) -> bool {
        self.cutoffs.last().is_some_and(|last| *last < self.first_seen)
    }

    /// Whether the next looks must list its batches. One without a cutoff to come gets another when people see that all is
    /// there, the peer's answers too.
    pub(super) fn needs_listing(&self) -> bool {
        let is_over = matches!(self.state, State::CutoffPassed | State::Missed);
        self.state.needs_listing(&self.tally) || is_over && self.awaits_answers
    }

    fn is_overdue(&self, input: &WindowInput<'_>, now: Timestamp) -> bool {
        let Some(due) = self
            .due
            .last()
            .map(|cutoff| planned_at(*cutoff, &input.schedule.settings))
        else {
            return false;
        };
        self.state.is_overdue_after_a_while()
            && now.duration_since(due.max(self.first_seen)) >= input.timing.overdue_after
    }
}
