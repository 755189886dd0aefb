//! What is remembered between looks at a processor. All of it may be lost: the ledger, the Jobs and the statuses say the
//! rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use facilitator_core::formats::names::{BatchId, WindowId};
use jiff::{SignedDuration, Timestamp};

use super::cluster::WorkCache;
use super::keys::ProbeMemory;
use super::manifest::Published;
use super::observe::{MailboxCache, Mailboxes, Places};
use super::partners::Parties;
use super::served::LookedFor;
use super::usages::{Usage, Usages};
use crate::inventory::Listed;
use crate::metrics::ProcessorKey;
use crate::status::Verdict;
use crate::told::Told;
use crate::workload::{HealthMemory, Retries, Stage};

/// What is remembered of one processor.
#[derive(Debug, Default)]
pub struct Memory {
    uid: String,
    generation: i64,
    /// Whether its workers start.
    pub health: Option<HealthMemory>,
    /// Whether Batches were written and not every answer came.
    pub writes_unanswered: bool,
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
    /// What was listed and read in mailboxes.
    pub seen: MailboxCache,
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
    /// What partners should get of them, whatever the spec has become since.
    pub(super) looked_for: Option<LookedFor>,
    /// Jobs that were refused since the last look.
    pub refused: Vec<(Stage, String)>,
    /// What probes found of KeyRings' keys.
    pub probes: ProbeMemory,
    /// Probe Jobs that were refused since the last look.
    pub refused_probes: Vec<String>,
    /// Preflight Jobs that were refused since the last look, beside the digest of what they were to rest on.
    pub refused_preflights: Option<(String, Vec<(Stage, String)>)>,
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
    /// What Events told of its conditions.
    pub told: Told,
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
            if let Some(looked_for) = &mut self.looked_for {
                looked_for.forget_found();
            }
            // Another spec may name another ledger.
            self.seen = MailboxCache::default();
        }
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
        keys.extend(self.usages().keys().cloned());
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
