//! Batches, as a watch tells them: there may be thousands, and a list of them at every look would cost the API server more
//! than all else.

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::Batch;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use snafu::Snafu;
use tokio::sync::watch;

use super::cluster::cannot_decode;
use crate::metrics::{Metrics, ProcessorKey};

/// A Batch that may not decode.
pub type GuardedBatch = DeserializeGuard<Batch>;
type Event = watcher::Event<GuardedBatch>;

/// How long a look waits for the watch.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the first list; no look goes on without it.
    first_list: Duration,
    /// For our own writes; what isn't there by then was lost in a list between two watches.
    own_writes: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_list: Duration::from_secs(60),
            own_writes: Duration::from_secs(10),
        }
    }
}

/// Why there are no Batches to look at.
#[derive(Debug, Snafu)]
pub enum WatchedError {
    /// The watch has brought nothing.
    #[snafu(display(
        "the watch of Batches in namespace {namespace} has brought no list yet: the operator's right to list and watch them, \
         or the API server"
    ))]
    NotListed {
        /// Where.
        namespace: String,
    },
}

/// The newest of our own writes, so that no decision rests on what was before it: the outcome of a batch would be told twice.
///
/// Resource versions of one resource can be compared as numbers (Kubernetes API Concepts, "Resource versions").
#[derive(Debug, Default)]
pub struct Written(AtomicU64);

impl Written {
    /// Notes what the API server answered to a write.
    pub fn note(&self, answer: &impl ResourceExt) {
        self.0.fetch_max(version(answer), Ordering::Relaxed);
    }
}

/// 0 where there is none.
fn version(object: &impl ResourceExt) -> u64 {
    let version = object.resource_version();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Batches of one watch.
#[derive(Clone)]
struct Watch {
    namespace: Option<String>,
    store: Store<GuardedBatch>,
    /// Everything up to this resource version is in the store.
    told: watch::Receiver<u64>,
}

/// The Batches of all watched namespaces.
#[derive(Default)]
pub struct WatchedBatches {
    watches: Mutex<Vec<Watch>>,
    patience: Patience,
}

impl Debug for WatchedBatches {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WatchedBatches").finish_non_exhaustive()
    }
}

impl WatchedBatches {
    /// Keeps what the events of one namespace (`None`: of all) tell, and hands them on.
    pub fn keep<S>(
        &self,
        namespace: Option<&str>,
        events: S,
        metrics: Arc<Metrics>,
    ) -> impl Stream<Item = watcher::Result<Event>> + Send + use<S>
    where
        S: Stream<Item = watcher::Result<Event>> + Send + 'static,
    {
        let (store, writer) = reflector::store();
        let (tell, told) = watch::channel(0);
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push(Watch {
            namespace: namespace.map(str::to_owned),
            store,
            told,
        });
        let mut listed = 0;
        // Who wrote which field is half of an object.
        let events = events.modify(|batch| batch.managed_fields_mut().clear());
        reflector::reflector(writer, events).inspect_ok(move |event| {
            if let watcher::Event::Apply(batch) | watcher::Event::InitApply(batch) = event
                && let Err(invalid) = &batch.0
            {
                cannot_decode(invalid, "Batch", &metrics);
            }
            // A list is in the store once it is whole.
            let told = match event {
                watcher::Event::Init => None,
                watcher::Event::InitApply(batch) => {
                    listed = listed.max(version(batch));
                    None
                }
                watcher::Event::InitDone => Some(listed),
                watcher::Event::Apply(batch) | watcher::Event::Delete(batch) => Some(version(batch)),
            };
            if let Some(version) = told {
                tell.send_if_modified(|told| std::mem::replace(told, version.max(*told)) < version);
            }
        })
    }

    /// A processor's Batches, those that don't decode left out, as they are after our own writes.
    ///
    /// # Errors
    /// [`WatchedError`].
    pub async fn of(&self, key: &ProcessorKey, written: &Written) -> Result<Vec<Arc<GuardedBatch>>, WatchedError> {
        let (namespace, processor) = key;
        let watch = {
            let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            let watches_it = |watch: &&Watch| watch.namespace.as_ref().is_none_or(|named| named == namespace);
            watches.iter().find(watches_it).cloned()
        };
        let not_listed = NotListedSnafu { namespace };
        let Some(mut watch) = watch else {
            return not_listed.fail();
        };
        if !matches!(
            tokio::time::timeout(self.patience.first_list, watch.store.wait_until_ready()).await,
            Ok(Ok(()))
        ) {
            return not_listed.fail();
        }
        let wanted = written.0.load(Ordering::Relaxed);
        let up_to_date = watch.told.wait_for(|told| *told >= wanted);
        if tokio::time::timeout(self.patience.own_writes, up_to_date)
            .await
            .is_err()
        {
            tracing::debug!(
                namespace,
                processor,
                wanted,
                "the watch of Batches doesn't bring our own writes"
            );
            // Asked for once: it would hold up every look.
            let _ = written
                .0
                .compare_exchange(wanted, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        // By the spec, which is immutable, and not by the label, which anyone may have changed.
        let is_its = |batch: &Arc<GuardedBatch>| {
            batch.meta().namespace.as_ref() == Some(namespace)
                && batch.0.as_ref().is_ok_and(|batch| batch.spec.processor == *processor)
        };
        Ok(watch.store.state().into_iter().filter(is_its).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::KindLabels;
    use futures::channel::mpsc;
    use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn batch(name: &str, processor: &str, version: u64) -> GuardedBatch {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(),
                "managedFields": [{"manager": "prio-operator"}]},
            "spec": {"processor": processor, "aggregation": "kittens", "time": "2026/11/20/08/00",
                "uuid": "00000000-0000-0000-0000-000000000001"},
        }))
        .unwrap()
    }

