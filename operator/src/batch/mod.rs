//! Batches: which are taken in next, and what their Batch objects say. Pure.

mod object;
mod outcome;
mod plan;
mod projection;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crds::processor::BatchCounts;
use crds::{Batch, BatchStatus, DataShareProcessor};
use facilitator_core::formats::names::{BatchId, WindowId};

pub use object::object_name;

use crate::inventory::Inventory;
use crate::window::Schedule;
use crate::workload::{Allowance, JobView, ObjectEvent, PlannedJob, Retries, Room, Timing};

/// All that a decision on batches rests on.
#[derive(Clone, Copy, Debug)]
pub struct BatchInput<'a> {
    /// The processor, as last read.
    pub processor: &'a DataShareProcessor,
    /// Its schedule.
    pub schedule: &'a Schedule,
    /// The operator's settings.
    pub timing: &'a Timing,
    /// What the mailboxes hold.
    pub inventory: &'a Inventory,
    /// The processor's Batches.
    pub objects: &'a [&'a Batch],
    /// The processor's intake Jobs, finished ones too.
    pub jobs: &'a [JobView],
    /// [`crate::workload::WorkersHealth::intake`].
    pub allowance: Allowance,
    /// What the caps leave.
    pub room: Room,
    /// [`BatchDecision::memory`] of the last decision; default at start.
    pub memory: &'a Retries<BatchId>,
}

/// A status to write over another, and the labels that go with it.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchPatch {
    /// The object's name.
    pub name: String,
    /// Its whole status.
    pub status: BatchStatus,
    /// Its whole labels, where they are to change.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Counts of one window's batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the ingestion mailbox or the ledger.
    pub seen: u64,
    /// Not yet ready for intake, and more of it is to be expected.
    pub arriving: u64,
    /// Ready and not in a Job.
    pub waiting: u64,
    /// In an unfinished Job.
    pub running: u64,
    /// Our validation is with the peer.
    pub delivered: u64,
    /// Delivered, and the peer's validation is here.
    pub matched: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Refused because they hold no packets.
    pub empty: u64,
    /// Tried again later, or crashing their worker.
    pub blocked: u64,
    /// Came after the plan.
    pub late: u64,
}

/// What to do about batches.
#[derive(Clone, Debug, Default)]
pub struct BatchDecision {
    /// Batches to create; those with a status get it written next.
    pub create: Vec<Batch>,
    /// Statuses that changed (times aside).
    pub patch: Vec<BatchPatch>,
    /// Batches to delete.
    pub delete: Vec<String>,
    /// Jobs to start.
    pub jobs: Vec<PlannedJob>,
    /// More would start if others left more room.
    pub short_of_room: bool,
    /// For the processor's status.
    pub counts: BatchCounts,
    /// Counts by window, for [`crate::window::decide`].
    pub windows: BTreeMap<WindowId, Tally>,
    /// Events for people.
    pub events: Vec<ObjectEvent>,
    /// For the next decision.
    pub memory: Retries<BatchId>,
}

pub use plan::decide;
