//! How a batch ended, and what to tell a person about it.

use std::collections::BTreeMap;

use crds::conditions::reasons;
use facilitator_core::formats::names::{AggregationId, BatchId, BatchTime};
use facilitator_core::formats::work::{BatchOutcome, BatchReport, IntakeItem, WorkList};
use jiff::Timestamp;

use super::BatchInput;
use crate::workload::{Blocked, JobView, Retries};

/// What a Batch says of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Validated,
    Rejected,
    Blocked,
    Late,
    CrashesWorker,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Validated => reasons::VALIDATED,
            Self::Rejected => reasons::REJECTED,
            Self::Blocked => reasons::BLOCKED,
            Self::Late => reasons::LATE,
            Self::CrashesWorker => reasons::CRASHES_WORKER,
        }
    }

    pub(super) fn is_good(self) -> bool {
        self == Self::Validated
    }

    /// Whether nothing happens until somebody does something, if ever.
    pub(super) fn is_stalled(self) -> bool {
        matches!(self, Self::Rejected | Self::Late | Self::CrashesWorker)
    }
}

/// A batch's end with its details.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) kind: Kind,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) packets: Option<u64>,
    pub(super) excluded: Option<u64>,
    pub(super) job: Option<String>,
    pub(super) attempts: Option<u32>,
}

impl Outcome {
    pub(super) fn new(kind: Kind, reason: impl Into<String>, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.into(), message.into());
        Self {
            kind,
            reason,
            message,
            packets: None,
            excluded: None,
            job: None,
            attempts: None,
        }
    }
}

/// The batch of a work item; the work lists are our own.
pub(super) fn id_of_item(item: &IntakeItem) -> Option<BatchId> {
    batch_id(&item.aggregation, &item.time, item.uuid)
}

fn batch_id(aggregation: &str, time: &str, uuid: uuid::Uuid) -> Option<BatchId> {
    let aggregation = AggregationId::parse(aggregation).ok()?;
    Some(BatchId {
        aggregation,
        time: BatchTime::parse_path(time).ok()?,
        uuid,
    })
}

/// The items of an intake Job, by chunk.
pub(super) fn chunks(view: &JobView) -> &[Vec<IntakeItem>] {
    match &view.work {
        Some(WorkList::Intake { chunks, .. }) => chunks,
        _ => &[],
    }
}

/// The batches that unfinished Jobs hold, with the Job's name.
pub(super) fn running(jobs: &[JobView]) -> BTreeMap<BatchId, String> {
    let unfinished = jobs.iter().filter(|view| !view.is_finished());
    unfinished
        .flat_map(|view| {
            chunks(view)
                .iter()
                .flatten()
                .filter_map(|item| Some((id_of_item(item)?, view.name().to_owned())))
        })
        .collect()
}

/// What workers reported, by batch, with the Job's name.
pub(super) fn reported(jobs: &[JobView]) -> BTreeMap<BatchId, (&BatchReport, &str)> {
    let reports = jobs
        .iter()
        .flat_map(|view| view.reports.iter().map(move |report| (report, view.name())));
    reports
        .flat_map(|(report, job)| report.batches.iter().map(move |batch| (batch, job)))
        .filter_map(|(batch, job)| Some((batch_id(&batch.aggregation, &batch.time, batch.uuid)?, (batch, job))))
        .collect()
}

/// Counts Jobs that ended since the last decision. What the ledger holds is done; what a report calls `Blocked` waits;
/// whatever else an index held that came to its end failed.
pub(super) fn count_finished(input: &BatchInput<'_>, memory: &mut Retries<BatchId>, generation: i64, now: Timestamp) {
    for view in input.jobs.iter().filter(|view| view.is_finished()) {
        if !memory.count_job(view.uid()) {
            continue;
        }
        let reports = reported(std::slice::from_ref(view));
        for (index, chunk) in chunks(view).iter().enumerate() {
            let mut left = Vec::new();
            for (item, id) in chunk.iter().filter_map(|item| Some((item, id_of_item(item)?))) {
                if input
                    .inventory
                    .find(&id, input.schedule)
                    .is_none_or(|(_, batch)| batch.is_done())
                {
                    continue;
                }
                match reports.get(&id) {
                    Some((report, job)) if report.outcome == BatchOutcome::Blocked => {
                        let known = memory.entry(&id);
                        known.attempts += 1;
                        known.job = Some((*job).to_owned());
                        known.blocked = Some(Blocked {
                            reason: report.reason.clone(),
                            message: report.message.clone(),
                            at: now,
                            generation: view.generation().unwrap_or(generation),
                            taken_anyway: item.take_anyway,
                        });
                    }
                    _ => left.push(id),
                }
            }
            memory.index_over(view, index, &left, chunk.len());
        }
    }
}

/// What to do about a refusal or a wait.
pub(super) fn advice(reason: &str) -> &'static str {
    match reason {
        "Empty" => "Nothing is to be done: the ingestor wrote a batch without packets",
        "HeaderMalformed" | "HeaderMismatch" | "ParametersUnsupported" | "PacketsMalformed" | "DigestMismatch" => {
            "It stays out of the sums; tell the ingestor, who can write its clients into a new batch"
        }
        "NoUsablePackets" => "It stays out of the sums; check with the ingestor which packet key it encrypts to",
        "PeerHasOther" => {
            "The peer's mailbox holds other messages of ours: find out whether two ledgers were used for it"
        }
        "SignerUnknown" | "SignatureInvalid" => "Add the ingestor's key to spec.ingestor, or tell the ingestor",
        "PacketKeyNotMounted" | "TooManyUndecryptable" => "Add the packet-decryption key to spec.keys.packetDecryption",
        "SigningKeyNotMounted" => "Check the Secret of spec.keys.batchSigning",
        "AccessDenied" => "Give the worker's identity the rights on the mailbox that the message names",
        "ClaimsUnreadable" => "Restore the object of the ledger that the message names; batches wait for it",
        "ObjectMissing" => "Nothing is to be done if the ingestor is still writing; otherwise tell the ingestor",
        _ => "See the worker's log",
    }
}
