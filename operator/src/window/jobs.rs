//! The next Job of windows. Pure.

use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::AggregateItem;

use super::WindowInput;
use super::decide::{Seen, id_of_item};
use super::parts;
use super::status::State;
use crate::workload::{Allowance, JobView, PlannedJob, Retries, Work};

/// Windows of one Job: more than fall due at once, and a report of each fits.
const MAX_WINDOWS_PER_JOB: usize = 500;

/// The next Job: windows that are due, oldest first, so many to a pod that it opens no more batches than an intake pod. A
/// large one has a Job to itself, with a pod for each part.
pub(super) fn plan(input: &WindowInput<'_>, memory: &Retries<WindowId>, seen: &[Seen<'_>]) -> Option<PlannedJob> {
    let workers = &input.processor.spec.workers;
    let taken: u32 = input.jobs.iter().map(JobView::pods_wanted).sum();
    let pods = workers.max_pods.saturating_sub(taken);
    let held = input.processor.spec.suspend || input.allowance == Allowance::Wait;
    // A Job whose work list can't be read holds nobody knows what.
    let unknown = input.jobs.iter().any(|view| !view.is_finished() && view.work.is_none());
    if held || unknown || pods == 0 {
        return None;
    }
    let mut due: Vec<_> = seen.iter().filter(|one| one.state == State::Due).collect();
    due.sort_by_key(|one| (one.id.start, &one.id.aggregation));
    let of = |one: &Seen<'_>| parts::next(input, one, memory.get(one.id));
    let canary = input.allowance == Allowance::Canary;
    let first = due.first().and_then(|one| Some((*one, of(one)?)));
    let (mut chunks, attempt) = match first {
        Some((one, parts)) => {
            let part = |part| {
                vec![AggregateItem {
                    part: Some(part),
                    ..item(one)
                }]
            };
            let attempt = memory.get(one.id).map_or(0, |known| known.attempts);
            (parts.into_iter().map(part).collect(), attempt)
        }
        None => {
            due.retain(|one| of(one).is_none());
            due.truncate(MAX_WINDOWS_PER_JOB);
            packed(&due, memory, u64::from(workers.batches_per_pod))
        }
    };
    chunks.truncate(if canary { 1 } else { usize::MAX });
    let indexes = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    (indexes > 0).then(|| PlannedJob {
        work: Work::Aggregate(chunks),
        parallelism: indexes.min(pods),
        attempt,
        canary,
    })
}

/// Small windows, several to a pod, and which attempt the most often tried is at.
fn packed(due: &[&Seen<'_>], memory: &Retries<WindowId>, batches_per_pod: u64) -> (Vec<Vec<AggregateItem>>, u32) {
    let mut chunks: Vec<Vec<AggregateItem>> = Vec::new();
    let (mut attempt, mut weight, mut limit) = (0, 0, usize::MAX);
    for one in due {
        let known = memory.get(one.id);
        attempt = attempt.max(known.map_or(0, |known| known.attempts));
        let own_limit = known.and_then(|known| known.limit).unwrap_or(usize::MAX);
        let own_weight = one.tally.seen.max(1);
        let fits =
            |chunk: &Vec<AggregateItem>| weight + own_weight <= batches_per_pod && chunk.len() < limit.min(own_limit);
        match chunks.last_mut().filter(|chunk| fits(chunk)) {
            Some(chunk) => {
                chunk.push(item(one));
                (weight, limit) = (weight + own_weight, limit.min(own_limit));
            }
            None => {
                chunks.push(vec![item(one)]);
                (weight, limit) = (own_weight, own_limit);
            }
        }
    }
    (chunks, attempt)
}

fn item(one: &Seen<'_>) -> AggregateItem {
    AggregateItem {
        aggregation: one.id.aggregation.to_string(),
        start: one.id.start.to_compact(),
        end: one.id.end.to_compact(),
        cutoffs: one.due.iter().map(|cutoff| cutoff.as_millisecond()).collect(),
        part: None,
    }
}

pub(super) fn planned_windows(job: &PlannedJob) -> Vec<WindowId> {
    match &job.work {
        Work::Aggregate(chunks) => chunks.iter().flatten().filter_map(id_of_item).collect(),
        Work::Intake(_) => Vec::new(),
    }
}
