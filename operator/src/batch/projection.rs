//! Which Batch objects there should be, and what they say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crds::names::RETRY_ANNOTATION;
use crds::{Batch, BatchStatus};
use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::BatchReport;
use jiff::Timestamp;
use kube::ResourceExt;

use super::outcome::{Kind, Outcome, advice, reported};
use super::plan::{Seen, State};
use super::retention::{Wish, wish};
use super::{BatchDecision, BatchInput, BatchPatch, object};
use crate::workload::{ObjectEvent, Retries, Subject, Try};

/// So many batches without an object are named in an Event.
const NAMED: usize = 3;

/// What the cluster holds of batches.
pub(super) struct Cluster<'a> {
    /// The objects, by batch.
    pub(super) objects: BTreeMap<BatchId, &'a Batch>,
    /// What unfinished Jobs hold, with the Job's name.
    pub(super) running: BTreeMap<BatchId, String>,
    /// What the Jobs of this decision hold.
    pub(super) planned: BTreeSet<BatchId>,
    /// What Jobs held that ended since the last decision.
    pub(super) ended: BTreeSet<BatchId>,
}

/// A batch that has an object, or should have one.
struct Shown<'a> {
    one: &'a Seen<'a>,
    state: State,
    object: Option<&'a Batch>,
}

impl Shown<'_> {
    /// What there is room for first: exceptions, then what runs, then what went well; of each those that have an object,
    /// then the newest.
    fn rank(&self) -> (u8, bool, Reverse<Option<Timestamp>>) {
        let kind = match self.state {
            State::Ended(Kind::Validated) => 2,
            State::Ended(_) => 0,
            _ => 1,
        };
        let batch = self.one.batch;
        (
            kind,
            self.object.is_none(),
            Reverse(batch.delivered.or(batch.rejected).or(batch.signed)),
        )
    }
}

/// Decides on the objects of all batches, and on Events.
pub(super) fn project(
    input: &BatchInput<'_>,
    memory: &Retries<BatchId>,
    cluster: &Cluster<'_>,
    batches: &[Seen<'_>],
    decision: &mut BatchDecision,
    now: Timestamp,
) {
    let workers = &input.processor.spec.workers;
    let mut shown: Vec<Shown<'_>> = Vec::new();
    for one in batches {
        // An outcome is told when the Job is over: with the counts of its report, in one write.
        let runs = cluster.running.contains_key(one.id) || cluster.planned.contains(one.id);
        let state = if runs { State::Running } else { one.state };
        let object = cluster.objects.get(one.id).copied();
        match wish(
            &state,
            one.window,
            one.batch,
            workers.batch_objects,
            input.timing.batch_retention,
            now,
        ) {
            Wish::Gone => decision.delete.extend(object.map(ResourceExt::name_any)),
            Wish::Wanted => shown.push(Shown { one, state, object }),
            Wish::Kept if object.is_some() => shown.push(Shown { one, state, object }),
            Wish::Kept => {}
        }
    }
    // What the mailboxes no longer show, or no longer belongs to the processor, stays as long as an outcome would.
    let known: BTreeSet<&BatchId> = batches.iter().map(|one| one.id).collect();
    let mut unlisted = 0;
    for object in input.objects {
        if object::id_of(object).is_some_and(|id| known.contains(&id) || cluster.running.contains_key(&id)) {
            continue;
        }
        let age = object
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|created| now.duration_since(created.0));
        if age.is_none_or(|age| age >= input.timing.batch_retention) {
            decision.delete.push(object.name_any());
        } else {
            unlisted += 1;
        }
    }
    let most = usize::try_from(workers.max_batch_objects).unwrap_or(usize::MAX);
    let room = most.saturating_sub(unlisted);
    let mut hidden = Vec::new();
    if shown.len() > room {
        shown.sort_by_key(Shown::rank);
        hidden = shown.split_off(room);
    }
    let reported = reported(input.jobs);
    let status = |one: &Shown<'_>| match one.state {
        State::Ended(kind) => {
            let outcome = outcome(kind, one.one, memory.get(one.one.id), reported.get(one.one.id));
            Some(object::status(&outcome, one.object, now))
        }
        _ => None,
    };
    for one in &shown {
        show(input, one, status(one), decision);
    }
    decision
        .delete
        .extend(hidden.iter().filter_map(|one| one.object).map(ResourceExt::name_any));
    let told = hidden
        .iter()
        .filter(|one| one.object.is_none() && cluster.ended.contains(one.one.id));
    let told = told.filter_map(|one| match one.state {
        State::Ended(kind) if !kind.is_good() => Some((one.one.id, kind, status(one)?)),
        _ => None,
    });
    decision
        .events
        .extend(without_object(&told.collect::<Vec<_>>(), workers.max_batch_objects));
}

