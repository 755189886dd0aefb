//! Runs the controller over the watched namespaces, behind the lease, until asked to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::names::{MANAGED_BY, PROCESSOR_LABEL, RETRY_ANNOTATION};
use crds::{AggregationWindow, Peer};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::core::NamespaceResourceScope;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Config as ControllerConfig, Error as ControllerError};
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{Controller, Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use snafu::{ResultExt, Snafu};
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::lease;
use crate::metrics::Metrics;
use crate::peer;
use crate::processor::memory::Memories;
use crate::processor::watched::{GuardedBatch, WatchedBatches};
use crate::processor::{self, Context, Guarded, partners};
use crate::schema;
use crate::settings::{Settings, Watched};
use crate::status::Events;

/// Processors that are looked at at a time, of one watched namespace.
const CONCURRENCY: u16 = 4;
/// How long a stop waits for the first list.
const FIRST_LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for running reconciles; what is cut off is done again by the next operator.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// How often left-overs of processors that are gone are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(120);
/// How often the API server is asked at the start, until it answers.
const FIRST_ANSWER_RETRY: Duration = Duration::from_secs(2);

/// Why the operator ended.
#[derive(Debug, Snafu)]
pub enum RunError {
    /// A lease was lost: another may work now, so this one must not.
    #[snafu(display("the lease was lost; the process ends so that two operators don't work at the same time"))]
    LeaseLost,
    /// Metrics and probes can't be served.
    #[snafu(display("{address} can't be listened on: {source}; give another --http-address"))]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What a controller's process is given by `main`.
pub struct Parts<S = Settings> {
    /// The API, with retries.
    pub client: Client,
    /// The API for leases, without retries.
    pub lease_client: Client,
    /// Settings.
    pub settings: S,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Cancelled by SIGTERM and SIGINT.
    pub stop: CancellationToken,
}

/// Runs until asked to stop: the running reconciles finish, then the lease is given back.
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
    let supervised = Supervised {
        client: client.clone(),
        lease_namespaces: lease_namespaces(
            settings.lease_namespace.as_deref(),
            settings.watched.named(),
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
                events: Events::new(client.clone(), identity.clone()),
                identity,
                others: lease::Others::default(),
                timing: processor::timing(&settings),
                client,
                settings,
                metrics: metrics.clone(),
                clock,
                batches: WatchedBatches::default(),
                memories: Memories::default(),
                peers: peer::Memories::default(),
            });
            work(&context, &stop).await;
        })
        .await
    })
    .await
}

/// Serves metrics and probes while `work` runs.
///
/// # Errors
/// [`RunError::Listen`], and those of the work.
pub(crate) async fn served(
    address: std::net::SocketAddr,
    metrics: &Arc<Metrics>,
    clock: fn() -> Timestamp,
    work: impl AsyncFnOnce(&Health) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let health = Health::new(metrics.clone(), clock);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .context(ListenSnafu { address })?;
    let server = tokio::spawn(axum::serve(listener, health.clone().router()).into_future());
    let result = work(&health).await;
    server.abort();
    result
}

/// A process of which one works at a time.
pub(crate) struct Supervised {
    pub(crate) client: Client,
    pub(crate) lease_client: Client,
    /// The Lease's name; `None`: works without.
    pub(crate) lease: Option<String>,
    /// In each of these it is held.
    pub(crate) lease_namespaces: Vec<String>,
    pub(crate) identity: String,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) stop: CancellationToken,
}

/// Works once the API server answers and the lease is held, until asked to stop. The work is given who this process is.
///
/// # Errors
/// [`RunError::LeaseLost`].
pub(crate) async fn while_leading(
    supervised: Supervised,
    health: &Health,
    work: impl AsyncFnOnce(String),
) -> Result<(), RunError> {
    let Supervised {
        client,
        lease_client,
        lease,
        lease_namespaces,
        identity,
        metrics,
        clock,
        stop,
    } = supervised;
    if !answered(&client, &stop).await {
        return Ok(());
    }
    health.set_ready(true);
    let identity = format!("{identity}_{}", uuid::Uuid::new_v4());
    let leadership = match &lease {
        Some(name) => match lease::acquire(&lease_client, &lease_namespaces, name, &identity, clock, &stop).await {
            Some(leadership) => Some(leadership),
            None => return Ok(()),
        },
        None => None,
    };
    metrics.leader.set(1);
    schema::check(&client, &metrics).await;
    let lost = leadership
        .as_ref()
        .map_or_else(CancellationToken::new, lease::Leadership::lost);
    tokio::select! {
        // A lost lease ends the work at once, wherever it is: all writes are idempotent.
        () = lost.cancelled() => {
            metrics.leader.set(0);
            return Err(RunError::LeaseLost);
        }
        () = work(identity) => {}
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_TIMEOUT).await } => {
            tracing::warn!("reconciles still run after {} s: they are cut off", STOP_TIMEOUT.as_secs());
        }
    }
    health.set_ready(false);
    if let Some(leadership) = leadership {
        leadership.release().await;
    }
    metrics.leader.set(0);
    tracing::info!("stopped");
    Ok(())
}

