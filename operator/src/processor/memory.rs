//! What is remembered between looks at a processor, and the room that processors share. All of it may be lost: the
//! ledger, the Jobs and the statuses say the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use facilitator_core::formats::names::{BatchId, WindowId};
use jiff::{SignedDuration, Timestamp};

use super::cluster::WorkCache;
use super::keys::ProbeMemory;
use super::manifest::Published;
use super::observe::{LedgerCache, Mailboxes, Places};
use super::partners::Parties;
use crate::inventory::Listed;
use crate::metrics::ProcessorKey;
use crate::settings::Settings;
use crate::status::Verdict;
use crate::workload::{HealthMemory, PlannedJob, Retries, Room, Stage};

/// What is remembered of one processor.
#[derive(Debug, Default)]
pub struct Memory {
    uid: String,
    generation: i64,
    /// Whether its workers start.
    pub health: Option<HealthMemory>,
    /// Batches that failed or are blocked.
    pub batches: Retries<BatchId>,
    /// Windows that failed or are blocked.
    pub windows: Retries<WindowId>,
    /// Windows that the next look must list; `None`: not known.
    pub open: Option<BTreeSet<WindowId>>,
    /// When all that has no result was listed last, and how long that took.
    pub rebuilt: Option<(Timestamp, SignedDuration)>,
    /// The mailboxes that are open, and where they are.
    pub mailboxes: Option<(Places, Mailboxes)>,
    /// What was read of the ledger.
    pub ledger: LedgerCache,
    /// When claims were looked at last.
    pub claims_looked: Option<Timestamp>,
    /// Names of claims that no decision has seen yet.
    pub claims: Vec<Listed>,
    /// Work lists of Jobs.
    pub work: WorkCache,
    /// What was known of other parties at the last look; `None`: not everything.
    pub parties: Option<Parties>,
    /// When our own manifests were published last, and what came of it.
    pub published: Option<Published>,
    /// Jobs that were refused since the last look.
    pub refused: Vec<(Stage, String)>,
    /// What probes found of KeyRings' keys.
    pub probes: ProbeMemory,
    /// Probe Jobs that were refused since the last look.
    pub refused_probes: Vec<String>,
    /// Preflight Jobs that were refused since the last look.
    pub refused_preflights: Vec<(Stage, String)>,
    /// What preflight Jobs use of the room.
    pub preflights: Usage,
    /// When the marks of keys' use were listed last.
    pub uses_listed: Option<Timestamp>,
    /// When the admission policies were tried, and what came out.
    pub guard: Option<(Timestamp, Verdict)>,
    /// When it was looked at last.
    pub looked: Option<Instant>,
    /// Looks that failed since the last one that didn't.
    pub failures: u32,
    /// The generation that doesn't decode and of which that was told.
    pub undecodable: Option<Option<i64>>,
}

impl Memory {
    /// Notes what is known of other parties: what was blocked for want of a key of theirs is due once there is another.
    pub fn rests_on(&mut self, parties: Option<&Parties>) {
        let Some(parties) = parties else { return };
        if self.parties.as_ref().is_some_and(|before| before != parties) {
            self.batches.reopen_blocked();
            self.windows.reopen_blocked();
        }
        self.parties = Some(parties.clone());
    }

    /// Forgets what was of another processor of the same name, and what another spec decided.
    pub fn belong_to(&mut self, uid: &str, generation: i64) {
        if self.uid != uid {
            *self = Self {
                uid: uid.to_owned(),
                ..Self::default()
            };
        }
        if self.generation != generation {
            self.generation = generation;
            (self.open, self.guard, self.undecodable) = (None, None, None);
            (self.claims_looked, self.claims) = (None, Vec::new());
            self.published = None;
            // Another spec may name another ledger.
            self.ledger = LedgerCache::default();
        }
    }
}

/// Jobs and pods that a processor uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Unfinished Jobs.
    pub jobs: u32,
    /// Pods that they want at once.
    pub pods: u32,
    /// There is work that found no room at the last plan.
    waits: bool,
}

