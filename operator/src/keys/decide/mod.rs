//! What to do about a ring: pure. The order is safe by construction: a version is written and backed up, then proven
//! loaded, then published, then used, then (superseded and without traffic for long enough) retired. Where anything
//! looks as the original's rotator refuses to see it, nothing is done and the refusal says why.

mod advance;
mod create;
mod publish;
mod refuse;
mod retire;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::reasons;
use crds::key_ring::PublicationMethod;
use jiff::{SignedDuration, Timestamp};

pub use publish::check_publication;
pub use settings::Settings;

use super::version::{PublicKeys, Record, Version};

/// What a DataShareProcessor that refers to the ring says of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorView {
    /// Its name.
    pub name: String,
    /// Since when all its workers have a key, by id.
    pub loaded: BTreeMap<String, Timestamp>,
    /// Keys of the ring that its status names: its workers mount them.
    pub known: BTreeSet<String>,
    /// Why nothing is to be published or used that its workers had once: they may not have it now.
    pub trouble: Option<String>,
    /// Since when partners get keys in its own manifest, without a break, by id; `None`: it publishes none.
    pub published: Option<BTreeMap<String, Timestamp>>,
    /// It can't publish now: what partners get is what it published before.
    pub unserved: bool,
    /// The packet key that its spec names for the manifest: no ring's is published then.
    pub inline: Option<String>,
    /// When traffic under a key was seen last, by id.
    pub last_used: BTreeMap<String, Timestamp>,
    /// What isn't finished and needs a key, by id: for people.
    pub needed_by: BTreeMap<String, String>,
    /// All that arrived before is taken in or refused, so that what it needed of a key is in the two above; by id.
    pub observed_until: BTreeMap<String, Timestamp>,
}

/// All that is observed of a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The DataShareProcessors that refer to it.
    pub processors: Vec<ProcessorView>,
    /// What counts as published of it: what was written, or what a person says; `None`: nothing yet.
    pub published: Option<PublicKeys>,
    /// What the ring wrote to be published; `None`: nothing yet.
    pub written: Option<PublicKeys>,
    /// Ids whose certificates a person says are issued.
    pub certified: BTreeSet<String>,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key, write its second copy, then its Secret.
    Create {
        /// Its number.
        number: i64,
    },
    /// Forget a version that was not written to its end: its Secret, if there is one, was never used.
    Forget {
        /// The key's id.
        id: String,
    },
    /// Note that every worker has it.
    NoteLoaded {
        /// The key's id.
        id: String,
        /// Since when.
        since: Timestamp,
    },
    /// Note that a person said that the certificate is issued.
    NoteCertified {
        /// The key's id.
        id: String,
    },
    /// Publish just these.
    Publish(PublicKeys),
    /// Note that it was seen in what is published.
    NotePublished {
        /// The key's id.
        id: String,
    },
    /// Use it for new work, instead of the one before.
    Promote {
        /// The key's id.
        id: String,
    },
    /// Take it from workers and manifest.
    Retire {
        /// The key's id.
        id: String,
    },
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a version waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// One word for what comes then, as `KeyRingStatus.next.step`.
    pub step: &'static str,
    /// The key's id; `None`: it isn't made yet.
    pub id: Option<String>,
    /// One of [`reasons`], for a version on its way to being used; else `None`.
    pub reason: Option<&'static str>,
    /// For a person.
    pub text: String,
    /// Not before; `None`: no time is known.
    pub at: Option<Timestamp>,
    /// Nothing but a person ends it.
    pub person: bool,
}

/// What to do, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Nothing is done, because of this.
    pub refusal: Option<Refusal>,
    /// What to do now; then look and decide again.
    pub step: Option<Step>,
    /// What happens later, next first. One a version at most, and one for the version after them.
    pub waits: Vec<Wait>,
}

impl Decision {
    /// When the first of the waits is over by itself.
    #[must_use]
    pub fn wake(&self) -> Option<Timestamp> {
        self.waits.iter().filter_map(|wait| wait.at).min()
    }
}

/// Decides.
#[must_use]
pub fn decide(settings: &Settings, record: &Record, observed: &Observed, now: Timestamp) -> Decision {
    let ring = Ring {
        settings,
        record,
        observed,
        now,
    };
    if let Some(refusal) = ring.refusal() {
        return Decision {
            refusal: Some(refusal),
            ..Decision::default()
        };
    }
    ring.decide()
}

