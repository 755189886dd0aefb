//! The decision on batches: states, chunks of the next Job, objects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crds::Batch;
use crds::conditions::reasons;
use crds::names::RETRY_ANNOTATION;
use facilitator_core::formats::names::{BatchId, WindowId};
use facilitator_core::formats::work::{BatchReport, IntakeItem};
use facilitator_core::window::next_cutoff;
use jiff::Timestamp;
use kube::ResourceExt;

use super::outcome::{Kind, Outcome, advice, count_finished, reported, running};
use super::retention::{Wish, wish};
use super::{BatchDecision, BatchInput, BatchPatch, Tally, object};
use crate::inventory::{BatchInventory, WindowInventory};
use crate::workload::{Allowance, JobView, ObjectEvent, PlannedJob, Retries, Subject, Try, Work};

/// Batches of one Job: its work list stays far below a ConfigMap's 1 MiB.
const MAX_BATCHES_PER_JOB: usize = 2_000;

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not whole yet, or a legacy First has not answered.
    Unready,
    /// To be planned.
    Waiting,
    /// In an unfinished Job.
    Running,
    /// It has an outcome.
    Ended(Kind),
}

/// One batch as the decision sees it.
struct Seen<'a> {
    id: &'a BatchId,
    window: &'a WindowInventory,
    batch: &'a BatchInventory,
    state: State,
    take_anyway: bool,
}

/// Decides on every batch of the inventory.
#[must_use]
pub fn decide(input: &BatchInput<'_>, now: Timestamp) -> BatchDecision {
    let generation = input.processor.metadata.generation.unwrap_or_default();
    let objects: BTreeMap<BatchId, &Batch> =
        input.objects.iter().filter_map(|object| Some((object::id_of(object)?, object))).collect();
    let mut memory = input.memory.clone();
    recall(&objects, &mut memory);
    count_finished(input, &mut memory, generation, now);
    for (id, object) in &objects {
        if let Some(value) = object.annotations().get(RETRY_ANNOTATION) {
            memory.ask_again(id, value);
        }
    }
    let running = running(input.jobs);
    let seen = see(input, &memory, &running, generation, now);

    let mut decision = BatchDecision::default();
    for one in &seen.batches {
        count(&mut decision, one);
    }
    decision.windows = seen.tallies;
    decision.counts.unknown_names = i64::try_from(input.inventory.unknown_names).unwrap_or(i64::MAX);
    decision.jobs = plan(input, &memory, &seen.batches).into_iter().collect();
    let planned: BTreeSet<BatchId> = decision.jobs.iter().flat_map(planned_batches).collect();
    decide_objects(input, &memory, &objects, &seen.batches, &running, &planned, &mut decision, now);

    let jobs = input.jobs.iter().map(JobView::uid).collect();
    let open: BTreeSet<&BatchId> = seen.batches.iter().filter(|one| !one.batch.is_done()).map(|one| one.id).collect();
    memory.keep(&jobs, |id| open.contains(id));
    decision.memory = memory;
    decision
}

/// After a restart: what crashed its worker too often is not tried again just because nobody remembers.
fn recall(objects: &BTreeMap<BatchId, &Batch>, memory: &mut Retries<BatchId>) {
    for (id, object) in objects {
        let outcome = object.status.as_ref().and_then(|status| status.outcome.as_deref());
        if outcome == Some(reasons::CRASHES_WORKER) && memory.get(id).is_none() {
            let answered = object.annotations().get(RETRY_ANNOTATION).cloned();
            *memory.entry(id) = Try { answered, ..Try::crashed() };
        }
    }
}

struct Sight<'a> {
    batches: Vec<Seen<'a>>,
    tallies: BTreeMap<WindowId, Tally>,
}

fn see<'a>(
    input: &BatchInput<'a>,
    memory: &Retries<BatchId>,
    running: &BTreeMap<BatchId, String>,
    generation: i64,
    now: Timestamp,
) -> Sight<'a> {
    let mut sight = Sight { batches: Vec::new(), tallies: BTreeMap::new() };
    for (window_id, window) in &input.inventory.windows {
        let cutoffs = input.schedule.cutoffs(window_id);
        // No planning after this one reaches the cutoff: what can't be decrypted is left out (ledger rule 2).
        let take_anyway = next_cutoff(&cutoffs, now)
            .is_some_and(|cutoff| cutoff.duration_since(now) <= input.timing.blocked_retry);
        let tally = sight.tallies.entry(window_id.clone()).or_default();
        for (id, batch) in &window.batches {
            let known = memory.get(id);
            let due = known.is_none_or(|t| t.is_due(generation, input.timing.blocked_retry, take_anyway, now));
            let state = if batch.delivered.is_some() {
                State::Ended(Kind::Validated)
            } else if batch.rejected.is_some() {
                State::Ended(Kind::Rejected)
            } else if running.contains_key(id) {
                State::Running
            } else if window.is_frozen() {
                State::Ended(Kind::Late)
            } else if known.is_some_and(Try::crashes) {
                State::Ended(Kind::CrashesWorker)
            } else if !batch.is_ready(input.schedule, now) {
                State::Unready
            } else if due {
                State::Waiting
            } else {
                State::Ended(Kind::Blocked)
            };
            tally.add(state, batch);
            sight.batches.push(Seen { id, window, batch, state, take_anyway });
        }
    }
    sight
}