impl Usage {
    /// Of unfinished Jobs, each with the pods that it wants.
    pub fn of(pods: impl Iterator<Item = u32>) -> Self {
        pods.fold(Self::default(), |sum, pods| Self {
            jobs: sum.jobs + 1,
            pods: sum.pods.saturating_add(pods),
            ..sum
        })
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            jobs: self.jobs.saturating_add(other.jobs),
            pods: self.pods.saturating_add(other.pods),
            waits: self.waits || other.waits,
        }
    }

    /// With what was planned.
    #[must_use]
    pub fn and(self, planned: &[PlannedJob]) -> Self {
        planned.iter().fold(self, |sum, job| Self {
            jobs: sum.jobs + 1,
            pods: sum.pods.saturating_add(job.parallelism),
            ..sum
        })
    }
}

/// What planned Jobs leave of the room.
#[must_use]
pub fn less(room: Room, planned: &[PlannedJob]) -> Room {
    let used = Usage::default().and(planned);
    Room {
        jobs: room.jobs.saturating_sub(used.jobs),
        pods: room.pods.saturating_sub(used.pods),
    }
}

/// What all processors use.
#[derive(Debug, Default)]
pub struct Usages(BTreeMap<ProcessorKey, Usage>);

impl Usages {
    /// What the caps leave for one processor that uses `own`. While others wait, each has an equal share at most, so that
    /// one with much work can't keep the others waiting for ever.
    #[must_use]
    pub fn room(&self, key: &ProcessorKey, own: Usage, settings: &Settings) -> Room {
        let others = || self.0.iter().filter(|(other, _)| *other != key).map(|(_, usage)| usage);
        let sharing = 1 + u32::try_from(others().filter(|usage| usage.waits).count()).unwrap_or(u32::MAX - 1);
        let left = |limit: u32, own: u32, others: u32| {
            let free = limit.saturating_sub(own).saturating_sub(others);
            if sharing == 1 {
                free
            } else {
                free.min((limit / sharing).max(1).saturating_sub(own))
            }
        };
        Room {
            jobs: left(settings.max_jobs, own.jobs, others().map(|usage| usage.jobs).sum()),
            pods: left(settings.max_pods, own.pods, others().map(|usage| usage.pods).sum()),
        }
    }

    /// Notes what a processor uses, and whether it has work that found no room.
    pub fn set(&mut self, key: &ProcessorKey, usage: Usage, waits: bool) {
        self.0.insert(key.clone(), Usage { waits, ..usage });
    }

    /// Notes what a processor uses before anybody knows whether it has more to do: that stays as it was.
    pub fn found(&mut self, key: &ProcessorKey, usage: Usage) {
        let waits = self.0.get(key).is_some_and(|before| before.waits);
        self.set(key, usage, waits);
    }

    /// A processor can't plan: nobody keeps room for it.
    pub fn gave_up(&mut self, key: &ProcessorKey) {
        if let Some(usage) = self.0.get_mut(key) {
            usage.waits = false;
        }
    }

    /// A processor is gone, or doesn't decode.
    pub fn forget(&mut self, key: &ProcessorKey) {
        self.0.remove(key);
    }
}

/// What is remembered of all processors.
#[derive(Debug, Default)]
pub struct Memories {
    of: Mutex<BTreeMap<ProcessorKey, Arc<tokio::sync::Mutex<Memory>>>>,
    usages: Mutex<Usages>,
}

impl Memories {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ProcessorKey, Arc<tokio::sync::Mutex<Memory>>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of one processor.
    #[must_use]
    pub fn of(&self, key: &ProcessorKey) -> Arc<tokio::sync::Mutex<Memory>> {
        self.entries().entry(key.clone()).or_default().clone()
    }

