//! Large windows, in parts: which are next, by the names in the ledger, and what became of Jobs that did some. Pure.
//!
//! First each pod looks at a range of the window's batches, and the last one makes the plan; then each counts and sums a
//! range of the plan's members; then one pod puts all together, as if it had done everything. What is there of a phase is
//! told by names, so that another operator goes on where one stopped, whatever ranges it would have chosen itself.

use std::collections::BTreeSet;

use facilitator_core::formats::names::{BatchRange, WindowId};
use facilitator_core::formats::work::{AggregateItem, WindowOutcome, WindowPart, WindowReport};
use jiff::Timestamp;

use super::WindowInput;
use super::decide::{Seen, blocked, chunks, id_of_item, last_cutoff};
use crate::workload::{JobView, Retries, Try};

/// The most parts of a window: the indexes of a Job, whose work list a ConfigMap must hold.
const MAX_PARTS: usize = 500;

/// The parts of a window that are to be done next; `None`: it is for one pod.
pub(super) fn next(input: &WindowInput<'_>, one: &Seen<'_>, known: Option<&Try>) -> Option<Vec<WindowPart>> {
    let most = input.processor.spec.workers.sum_batches_per_pod as usize;
    let inventory = one.inventory;
    let count = inventory.batches.len();
    let part_failed = known.is_some_and(|known| known.part_failed);
    // What was announced is summed already.
    if count <= most || part_failed || inventory.released {
        return None;
    }
    // What crashed its pod is tried in halves.
    let crashes = known.map_or(0, |known| known.alone);
    let size = (most >> crashes.min(16)).max(count.div_ceil(MAX_PARTS)).max(1);
    let none = BTreeSet::new();
    let there = match inventory.planned {
        Some(_) => &inventory.partials,
        None => inventory.shards.get(&one.due.last()?.as_millisecond()).unwrap_or(&none),
    };
    let tiles = BatchRange::whole(one.id).tiled(there);
    let names = || inventory.batches.keys().map(|batch| (batch.time, batch.uuid));
    let missing = tiles.iter().filter(|tile| !tile.there);
    let mut ranges: Vec<BatchRange> = missing.flat_map(|tile| tile.range.parted(names(), size)).collect();
    if inventory.planned.is_none() && ranges.is_empty() {
        // Everything was looked at, and whoever should have made the plan stopped before it: any of them can.
        ranges.extend(tiles.last().map(|tile| tile.range));
    }
    let part = match inventory.planned {
        Some(_) => WindowPart::PartialSum,
        None => WindowPart::PlanShard,
    };
    (!ranges.is_empty()).then(|| ranges.iter().map(|range| part(range.to_string())).collect())
}

/// A Job of parts of one window.
pub(super) struct Parted<'a> {
    view: &'a JobView,
    id: WindowId,
    item: &'a AggregateItem,
}

impl<'a> Parted<'a> {
    /// The Job, if it is one.
    pub(super) fn of(view: &'a JobView) -> Option<Self> {
        let item = chunks(view).first()?.first().filter(|item| item.part.is_some())?;
        let id = id_of_item(item)?;
        Some(Self { view, id, item })
    }

    /// Counts it, once it is over. Several indexes that fail are one failure of the window.
    pub(super) fn count(
        &self,
        input: &WindowInput<'_>,
        memory: &mut Retries<WindowId>,
        generation: i64,
        now: Timestamp,
    ) {
        if input.inventory.is_over(&self.id) != Some(false) {
            return;
        }
        let is_of_this = |line: &&WindowReport| {
            (line.aggregation.as_str(), &line.start, &line.end)
                == (self.id.aggregation.as_str(), &self.item.start, &self.item.end)
        };
        let reports = || self.view.reports.iter();
        let lines: Vec<&WindowReport> = reports()
            .flat_map(|report| &report.windows)
            .filter(is_of_this)
            .collect();
        let reported: BTreeSet<usize> = reports()
            .filter(|report| report.windows.iter().any(|line| is_of_this(&line)))
            .filter_map(|report| usize::try_from(report.index).ok())
            .collect();
        let left: Vec<usize> = (0..chunks(self.view).len())
            .filter(|index| !reported.contains(index))
            .collect();
        // One that came to its end without a word is to blame before one that never ran.
        let to_blame = left.iter().find(|index| self.view.has_ended(**index)).or(left.first());
        match to_blame {
            Some(index) => memory.index_over(self.view, *index, std::slice::from_ref(&self.id), 1),
            None => memory.entry(&self.id).attempts += 1,
        }
        let known = memory.entry(&self.id);
        if left.is_empty() && lines.iter().all(|line| line.outcome == WindowOutcome::Part) {
            (known.alone, known.limit, known.blocked) = (0, None, None);
        }
        for line in lines {
            match line.outcome {
                WindowOutcome::NoMembers => known.tried = known.tried.max(last_cutoff(self.item)),
                WindowOutcome::Blocked => known.blocked = Some(blocked(self.view, line, generation, now)),
                WindowOutcome::PartFailed => known.part_failed = true,
                _ => {}
            }
        }
    }
}