/// Waits for the API server; `false`: asked to stop before.
async fn answered(client: &Client, stop: &CancellationToken) -> bool {
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(version = version.git_version, "the API server answers");
                return true;
            }
            Err(error) => tracing::warn!(%error, "the API server doesn't answer; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(FIRST_ANSWER_RETRY) => {}
        }
    }
}

/// A process's own namespace, or else the client's, and every watched one that is named; sorted.
pub(crate) fn lease_namespaces<'a>(
    own: Option<&str>,
    watched: impl IntoIterator<Item = &'a String>,
    default: &str,
) -> Vec<String> {
    let mut namespaces: BTreeSet<String> = watched.into_iter().cloned().collect();
    namespaces.insert(own.unwrap_or(default).to_owned());
    namespaces.into_iter().collect()
}

/// Two controllers per watched namespace, so that the operator needs no right outside of them.
async fn work(context: &Arc<Context>, stop: &CancellationToken) {
    let namespaces: Vec<Option<String>> = match &context.settings.watched {
        Watched::All => vec![None],
        Watched::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
    };
    let each = namespaces.into_iter().map(|namespace| async move {
        tokio::join!(
            control(context, namespace.as_deref(), stop),
            peer::control(context, namespace.as_deref(), stop),
            sweeping(context, namespace.as_deref(), stop)
        );
    });
    futures::future::join_all(each).await;
}

async fn control(context: &Arc<Context>, namespace: Option<&str>, stop: &CancellationToken) {
    let client = &context.client;
    let (store, writer) = reflector::store();
    let processors_here = store.clone();
    // What we write into its status ourselves is no news.
    let processors = reflector(
        writer,
        watcher(scoped::<Guarded>(client, namespace), watcher::Config::default()),
    )
    .applied_objects()
    .predicate_filter(
        predicates::generation.combine(predicates::annotations),
        PredicateConfig::default(),
    );
    // Of a Peer every change may matter: its status is written only when something changes.
    let peers = watcher(
        scoped::<PartialObjectMeta<Peer>>(client, namespace),
        watcher::Config::default(),
    );
    let batches = scoped::<GuardedBatch>(client, namespace);
    let begin = move || watcher(batches.clone(), watcher::Config::default()).default_backoff();
    let batches = context.batches.keep(namespace, begin, context.metrics.clone());
    // Apart from the controller, which pauses all its watches where one of them fails, and reads none while it stops.
    let (wish, wished) = futures::channel::mpsc::unbounded();
    let batches = wishes(batches).for_each(move |found| {
        match found {
            // Where there is no controller any more, nobody asks.
            Ok(batch) => drop(wish.unbounded_send(Ok(batch))),
            Err(error) => tracing::warn!(%error, "the watch of Batches failed; it is tried again"),
        }
        std::future::ready(())
    });
    let controller = Controller::for_stream(processors, store.clone())
        // No debounce: it begins anew with every event, so that a busy Job would put off looks for as long as it is busy.
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopping(store, stop))
        .watches_stream(peers.default_backoff().touched_objects(), move |peer| {
            processors_of(&processors_here, &peer)
        })
        // Of Jobs every change counts; of Batches and windows only what people do: what we write ourselves is no news.
        .watches_stream(ours::<Job>(client, namespace).touched_objects(), processor_of)
        .watches_stream(wished, processor_of)
        .watches_stream(wishes(ours::<AggregationWindow>(client, namespace)), processor_of)
        .run(processor::reconcile, processor::on_error, context.clone())
        .for_each(|result| async move {
            match result {
                // Failed reconciles are told by the error policy.
                Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
                // Deleted since its look was planned.
                Err(ControllerError::ObjectNotFound(gone)) => {
                    context.forget(&(gone.namespace.unwrap_or_default(), gone.name));
                }
                Err(error) => tracing::warn!(%error, "a watch failed; it is tried again"),
            }
        });
    tokio::select! {
        () = controller => {}
        () = batches => tracing::error!("the watch of Batches has ended"),
    }
}

/// Done when a controller is to stop. One that is stopped before its first list came in waits for it for ever.
pub(crate) fn stopping<K>(store: Store<K>, stop: &CancellationToken) -> impl Future<Output = ()> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let stop = stop.clone();
    async move {
        stop.cancelled().await;
        let _ = tokio::time::timeout(FIRST_LIST_TIMEOUT, store.wait_until_ready()).await;
    }
}

