//! Prometheus metrics, and the queue of processors that they speak of.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::conditions::{
    ADMISSION_GUARDED, KEYS_LOADED, MAILBOXES_LISTED, MANIFEST_CURRENT, MANIFEST_PUBLISHED, PEERS_KNOWN, PROGRESSING,
    READY, STALLED, WAITS_FOR_PERSON, WINDOWS_ON_TIME, WORKERS_READY,
};
use crds::processor::{BatchCounts, WindowCounts};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::status::condition;

/// Which controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabels {
    /// `processor`, `peer` or `keys`.
    pub controller: &'static str,
}

/// An error of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// `processor` or `peer`.
    pub controller: &'static str,
    /// The class of error: a closed set, see `processor::ReconcileError::class`.
    pub class: &'static str,
}

/// A processor and one of a closed set of states.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// The processor's namespace.
    pub namespace: String,
    /// The processor's name.
    pub processor: String,
    /// The outcome, state or condition.
    pub state: &'static str,
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProcessorLabels {
    /// The processor's namespace.
    pub namespace: String,
    /// The processor's name.
    pub processor: String,
}

/// A Peer and one of its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    /// The Peer's namespace.
    pub namespace: String,
    /// The Peer's name.
    pub peer: String,
    /// The condition.
    pub state: &'static str,
}

/// One of the mailboxes that the operator lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MailboxLabels {
    /// `ingestion`, `peer-validation` or `ledger`.
    pub mailbox: &'static str,
}

/// A kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// The kind, such as `Batch`.
    pub kind: &'static str,
}

/// A KeyRing and one of its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RingLabels {
    /// The KeyRing's namespace.
    pub namespace: String,
    /// The KeyRing's name.
    pub key_ring: String,
    /// The condition.
    pub state: &'static str,
}

/// Namespace and name of a processor.
pub type ProcessorKey = (String, String);

/// Every state of batches and windows, and the stages of Jobs.
const STATES: [&str; 14] = [
    "waiting",
    "running",
    "validated",
    "rejected",
    "blocked",
    "late",
    "unknown",
    "open",
    "summed",
    "without-sum",
    "failed",
    "overdue",
    "intake",
    "aggregate",
];
/// Every condition of a processor.
const CONDITIONS: [&str; 9] = [
    READY,
    STALLED,
    PEERS_KNOWN,
    MANIFEST_PUBLISHED,
    MAILBOXES_LISTED,
    WORKERS_READY,
    WINDOWS_ON_TIME,
    ADMISSION_GUARDED,
    KEYS_LOADED,
];

/// Every condition of a KeyRing.
const RING_CONDITIONS: [&str; 5] = [READY, STALLED, PROGRESSING, WAITS_FOR_PERSON, ADMISSION_GUARDED];
/// Every condition of a Peer.
const PEER_CONDITIONS: [&str; 3] = [READY, STALLED, MANIFEST_CURRENT];

fn peer_labels((namespace, peer): &ProcessorKey, state: &'static str) -> PeerLabels {
    PeerLabels {
        namespace: namespace.clone(),
        peer: peer.clone(),
        state,
    }
}

fn labels(key: &ProcessorKey, state: &'static str) -> StateLabels {
    StateLabels {
        namespace: key.0.clone(),
        processor: key.1.clone(),
        state,
    }
}

/// When each processor is to be looked at next; `None` while it is being looked at.
#[derive(Debug, Default)]
struct Queue(Mutex<BTreeMap<ProcessorKey, Option<Timestamp>>>);

impl Queue {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ProcessorKey, Option<Timestamp>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    queue: Queue,
    queue_depth: Gauge,
    /// Reconciles, successful or not.
    pub reconciles: Family<ControllerLabels, Counter>,
    /// How long a reconcile takes.
    pub reconcile_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    /// How long after its time a reconcile begins.
    pub reconcile_delay_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    /// Reconciles that failed, by class.
    pub reconcile_errors: Family<ErrorLabels, Counter>,
    /// Batches of open windows by state.
    pub batches: Family<StateLabels, Gauge>,
    /// Windows by state.
    pub windows: Family<StateLabels, Gauge>,
    /// 1 where a condition is True.
    pub conditions: Family<StateLabels, Gauge>,
    /// 1 where a condition of a KeyRing is True.
    pub ring_conditions: Family<RingLabels, Gauge>,
    /// 1 where a condition of a Peer is True.
    pub peer_conditions: Family<PeerLabels, Gauge>,
    /// Age of the oldest batch that waits for intake.
    pub oldest_waiting_seconds: Family<ProcessorLabels, Gauge>,
    /// 1 while this process holds the lease.
    pub leader: Gauge,
    /// How long the listing of a mailbox takes.
    pub listing_seconds: Family<MailboxLabels, Histogram, fn() -> Histogram>,
    /// Listings that failed.
    pub listing_errors: Family<MailboxLabels, Counter>,
    /// Jobs that were started.
    pub jobs_started: Family<StateLabels, Counter>,
    /// Objects that don't decode, met since the start.
    pub undecodable: Family<KindLabels, Counter>,
    /// 1 where the served schema of a kind isn't this operator's.
    pub schema_differs: Family<KindLabels, Gauge>,
}

