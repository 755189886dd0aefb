//! Batches, as a watch tells them: there may be thousands, and a list of them at every look would cost the API server more
//! than all else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::Batch;
use futures::{Stream, TryStreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use snafu::{OptionExt, Snafu, ensure};
use tokio::sync::watch;

use super::cluster::cannot_decode;
use crate::metrics::{Metrics, ProcessorKey};

/// A Batch that may not decode.
pub type GuardedBatch = DeserializeGuard<Batch>;
type Event = watcher::Event<GuardedBatch>;

/// How long a look waits for the watch, at most: less than the process takes to stop.
#[derive(Clone, Copy, Debug)]
struct Patience {
    first_list: Duration,
    own_writes: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_list: Duration::from_secs(20),
            own_writes: Duration::from_secs(10),
        }
    }
}

/// Why there are no Batches to look at.
#[derive(Debug, Snafu)]
pub enum WatchedError {
    /// The watch has brought nothing.
    #[snafu(display(
        "the watch of Batches in namespace {namespace} has brought no list yet: see the operator's log for the API server's \
         answer, and its right to list and watch them"
    ))]
    NotListed {
        /// Where.
        namespace: String,
    },
    /// The watch is behind.
    #[snafu(display(
        "the watch of Batches in namespace {namespace} doesn't bring what was written last: see the operator's log for the \
         API server's answer, and its right to list and watch them"
    ))]
    Behind {
        /// Where.
        namespace: String,
    },
}

/// How far a watch has come.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Everything up to this resource version is in the store.
    version: u64,
    /// Lists that were begun: the first one, and one each time that the watch broke.
    begun: u64,
    /// Of these, the last that was whole and is in the store.
    done: u64,
}

/// The newest of our own writes.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    version: u64,
    /// Lists that were begun by then: a later one holds what was written, or what came after it.
    begun: u64,
}

impl Told {
    /// Takes note of an event that the store holds; `listed` is the newest version of a list that isn't whole yet.
    fn note(&mut self, event: &Event, listed: &mut u64) {
        match event {
            watcher::Event::Init => {
                self.begun += 1;
                *listed = 0;
            }
            watcher::Event::InitApply(batch) => *listed = version(batch).max(*listed),
            watcher::Event::InitDone => {
                self.version = self.version.max(*listed);
                self.done = self.begun;
            }
            watcher::Event::Apply(batch) | watcher::Event::Delete(batch) => {
                self.version = self.version.max(version(batch));
            }
        }
    }

    fn has(&self, written: Written) -> bool {
        self.version >= written.version || self.done > written.begun
    }
}

/// Resource versions of one resource can be compared as numbers (Kubernetes API Concepts, "Resource versions"); 0 where there
/// is none.
fn version(object: &impl ResourceExt) -> u64 {
    let version = object.resource_version();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// One watch, and what it has brought.
#[derive(Clone)]
struct Watch {
    store: Store<GuardedBatch>,
    told: watch::Receiver<Told>,
    /// No decision may rest on what was before: the outcome of a batch would be told twice.
    written: Arc<Mutex<Written>>,
}

/// The Batches of all watched namespaces.
#[derive(Default)]
pub struct WatchedBatches {
    /// By namespace; `None`: all.
    watches: Mutex<BTreeMap<Option<String>, Watch>>,
    patience: Patience,
}

impl Debug for WatchedBatches {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WatchedBatches").finish_non_exhaustive()
    }
}

