//! What to do about a ring: pure. The order is safe by construction: a version is written and backed up, then proven
//! loaded, then published, then used, then (superseded and without traffic for long enough) retired. Where anything
//! looks as the original's rotator refuses to see it, nothing is done and the refusal says why.

use std::collections::{BTreeMap, BTreeSet};

use crds::KeyRingSpec;
use crds::conditions::reasons;
use crds::key_ring::{CertificateAuthority, KeyPurpose, PublicationMethod, RotationMode};
use crds::names::{CERTIFICATE_ISSUED_ANNOTATION, PUBLISHED_ANNOTATION};
use jiff::{SignedDuration, Timestamp};

use super::version::{PublicKeys, Record, Version, key_id};

/// How far another machine's clock may be ahead.
const CLOCK_LEEWAY: SignedDuration = SignedDuration::from_mins(1);
/// A signing key is public for so long before it signs.
const SIGNING_PRIMARY_MIN_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A packet key is so old before clients are told to encrypt to it.
const PACKET_PRIMARY_MIN_AGE: SignedDuration = SignedDuration::from_hours(23);
/// Versions that workers mount at once: the policies look at so many Secrets, and a pod has so many volumes.
const MAX_SIGNING_VERSIONS: usize = 4;
const MAX_PACKET_VERSIONS: usize = 8;

/// A ring's settings, from its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the keys are for.
    pub purpose: KeyPurpose,
    /// Whether versions follow each other.
    pub mode: RotationMode,
    /// Age of the youngest at which another is made.
    pub create_min_age: SignedDuration,
    /// Age, and time since it is public, at which a version is used.
    pub primary_min_age: SignedDuration,
    /// Age at which a version may be retired.
    pub retire_min_age: SignedDuration,
    /// Versions that stay.
    pub retire_min_count: usize,
    /// How long no traffic under a version must have been seen before it is retired.
    pub no_traffic: SignedDuration,
    /// Who issues certificates.
    pub authority: CertificateAuthority,
    /// Who publishes.
    pub publication: PublicationMethod,
    /// What key ids begin with.
    pub key_id_prefix: String,
}

impl Settings {
    /// Of a spec.
    #[must_use]
    pub fn of(spec: &KeyRingSpec) -> Self {
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        let rotation = &spec.rotation;
        let create_min_age = seconds(rotation.create_min_age_seconds);
        let primary = match spec.purpose {
            KeyPurpose::BatchSigning => SIGNING_PRIMARY_MIN_AGE,
            KeyPurpose::PacketEncryption => PACKET_PRIMARY_MIN_AGE,
        };
        Self {
            purpose: spec.purpose,
            mode: rotation.mode,
            create_min_age,
            // A default never contradicts what is written.
            primary_min_age: rotation
                .primary_min_age_seconds
                .map_or(primary.min(create_min_age), seconds),
            retire_min_age: seconds(rotation.retire_min_age_seconds),
            retire_min_count: usize::try_from(rotation.retire_min_count).unwrap_or(usize::MAX),
            no_traffic: seconds(rotation.no_traffic_seconds),
            authority: spec
                .certificate
                .as_ref()
                .map_or(CertificateAuthority::None, |certificate| certificate.authority),
            publication: spec.publication.method,
            key_id_prefix: spec.key_id_prefix.clone(),
        }
    }

    fn max_versions(&self) -> usize {
        match self.purpose {
            KeyPurpose::BatchSigning => MAX_SIGNING_VERSIONS,
            KeyPurpose::PacketEncryption => MAX_PACKET_VERSIONS,
        }
    }
}