/// Seconds from 1 ms to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("prio_operator"),
            queue: Queue::default(),
            queue_depth: Gauge::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds),
            reconcile_delay_seconds: Family::new_with_constructor(seconds),
            reconcile_errors: Family::default(),
            batches: Family::default(),
            windows: Family::default(),
            conditions: Family::default(),
            ring_conditions: Family::default(),
            peer_conditions: Family::default(),
            oldest_waiting_seconds: Family::default(),
            leader: Gauge::default(),
            listing_seconds: Family::new_with_constructor(seconds),
            listing_errors: Family::default(),
            jobs_started: Family::default(),
            undecodable: Family::default(),
            schema_differs: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "queue_depth",
            "Processors whose time has come and that aren't being looked at",
            self.queue_depth.clone(),
        );
        registry.register("reconciles", "Reconciles", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile",
            "How long a reconcile takes",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        registry.register_with_unit(
            "reconcile_delay",
            "How long after its time a reconcile begins",
            Unit::Seconds,
            self.reconcile_delay_seconds.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciles that failed, by class of error",
            self.reconcile_errors.clone(),
        );
        registry.register("batches", "Batches of open windows, by state", self.batches.clone());
        registry.register("windows", "Windows, by state", self.windows.clone());
        registry.register(
            "condition",
            "1 where a condition of a processor is True",
            self.conditions.clone(),
        );
        registry.register(
            "key_ring_condition",
            "1 where a condition of a KeyRing is True",
            self.ring_conditions.clone(),
        );
        registry.register(
            "peer_condition",
            "1 where a condition of a Peer is True",
            self.peer_conditions.clone(),
        );
        registry.register_with_unit(
            "oldest_waiting_batch",
            "Age of the oldest batch that waits for intake",
            Unit::Seconds,
            self.oldest_waiting_seconds.clone(),
        );
        registry.register("leader", "1 while this process holds the lease", self.leader.clone());
        registry.register_with_unit(
            "mailbox_listing",
            "How long a look lists a mailbox; names that are known from shortly before take no time",
            Unit::Seconds,
            self.listing_seconds.clone(),
        );
        registry.register(
            "mailbox_listing_errors",
            "Listings that failed",
            self.listing_errors.clone(),
        );
        registry.register(
            "jobs_started",
            "Worker Jobs that were started, by stage",
            self.jobs_started.clone(),
        );
        registry.register(
            "undecodable_objects",
            "Objects met that this operator can't decode",
            self.undecodable.clone(),
        );
        registry.register(
            "schema_differs",
            "1 where a served schema isn't this operator's",
            self.schema_differs.clone(),
        );
    }

    /// A processor is to be looked at again at `at`.
    pub fn queued(&self, key: ProcessorKey, at: Timestamp) {
        self.queue.entries().insert(key, Some(at));
    }

    /// A processor is being looked at: returns how late that is.
    pub fn begun(&self, key: ProcessorKey, now: Timestamp) -> Duration {
        let due = self.queue.entries().insert(key, None).flatten();
        due.and_then(|due| Duration::try_from(now.duration_since(due)).ok())
            .unwrap_or_default()
    }

    /// What a look at a processor counted: the age of its oldest waiting batch in seconds, batches and windows by state.
    pub fn counted(&self, key: &ProcessorKey, oldest_waiting: i64, counts: Option<&(BatchCounts, WindowCounts)>) {
        let (namespace, processor) = key.clone();
        self.oldest_waiting_seconds
            .get_or_create(&ProcessorLabels { namespace, processor })
            .set(oldest_waiting);
        let Some((batches, windows)) = counts else { return };
        for (state, count) in [
            ("waiting", batches.waiting),
            ("running", batches.running),
            ("validated", batches.validated),
            ("rejected", batches.rejected),
            ("blocked", batches.blocked),
            ("late", batches.late),
            ("unknown", batches.unknown_names),
        ] {
            self.batches.get_or_create(&labels(key, state)).set(count);
        }
        for (state, count) in [
            ("open", windows.open),
            ("summed", windows.summed),
            ("without-sum", windows.without_sum),
            ("failed", windows.failed),
            ("overdue", windows.overdue),
        ] {
            self.windows.get_or_create(&labels(key, state)).set(count);
        }
    }

    /// What a processor's conditions say.
    pub fn conditions(&self, key: &ProcessorKey, conditions: &[Condition]) {
        for kind in CONDITIONS {
            if let Some(found) = condition(conditions, kind) {
                self.conditions
                    .get_or_create(&labels(key, kind))
                    .set(i64::from(found.status == "True"));
            }
        }
    }

    /// What a KeyRing's conditions say.
    pub fn ring(&self, namespace: &str, name: &str, conditions: &[Condition]) {
        for state in RING_CONDITIONS {
            if let Some(found) = condition(conditions, state) {
                let labels = RingLabels {
                    namespace: namespace.to_owned(),
                    key_ring: name.to_owned(),
                    state,
                };
                self.ring_conditions
                    .get_or_create(&labels)
                    .set(i64::from(found.status == "True"));
            }
        }
    }

    /// What a Peer's conditions say.
    pub fn peer_conditions(&self, key: &ProcessorKey, conditions: &[Condition]) {
        for kind in PEER_CONDITIONS {
            if let Some(found) = condition(conditions, kind) {
                self.peer_conditions
                    .get_or_create(&peer_labels(key, kind))
                    .set(i64::from(found.status == "True"));
            }
        }
    }

    /// A KeyRing is gone.
    pub fn ring_gone(&self, namespace: &str, name: &str) {
        for state in RING_CONDITIONS {
            self.ring_conditions.remove(&RingLabels {
                namespace: namespace.to_owned(),
                key_ring: name.to_owned(),
                state,
            });
        }
    }

    /// A Peer is gone, and with it all that is told of it.
    pub fn peer_gone(&self, key: &ProcessorKey) {
        for kind in PEER_CONDITIONS {
            self.peer_conditions.remove(&peer_labels(key, kind));
        }
    }

    /// A worker Job of a stage was started.
    pub fn job_started(&self, key: &ProcessorKey, stage: &'static str) {
        self.jobs_started.get_or_create(&labels(key, stage)).inc();
    }

    /// A processor is gone, and with it all that is told of it.
    pub fn gone(&self, key: &ProcessorKey) {
        self.queue.entries().remove(key);
        let (namespace, processor) = key.clone();
        self.oldest_waiting_seconds
            .remove(&ProcessorLabels { namespace, processor });
        for state in STATES.iter().chain(&CONDITIONS) {
            let labels = labels(key, state);
            self.batches.remove(&labels);
            self.windows.remove(&labels);
            self.conditions.remove(&labels);
            self.jobs_started.remove(&labels);
        }
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// None in practice: writing to a string doesn't fail.
    pub fn encode(&self, now: Timestamp) -> Result<String, std::fmt::Error> {
        let waiting = self
            .queue
            .entries()
            .values()
            .flatten()
            .filter(|due| **due < now)
            .count();
        self.queue_depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(name: &str) -> ProcessorKey {
        ("prio".to_owned(), name.to_owned())
    }

    #[test]
    fn the_queue_tells_what_is_overdue_and_how_late_it_began() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let metrics = Metrics::default();
        metrics.queued(key("a"), at(10));
        metrics.queued(key("b"), at(20));
        assert!(
            metrics
                .encode(at(15))
                .unwrap()
                .contains("prio_operator_queue_depth 1\n")
        );
        assert_eq!(metrics.begun(key("a"), at(13)), Duration::from_secs(3));
        assert_eq!(metrics.begun(key("b"), at(19)), Duration::ZERO);
        assert!(
            metrics
                .encode(at(30))
                .unwrap()
                .contains("prio_operator_queue_depth 0\n")
        );
    }

    #[test]
    fn a_processor_that_is_gone_leaves_no_series() {
        let metrics = Metrics::default();
        let counts = (
            BatchCounts {
                waiting: 7,
                ..BatchCounts::default()
            },
            WindowCounts::default(),
        );
        metrics.counted(&key("a"), 12, Some(&counts));
        metrics.job_started(&key("a"), "intake");
        let text = metrics.encode(Timestamp::UNIX_EPOCH).unwrap();
        assert!(
            text.contains("prio_operator_batches{namespace=\"prio\",processor=\"a\",state=\"waiting\"} 7"),
            "{text}"
        );
        assert!(
            text.contains("prio_operator_oldest_waiting_batch_seconds{namespace=\"prio\",processor=\"a\"} 12"),
            "{text}"
        );
        metrics.gone(&key("a"));
        assert!(
            !metrics
                .encode(Timestamp::UNIX_EPOCH)
                .unwrap()
                .contains("processor=\"a\"")
        );
    }
}
