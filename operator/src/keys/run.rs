//! Runs the keys controller over the watched namespaces, behind its lease, until asked to stop.

use std::sync::Arc;

use crds::DataShareProcessor;
use futures::StreamExt;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Config as ControllerConfig, Error as ControllerError};
use kube::runtime::reflector::{self, ObjectRef, reflector};
use kube::runtime::{Controller, Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::look::{Context, Guarded, on_error, reconcile};
use super::settings::KeysSettings;
use crate::metrics::Metrics;
use crate::run::{FIRST_LIST_TIMEOUT, RunError, Supervised, served, while_leading};
use crate::status::Events;

/// Rings that are looked at at a time, of one watched namespace.
const CONCURRENCY: u16 = 2;

/// What the keys controller is given by `main`.
pub struct Parts {
    /// The API, with retries.
    pub client: Client,
    /// The API for leases, without retries.
    pub lease_client: Client,
    /// Settings.
    pub settings: KeysSettings,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Cancelled by SIGTERM and SIGINT.
    pub stop: CancellationToken,
}

/// Runs until asked to stop: the running looks finish, then the lease is given back.
///
/// # Errors
/// [`RunError`].
pub async fn run(parts: Parts) -> Result<(), RunError> {
    let Parts {
        client,
        lease_client,
        settings,
        metrics,
        clock,
        stop,
    } = parts;
    let mut namespaces = settings.namespaces.clone();
    namespaces.insert(
        settings
            .lease_namespace
            .clone()
            .unwrap_or_else(|| lease_client.default_namespace().to_owned()),
    );
    let supervised = Supervised {
        client: client.clone(),
        lease_client,
        lease: settings.lease_name.clone(),
        lease_namespaces: namespaces.into_iter().collect(),
        identity: settings.identity.clone(),
        metrics: metrics.clone(),
        clock,
        stop: stop.clone(),
    };
    let address = settings.http_address;
    served(address, &metrics, clock, async |health| {
        while_leading(supervised, health, async |identity| {
            let context = Arc::new(Context {
                events: Events::new(client.clone(), identity),
                client,
                settings,
                metrics: metrics.clone(),
                clock,
                guard: Guard::default(),
            });
            let each = context
                .settings
                .namespaces
                .iter()
                .map(|namespace| control(&context, namespace, &stop));
            futures::future::join_all(each).await;
        })
        .await
    })
    .await
}

async fn control(context: &Arc<Context>, namespace: &str, stop: &CancellationToken) {
    let (store, writer) = reflector::store();
    let rings: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    // What we write into its status ourselves is no news.
    let rings = reflector(writer, watcher(rings, watcher::Config::default()))
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            PredicateConfig::default(),
        );
    let known = store.clone();
    let stopping = stop.clone();
    let stopping = async move {
        stopping.cancelled().await;
        let _ = tokio::time::timeout(FIRST_LIST_TIMEOUT, store.wait_until_ready()).await;
    };
    let processors: Api<DeserializeGuard<DataShareProcessor>> = Api::namespaced(context.client.clone(), namespace);
    let processors = watcher(processors, watcher::Config::default())
        .default_backoff()
        .touched_objects();
    // What a processor says of its keys is news: only then is its status another one.
    let processors = processors.predicate_filter(keys_of, PredicateConfig::default());
    Controller::for_stream(rings, known)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopping)
        .watches_stream(processors, rings_of)
        .run(reconcile, on_error, context.clone())
        .for_each(|result| async move {
            match result {
                // Failed looks are told by the error policy; what was deleted is no loss.
                Ok(_) | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(%error, "a watch failed; it is tried again"),
            }
        })
        .await;
}

/// What of a processor makes its rings be looked at.
fn keys_of(processor: &DeserializeGuard<DataShareProcessor>) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let Ok(processor) = &processor.0 else { return None };
    let status = processor.status.as_ref().and_then(|status| status.keys.as_ref());
    let said = serde_json::to_string(&(&processor.spec.keys, status)).ok()?;
    let mut hash = DefaultHasher::new();
    said.hash(&mut hash);
    Some(hash.finish())
}

/// The rings that a processor refers to.
fn rings_of(processor: DeserializeGuard<DataShareProcessor>) -> Vec<ObjectRef<Guarded>> {
    let namespace = processor.namespace().unwrap_or_default();
    let Ok(processor) = processor.0 else { return Vec::new() };
    let keys = processor.spec.keys;
    let references = std::iter::once(keys.batch_signing).chain(keys.packet_decryption);
    let names = references
        .filter_map(|reference| reference.key_ring_ref)
        .map(|ring| ring.name);
    names
        .map(|name| ObjectRef::<Guarded>::new(&name).within(&namespace))
        .collect()
}