/// What changes in the record by a step that is done; of [`Step::Create`] and [`Step::Publish`] nothing.
pub fn apply(record: &mut Record, step: &Step, now: Timestamp) {
    match step {
        Step::Create { .. } | Step::Publish(_) => {}
        Step::Forget { id } => record.versions.retain(|version| version.id != *id),
        Step::NoteLoaded { id, since } => set(record, id, |version| version.loaded = Some(*since)),
        Step::NoteCertified { id } => set(record, id, |version| version.certified = Some(now)),
        Step::NotePublished { id } => set(record, id, |version| version.published = Some(now)),
        Step::Promote { id } => {
            for version in &mut record.versions {
                if version.is_in_use() {
                    version.superseded = Some(now);
                }
            }
            set(record, id, |version| version.promoted = Some(now));
        }
        Step::Retire { id } => {
            set(record, id, |version| version.retired = Some(now));
            record.prune();
        }
    }
}

fn set(record: &mut Record, id: &str, change: impl FnOnce(&mut Version)) {
    if let Some(version) = record.version_mut(id) {
        change(version);
    }
}

struct Ring<'a> {
    settings: &'a Settings,
    record: &'a Record,
    observed: &'a Observed,
    now: Timestamp,
}

impl Ring<'_> {
    fn decide(&self) -> Decision {
        if let Some(version) = self.record.versions.iter().find(|version| version.written.is_none()) {
            return self.forget(version);
        }
        let active: Vec<&Version> = self
            .record
            .versions
            .iter()
            .filter(|version| version.is_active())
            .collect();
        let Some(youngest) = active.last() else {
            // The first is made even where versions don't follow each other.
            return self.create(Step::Create { number: self.number() });
        };
        let mut waits = Vec::new();
        for version in active.iter().rev() {
            match self.advance(version, &active) {
                Next::Step(step) => return self.step(step),
                Next::Wait(wait) => waits.push(wait),
                Next::Nothing => {}
            }
        }
        let wanted = self.wanted(&active);
        let written = self.observed.written.as_ref();
        if written != Some(&wanted) && !wanted.is_empty() {
            return match check_publication(self.settings.purpose, written, &wanted, self.record) {
                Ok(()) => self.step(Step::Publish(wanted)),
                Err(message) => refused(reasons::PUBLICATION_REFUSED, message),
            };
        }
        match self.retirement(&active) {
            Next::Step(step) => return self.step(step),
            Next::Wait(wait) => waits.push(wait),
            Next::Nothing => {}
        }
        match self.creation(youngest, active.len()) {
            Next::Step(step) => return self.create(step),
            Next::Wait(wait) => waits.push(wait),
            Next::Nothing => {}
        }
        // What is on its way comes first; then what has a time.
        waits.sort_by_key(|wait| (wait.reason.is_none(), wait.at.unwrap_or(Timestamp::MAX)));
        Decision {
            waits,
            ..Decision::default()
        }
    }

    fn step(&self, step: Step) -> Decision {
        Decision {
            step: Some(step),
            ..Decision::default()
        }
    }

    /// A key that couldn't be wrapped isn't made.
    fn create(&self, step: Step) -> Decision {
        match &self.settings.unusable_backup {
            Some(problem) => refused(reasons::BACKUP_REFUSED, problem.clone()),
            None => self.step(step),
        }
    }

    /// Nobody can have a key that was never written; where somebody has, the record is of another time.
    fn forget(&self, version: &Version) -> Decision {
        let id = &version.id;
        let is_known = self.observed.processors.iter().any(|one| one.known.contains(id));
        if is_known || self.is_published(version) || self.is_written(version) {
            let message = format!(
                "the record of versions says that {id} was not written to its end, and it is published or mounted: restore the \
                 ConfigMap with the ring's versions"
            );
            return refused(reasons::PUBLISHED_KEY_UNKNOWN, message);
        }
        self.step(Step::Forget { id: id.clone() })
    }

    fn after(&self, time: Timestamp, duration: SignedDuration) -> Timestamp {
        time.checked_add(duration).unwrap_or(Timestamp::MAX)
    }

    fn number(&self) -> i64 {
        let last = self.record.versions.last().map_or(0, |version| version.number);
        self.now.as_second().max(last.saturating_add(1))
    }

    /// Whether nobody but a person can tell what partners get.
    fn is_left_to_a_person(&self) -> bool {
        self.settings.publication == PublicationMethod::Manual || !self.observed.is_in_manifests()
    }
}

impl Observed {
    /// Whether a processor takes what is written into its own manifest.
    #[must_use]
    pub fn is_in_manifests(&self) -> bool {
        self.processors.iter().any(|processor| processor.published.is_some())
    }
}

fn refused(reason: &'static str, message: String) -> Decision {
    Decision {
        refusal: Some(Refusal { reason, message }),
        ..Decision::default()
    }
}

enum Next {
    Step(Step),
    Wait(Wait),
    Nothing,
}