/// Creates or patches one object, and tells what is news.
fn show(input: &BatchInput<'_>, shown: &Shown<'_>, status: Option<BatchStatus>, decision: &mut BatchDecision) {
    let processor = input.processor.name_any();
    let id = shown.one.id;
    let news = match (shown.object, status) {
        (None, status) => {
            let namespace = input.processor.namespace();
            decision
                .create
                .push(object::new(&processor, namespace.as_deref(), id, status.clone()));
            status
        }
        (Some(object), Some(status)) => {
            let labels = object::labels(&processor, status.outcome.as_deref());
            // Others may add labels of their own; ours may be missing where a write of both was given up between them.
            let differs = |(name, value): (&String, &String)| object.labels().get(name) != Some(value);
            let labels = labels.iter().any(differs).then_some(labels);
            let before = object.status.as_ref();
            if labels.is_some() || before != Some(&status) {
                decision.patch.push(BatchPatch {
                    name: object.name_any(),
                    status: status.clone(),
                    labels,
                });
            }
            let before = before.and_then(|before| before.outcome.clone());
            Some(status).filter(|status| status.outcome != before)
        }
        _ => None,
    };
    decision
        .events
        .extend(news.and_then(|status| event(&processor, id, shown.state, &status)));
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
                let message = format!(
                    "{} {}; it is tried again.",
                    sentence(&blocked.message),
                    advice(&blocked.reason)
                );
                Outcome::new(kind, blocked.reason.clone(), message)
            }
            None => Outcome::new(kind, "", "Waits for a key or a right; it is tried again."),
        },
        Kind::Late => Outcome::new(
            kind,
            "",
            "Came after its window's set was frozen: it is in no sum, and nothing is to be done.",
        ),
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

fn message(id: &BatchId, status: &BatchStatus) -> String {
    format!(
        "{id}: {}",
        status
            .conditions
            .first()
            .map(|condition| condition.message.as_str())
            .unwrap_or_default()
    )
}

/// Events are for exceptions.
fn event(processor: &str, id: &BatchId, state: State, status: &BatchStatus) -> Option<ObjectEvent> {
    let State::Ended(kind) = state else { return None };
    (!kind.is_good()).then(|| ObjectEvent {
        subject: Subject::Batch(object::object_name(processor, id)),
        warning: true,
        reason: kind.word(),
        message: message(id, status),
    })
}

/// One Event on the processor for exceptions that found no room for an object.
fn without_object(batches: &[(&BatchId, Kind, BatchStatus)], most: u32) -> Option<ObjectEvent> {
    let (_, kind, _) = batches.first()?;
    let named: Vec<_> = batches
        .iter()
        .take(NAMED)
        .map(|(id, kind, status)| format!("{} {}", kind.word(), message(id, status)))
        .collect();
    Some(ObjectEvent {
        subject: Subject::Processor,
        warning: true,
        reason: kind.word(),
        message: format!(
            "{} batches were not taken in and have no Batch object, as workers.maxBatchObjects is {most}: {}",
            batches.len(),
            named.join(" ")
        ),
    })
}
