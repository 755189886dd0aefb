//! What is remembered between decisions: how often work was tried, and why it waits. Lost with the process and harmless:
//! the ledger says what is done, and status what was blocked.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{JobEnd, JobView};

/// Failures alone in a pod after which no more is tried.
const MAX_ALONE: u32 = 3;

/// Why work waits although nothing crashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// One of the blocked reasons of `docs/formats.md` §3.8.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// When that was seen.
    pub at: Timestamp,
    /// The spec's generation at that time.
    pub generation: i64,
    /// It was tried with undecryptable packets excluded.
    pub taken_anyway: bool,
}

/// What is known of one piece of work, a batch or a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Try {
    /// Jobs that had it and ended without an outcome.
    pub attempts: u32,
    /// How many pieces its next index may hold, after one failed.
    pub limit: Option<usize>,
    /// How often an index failed that held nothing else.
    pub alone: u32,
    /// The last outcome was `Blocked`.
    pub blocked: Option<Blocked>,
    /// Of a window: the last cutoff that no batch had met.
    pub tried: Option<Timestamp>,
    /// Of a window: a part of it can't be summed, and only the whole can say so for good.
    pub part_failed: bool,
    /// The value of the retry annotation that was answered last.
    pub answered: Option<String>,
    /// The Job that had it last.
    pub job: Option<String>,
}

impl Try {
    /// One that crashed its worker too often.
    #[must_use]
    pub fn crashed() -> Self {
        Self {
            alone: MAX_ALONE,
            ..Self::default()
        }
    }

    /// Whether it crashed its worker too often.
    #[must_use]
    pub fn crashes(&self) -> bool {
        self.alone >= MAX_ALONE
    }

    /// Whether a blocked piece is to be tried again.
    #[must_use]
    pub fn is_due(&self, generation: i64, retry: SignedDuration, take_anyway: bool, now: Timestamp) -> bool {
        if self.crashes() {
            return false;
        }
        self.blocked.as_ref().is_none_or(|blocked| {
            blocked.generation != generation
                || now.duration_since(blocked.at) >= retry
                || (take_anyway && !blocked.taken_anyway)
        })
    }
}

/// All that is remembered of one stage's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries<K> {
    tries: BTreeMap<K, Try>,
    /// UIDs of finished Jobs that were counted and still exist.
    counted: BTreeSet<String>,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self {
            tries: BTreeMap::new(),
            counted: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Retries<K> {
    /// What is known of a piece of work, if it ever failed or was blocked.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&Try> {
        self.tries.get(key)
    }

    /// The same, to change it.
    pub fn entry(&mut self, key: &K) -> &mut Try {
        self.tries.entry(key.clone()).or_default()
    }

    /// Notes the value of the retry annotation: a new one reopens what crashed or is blocked. True if it did.
    pub fn ask_again(&mut self, key: &K, value: &str) -> bool {
        let known = self.entry(key);
        let is_new = known.answered.as_deref() != Some(value);
        if is_new {
            *known = Try {
                attempts: known.attempts,
                answered: Some(value.to_owned()),
                ..Try::default()
            };
        }
        is_new
    }

    /// Something changed that blocked work may have waited for: all of it is due at once.
    pub fn reopen_blocked(&mut self) {
        for known in self.tries.values_mut() {
            known.blocked = None;
        }
    }

    /// Notes the end of an index: `left` pieces of it have no outcome, of `held` that it held. They are to blame only if
    /// the index itself came to an end; else their next try merely needs another name.
    pub fn index_over(&mut self, view: &JobView, index: usize, left: &[K], held: usize) {
        let to_blame = view.end() != Some(JobEnd::ConfigurationRefused) && view.has_ended(index);
        for key in left {
            let known = self.entry(key);
            known.attempts += 1;
            if to_blame {
                known.job = Some(view.name().to_owned());
                known.limit = Some(left.len().div_ceil(2).max(1));
                known.alone += u32::from(held == 1);
            }
        }
    }

    /// Whether this finished Job was counted before.
    #[must_use]
    pub fn has_counted(&self, uid: &str) -> bool {
        self.counted.contains(uid)
    }

    /// Whether this finished Job is counted now for the first time.
    pub fn count_job(&mut self, uid: &str) -> bool {
        self.counted.insert(uid.to_owned())
    }

    /// Forgets Jobs that are gone and work that needs no memory.
    pub fn keep(&mut self, existing: &BTreeSet<&str>, mut open: impl FnMut(&K) -> bool) {
        self.counted.retain(|uid| existing.contains(uid.as_str()));
        self.tries.retain(|key, _| open(key));
    }
}
