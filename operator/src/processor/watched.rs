//! Batches, as a watch tells them: there may be thousands, and a list of them at every look would cost the API server more
//! than all else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::Batch;
use crds::names::PROCESSOR_LABEL;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use snafu::{OptionExt, Snafu};
use tokio::sync::{Notify, watch};

use crate::metrics::{Metrics, ProcessorKey};
use crate::undecodable;

/// A Batch that may not decode.
pub type GuardedBatch = DeserializeGuard<Batch>;
type Event = watcher::Event<GuardedBatch>;

/// How long a look waits for the watch, at most: less than the process takes to stop.
#[derive(Clone, Copy, Debug)]
struct Patience {
    first_list: Duration,
    own_writes: Duration,
    /// A list that brings nothing for longer is taken for dead; it is not what one look waits for.
    list: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_list: Duration::from_secs(14),
            own_writes: Duration::from_secs(10),
            list: Duration::from_secs(120),
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
        "the watch of Batches in namespace {namespace} doesn't bring what was written last: {}",
        if *is_listing {
            "they are being listed anew, which takes as long as there are many"
        } else {
            "it is begun anew; where that doesn't help, see the operator's log for the API server's answer, and its right to \
             list and watch them"
        }
    ))]
    Behind {
        /// Where.
        namespace: String,
        /// Whether a list is under way that may bring it.
        is_listing: bool,
    },
}

/// How far a watch has come.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Everything up to this resource version is in the store.
    version: u64,
    /// Lists that were begun: the first one, and one each time that the watch broke.
    begun: u64,
    /// When a list was begun or brought something last.
    moved_at: Option<Instant>,
    /// Of these, the last that was whole and is in the store.
    done: u64,
}

/// The newest of our own writes.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    version: u64,
    /// Lists that were begun by then: a later one holds what was written, or what came after it.
    begun: u64,
    /// Lists that were begun when writes had perhaps been made whose answers never came.
    doubted: Option<u64>,
}

impl Told {
    /// Takes note of an event that the store holds; `listed` is the newest version of a list that isn't whole yet.
    fn note(&mut self, event: &Event, listed: &mut u64) {
        match event {
            watcher::Event::Init => {
                self.begun += 1;
                self.moved_at = Some(Instant::now());
                *listed = 0;
            }
            watcher::Event::InitApply(batch) => {
                self.moved_at = Some(Instant::now());
                *listed = version(batch).max(*listed);
            }
            watcher::Event::InitDone => {
                self.version = self.version.max(*listed);
                self.done = self.begun;
            }
            watcher::Event::Apply(batch) | watcher::Event::Delete(batch) => {
                self.version = self.version.max(version(batch));
            }
        }
    }

    /// Whether a watch that doesn't bring what it should is to be begun anew: a list that is under way may bring it.
    fn is_dead(&self, patience: Duration) -> bool {
        self.moved_at
            .is_some_and(|moved| !self.is_listing() || moved.elapsed() > patience)
    }

    fn is_listing(&self) -> bool {
        self.begun > self.done
    }