impl Tally {
    fn add(&mut self, state: State, batch: &BatchInventory) {
        self.seen += 1;
        match state {
            State::Unready => self.unready += 1,
            State::Waiting => self.waiting += 1,
            State::Running => self.running += 1,
            State::Ended(Kind::Validated) => {
                self.delivered += 1;
                self.matched += u64::from(batch.peer);
            }
            State::Ended(Kind::Rejected) => {
                self.rejected += 1;
                self.empty += u64::from(batch.is_empty_batch());
            }
            State::Ended(Kind::Blocked | Kind::CrashesWorker) => self.blocked += 1,
            State::Ended(Kind::Late) => self.late += 1,
        }
    }
}

fn count(decision: &mut BatchDecision, one: &Seen<'_>) {
    let counts = &mut decision.counts;
    let open = i64::from(one.window.finished.is_none());
    match one.state {
        State::Unready | State::Waiting => counts.waiting += open,
        State::Running => counts.running += open,
        State::Ended(Kind::Validated) => counts.validated += open,
        State::Ended(Kind::Rejected) => counts.rejected += open,
        State::Ended(Kind::Blocked | Kind::CrashesWorker) => counts.blocked += open,
        State::Ended(Kind::Late) => counts.late += 1,
    }
}

/// The next Job, if one may start and there is work.
fn plan(input: &BatchInput<'_>, memory: &Retries<BatchId>, batches: &[Seen<'_>]) -> Option<PlannedJob> {
    let workers = &input.processor.spec.workers;
    let taken: u32 = input.jobs.iter().map(JobView::pods_wanted).sum();
    let pods = workers.max_pods.saturating_sub(taken).min(input.room.pods);
    let held = input.processor.spec.suspend || input.allowance == Allowance::Wait;
    // A Job whose work list can't be read holds nobody knows what.
    let unknown = input.jobs.iter().any(|view| !view.is_finished() && view.work.is_none());
    if held || unknown || input.room.jobs == 0 || pods == 0 {
        return None;
    }
    let per_pod = usize::try_from(workers.batches_per_pod).unwrap_or(usize::MAX).max(1);
    let waiting = batches.iter().filter(|one| one.state == State::Waiting);
    let mut by_limit: BTreeMap<usize, Vec<&Seen<'_>>> = BTreeMap::new();
    for one in round_robin(waiting, |one| one.id.aggregation.as_str(), MAX_BATCHES_PER_JOB) {
        let limit = memory.get(one.id).and_then(|t| t.limit).map_or(per_pod, |limit| limit.min(per_pod));
        by_limit.entry(limit).or_default().push(one);
    }
    let mut chunks: Vec<Vec<IntakeItem>> = Vec::new();
    let mut attempt = 0;
    // Whole chunks first: what failed before comes last, and doesn't hold up the rest.
    for (limit, mut group) in by_limit.into_iter().rev() {
        group.sort_by_key(|one| one.id);
        attempt = group.iter().filter_map(|one| memory.get(one.id)).map(|t| t.attempts).fold(attempt, u32::max);
        chunks.extend(group.chunks(limit).map(|chunk| chunk.iter().map(|one| item(one)).collect()));
    }
    let canary = input.allowance == Allowance::Canary;
    chunks.truncate(if canary { 1 } else { usize::MAX });
    let indexes = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    (indexes > 0).then(|| PlannedJob { work: Work::Intake(chunks), parallelism: indexes.min(pods), attempt, canary })
}

fn item(one: &Seen<'_>) -> IntakeItem {
    IntakeItem {
        aggregation: one.id.aggregation.to_string(),
        time: one.id.time.to_path(),
        uuid: one.id.uuid,
        take_anyway: one.take_anyway,
    }
}

