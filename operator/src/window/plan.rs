//! The next Job that sums windows.

use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::{AggregateItem, WindowPart};

use super::WindowInput;
use super::decide::{Seen, id_of_item};
use super::status::State;
use super::{further, parts};
use crate::workload::{Allowance, PlannedJob, Retries, Work, free_pods};

/// Windows of one Job: more than fall due at once, and a report of each fits.
const MAX_WINDOWS_PER_JOB: usize = 500;

/// A release that is due.
struct Due<'a> {
    id: &'a WindowId,
    item: AggregateItem,
    /// Batches that it may have to open.
    weight: u64,
    /// Of a large window, what is to be done next of it.
    parts: Option<Vec<WindowPart>>,
}

/// First releases and further ones, oldest first.
fn due<'a>(input: &WindowInput<'_>, memory: &Retries<WindowId>, seen: &'a [Seen<'_>]) -> Vec<Due<'a>> {
    let of = |one: &'a Seen<'_>| {
        let weight = one.tally.seen.max(1);
        let first = (one.state == State::Due).then(|| Due {
            id: one.id,
            item: item(one),
            weight,
            parts: parts::next(input, one, memory.get(one.id)),
        });
        let further = one
            .further
            .as_ref()
            .filter(|further| further.state == further::State::Due);
        let further = further.map(|further| Due {
            id: &further.given.id,
            item: further::item(further.given),
            weight,
            parts: None,
        });
        first.into_iter().chain(further)
    };
    let mut due: Vec<_> = seen.iter().flat_map(of).collect();
    due.sort_by_key(|one| (one.id.start, &one.id.aggregation, one.id.release()));
    due
}

/// The next Job: windows that are due, oldest first, so many to a pod that it opens no more batches than an intake pod. A
/// large one has a Job to itself, with a pod for each part.
pub(super) fn plan(input: &WindowInput<'_>, memory: &Retries<WindowId>, seen: &[Seen<'_>]) -> Option<PlannedJob> {
    let workers = &input.processor.spec.workers;
    let pods = free_pods(&input.processor.spec, input.jobs, input.allowance);
    if pods == 0 {
        return None;
    }
    let due = due(input, memory, seen);
    let (mut chunks, attempt) = match due.first() {
        Some(Due {
            id,
            item,
            parts: Some(parts),
            ..
        }) => {
            let part = |part: &WindowPart| {
                vec![AggregateItem {
                    part: Some(part.clone()),
                    ..item.clone()
                }]
            };
            let attempt = memory.get(id).map_or(0, |known| known.attempts);
            (parts.iter().map(part).collect(), attempt)
        }
        _ => {
            let small = due
                .into_iter()
                .filter(|one| one.parts.is_none())
                .take(MAX_WINDOWS_PER_JOB);
            packed(small, memory, u64::from(workers.batches_per_pod))
        }
    };
    let canary = input.allowance == Allowance::Canary;
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
fn packed<'a>(
    due: impl Iterator<Item = Due<'a>>,
    memory: &Retries<WindowId>,
    batches_per_pod: u64,
) -> (Vec<Vec<AggregateItem>>, u32) {
    let mut chunks: Vec<Vec<AggregateItem>> = Vec::new();
    let (mut attempt, mut weight, mut limit) = (0, 0, usize::MAX);
    for one in due {
        let known = memory.get(one.id);
        attempt = attempt.max(known.map_or(0, |known| known.attempts));
        let own_limit = known.and_then(|known| known.limit).unwrap_or(usize::MAX);
        let own_weight = one.weight;
        let fits =
            |chunk: &Vec<AggregateItem>| weight + own_weight <= batches_per_pod && chunk.len() < limit.min(own_limit);
        match chunks.last_mut().filter(|chunk| fits(chunk)) {
            Some(chunk) => {
                chunk.push(one.item);
                (weight, limit) = (weight + own_weight, limit.min(own_limit));
            }
            None => {
                chunks.push(vec![one.item]);
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
        approval: None,
    }
}

pub(super) fn planned_windows(job: &PlannedJob) -> Vec<WindowId> {
    match &job.work {
        Work::Aggregate(chunks) => chunks.iter().flatten().filter_map(id_of_item).collect(),
        Work::Intake(_) | Work::CompactClaims(_) | Work::KeyProbe { .. } | Work::Preflight { .. } => Vec::new(),
    }
}
