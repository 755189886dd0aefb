//! Batch objects: names, labels, and the status of an outcome.

use std::collections::BTreeMap;

use crds::conditions::{READY, STALLED, VALIDATED, reasons};
use crds::names::{MANAGED_BY, OUTCOME_LABEL, PROCESSOR_LABEL};
use crds::{Batch, BatchSpec, BatchStatus};
use facilitator_core::formats::names::{AggregationId, BatchId, BatchTime, parse_uuid};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::outcome::Outcome;
use crate::digest::short_digest;
use crate::status::{Verdict, set_condition};

/// The name of a batch's object: the same batch always has the same.
#[must_use]
pub fn object_name(processor: &str, id: &BatchId) -> String {
    format!("{processor}-{}", short_digest([id.path().as_str()], 20))
}

/// The batch that an object is of; `None` where somebody made one by hand that is none.
pub(super) fn id_of(object: &Batch) -> Option<BatchId> {
    Some(BatchId {
        aggregation: AggregationId::parse(&object.spec.aggregation).ok()?,
        time: BatchTime::parse_path(&object.spec.time).ok()?,
        uuid: parse_uuid(&object.spec.uuid).ok()?,
    })
}

/// A new object.
pub(super) fn new(processor: &str, namespace: Option<&str>, id: &BatchId, status: Option<BatchStatus>) -> Batch {
    let outcome = status.as_ref().and_then(|status| status.outcome.as_deref());
    Batch {
        metadata: ObjectMeta {
            name: Some(object_name(processor, id)),
            namespace: namespace.map(str::to_owned),
            labels: Some(labels(processor, outcome)),
            ..ObjectMeta::default()
        },
        spec: BatchSpec {
            processor: processor.to_owned(),
            aggregation: id.aggregation.to_string(),
            time: id.time.to_path(),
            uuid: id.uuid.to_string(),
        },
        status,
    }
}

/// An object's labels.
pub(super) fn labels(processor: &str, outcome: Option<&str>) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        (PROCESSOR_LABEL, processor),
        (OUTCOME_LABEL, outcome.unwrap_or(reasons::WAITING)),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The status that tells an outcome. What only a report tells (packets, excluded) stays from before where there is none.
pub(super) fn status(outcome: &Outcome, before: Option<&Batch>, now: Timestamp) -> BatchStatus {
    // The spec never changes: what is made now has generation 1.
    let generation = before.and_then(|object| object.metadata.generation).or(Some(1));
    let mut status = before.and_then(|object| object.status.clone()).unwrap_or_default();
    let word = outcome.kind.word();
    let (good, stalled) = (outcome.kind.is_good(), outcome.kind.is_stalled());
    for (condition, met) in [(READY, good), (VALIDATED, good), (STALLED, stalled)] {
        let verdict = Verdict::new(condition, Some(met), word, &outcome.message);
        set_condition(&mut status.conditions, &verdict, generation, now);
    }
    let changed = status.outcome.as_deref() != Some(word);
    status.outcome = Some(word.to_owned());
    if changed || !outcome.reason.is_empty() {
        status.reason = Some(outcome.reason.clone()).filter(|reason| !reason.is_empty());
    }
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    status.packets = outcome.packets.map(count).or(status.packets);
    status.excluded = outcome.excluded.map(count).or(status.excluded);
    status.job = outcome.job.clone().or(status.job);
    status.attempts = outcome
        .attempts
        .map(|n| i32::try_from(n).unwrap_or(i32::MAX))
        .or(status.attempts);
    status
}