impl WatchedBatches {
    /// Keeps what the events of one namespace (`None`: of all) tell, and hands them on. Whoever drives this stream keeps all
    /// looks there going.
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
        let (tell, told) = watch::channel(Told::default());
        let watch = Watch {
            store,
            told,
            written: Arc::default(),
        };
        locked(&self.watches).insert(namespace.map(str::to_owned), watch);
        // Who wrote which field is half of an object.
        let events = events.modify(|batch| batch.managed_fields_mut().clear());
        let mut listed = 0;
        reflector::reflector(writer, events).inspect_ok(move |event| {
            if let watcher::Event::Apply(batch) | watcher::Event::InitApply(batch) = event
                && let Err(invalid) = &batch.0
            {
                cannot_decode(invalid, "Batch", &metrics);
            }
            tell.send_modify(|told| told.note(event, &mut listed));
        })
    }

    fn watch(&self, namespace: &str) -> Option<Watch> {
        let watches = locked(&self.watches);
        let named = watches.get(&Some(namespace.to_owned()));
        named.or_else(|| watches.get(&None)).cloned()
    }

    /// Notes what the API server answered to a write of ours: the next look waits until the watch brings it.
    pub fn wrote(&self, namespace: &str, answer: &impl ResourceExt) {
        let Some(watch) = self.watch(namespace) else { return };
        let begun = watch.told.borrow().begun;
        let mut written = locked(&watch.written);
        if version(answer) > written.version {
            *written = Written {
                version: version(answer),
                begun,
            };
        }
    }

    /// A processor's Batches, those that don't decode left out, as they are after our own writes.
    ///
    /// # Errors
    /// [`WatchedError`].
    pub async fn of(&self, key: &ProcessorKey) -> Result<Vec<Arc<GuardedBatch>>, WatchedError> {
        let (namespace, processor) = key;
        let mut watch = self.watch(namespace).context(NotListedSnafu { namespace })?;
        ensure!(self.is_listed(&watch).await, NotListedSnafu { namespace });
        let written = *locked(&watch.written);
        let up_to_date = watch.told.wait_for(|told| told.has(written));
        let up_to_date = tokio::time::timeout(self.patience.own_writes, up_to_date).await;
        ensure!(matches!(up_to_date, Ok(Ok(_))), BehindSnafu { namespace });
        // By the spec, which is immutable, and not by the label, which anyone may have changed.
        let is_its = |batch: &Arc<GuardedBatch>| {
            batch.meta().namespace.as_ref() == Some(namespace)
                && batch.0.as_ref().is_ok_and(|batch| batch.spec.processor == *processor)
        };
        Ok(watch.store.state().into_iter().filter(is_its).collect())
    }

    async fn is_listed(&self, watch: &Watch) -> bool {
        let listed = tokio::time::timeout(self.patience.first_list, watch.store.wait_until_ready()).await;
        matches!(listed, Ok(Ok(())))
    }

    /// The processors that there are Batches of, in one namespace or all (`None`), as `keep` was given it; none where nothing
    /// was listed yet.
    pub async fn processors(&self, namespace: Option<&str>) -> BTreeSet<ProcessorKey> {
        let watch = locked(&self.watches).get(&namespace.map(str::to_owned)).cloned();
        let Some(watch) = watch else { return BTreeSet::new() };
        if !self.is_listed(&watch).await {
            return BTreeSet::new();
        }
        let key = |batch: &Arc<GuardedBatch>| {
            let processor = batch.0.as_ref().ok()?.spec.processor.clone();
            Some((batch.namespace()?, processor))
        };
        watch.store.state().iter().filter_map(key).collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::KindLabels;
    use futures::StreamExt;
    use futures::channel::mpsc;
    use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    use tokio::task::JoinHandle;

    fn batch(name: &str, processor: &str, version: u64) -> GuardedBatch {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(),
                "managedFields": [{"manager": "prio-operator"}]},
            "spec": {"processor": processor, "aggregation": "kittens", "time": "2026/11/20/08/00",
                "uuid": "00000000-0000-0000-0000-000000000001"},
        }))
        .unwrap()
    }

    fn key(processor: &str) -> ProcessorKey {
        ("default".to_owned(), processor.to_owned())
    }

    const PATIENT: Patience = Patience {
        first_list: Duration::from_secs(60),
        own_writes: Duration::from_secs(60),
    };
    const HASTY: Patience = Patience {
        first_list: Duration::from_millis(20),
        own_writes: Duration::from_millis(20),
    };

    struct World {
        watched: Arc<WatchedBatches>,
        events: mpsc::UnboundedSender<watcher::Result<Event>>,
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
                metrics,
            }
        }

        fn say(&self, events: impl IntoIterator<Item = Event>) {
            for event in events {
                self.events.unbounded_send(Ok(event)).unwrap();
            }
        }

        fn wrote(&self, batch: &GuardedBatch) {
            self.watched.wrote("default", batch);
        }

        /// Names and versions of the processor's Batches, once they can be had.
        fn look(&self) -> JoinHandle<Vec<(String, u64)>> {
            let watched = self.watched.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for batch in watched.of(&key("ours")).await.unwrap() {
                    assert!(batch.managed_fields().is_empty());
                    seen.push((batch.name_any(), version(batch.as_ref())));
                }
                seen.sort_unstable();
                seen
            })
        }
    }

    /// Long enough for what is not held up.
    async fn pause() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    #[tokio::test]
    async fn a_look_waits_for_the_first_list_and_sees_a_processors_own_batches() {
        let world = World::new(PATIENT);
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
        let world = World::new(PATIENT);
        world.say([Init, InitApply(batch("a", "ours", 5)), InitDone]);
        pause().await;
        world.wrote(&batch("a", "ours", 9));
        world.wrote(&batch("a", "ours", 7));
        let look = world.look();
        world.say([Apply(batch("c", "other", 8))]);
        pause().await;
        assert!(!look.is_finished(), "the watch is behind");
        world.say([Apply(batch("a", "ours", 9))]);
        assert_eq!(look.await.unwrap(), [("a".to_owned(), 9)]);
        // Deleted since by somebody: that is newer than our write.
        world.wrote(&batch("a", "ours", 10));
        world.say([Delete(batch("a", "ours", 11))]);
        assert_eq!(world.look().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_list_begun_after_a_write_is_as_good_as_the_write() {
        let world = World::new(PATIENT);
        world.say([Init, InitApply(batch("a", "ours", 5)), InitDone, Init]);
        pause().await;
        // Written while a list was under way, and deleted by somebody while the watch was broken.
        world.wrote(&batch("a", "ours", 9));
        world.say([InitDone]);
        let look = world.look();
        pause().await;
        assert!(!look.is_finished(), "that list may be from before");
        world.say([Init, InitApply(batch("b", "ours", 6))]);
        pause().await;
        assert!(!look.is_finished(), "this one isn't whole");
        world.say([InitDone]);
        assert_eq!(look.await.unwrap(), [("b".to_owned(), 6)]);
    }

    #[tokio::test]
    async fn a_watch_that_brings_nothing_or_is_behind_is_named() {
        let world = World::new(HASTY);
        let error = world.watched.of(&key("ours")).await.unwrap_err();
        assert!(
            matches!(&error, WatchedError::NotListed { namespace } if namespace == "default"),
            "{error}"
        );
        let elsewhere = ("elsewhere".to_owned(), "ours".to_owned());
        assert!(world.watched.of(&elsewhere).await.is_err());
        world.say([Init, InitDone]);
        pause().await;
        assert_eq!(world.look().await.unwrap(), []);
        world.wrote(&batch("a", "ours", 9));
        let error = world.watched.of(&key("ours")).await.unwrap_err();
        assert!(matches!(&error, WatchedError::Behind { .. }), "{error}");
    }

    #[tokio::test]
    async fn all_processors_that_have_batches_are_known() {
        let world = World::new(HASTY);
        assert_eq!(world.watched.processors(Some("default")).await, BTreeSet::new());
        world.say([
            Init,
            InitApply(batch("a", "ours", 5)),
            InitApply(batch("b", "gone", 6)),
            InitDone,
        ]);
        pause().await;
        let all = world.watched.processors(Some("default")).await;
        assert_eq!(all, [key("gone"), key("ours")].into());
        assert_eq!(world.watched.processors(None).await, BTreeSet::new());
    }

    #[tokio::test]
    async fn what_does_not_decode_is_counted_and_left_out() {
        let world = World::new(PATIENT);
        let odd: GuardedBatch =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "odd", "namespace": "default"}, "spec": 1}))
                .unwrap();
        world.say([Init, InitApply(odd), InitApply(batch("a", "ours", 5)), InitDone]);
        assert_eq!(world.look().await.unwrap(), [("a".to_owned(), 5)]);
        let kind = KindLabels { kind: "Batch" };
        assert_eq!(world.metrics.undecodable.get_or_create(&kind).get(), 1);
    }
}
