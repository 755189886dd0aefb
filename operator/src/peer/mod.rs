//! Other parties: looks at the manifests that they publish, decides what to use, says so. Pods never ask a party's server;
//! what they need of it is in their parameters.

mod decide;
mod difference;
mod fetch;
pub(crate) mod observe;
mod publication;
#[cfg(test)]
mod tests;

pub use fetch::{Copy, FetchError, Fetched, Fetcher, Limits};
pub(crate) use observe::bundle;
pub(crate) use publication::compare;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::Peer;
use crds::peer::PeerStatus;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config as ControllerConfig, Error as ControllerError};
use kube::runtime::reflector::{self, reflector};
use kube::runtime::{Controller, Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, ResourceExt};
use snafu::{ResultExt, Snafu};
use tokio_util::sync::CancellationToken;

use crate::metrics::{ControllerLabels, ErrorLabels};
use crate::processor::Context;
use crate::run::{scoped, stopping};
use crate::status::apply_status;
use crate::undecodable;

use decide::{Decision, Sight, decide};
use observe::{Memory, Observer};

/// The controller's name in metrics.
const CONTROLLER: ControllerLabels = ControllerLabels { controller: "peer" };
/// Peers that are looked at at a time, of one watched namespace.
const CONCURRENCY: u16 = 4;
/// A look that takes longer is given up: two documents, each with its own limit, and the API server.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Wait after a failed look; doubles up to the refresh interval.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// A Peer that may not decode.
type Guarded = DeserializeGuard<Peer>;
/// Namespace and name of a Peer.
pub type PeerKey = (String, String);

/// Why a look at a Peer failed. What a party's server does is no failure: the status says it.
#[derive(Debug, Snafu)]
pub enum PeerError {
    /// The API server refused or didn't answer.
    #[snafu(display("the cluster: {source}"))]
    Cluster {
        /// Why.
        source: kube::Error,
    },
    /// It took too long.
    #[snafu(display("not done after {} s", LOOK_TIMEOUT.as_secs()))]
    TimedOut,
}

impl PeerError {
    fn class(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "cluster",
            Self::TimedOut => "timeout",
        }
    }
}

/// What is remembered of all Peers.
#[derive(Debug, Default)]
pub struct Memories(Mutex<BTreeMap<PeerKey, Arc<tokio::sync::Mutex<Memory>>>>);

impl Memories {
    fn of(&self, key: &PeerKey) -> Arc<tokio::sync::Mutex<Memory>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.entry(key.clone()).or_default().clone()
    }

    fn forget(&self, key: &PeerKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Looks at the Peers of a namespace, or of all, until asked to stop.
pub(crate) async fn control(context: &Arc<Context>, namespace: Option<&str>, stop: &CancellationToken) {
    let (store, writer) = reflector::store();
    // What we write into its status ourselves is no news.
    let peers = reflector(
        writer,
        watcher(
            scoped::<Guarded>(&context.client, namespace),
            watcher::Config::default(),
        ),
    )
    .applied_objects()
    .predicate_filter(
        predicates::generation.combine(predicates::annotations),
        PredicateConfig::default(),
    );
    Controller::for_stream(peers, store.clone())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopping(store, stop))
        .run(reconcile, on_error, context.clone())
        .for_each(|result| async move {
            match result {
                Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
                // Deleted since its look was planned.
                Err(ControllerError::ObjectNotFound(gone)) => {
                    forget(context, &(gone.namespace.unwrap_or_default(), gone.name));
                }
                Err(error) => tracing::warn!(%error, "a watch of Peers failed; it is tried again"),
            }
        })
        .await;
}

fn key_of(peer: &Guarded) -> PeerKey {
    (peer.namespace().unwrap_or_default(), peer.name_any())
}

fn forget(context: &Context, key: &PeerKey) {
    context.peers.forget(key);
    context.metrics.peer_gone(key);
}

async fn reconcile(peer: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PeerError> {
    let (key, begun) = (key_of(&peer), Instant::now());
    let memory = context.peers.of(&key);
    let mut memory = memory.lock().await;
    let looked = tokio::time::timeout(LOOK_TIMEOUT, look(&context, &key, &mut memory)).await;
    let looked = looked.unwrap_or(Err(PeerError::TimedOut));
    let metrics = &context.metrics;
    metrics.reconciles.get_or_create(&CONTROLLER).inc();
    metrics
        .reconcile_seconds
        .get_or_create(&CONTROLLER)
        .observe(begun.elapsed().as_secs_f64());
    looked
}

fn on_error(peer: Arc<Guarded>, error: &PeerError, context: Arc<Context>) -> Action {
    let key = key_of(&peer);
    let labels = ErrorLabels {
        controller: CONTROLLER.controller,
        class: error.class(),
    };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    tracing::warn!(namespace = key.0, peer = key.1, %error, "a look at a Peer failed; it is tried again");
    Action::requeue(FIRST_RETRY)
}

/// Reads the Peer as it is now: the last good manifest is in its status, and the watch may be behind our own last write.
async fn look(context: &Context, key: &PeerKey, memory: &mut Memory) -> Result<Action, PeerError> {
    let (namespace, name) = key;
    if context.is_anothers(namespace).await.context(ClusterSnafu)? {
        return Ok(Action::requeue(FIRST_RETRY));
    }
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    let Some(DeserializeGuard(read)) = api.get_opt(name).await.context(ClusterSnafu)? else {
        forget(context, key);
        return Ok(Action::await_change());
    };
    let now = (context.clock)();
    let peer = match read {
        Ok(peer) => peer,
        Err(invalid) => {
            undecodable::tell::<Peer>(context, key, &invalid, &mut memory.undecodable).await;
            return Ok(Action::await_change());
        }
    };
    memory.belong_to(&peer.uid().unwrap_or_default());
    let observer = Observer {
        peer: &peer,
        limits: Limits::default(),
        now,
    };
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let sight = observer.look(&config_maps, memory).await.context(ClusterSnafu)?;
    let decision = decide(&peer, &sight, &memory.told, now);
    report(context, key, &peer, &decision).await?;
    memory.told = decision.told;
    memory.failures = match sight {
        Sight::Failed(_) => memory.failures.saturating_add(1),
        _ => 0,
    };
    let refresh = Duration::from_secs(peer.spec.refresh_seconds.into());
    Ok(match sight {
        Sight::Suspended | Sight::Invalid(_) => Action::await_change(),
        _ => Action::requeue(wait(refresh, memory.failures)),
    })
}

/// After a failure sooner than at the next turn, but later and later.
fn wait(refresh: Duration, failures: u32) -> Duration {
    match failures {
        0 => refresh,
        _ => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(refresh),
    }
}

async fn report(context: &Context, key: &PeerKey, peer: &Peer, decision: &Decision) -> Result<(), PeerError> {
    let api: Api<Peer> = Api::namespaced(context.client.clone(), &key.0);
    let before: Option<&PeerStatus> = peer.status.as_ref();
    match apply_status(&api, &key.1, before, &decision.status).await {
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        written => written.context(ClusterSnafu)?,
    };
    context.metrics.peer_conditions(key, &decision.status.conditions);
    for news in &decision.news {
        tracing::info!(
            namespace = key.0,
            peer = key.1,
            reason = news.reason,
            message = news.message,
            "told"
        );
        context
            .events
            .publish(peer, news.warning, news.reason, "Fetch", &news.message)
            .await;
    }
    Ok(())
}
