#![allow(clippy::unwrap_used)]
use super::*;
use crate::metrics::KindLabels;
use std::collections::VecDeque;

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
    list: Duration::from_secs(60),
};
const HASTY: Patience = Patience {
    first_list: Duration::from_millis(20),
    own_writes: Duration::from_millis(20),
    list: Duration::from_millis(50),
};

type Sender = mpsc::UnboundedSender<watcher::Result<Event>>;

/// What is said is of the first watch, until that is begun anew.
struct World {
    watched: Arc<WatchedBatches>,
    events: Sender,
    second: Sender,
    metrics: Arc<Metrics>,
}

impl World {
    fn new(patience: Patience) -> Self {
        let watched = Arc::new(WatchedBatches {
            patience,
            ..WatchedBatches::default()
        });
        let metrics = Arc::new(Metrics::default());
        let ((events, first), (second, next)) = (mpsc::unbounded(), mpsc::unbounded());
        let mut watches = VecDeque::from([first, next]);
        let begin = move || watches.pop_front().unwrap();
        let kept = watched.keep(Some("default"), begin, metrics.clone());
        tokio::spawn(kept.for_each(|_| std::future::ready(())));
        Self {
            watched,
            events,
            second,
            metrics,
        }
    }

    fn say(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.events.unbounded_send(Ok(event)).unwrap();
        }
    }

    fn say_anew(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.second.unbounded_send(Ok(event)).unwrap();
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
    let (one, two) = (world.look(), world.look());
    world.say([
        Init,
        InitApply(batch("a", "ours", 5)),
        InitApply(batch("b", "other", 6)),
    ]);
    pause().await;
    assert!(!one.is_finished() && !two.is_finished(), "the list isn't whole");
    world.say([InitDone]);
    for look in [one, two] {
        assert_eq!(look.await.unwrap(), [("a".to_owned(), 5)]);
    }
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
    assert!(
        matches!(&error, WatchedError::Behind { is_listing: false, .. }),
        "{error}"
    );
    // It was begun anew: whatever the one of before says, and whether or not what was written is there still. A list that
    // is under way has its time.
    world.say_anew([Init]);
    pause().await;
    let told = |moved_at| Told {
        begun: 2,
        moved_at: Some(moved_at),
        done: 1,
        ..Told::default()
    };
    assert!(!told(Instant::now()).is_dead(Duration::from_secs(60)));
    assert!(told(Instant::now()).is_dead(Duration::ZERO));
    world.say_anew([InitDone]);
    pause().await;
    assert_eq!(world.look().await.unwrap(), []);
}

#[tokio::test]
async fn a_first_list_that_hangs_is_begun_anew() {
    let world = World::new(HASTY);
    world.say([Init]);
    pause().await;
    pause().await;
    assert!(world.watched.of(&key("ours")).await.is_err());
    world.say_anew([Init, InitApply(batch("a", "ours", 5)), InitDone]);
    pause().await;
    assert_eq!(world.look().await.unwrap(), [("a".to_owned(), 5)]);
}

#[test]
fn a_list_that_goes_on_is_left_alone() {
    let mut told = Told::default();
    let mut listed = 0;
    told.note(&Init, &mut listed);
    told.moved_at = Instant::now().checked_sub(Duration::from_secs(100));
    assert!(told.is_dead(Duration::from_secs(60)));
    told.note(&InitApply(batch("a", "ours", 5)), &mut listed);
    assert!(!told.is_dead(Duration::from_secs(60)));
}

#[tokio::test]
async fn a_write_without_an_answer_is_waited_for() {
    let world = World::new(PATIENT);
    world.say([Init, InitApply(batch("a", "ours", 5)), InitDone]);
    pause().await;
    world.watched.doubt("default");
    let look = world.look();
    pause().await;
    assert!(!look.is_finished(), "whether it was made is not known");
    world.say_anew([Init, InitApply(batch("a", "ours", 8)), InitDone]);
    assert_eq!(look.await.unwrap(), [("a".to_owned(), 8)]);
    // Later writes are waited for as ever, and that doubt is over.
    world.wrote(&batch("a", "ours", 9));
    let look = world.look();
    pause().await;
    assert!(!look.is_finished(), "the watch is behind");
    world.say_anew([Apply(batch("a", "ours", 9))]);
    assert_eq!(look.await.unwrap(), [("a".to_owned(), 9)]);
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
