//! What would happen to a ring and when, if nothing came in between: the decision itself, with the clock moved on. Pure.

use std::collections::BTreeMap;

use crds::key_ring::{KeyPurpose, PublicationMethod};
use jiff::{SignedDuration, Timestamp};

use super::decide::{Decision, Observed, Settings, Step, Wait, apply, decide};
use super::version::{Record, Version};

/// Looks that a forecast takes at most.
const MAX_LOOKS: usize = 500;

/// One step that would be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// When, at the earliest.
    pub at: Timestamp,
    /// What, for a person.
    pub what: String,
    /// What has to happen first that nobody knows the time of.
    pub if_first: Option<String>,
}

impl std::fmt::Display for Foreseen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.at.strftime("%Y-%m-%dT%H:%M:%SZ");
        match &self.if_first {
            None => write!(f, "{at}  {}", self.what),
            Some(first) => write!(f, "{at}  {}, after waiting for {first}", self.what),
        }
    }
}

/// The steps until `until`, at most `limit`. What nobody knows the time of (workers that load a key, a person, traffic that
/// ends) is taken to happen at once, and named.
#[must_use]
pub fn forecast(
    settings: &Settings,
    record: &Record,
    observed: &Observed,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Vec<Foreseen> {
    let mut future = Future {
        settings,
        record: record.clone(),
        observed: observed.clone(),
        now,
        if_first: None,
        steps: Vec::new(),
    };
    for _ in 0..MAX_LOOKS {
        if future.steps.len() >= limit || !future.look(until) {
            break;
        }
    }
    future.steps
}

/// What would be observed if another version were asked for now, by a value that was never answered.
#[must_use]
pub fn as_if_asked(record: &Record, observed: &Observed) -> Observed {
    let answered = record.rotation_answered.as_deref().unwrap_or_default();
    Observed {
        rotate: Some(format!("{answered}+")),
        ..observed.clone()
    }
}

struct Future<'a> {
    settings: &'a Settings,
    record: Record,
    observed: Observed,
    now: Timestamp,
    if_first: Option<String>,
    steps: Vec<Foreseen>,
}

impl Future<'_> {
    /// One look: a step, or time that passes. `false`: nothing more is known.
    fn look(&mut self, until: Timestamp) -> bool {
        let decision = decide(self.settings, &self.record, &self.observed, self.now);
        if let Some(refusal) = decision.refusal {
            self.say(format!("nothing: {}", refusal.message));
            return false;
        }
        if let Some(step) = decision.step {
            self.take(&step);
            return true;
        }
        if self.assume(&decision) {
            return true;
        }
        match decision.wake() {
            Some(wake) if wake > self.now && wake <= until => {
                self.now = wake;
                self.observe(wake);
                true
            }
            _ => false,
        }
    }

    /// Every processor has taken in all that came before.
    fn observe(&mut self, until: Timestamp) {
        for version in &self.record.versions {
            for processor in &mut self.observed.processors {
                processor.observed_until.insert(version.id.clone(), until);
            }
        }
    }

    fn say(&mut self, what: String) {
        self.steps.push(Foreseen {
            at: self.now,
            what,
            if_first: self.if_first.take(),
        });
    }

    fn take(&mut self, step: &Step) {
        let in_use = self
            .record
            .versions
            .iter()
            .find(|version| version.is_in_use())
            .map(|version| version.id.clone());
        match step {
            Step::Create { number } => self.create(*number),
            Step::Publish(keys) => {
                let ids: Vec<&str> = keys.keys().map(String::as_str).collect();
                self.say(format!("publish {}", ids.join(" and ")));
                if self.settings.publication == PublicationMethod::ConfigMap && self.observed.is_in_manifests() {
                    self.observed.published = Some(keys.clone());
                }
                self.observed.written = Some(keys.clone());
                // Manifests follow: what is new there is waited for, and named; what is gone just goes.
                for published in self.manifests() {
                    published.retain(|id, _| keys.contains_key(id));
                }
            }
            Step::Forget { id } => self.say(format!("forget {id}, which was not written to its end")),
            Step::Promote { id } => self.say(match in_use {
                Some(before) => format!("use {id} for new work instead of {before}"),
                None => format!("use {id} for new work"),
            }),
            Step::Retire { id } => self.say(format!(
                "retire {id}: workers don't mount it any more; its Secret stays"
            )),
            Step::NoteLoaded { id, .. } => self.say(format!("every worker has {id}")),
            Step::NoteCertified { id } => self.say(format!("the certificate of {id} is issued")),
            Step::NotePublished { .. } => {}
        }
        apply(&mut self.record, step, self.now);
    }

    /// What partners get in each processor's own manifest.
    fn manifests(&mut self) -> impl Iterator<Item = &mut BTreeMap<String, Timestamp>> {
        let processors = self.observed.processors.iter_mut();
        processors.filter_map(|processor| processor.published.as_mut())
    }

    fn create(&mut self, number: i64) {
        let id = super::version::key_id(&self.settings.key_id_prefix, number);
        let copy = self.settings.second_copy;
        self.say(if copy {
            format!("make {id}: its second copy, then its Secret")
        } else {
            format!("make {id}: its Secret; there is no second copy")
        });
        let text = Some(id.clone());
        let mut version = Version::new(number, id, self.now, text.clone().unwrap_or_default(), text);
        (version.backed_up, version.written) = (copy.then_some(self.now), Some(self.now));
        self.record.versions.push(version);
        self.record.rotation_answered.clone_from(&self.observed.rotate);
    }

    /// Takes the first wait without a time to be over.
    fn assume(&mut self, decision: &Decision) -> bool {
        let Some(wait) = decision.waits.iter().find(|wait| wait.at.is_none()) else {
            return false;
        };
        if self.observed.processors.is_empty() && wait.step == "Load" {
            self.if_first = Some(wait.text.clone());
            self.say("go on".to_owned());
            return false;
        }
        self.over(wait)
    }

    fn over(&mut self, wait: &Wait) -> bool {
        let id = wait.id.clone().unwrap_or_default();
        let (now, ring) = (self.now, &mut self.observed);
        match wait.step {
            "Load" => {
                for processor in &mut ring.processors {
                    processor.loaded.entry(id.clone()).or_insert(now);
                    processor.trouble = None;
                }
            }
            "Certify" => drop(ring.certified.insert(id)),
            "Publish" => {
                for processor in &mut ring.processors {
                    processor.unserved = false;
                    if let Some(published) = &mut processor.published {
                        if self.settings.purpose == KeyPurpose::PacketEncryption {
                            published.clear();
                        }
                        published.entry(id.clone()).or_insert(now);
                    }
                }
                ring.published.clone_from(&ring.written);
            }
            "Retire" if !ring.processors.is_empty() => {
                for processor in &mut ring.processors {
                    // One that was published before the plan begins, and isn't any more.
                    if let Some(published) = &mut processor.published {
                        published.remove(&id);
                    }
                    processor.needed_by.remove(&id);
                    processor.observed_until.insert(id.clone(), now);
                }
            }
            // Another version can't be made before the one on its way is used.
            _ => return false,
        }
        self.if_first = Some(wait.text.clone());
        true
    }
}

/// How far a forecast looks by default: one whole turn of the oldest and the youngest version.
#[must_use]
pub fn horizon(settings: &Settings, now: Timestamp) -> Timestamp {
    [
        settings.create_min_age,
        settings.retire_min_age,
        settings.no_traffic,
        SignedDuration::from_hours(24),
    ]
    .into_iter()
    .try_fold(now, |time, duration| time.checked_add(duration).ok())
    .unwrap_or(Timestamp::MAX)
}