/// What a DataShareProcessor that refers to the ring says of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorView {
    /// Its name.
    pub name: String,
    /// Since when all its workers have a key, by id.
    pub loaded: BTreeMap<String, Timestamp>,
    /// Ids of keys that partners get in its own manifest; `None`: it publishes none.
    pub published: Option<BTreeSet<String>>,
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
    /// What is published of it; `None`: nothing yet.
    pub published: Option<PublicKeys>,
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
    /// What the original's rotator refuses before it does anything.
    fn refusal(&self) -> Option<Refusal> {
        let refused = |reason, message| Some(Refusal { reason, message });
        let settings = self.settings;
        if settings.primary_min_age > settings.create_min_age || settings.create_min_age > settings.retire_min_age {
            let message =
                "spec.rotation: primaryMinAgeSeconds must not exceed createMinAgeSeconds, nor that retireMinAgeSeconds";
            return refused(reasons::AGES_REFUSED, message.to_owned());
        }
        let latest = self.after(self.now, CLOCK_LEEWAY);
        if let Some(version) = self.record.versions.iter().find(|version| version.created > latest) {
            let message = format!(
                "{} was made at {}, and now is {}: nothing is done until the clocks agree",
                version.id, version.created, self.now
            );
            return refused(reasons::VERSION_FROM_FUTURE, message);
        }
        for (id, text) in self.observed.published.iter().flatten() {
            let Some(version) = self.record.version(id) else {
                let message = format!(
                    "the key {id} is published and this ring doesn't have it: partners use a key that nobody here may have. \
                     Restore the ConfigMap with the ring's versions, or take the key out of what is published"
                );
                return refused(reasons::PUBLISHED_KEY_UNKNOWN, message);
            };
            if version.public_text().trim() != text.trim() {
                let message = format!(
                    "another key than this ring's is published under the id {id}: find out who put it there, and publish the \
                     ring's again"
                );
                return refused(reasons::PUBLISHED_KEY_DIFFERS, message);
            }
        }
        None
    }

    fn decide(&self) -> Decision {
        if let Some(version) = self.record.versions.iter().find(|version| version.written.is_none()) {
            return self.step(Step::Forget { id: version.id.clone() });
        }
        let active: Vec<&Version> = self
            .record
            .versions
            .iter()
            .filter(|version| version.is_active())
            .collect();
        let Some(youngest) = active.last() else {
            // The first is made even where versions don't follow each other.
            return self.step(Step::Create { number: self.number() });
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
        if self.observed.published.as_ref() != Some(&wanted) && !wanted.is_empty() && !self.is_left_to_a_person() {
            return match check_publication(
                self.settings.purpose,
                self.observed.published.as_ref(),
                &wanted,
                self.record,
            ) {
                Ok(()) => self.step(Step::Publish(wanted)),
                Err(message) => Decision {
                    refusal: Some(Refusal {
                        reason: reasons::PUBLICATION_REFUSED,
                        message,
                    }),
                    ..Decision::default()
                },
            };
        }
        match self.retirement(&active) {
            Next::Step(step) => return self.step(step),
            Next::Wait(wait) => waits.push(wait),
            Next::Nothing => {}
        }
        match self.creation(youngest, active.len()) {
            Next::Step(step) => return self.step(step),
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

    fn after(&self, time: Timestamp, duration: SignedDuration) -> Timestamp {
        time.checked_add(duration).unwrap_or(Timestamp::MAX)
    }

    fn number(&self) -> i64 {
        let last = self.record.versions.last().map_or(0, |version| version.number);
        self.now.as_second().max(last.saturating_add(1))
    }

    fn is_left_to_a_person(&self) -> bool {
        self.settings.publication == PublicationMethod::Manual
    }

    /// The version's next step on its way to being used, or what it waits for.
    fn advance(&self, version: &Version, active: &[&Version]) -> Next {
        let in_use = active.iter().find(|other| other.is_in_use());
        // One that is older than the one in use is only kept for old work.
        if version.promoted.is_some() || in_use.is_some_and(|in_use| in_use.number > version.number) {
            return Next::Nothing;
        }
        let id = || version.id.clone();
        let wait = |step, reason, text: String, at| {
            Next::Wait(Wait {
                step,
                id: Some(version.id.clone()),
                reason: Some(reason),
                text,
                at,
            })
        };
        if version.loaded.is_none() {
            return match self.loaded(version) {
                Ok(since) => Next::Step(Step::NoteLoaded { id: id(), since }),
                Err(text) => wait("Load", reasons::WAITS_FOR_LOADING, text, None),
            };
        }
        if self.settings.authority == CertificateAuthority::External && version.certified.is_none() {
            if self.observed.certified.contains(&version.id) {
                return Next::Step(Step::NoteCertified { id: id() });
            }
            let text = format!(
                "a person: bring the certificate signing request of {} to the authority; when the certificate is there, \
                 annotate this KeyRing with {CERTIFICATE_ISSUED_ANNOTATION}={}",
                version.id, version.id
            );
            return wait("Certify", reasons::WAITS_FOR_CERTIFICATE, text, None);
        }
        let is_first = in_use.is_none();
        // Clients encrypt to a packet key as soon as it is published: it must be old enough before.
        if self.settings.purpose == KeyPurpose::PacketEncryption && version.published.is_none() && !is_first {
            let due = self.after(version.created, self.settings.primary_min_age);
            if due > self.now {
                let text = format!("primaryMinAgeSeconds: {} is used from then on", version.id);
                return wait("Publish", reasons::WAITS_FOR_AGE, text, Some(due));
            }
        }
        if version.published.is_none() {
            if self.is_published(version) {
                return match self.not_in_manifests(version) {
                    None => Next::Step(Step::NotePublished { id: id() }),
                    Some(text) => wait("Publish", reasons::WAITS_FOR_PUBLICATION, text, None),
                };
            }
            let wanted = self.wanted(active);
            if !self.is_left_to_a_person() {
                // Publishing is one step for all versions, below.
                return Next::Nothing;
            }
            let ids: Vec<&str> = wanted.keys().map(String::as_str).collect();
            let text = format!(
                "a person: publish just {}, then annotate this KeyRing with {PUBLISHED_ANNOTATION}={}",
                ids.join(" and "),
                ids.join(",")
            );
            return wait("Publish", reasons::WAITS_FOR_PUBLICATION, text, None);
        }
        // Used only while partners can see it: what is published may have been changed since.
        if !self.is_published(version) {
            let text = format!("{} to be seen in what is published again", version.id);
            return wait("Publish", reasons::WAITS_FOR_PUBLICATION, text, None);
        }
        if let Some(text) = self.not_in_manifests(version) {
            return wait("Publish", reasons::WAITS_FOR_PUBLICATION, text, None);
        }
        if self.settings.purpose == KeyPurpose::BatchSigning && !is_first {
            let public = version.published.unwrap_or(Timestamp::MAX);
            let due = self.after(version.created.max(public), self.settings.primary_min_age);
            if due > self.now {
                let text = format!(
                    "primaryMinAgeSeconds: partners have known {} for so long then",
                    version.id
                );
                return wait("Use", reasons::WAITS_FOR_AGE, text, Some(due));
            }
        }
        Next::Step(Step::Promote { id: id() })
    }

    fn is_published(&self, version: &Version) -> bool {
        self.observed
            .published
            .as_ref()
            .is_some_and(|keys| keys.contains_key(&version.id))
    }

    /// Whose own manifest partners don't get it in.
    fn not_in_manifests(&self, version: &Version) -> Option<String> {
        let lacks = |processor: &&ProcessorView| {
            let published = processor.published.as_ref();
            published.is_some_and(|published| !published.contains(&version.id))
        };
        let names: Vec<&str> = (self.observed.processors.iter().filter(lacks))
            .map(|processor| processor.name.as_str())
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "partners to get {} in the manifest of {}: see ManifestPublished there",
                version.id,
                names.join(", ")
            )
        })
    }

    /// Since when every worker of every processor has it.
    fn loaded(&self, version: &Version) -> Result<Timestamp, String> {
        let processors = &self.observed.processors;
        if processors.is_empty() {
            return Err(
                "a DataShareProcessor that refers to this KeyRing: its workers must have the key first".to_owned(),
            );
        }
        let missing: Vec<&str> = processors
            .iter()
            .filter(|processor| !processor.loaded.contains_key(&version.id))
            .map(|processor| processor.name.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "the workers of {} to have {}: a probe Job under each stage's account shows it",
                missing.join(", "),
                version.id
            ));
        }
        let written = version.written.unwrap_or(self.now);
        Ok(processors
            .iter()
            .filter_map(|processor| processor.loaded.get(&version.id))
            .fold(written, |a, b| a.max(*b)))
    }

    /// What must be public now.
    fn wanted(&self, active: &[&Version]) -> PublicKeys {
        let in_use = active.iter().find(|version| version.is_in_use());
        let of = |version: &&Version| (version.id.clone(), version.public_text().to_owned());
        match self.settings.purpose {
            // All that partners may meet a signature of.
            KeyPurpose::BatchSigning => active
                .iter()
                .filter(|version| version.published.is_some() || version.loaded.is_some())
                .map(|version| of(version))
                .collect(),
            // Just one.
            KeyPurpose::PacketEncryption => {
                let may_be_next = |version: &&&Version| {
                    let is_younger = in_use.is_none_or(|in_use| in_use.number < version.number);
                    let is_old = self.after(version.created, self.settings.primary_min_age) <= self.now;
                    let certified =
                        self.settings.authority == CertificateAuthority::None || version.certified.is_some();
                    is_younger && version.loaded.is_some() && certified && (is_old || in_use.is_none())
                };
                active
                    .iter()
                    .rfind(may_be_next)
                    .or(in_use)
                    .map(of)
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Whether the oldest version may go.
    fn retirement(&self, active: &[&Version]) -> Next {
        let (Some(oldest), Some(in_use)) = (active.first(), active.iter().find(|version| version.is_in_use())) else {
            return Next::Nothing;
        };
        if self.settings.mode == RotationMode::Disabled
            || oldest.number >= in_use.number
            || active.len() <= self.settings.retire_min_count
        {
            return Next::Nothing;
        }
        let wait = |text: String, at| {
            Next::Wait(Wait {
                step: "Retire",
                id: Some(oldest.id.clone()),
                reason: None,
                text,
                at,
            })
        };
        let due = self.after(oldest.created, self.settings.retire_min_age);
        if due > self.now {
            return wait(format!("retireMinAgeSeconds of {}", oldest.id), Some(due));
        }
        if self.observed.processors.is_empty() {
            return wait(
                "a DataShareProcessor that refers to this KeyRing, to say whether the key is needed".to_owned(),
                None,
            );
        }
        if self.settings.purpose == KeyPurpose::PacketEncryption {
            let in_manifest = |processor: &ProcessorView| {
                let published = processor.published.as_ref();
                published.is_some_and(|published| published.contains(&oldest.id))
            };
            if self.is_published(oldest) || self.observed.processors.iter().any(in_manifest) {
                let text = format!("{} to vanish from what is published: clients encrypt to it", oldest.id);
                return wait(text, None);
            }
        }
        // A key that was never used for new work is quiet since there is another.
        let left = oldest.superseded.or(in_use.promoted).unwrap_or(self.now);
        let mut latest: Option<(Timestamp, &str)> = None;
        for processor in &self.observed.processors {
            if let Some(what) = processor.needed_by.get(&oldest.id) {
                return wait(format!("{}, which needs {}: {what}", processor.name, oldest.id), None);
            }
            let since = processor.last_used.get(&oldest.id).map_or(left, |used| left.max(*used));
            let quiet = self.after(since, self.settings.no_traffic);
            match processor.observed_until.get(&oldest.id).copied() {
                Some(until) if until >= quiet => {}
                // Time passes, but what came since isn't all taken in.
                Some(until) if quiet <= self.now => {
                    let text = format!(
                        "{} to take in what came before {quiet}: it is through with what came before {until}",
                        processor.name
                    );
                    return wait(text, None);
                }
                Some(_) => latest = latest.max(Some((quiet, &processor.name))),
                None => return wait(format!("{} to say what it has seen", processor.name), None),
            }
        }
        match latest {
            Some((quiet, name)) => {
                let text = format!("noTrafficSeconds without traffic under {} at {name}", oldest.id);
                wait(text, Some(quiet))
            }
            None => Next::Step(Step::Retire { id: oldest.id.clone() }),
        }
    }

    /// Whether another version is to be made.
    fn creation(&self, youngest: &Version, active: usize) -> Next {
        let asked = self.observed.rotate.is_some() && self.observed.rotate != self.record.rotation_answered;
        let due = self.after(youngest.created, self.settings.create_min_age);
        if !asked && self.settings.mode == RotationMode::Disabled {
            return Next::Nothing;
        }
        let wait = |text: String, at| {
            Next::Wait(Wait {
                step: "Create",
                id: None,
                reason: None,
                text,
                at,
            })
        };
        if !asked && due > self.now {
            return wait(format!("createMinAgeSeconds of {}", youngest.id), Some(due));
        }
        if youngest.promoted.is_none() {
            return wait(
                format!("{} to be used: one version is on its way at a time", youngest.id),
                None,
            );
        }
        if active >= self.settings.max_versions() {
            return wait(
                format!("old versions to be retired: {active} are active, and workers mount no more"),
                None,
            );
        }
        let number = self.number();
        if number > self.now.as_second() {
            return wait(
                "the next second: versions are numbered by it".to_owned(),
                Timestamp::from_second(number).ok(),
            );
        }
        Next::Step(Step::Create { number })
    }
}

enum Next {
    Step(Step),
    Wait(Wait),
    Nothing,
}

/// What the original's rotator refuses to publish.
///
/// # Errors
/// What is wrong, for a person.
pub fn check_publication(
    purpose: KeyPurpose,
    before: Option<&PublicKeys>,
    after: &PublicKeys,
    record: &Record,
) -> Result<(), String> {
    if after.is_empty() {
        return Err("there would be no key in what is published".to_owned());
    }
    for (id, text) in after {
        let version = record.version(id).filter(|version| version.is_active());
        let version =
            version.ok_or_else(|| format!("{id} would be published and is no active version of this ring"))?;
        if version.loaded.is_none() && version.published.is_none() {
            return Err(format!("{id} would be published before every worker has it"));
        }
        if version.public_text() != text || key_id(&record.key_id_prefix, version.number) != *id {
            return Err(format!("another key would be published under the id {id}"));
        }
        if before
            .and_then(|before| before.get(id))
            .is_some_and(|before| before.trim() != text.trim())
        {
            return Err(format!(
                "the published text of {id} would change although its key doesn't"
            ));
        }
    }
    match purpose {
        KeyPurpose::PacketEncryption if after.len() != 1 => Err(format!(
            "{} packet keys would be published: a manifest holds just one",
            after.len()
        )),
        KeyPurpose::BatchSigning => {
            let known = record
                .versions
                .iter()
                .filter(|version| version.is_active() && version.published.is_some());
            let left_out: Vec<&str> = known
                .filter(|version| !after.contains_key(&version.id))
                .map(|version| version.id.as_str())
                .collect();
            if left_out.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "{} would vanish from what is published, and may still sign",
                    left_out.join(", ")
                ))
            }
        }
        KeyPurpose::PacketEncryption => Ok(()),
    }
}
