//! The one controller: looks at a processor, decides, acts, reports.

pub mod access;
pub mod act;
pub mod cluster;
#[cfg(test)]
pub mod example;
mod ground;
pub mod guard;
pub mod keys;
mod listing;
mod look;
pub mod manifest;
pub mod memory;
pub mod observe;
pub mod parameters;
pub mod partners;
pub mod preflight;
mod rebuild;
pub mod report;
mod served;
pub mod sweep;
mod tell;
pub mod usages;
pub mod watched;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::DataShareProcessor;
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt};
use snafu::{ResultExt, Snafu};

use crate::lease::Others;
use crate::metrics::{ControllerLabels, ErrorLabels, Metrics, ProcessorKey};
use crate::settings::{Settings, Watched};
use crate::status::Events;
use crate::undecodable;
use crate::workload::Timing;

use act::ActError;
use look::Look;
use memory::{Memories, Memory};
use observe::ObserveError;
use watched::{WatchedBatches, WatchedError};

/// The controller's name in metrics.
pub const CONTROLLER: ControllerLabels = ControllerLabels {
    controller: "processor",
};
/// A look that takes longer is given up, told, and tried again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// The same for one read or write of a processor.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between the end of one look at a processor and the next: Jobs and pods change often while they work.
const LOOKS_APART: Duration = Duration::from_secs(1);
/// Longest wait after failures.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// A processor that may not decode.
pub type Guarded = DeserializeGuard<DataShareProcessor>;

/// Why a look at a processor failed.
#[derive(Debug, Snafu)]
pub enum ReconcileError {
    /// The API server refused a read or didn't answer.
    #[snafu(display("reading the cluster: {source}"))]
    Cluster {
        /// Why.
        source: kube::Error,
    },
    /// The watch of Batches brings nothing.
    #[snafu(display("{source}"))]
    Watched {
        /// Why.
        source: WatchedError,
    },
    /// A mailbox couldn't be looked at. The status says so.
    #[snafu(display("{source}"))]
    Mailbox {
        /// Why.
        source: ObserveError,
    },
    /// A decision couldn't be carried out.
    #[snafu(display("{source}"))]
    Act {
        /// Why.
        source: ActError,
    },
    /// It took too long.
    #[snafu(display("not done after {} s; a mailbox or the API server hangs", after.as_secs()))]
    TimedOut {
        /// The time that it had.
        after: Duration,
    },
}

impl ReconcileError {
    /// A word of a closed set, for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Cluster { .. }
            | Self::Watched { .. }
            | Self::Mailbox {
                source: ObserveError::Cluster { .. },
            } => "cluster",
            Self::Mailbox {
                source: ObserveError::Listing { .. },
            } => "mailbox",
            Self::Mailbox {
                source: ObserveError::Ledger { .. },
            } => "ledger",
            Self::Mailbox {
                source: ObserveError::Settings { .. },
            } => "settings",
            Self::Act { .. } => "act",
            Self::TimedOut { .. } => "timeout",
        }
    }
}

/// What every reconcile shares.
pub struct Context {
    /// The API.
    pub client: Client,
    /// The process's settings.
    pub settings: Settings,
    /// Settings of time, for decisions.
    pub timing: Timing,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Events for people.
    pub events: Events,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Who this process is to leases.
    pub identity: String,
    /// Leases of other installations.
    pub others: Others,
    /// The Batches of all watched namespaces.
    pub batches: WatchedBatches,
    /// What is remembered between reconciles; all of it may be lost.
    pub memories: Memories,
    /// The same, of Peers.
    pub peers: crate::peer::Memories,
}

/// The settings of time that decisions rest on.
#[must_use]
pub fn timing(settings: &Settings) -> Timing {
    let blocked_retry = SignedDuration::from_secs(settings.blocked_retry_seconds.into());
    let standard = Timing::default();
    Timing {
        missing_packet: SignedDuration::from_secs(settings.missing_packet_seconds.into()),
        blocked_retry,
        // Who wants blocked work back sooner wants to know sooner that workers start again, too.
        canary_first: standard
            .canary_first
            .min(blocked_retry.max(SignedDuration::from_secs(1))),
        ..standard
    }
}

/// Namespace and name.
fn key_of(processor: &Guarded) -> ProcessorKey {
    (processor.namespace().unwrap_or_default(), processor.name_any())
}

/// One look at a processor.
///
/// # Errors
/// [`ReconcileError`]; tried again after [`on_error`].
pub async fn reconcile(processor: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let (key, begun, now) = (key_of(&processor), Instant::now(), (context.clock)());
    let metrics = &context.metrics;
    let memory = context.memories.of(&key);
    let mut memory = memory.lock().await;
    if let Some(wait) = too_soon(memory.looked, begun) {
        // Whatever else happens meanwhile, the look isn't put off again.
        metrics.queued(key, now.checked_add(wait).unwrap_or(Timestamp::MAX));
        return Ok(Action::requeue(wait));
    }
    let delay = metrics.begun(key.clone(), now);
    metrics
        .reconcile_delay_seconds
        .get_or_create(&CONTROLLER)
        .observe(delay.as_secs_f64());
    // Boxed: the future is large, and its type unspeakable.
    let result = look(&context, &key, &mut memory).boxed().await;
    memory.failures = if result.is_ok() {
        0
    } else {
        memory.failures.saturating_add(1)
    };
    memory.looked = Some(Instant::now());
    metrics.reconciles.get_or_create(&CONTROLLER).inc();
    metrics
        .reconcile_seconds
        .get_or_create(&CONTROLLER)
        .observe(begun.elapsed().as_secs_f64());
    let wait = context.settings.tick;
    metrics.queued(key, (context.clock)().checked_add(wait).unwrap_or(Timestamp::MAX));
    result.map(|()| Action::requeue(wait))
}

