//! The decision on batches: states, chunks of the next Job, objects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crds::Batch;
use crds::conditions::reasons;
use crds::names::RETRY_ANNOTATION;
use facilitator_core::formats::names::{BatchId, WindowId};
use facilitator_core::formats::work::IntakeItem;
use facilitator_core::window::next_cutoff;
use jiff::Timestamp;
use kube::ResourceExt;

use super::outcome::{Kind, chunks, count_finished, id_of_item, running};
use super::projection::{Cluster, project};
use super::{BatchDecision, BatchInput, Tally, object, object_name};
use crate::inventory::{BatchInventory, WindowInventory};
use crate::workload::{Allowance, JobView, PlannedJob, Retries, Try, Work, free_pods};

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
pub(super) struct Seen<'a> {
    pub(super) id: &'a BatchId,
    pub(super) window: &'a WindowInventory,
    pub(super) batch: &'a BatchInventory,
    pub(super) state: State,
    take_anyway: bool,
}

/// Decides on every batch of the inventory.
#[must_use]
pub fn decide(input: &BatchInput<'_>, now: Timestamp) -> BatchDecision {
    let generation = input.processor.metadata.generation.unwrap_or_default();
    let objects = by_batch(input);
    let mut memory = input.memory.clone();
    recall(&objects, &mut memory);
    let ended = ended(input, &memory);
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
    let (planned, short) = input.room.fit(plan(input, &memory, &seen.batches));
    (decision.jobs, decision.short_of_room) = (planned.into_iter().collect(), short);
    let planned: BTreeSet<BatchId> = decision.jobs.iter().flat_map(planned_batches).collect();
    let cluster = Cluster {
        objects,
        running,
        planned,
        ended,
    };
    project(input, &memory, &cluster, &seen.batches, &mut decision, now);

    let jobs = input.jobs.iter().map(JobView::uid).collect();
    let open: BTreeSet<&BatchId> = seen
        .batches
        .iter()
        .filter(|one| !one.batch.is_done())
        .map(|one| one.id)
        .collect();
    memory.keep(&jobs, |id| open.contains(id));
    decision.memory = memory;
    decision
}

/// The object of each batch; where somebody made another one of it by hand, the one that the operator makes.
fn by_batch<'a>(input: &BatchInput<'a>) -> BTreeMap<BatchId, &'a Batch> {
    let processor = input.processor.name_any();
    let mut objects: BTreeMap<BatchId, &Batch> = BTreeMap::new();
    for object in input.objects {
        let Some(id) = object::id_of(object) else { continue };
        if !objects.contains_key(&id) || object.name_any() == object_name(&processor, &id) {
            objects.insert(id, object);
        }
    }
    objects
}

/// After a restart: what crashed its worker too often is not tried again just because nobody remembers.
fn recall(objects: &BTreeMap<BatchId, &Batch>, memory: &mut Retries<BatchId>) {
    for (id, object) in objects {
        let outcome = object.status.as_ref().and_then(|status| status.outcome.as_deref());
        if outcome == Some(reasons::CRASHES_WORKER) && memory.get(id).is_none() {
            let answered = object.annotations().get(RETRY_ANNOTATION).cloned();
            *memory.entry(id) = Try {
                answered,
                ..Try::crashed()
            };
        }
    }
}

/// The batches of Jobs that ended since the last decision.
fn ended(input: &BatchInput<'_>, memory: &Retries<BatchId>) -> BTreeSet<BatchId> {
    let ended = input
        .jobs
        .iter()
        .filter(|view| view.is_finished() && !memory.has_counted(view.uid()));
    ended
        .flat_map(|view| chunks(view).iter().flatten().filter_map(id_of_item))
        .collect()
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
    let mut sight = Sight {
        batches: Vec::new(),
        tallies: BTreeMap::new(),
    };
    for (window_id, window) in &input.inventory.windows {
        let further = input.schedule.overrides.get(window_id);
        let further = further.filter(|given| given.takes_in(window, now));
        let mut cutoffs = input.schedule.cutoffs(window_id);
        cutoffs.extend(further.map(|given| given.cutoff));
        cutoffs.sort_unstable();
        // No planning after this one reaches the cutoff: what can't be decrypted is left out (ledger rule 2).
        let take_anyway =
            next_cutoff(&cutoffs, now).is_some_and(|cutoff| cutoff.duration_since(now) <= input.timing.blocked_retry);
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
            } else if window.is_frozen() && further.is_none() {
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
            tally.add(state, batch, batch.is_arriving(input.schedule, now));
            sight.batches.push(Seen {
                id,
                window,
                batch,
                state,
                take_anyway,
            });
        }
    }
    sight
}

impl Tally {
    fn add(&mut self, state: State, batch: &BatchInventory, arriving: bool) {
        self.seen += 1;
        match state {
            State::Unready => self.arriving += u64::from(arriving),
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

/// The next Job, if one may start and there is work; the room that others leave is not looked at.
fn plan(input: &BatchInput<'_>, memory: &Retries<BatchId>, batches: &[Seen<'_>]) -> Option<PlannedJob> {
    let workers = &input.processor.spec.workers;
    let pods = free_pods(&input.processor.spec, input.jobs, input.allowance);
    if pods == 0 {
        return None;
    }
    let per_pod = usize::try_from(workers.batches_per_pod).unwrap_or(usize::MAX).max(1);
    let waiting = batches.iter().filter(|one| one.state == State::Waiting);
    let mut by_limit: BTreeMap<usize, Vec<&Seen<'_>>> = BTreeMap::new();
    for one in round_robin(waiting, |one| one.id.aggregation.as_str(), MAX_BATCHES_PER_JOB) {
        let limit = memory
            .get(one.id)
            .and_then(|t| t.limit)
            .map_or(per_pod, |limit| limit.min(per_pod));
        by_limit.entry(limit).or_default().push(one);
    }
    let mut chunks: Vec<Vec<IntakeItem>> = Vec::new();
    let mut attempt = 0;
    // Whole chunks first: what failed before comes last, and doesn't hold up the rest.
    for (limit, mut group) in by_limit.into_iter().rev() {
        group.sort_by_key(|one| one.id);
        attempt = group
            .iter()
            .filter_map(|one| memory.get(one.id))
            .map(|t| t.attempts)
            .fold(attempt, u32::max);
        chunks.extend(
            group
                .chunks(limit)
                .map(|chunk| chunk.iter().map(|one| item(one)).collect()),
        );
    }
    let canary = input.allowance == Allowance::Canary;
    chunks.truncate(if canary { 1 } else { usize::MAX });
    let indexes = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    (indexes > 0).then(|| PlannedJob {
        work: Work::Intake(chunks),
        parallelism: indexes.min(pods),
        attempt,
        canary,
    })
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
fn round_robin<'a, T, K: Ord>(
    items: impl Iterator<Item = &'a T>,
    group: impl Fn(&'a T) -> K,
    limit: usize,
) -> Vec<&'a T> {
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
        Work::Intake(chunks) => chunks.iter().flatten().filter_map(id_of_item).collect(),
        Work::Aggregate(_) | Work::CompactClaims(_) | Work::KeyProbe { .. } | Work::Preflight { .. } => Vec::new(),
    }
}