    fn has(&self, written: Written) -> bool {
        let has_doubted = written.doubted.is_none_or(|begun| self.done > begun);
        has_doubted && (self.version >= written.version || self.done > written.begun)
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
    /// Begins the watch anew.
    again: Arc<Notify>,
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
    /// Keeps what the watch of one namespace (`None`: of all) tells, and hands it on. Whoever drives this stream keeps all looks
    /// there going. `begin` begins a watch, once and again whenever it is behind: a connection may be dead without a word.
    pub fn keep<B, S>(
        &self,
        namespace: Option<&str>,
        mut begin: B,
        metrics: Arc<Metrics>,
    ) -> impl Stream<Item = watcher::Result<Event>> + Send + use<B, S>
    where
        B: FnMut() -> S + Send + 'static,
        S: Stream<Item = watcher::Result<Event>> + Send + 'static,
    {
        let (store, writer) = reflector::store();
        let (tell, told) = watch::channel(Told::default());
        let again = Arc::new(Notify::new());
        let watch = Watch {
            store,
            told,
            written: Arc::default(),
            again: again.clone(),
        };
        locked(&self.watches).insert(namespace.map(str::to_owned), watch);
        let begun = stream::repeat_with(move || begin().take_until(again.clone().notified_owned()));
        // Who wrote which field is half of an object.
        let events = begun.flatten().modify(|batch| batch.managed_fields_mut().clear());
        let mut listed = 0;
        reflector::reflector(writer, events).inspect_ok(move |event| {
            if let watcher::Event::Apply(batch) | watcher::Event::InitApply(batch) = event
                && let Err(invalid) = &batch.0
            {
                undecodable::count(&metrics, "Batch", invalid);
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
            (written.version, written.begun) = (version(answer), begun);
        }
    }

    /// Writes may have been made whose answers never came: the next look waits for a list.
    pub fn doubt(&self, namespace: &str) {
        let Some(watch) = self.watch(namespace) else { return };
        locked(&watch.written).doubted = Some(watch.told.borrow().begun);
        watch.again.notify_one();
    }

    /// A processor's Batches, those that don't decode left out, as they are after our own writes.
    ///
    /// # Errors
    /// [`WatchedError`].
    pub async fn of(&self, key: &ProcessorKey) -> Result<Vec<Arc<GuardedBatch>>, WatchedError> {
        let (namespace, processor) = key;
        let mut watch = self.watch(namespace).context(NotListedSnafu { namespace })?;
        if !self.is_listed(&mut watch).await {
            self.revive(&watch);
            return NotListedSnafu { namespace }.fail();
        }
        let written = *locked(&watch.written);
        let up_to_date = tokio::time::timeout(self.patience.own_writes, watch.told.wait_for(|told| told.has(written)));
        let is_up_to_date = matches!(up_to_date.await, Ok(Ok(_)));
        if !is_up_to_date {
            let is_listing = watch.told.borrow().is_listing();
            self.revive(&watch);
            return BehindSnafu { namespace, is_listing }.fail();
        }
        // By the spec, which is immutable, and not by the label, which anyone may have changed.
        let is_its = |batch: &Arc<GuardedBatch>| {
            batch.meta().namespace.as_ref() == Some(namespace)
                && batch.0.as_ref().is_ok_and(|batch| batch.spec.processor == *processor)
        };
        Ok(watch.store.state().into_iter().filter(is_its).collect())
    }

    /// Begins a watch anew that brings nothing.
    fn revive(&self, watch: &Watch) {
        if watch.told.borrow().is_dead(self.patience.list) {
            watch.again.notify_one();
        }
    }

    /// Not by the store's own word, which wakes one of all that wait for it.
    async fn is_listed(&self, watch: &mut Watch) -> bool {
        let listed = watch.told.wait_for(|told| told.done > 0);
        matches!(tokio::time::timeout(self.patience.first_list, listed).await, Ok(Ok(_)))
    }

    /// The processors that there are Batches of, in one namespace or all (`None`), as `keep` was given it; none where nothing
    /// was listed yet.
    pub async fn processors(&self, namespace: Option<&str>) -> BTreeSet<ProcessorKey> {
        let watch = locked(&self.watches).get(&namespace.map(str::to_owned)).cloned();
        let Some(mut watch) = watch else {
            return BTreeSet::new();
        };
        if !self.is_listed(&mut watch).await {
            return BTreeSet::new();
        }
        let key = |batch: &Arc<GuardedBatch>| {
            let processor = match &batch.0 {
                Ok(batch) => &batch.spec.processor,
                Err(invalid) => invalid.metadata.labels.as_ref()?.get(PROCESSOR_LABEL)?,
            };
            Some((batch.namespace()?, processor.clone()))
        };
        watch.store.state().iter().filter_map(key).collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