/// How long the next look must wait, if at all.
fn too_soon(looked: Option<Instant>, now: Instant) -> Option<Duration> {
    let wait = (looked? + LOOKS_APART).checked_duration_since(now)?;
    (!wait.is_zero()).then_some(wait)
}

/// Gives a piece of work so much time.
async fn within<T>(
    after: Duration,
    work: impl Future<Output = Result<T, ReconcileError>>,
) -> Result<T, ReconcileError> {
    tokio::time::timeout(after, work)
        .await
        .unwrap_or(Err(ReconcileError::TimedOut { after }))
}

/// How long to wait after a failure: a tick, doubled with every failure, at most a minute (or a tick, if that is longer).
#[must_use]
pub fn backoff(tick: Duration, failures: u32) -> Duration {
    tick.saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LONGEST_BACKOFF.max(tick))
}

/// What to do after a failure.
pub fn on_error(processor: Arc<Guarded>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let key = key_of(&processor);
    let labels = ErrorLabels {
        controller: CONTROLLER.controller,
        class: error.class(),
    };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    tracing::warn!(namespace = key.0, processor = key.1, class = error.class(), %error, "reconcile failed; it is tried again");
    let failures = context.memories.of(&key).try_lock().map_or(1, |memory| memory.failures);
    let wait = backoff(context.settings.tick, failures);
    context
        .metrics
        .queued(key, (context.clock)().checked_add(wait).unwrap_or(Timestamp::MAX));
    Action::requeue(wait)
}

/// Reads the processor as it is now: the watch may be behind our own last write, and the ledger's id in its status is what
/// keeps an emptied ledger from summing everything again.
async fn look(context: &Context, key: &ProcessorKey, memory: &mut Memory) -> Result<(), ReconcileError> {
    let (namespace, name) = key;
    let anothers = async { context.is_anothers(namespace).await.context(ClusterSnafu) };
    if within(WRITE_TIMEOUT, anothers).await? {
        return Ok(());
    }
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    let read = async { api.get_opt(name).await.context(ClusterSnafu) };
    let Some(DeserializeGuard(read)) = within(WRITE_TIMEOUT, read).await? else {
        context.forget(key);
        return Ok(());
    };
    match read {
        Ok(processor) => {
            memory.belong_to(
                &processor.uid().unwrap_or_default(),
                processor.metadata.generation.unwrap_or_default(),
            );
            let look = Look {
                context,
                processor: &processor,
                key,
                now: (context.clock)(),
            };
            look.at(memory).await
        }
        Err(invalid) => {
            // Nothing is started for it, and what runs ends by itself.
            context.memories.usages().forget(key);
            undecodable::tell::<DataShareProcessor>(context, key, &invalid, &mut memory.undecodable).await;
            Ok(())
        }
    }
}

impl Context {
    /// Whether another installation works in a namespace; only one that watches all namespaces has to look.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn is_anothers(&self, namespace: &str) -> kube::Result<bool> {
        let (Watched::All, Some(lease)) = (&self.settings.watched, &self.settings.lease_name) else {
            return Ok(false);
        };
        let holder = self.others.holder(&self.client, namespace, lease, &self.identity);
        Ok(holder.await?.is_some())
    }

    /// A processor is gone.
    pub fn forget(&self, key: &ProcessorKey) {
        self.memories.forget(key);
        self.metrics.gone(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn looks_keep_apart_and_events_put_none_off() {
        let now = Instant::now();
        let after = |millis| too_soon(Some(now), now + Duration::from_millis(millis));
        assert_eq!(too_soon(None, now), None);
        assert_eq!(after(0), Some(LOOKS_APART));
        assert_eq!(
            after(400),
            Some(Duration::from_millis(600)),
            "an event in between changes nothing"
        );
        assert_eq!([after(1_000), after(5_000)], [None, None]);
    }

    #[tokio::test]
    async fn what_hangs_is_given_up_with_a_word_for_the_status() {
        let after = Duration::from_millis(1);
        let error = within::<()>(after, std::future::pending()).await.unwrap_err();
        assert_eq!(error.class(), "timeout");
        assert!(error.to_string().contains("hangs"), "{error}");
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let of = |tick, failures| backoff(Duration::from_secs(tick), failures).as_secs();
        assert_eq!(
            [of(10, 1), of(10, 2), of(10, 3), of(10, 4), of(10, 100)],
            [10, 20, 40, 60, 60]
        );
        assert_eq!([of(2, 1), of(2, 5), of(300, 9)], [2, 32, 300]);
    }
}