    /// The processors that something is remembered of.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<ProcessorKey> {
        let mut keys: BTreeSet<ProcessorKey> = self.entries().keys().cloned().collect();
        keys.extend(self.usages().0.keys().cloned());
        keys
    }

    /// A processor is gone.
    pub fn forget(&self, key: &ProcessorKey) {
        self.entries().remove(key);
        self.usages().forget(key);
    }

    /// What all processors use; held while one plans.
    pub fn usages(&self) -> MutexGuard<'_, Usages> {
        self.usages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::Flags;
    use clap::Parser;

    fn settings(jobs: &str, pods: &str) -> Settings {
        let flags = [
            "operator",
            "--namespaces=a",
            "--worker-image=w:1",
            "--max-jobs",
            jobs,
            "--max-pods",
            pods,
        ];
        Settings::try_from(Flags::try_parse_from(flags).unwrap()).unwrap()
    }

    fn key(name: &str) -> ProcessorKey {
        ("a".to_owned(), name.to_owned())
    }

    #[test]
    fn the_caps_hold_over_all_processors_and_are_shared_while_others_wait() {
        let usage = |jobs, pods| Usage {
            jobs,
            pods,
            waits: false,
        };
        let room = |jobs, pods| Room { jobs, pods };
        let settings = settings("4", "10");
        let mut usages = Usages::default();
        assert_eq!(usages.room(&key("a"), usage(0, 0), &settings), room(4, 10));
        assert_eq!(usages.room(&key("a"), usage(1, 3), &settings), room(3, 7));
        usages.set(&key("b"), usage(2, 6), false);
        assert_eq!(usages.room(&key("a"), usage(1, 3), &settings), room(1, 1));
        usages.set(&key("b"), usage(0, 0), true);
        assert_eq!(usages.room(&key("a"), usage(1, 3), &settings), room(1, 2));
        assert_eq!(usages.room(&key("a"), usage(3, 9), &settings), room(0, 0));
        assert_eq!(
            usages.room(&key("b"), usage(0, 0), &settings),
            room(4, 10),
            "its own entry doesn't count against it"
        );
    }

    #[test]
    fn one_that_can_no_longer_plan_keeps_no_room_from_others() {
        let usage = |jobs, pods| Usage {
            jobs,
            pods,
            waits: false,
        };
        let room = |jobs, pods| Room { jobs, pods };
        let settings = settings("4", "10");
        let memories = Memories::default();
        memories.usages().set(&key("b"), usage(2, 6), true);
        memories.usages().found(&key("b"), usage(0, 0));
        let of_a = || memories.usages().room(&key("a"), usage(0, 0), &settings);
        assert_eq!(of_a(), room(2, 5), "its Jobs are over, and it still waits");
        memories.usages().gave_up(&key("b"));
        assert_eq!(of_a(), room(4, 10));
        memories.usages().set(&key("b"), usage(1, 1), true);
        assert_eq!(
            memories.keys().into_iter().collect::<Vec<_>>(),
            [key("b")],
            "a sweep finds it"
        );
        memories.forget(&key("b"));
        assert_eq!(of_a(), room(4, 10));
    }

    #[test]
    fn what_is_blocked_is_tried_again_when_other_parties_say_something_else() {
        use crate::processor::partners::{Peers, resolve};
        use crate::workload::Blocked;
        let id = BatchId::parse("agg/2026/11/20/08/00/00000000-0000-0000-0000-000000000001").unwrap();
        let mut processor = crate::processor::example::processor();
        let parties = |processor: &crds::DataShareProcessor| resolve(processor, &Peers::new()).parties;
        let mut memory = Memory::default();
        memory.rests_on(parties(&processor).as_ref());
        memory.batches.entry(&id).blocked = Some(Blocked {
            reason: "SignerUnknown".into(),
            message: String::new(),
            at: Timestamp::UNIX_EPOCH,
            generation: 1,
            taken_anyway: false,
        });
        let is_blocked = |memory: &Memory| memory.batches.get(&id).unwrap().blocked.is_some();
        memory.rests_on(parties(&processor).as_ref());
        memory.rests_on(None);
        assert!(is_blocked(&memory), "nothing new is known");
        let ingestor = processor.spec.ingestor.inline.as_mut().unwrap();
        ingestor.batch_signing_keys[0].id = "another".into();
        memory.rests_on(parties(&processor).as_ref());
        assert!(!is_blocked(&memory));
    }

    #[test]
    fn another_spec_looks_at_everything_again_and_another_processor_forgets_all() {
        let mut memory = Memory::default();
        memory.belong_to("uid-1", 1);
        (memory.open, memory.failures) = (Some(BTreeSet::new()), 3);
        memory.belong_to("uid-1", 1);
        assert!(memory.open.is_some());
        memory.belong_to("uid-1", 2);
        assert_eq!((&memory.open, memory.failures), (&None, 3));
        memory.belong_to("uid-2", 2);
        assert_eq!(memory.failures, 0);
    }
}