/// At most `limit` items, one of each group in turn.
fn round_robin<'a, T, K: Ord>(items: impl Iterator<Item = &'a T>, group: impl Fn(&'a T) -> K, limit: usize) -> Vec<&'a T> {
    let mut groups: BTreeMap<K, VecDeque<&'a T>> = BTreeMap::new();
    for item in items {
        groups.entry(group(item)).or_default().push_back(item);
    }
    let mut queues: VecDeque<_> = groups.into_values().collect();
    let mut taken = Vec::new();
    while taken.len() < limit {
        let Some(mut queue) = queues.pop_front() else { break };
        if let Some(item) = queue.pop_front() {
            taken.push(item);
            queues.push_back(queue);
        }
    }
    taken
}

fn planned_batches(job: &PlannedJob) -> Vec<BatchId> {
    match &job.work {
        Work::Intake(chunks) => chunks.iter().flatten().filter_map(super::outcome::id_of_item).collect(),
        Work::Aggregate(_) => Vec::new(),
    }
}

#[allow(clippy::too_many_arguments)]
fn decide_objects(
    input: &BatchInput<'_>,
    memory: &Retries<BatchId>,
    objects: &BTreeMap<BatchId, &Batch>,
    batches: &[Seen<'_>],
    running: &BTreeMap<BatchId, String>,
    planned: &BTreeSet<BatchId>,
    decision: &mut BatchDecision,
    now: Timestamp,
) {
    let reported = reported(input.jobs);
    let processor = input.processor.name_any();
    let namespace = input.processor.namespace();
    let workers = &input.processor.spec.workers;
    let most = usize::try_from(workers.max_batch_objects).unwrap_or(usize::MAX);
    let mut room = most.saturating_sub(input.objects.len());
    let mut known: BTreeSet<&BatchId> = BTreeSet::new();
    for one in batches {
        known.insert(one.id);
        // An outcome is told when the Job is over: with the counts of its report, in one write.
        let state = if running.contains_key(one.id) || planned.contains(one.id) { State::Running } else { one.state };
        let wish = wish(&state, one.window, one.batch, workers.batch_objects, input.timing.batch_retention, now);
        let object = objects.get(one.id).copied();
        let status = match state {
            State::Ended(kind) => {
                let outcome = outcome(kind, one, memory.get(one.id), reported.get(one.id));
                Some(object::status(&outcome, object, now))
            }
            _ => None,
        };
        let news = match (wish, object, status) {
            (Wish::Gone, Some(object), _) => {
                decision.delete.push(object.name_any());
                None
            }
            (Wish::Wanted, None, status) if room > 0 => {
                room -= 1;
                decision.create.push(object::new(&processor, namespace.as_deref(), one.id, status.clone()));
                status
            }
            (Wish::Wanted | Wish::Kept, Some(object), Some(status)) if object.status.as_ref() != Some(&status) => {
                let before = object.status.as_ref().and_then(|status| status.outcome.clone());
                let labels = object::labels(&processor, status.outcome.as_deref());
                decision.patch.push(BatchPatch { name: object.name_any(), status: status.clone(), labels });
                Some(status).filter(|status| status.outcome != before)
            }
            _ => None,
        };
        decision.events.extend(news.and_then(|status| event(&processor, one.id, &state, &status)));
    }
    // What the mailboxes no longer show, or no longer belongs to the processor, stays as long as an outcome would.
    decision.delete.extend(input.objects.iter().filter(|object| {
        let listed = object::id_of(object).is_some_and(|id| known.contains(&id) || running.contains_key(&id));
        let age = object.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0));
        !listed && age.is_none_or(|age| age >= input.timing.batch_retention)
    }).map(ResourceExt::name_any));
}

fn outcome(kind: Kind, one: &Seen<'_>, known: Option<&Try>, report: Option<&(&BatchReport, &str)>) -> Outcome {
    let mut outcome = match kind {
        Kind::Validated => Outcome::new(kind, "", "Taken in; the peer has our validation."),
        Kind::Rejected => match &one.batch.rejection {
            Some(rejection) => {
                let reason = format!("{:?}", rejection.reason);
                let message = format!("{} {}.", sentence(&rejection.message), advice(&reason));
                Outcome::new(kind, reason, message)
            }
            None => Outcome::new(kind, "", "Refused for good; the ledger's rejected/ says why."),
        },
        Kind::Blocked => match known.and_then(|known| known.blocked.as_ref()) {
            Some(blocked) => {
                let message = format!("{} {}; it is tried again.", sentence(&blocked.message), advice(&blocked.reason));
                Outcome::new(kind, blocked.reason.clone(), message)
            }
            None => Outcome::new(kind, "", "Waits for a key or a right; it is tried again."),
        },
        Kind::Late => {
            Outcome::new(kind, "", "Came after its window's set was frozen: it is in no sum, and nothing is to be done.")
        }
        Kind::CrashesWorker => Outcome::new(
            kind,
            "",
            format!(
                "Alone in a pod it failed three times. See the log of Job {}; annotate this Batch with {RETRY_ANNOTATION} to try again.",
                known.and_then(|known| known.job.as_deref()).unwrap_or("(gone)")
            ),
        ),
    };
    outcome.attempts = known.map(|known| known.attempts).filter(|attempts| *attempts > 0);
    outcome.job = known.and_then(|known| known.job.clone());
    if let Some((report, job)) = report {
        (outcome.packets, outcome.excluded) = (Some(report.packets), Some(report.excluded));
        outcome.job = Some((*job).to_owned());
    }
    outcome
}

fn sentence(message: &str) -> String {
    format!("{}.", message.trim_end_matches('.'))
}

/// Events are for exceptions.
fn event(processor: &str, id: &BatchId, state: &State, status: &crds::BatchStatus) -> Option<ObjectEvent> {
    let State::Ended(kind) = state else { return None };
    let message = status.conditions.first().map(|condition| condition.message.clone()).unwrap_or_default();
    (!kind.is_good()).then(|| ObjectEvent {
        subject: Subject::Batch(object::object_name(processor, id)),
        warning: true,
        reason: kind.word(),
        message: format!("{id}: {message}"),
    })
}
