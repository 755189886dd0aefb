//! Runs the keys controller over the watched namespaces, behind its lease, until asked to stop.

use std::sync::Arc;

use crds::DataShareProcessor;
use crds::conditions::{KEYS_LOADED, MANIFEST_PUBLISHED, WORKERS_READY};
use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Config as ControllerConfig, Error as ControllerError};
use kube::runtime::reflector::{self, ObjectRef, reflector};
use kube::runtime::{Controller, Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::look::{Context, Guarded, on_error, reconcile};
use super::settings::KeysSettings;
use super::tries::Tries;
use crate::run::{Parts, RunError, Supervised, lease_namespaces, served, stopping, while_leading};
use crate::status::Events;

/// Rings that are looked at at a time, of one watched namespace.
const CONCURRENCY: u16 = 2;

/// Runs until asked to stop: the running looks finish, then the lease is given back.
///
/// # Errors
/// [`RunError`].
pub async fn run(parts: Parts<KeysSettings>) -> Result<(), RunError> {
    let Parts {
        client,
        lease_client,
        settings,
        metrics,
        clock,
        stop,
    } = parts;
    let supervised = Supervised {
        client: client.clone(),
        lease_namespaces: lease_namespaces(
            settings.lease_namespace.as_deref(),
            &settings.namespaces,
            lease_client.default_namespace(),
        ),
        lease_client,
        lease: settings.lease_name.clone(),
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
                tries: Tries::default(),
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
    let processors: Api<DeserializeGuard<DataShareProcessor>> = Api::namespaced(context.client.clone(), namespace);
    let processors = watcher(processors, watcher::Config::default())
        .default_backoff()
        .touched_objects();
    // What a processor says of its keys is news: only then is its status another one.
    let processors = processors.predicate_filter(keys_of, PredicateConfig::default());
    Controller::for_stream(rings, known)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopping(store, stop))
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
    let status = processor.status.as_ref();
    let conditions = status.map_or(&[][..], |status| &status.conditions).iter();
    let conditions: Vec<_> = conditions
        .filter(|one| [KEYS_LOADED, WORKERS_READY, MANIFEST_PUBLISHED].contains(&one.type_.as_str()))
        .map(|one| (&one.type_, &one.status, &one.reason))
        .collect();
    let (keys, manifest) = (status.and_then(|status| status.keys.as_ref()), &processor.spec.manifest);
    let said = serde_json::to_string(&(&processor.spec.keys, manifest, keys, conditions)).ok()?;
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