    struct World {
        watched: Arc<WatchedBatches>,
        events: mpsc::UnboundedSender<watcher::Result<Event>>,
        written: Arc<Written>,
        metrics: Arc<Metrics>,
    }

    impl World {
        fn new(patience: Patience) -> Self {
            let watched = Arc::new(WatchedBatches {
                patience,
                ..WatchedBatches::default()
            });
            let metrics = Arc::new(Metrics::default());
            let (events, stream) = mpsc::unbounded();
            let kept = watched.keep(Some("default"), stream, metrics.clone());
            tokio::spawn(kept.for_each(|_| std::future::ready(())));
            Self {
                watched,
                events,
                written: Arc::default(),
                metrics,
            }
        }

        fn say(&self, events: impl IntoIterator<Item = Event>) {
            for event in events {
                self.events.unbounded_send(Ok(event)).unwrap();
            }
        }

        /// Names and versions of the processor's Batches, once they can be had.
        fn look(&self) -> tokio::task::JoinHandle<Vec<(String, u64)>> {
            let (watched, written) = (self.watched.clone(), self.written.clone());
            tokio::spawn(async move {
                let key = ("default".to_owned(), "ours".to_owned());
                let mut seen: Vec<_> = watched
                    .of(&key, &written)
                    .await
                    .unwrap()
                    .iter()
                    .map(|batch| {
                        assert!(batch.managed_fields().is_empty());
                        (batch.name_any(), version(batch.as_ref()))
                    })
                    .collect();
                seen.sort_unstable();
                seen
            })
        }
    }

    const HASTY: Patience = Patience {
        first_list: Duration::from_millis(20),
        own_writes: Duration::from_millis(20),
    };

    /// Long enough for what is not held up.
    async fn pause() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    #[tokio::test]
    async fn a_look_waits_for_the_first_list_and_sees_a_processors_own_batches() {
        let world = World::new(Patience::default());
        let look = world.look();
        world.say([
            Init,
            InitApply(batch("a", "ours", 5)),
            InitApply(batch("b", "other", 6)),
        ]);
        pause().await;
        assert!(!look.is_finished(), "the list isn't whole");
        world.say([InitDone]);
        assert_eq!(look.await.unwrap(), [("a".to_owned(), 5)]);
    }

    #[tokio::test]
    async fn a_look_waits_for_what_the_one_before_wrote() {
        let world = World::new(Patience::default());
        world.say([Init, InitApply(batch("a", "ours", 5)), InitDone]);
        world.written.note(&batch("a", "ours", 9));
        let look = world.look();
        pause().await;
        assert!(!look.is_finished(), "the watch is behind");
        world.say([Apply(batch("c", "other", 8))]);
        pause().await;
        assert!(!look.is_finished(), "still behind");
        world.say([Apply(batch("a", "ours", 9))]);
        assert_eq!(look.await.unwrap(), [("a".to_owned(), 9)]);
        // Deleted since by somebody: that is newer than our write.
        world.written.note(&batch("a", "ours", 10));
        world.say([Delete(batch("a", "ours", 11))]);
        assert_eq!(world.look().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_list_between_two_watches_is_in_sight_only_when_it_is_whole() {
        let world = World::new(Patience::default());
        world.say([Init, InitApply(batch("a", "ours", 5)), InitDone]);
        world.written.note(&batch("b", "ours", 9));
        world.say([Init, InitApply(batch("a", "ours", 5)), InitApply(batch("b", "ours", 9))]);
        let look = world.look();
        pause().await;
        assert!(!look.is_finished(), "what the store holds is from before");
        world.say([InitDone]);
        assert_eq!(look.await.unwrap(), [("a".to_owned(), 5), ("b".to_owned(), 9)]);
    }

    #[tokio::test]
    async fn a_write_that_no_watch_brings_holds_up_one_look() {
        let world = World::new(HASTY);
        // Written, deleted by somebody, and listed anew: no object has its version.
        world.written.note(&batch("a", "ours", 9));
        world.say([Init, InitDone]);
        assert_eq!(world.look().await.unwrap(), []);
        assert_eq!(world.written.0.load(Ordering::Relaxed), 0, "the next one doesn't wait");
    }

    #[tokio::test]
    async fn a_watch_that_brings_nothing_is_named() {
        let world = World::new(HASTY);
        let key = ("default".to_owned(), "ours".to_owned());
        let error = world.watched.of(&key, &Written::default()).await.unwrap_err();
        assert!(error.to_string().contains("namespace default"), "{error}");
        let elsewhere = ("elsewhere".to_owned(), "ours".to_owned());
        assert!(world.watched.of(&elsewhere, &Written::default()).await.is_err());
    }

    #[tokio::test]
    async fn what_does_not_decode_is_counted_and_left_out() {
        let world = World::new(Patience::default());
        let odd: GuardedBatch =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "odd", "namespace": "default"}, "spec": 1}))
                .unwrap();
        world.say([Init, InitApply(odd), InitApply(batch("a", "ours", 5)), InitDone]);
        assert_eq!(world.look().await.unwrap(), [("a".to_owned(), 5)]);
        let kind = KindLabels { kind: "Batch" };
        assert_eq!(world.metrics.undecodable.get_or_create(&kind).get(), 1);
    }
}