pub(crate) fn scoped<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: &Client,
    namespace: Option<&str>,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The metadata of objects that we made, as they change: it decodes whatever the rest looks like.
fn ours<K>(
    client: &Client,
    namespace: Option<&str>,
) -> impl Stream<Item = Result<watcher::Event<PartialObjectMeta<K>>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let ours = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
    watcher(scoped::<PartialObjectMeta<K>>(client, namespace), ours).default_backoff()
}

/// Of the changes of Batches and windows those that people make: deletions, and the retry annotation.
fn wishes<K: ResourceExt + Send + 'static>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static {
    let mut asked = BTreeMap::new();
    events.filter_map(move |event| {
        let wish = event.map(|event| wish(&mut asked, event)).transpose();
        std::future::ready(wish)
    })
}

/// `asked` holds the annotation's values by UID.
fn wish<K: ResourceExt>(asked: &mut BTreeMap<String, String>, event: watcher::Event<K>) -> Option<K> {
    use watcher::Event;
    match event {
        Event::Delete(object) => {
            asked.remove(&object.uid()?);
            Some(object)
        }
        Event::Apply(object) | Event::InitApply(object) => {
            let value = object.annotations().get(RETRY_ANNOTATION)?.clone();
            let before = asked.insert(object.uid()?, value.clone());
            (before != Some(value)).then_some(object)
        }
        Event::Init | Event::InitDone => None,
    }
}

/// The processors that name a Peer.
fn processors_of(store: &Store<Guarded>, peer: &PartialObjectMeta<Peer>) -> Vec<ObjectRef<Guarded>> {
    let (namespace, name) = (peer.namespace(), peer.name_any());
    let names_it = |processor: &Arc<Guarded>| {
        processor.namespace() == namespace
            && processor
                .0
                .as_ref()
                .is_ok_and(|processor| partners::names(&processor.spec).any(|named| named == name))
    };
    let here = store.state().into_iter().filter(names_it);
    here.map(|processor| ObjectRef::from_obj(processor.as_ref())).collect()
}

fn processor_of<K: ResourceExt>(object: K) -> Option<ObjectRef<Guarded>> {
    let name = object.labels().get(PROCESSOR_LABEL)?.clone();
    Some(ObjectRef::new(&name).within(&object.namespace()?))
}

async fn sweeping(context: &Arc<Context>, namespace: Option<&str>, stop: &CancellationToken) {
    loop {
        if let Err(error) = processor::sweep::sweep(context, namespace).await {
            tracing::warn!(%error, "left-overs of processors that are gone could not be looked for");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::Flags;
    use clap::Parser;

    #[test]
    fn leases_are_taken_in_the_same_order_by_every_process() {
        let of = |arguments: &[&str]| {
            let flags = Flags::try_parse_from([&["operator", "--worker-image=w:1"], arguments].concat()).unwrap();
            let settings = Settings::try_from(flags).unwrap();
            lease_namespaces(settings.lease_namespace.as_deref(), settings.watched.named(), "default")
        };
        assert_eq!(of(&["--namespaces=b,a", "--lease-namespace=m"]), ["a", "b", "m"]);
        assert_eq!(of(&["--namespaces=m", "--lease-namespace=m"]), ["m"]);
        assert_eq!(of(&["--all-namespaces", "--lease-namespace=m"]), ["m"]);
        assert_eq!(of(&["--all-namespaces"]), ["default"]);
    }

    #[test]
    fn of_batches_only_what_people_do_is_news() {
        use crds::Batch;
        use kube::runtime::watcher::Event;
        let batch = |retry: Option<&str>, status: &str| -> PartialObjectMeta<Batch> {
            let annotations = retry.map(|value| serde_json::json!({RETRY_ANNOTATION: value}));
            let metadata =
                serde_json::json!({"name": "b", "uid": "u", "annotations": annotations, "resourceVersion": status});
            serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap()
        };
        let mut asked = BTreeMap::new();
        let table = [
            ("made", Event::Apply(batch(None, "1")), false),
            ("our status", Event::Apply(batch(None, "2")), false),
            ("asked", Event::Apply(batch(Some("now"), "3")), true),
            ("our answer", Event::Apply(batch(Some("now"), "4")), false),
            ("listed anew", Event::InitApply(batch(Some("now"), "4")), false),
            ("asked again", Event::Apply(batch(Some("again"), "5")), true),
            ("deleted", Event::Delete(batch(Some("again"), "5")), true),
        ];
        for (name, event, expected) in table {
            assert_eq!(wish(&mut asked, event).is_some(), expected, "{name}");
        }
        assert!(asked.is_empty());
    }
}
