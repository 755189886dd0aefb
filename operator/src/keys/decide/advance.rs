//! A version's way to being used.

use crds::conditions::reasons;
use crds::key_ring::{CertificateAuthority, KeyPurpose, PublicationMethod};
use crds::names::{CERTIFICATE_ISSUED_ANNOTATION, PUBLISHED_ANNOTATION};
use jiff::Timestamp;

use super::{Next, ProcessorView, Ring, Step, Wait};
use crate::keys::version::Version;

impl Ring<'_> {
    /// The version's next step on its way to being used, or what it waits for.
    pub(super) fn advance(&self, version: &Version, active: &[&Version]) -> Next {
        let in_use = active.iter().find(|other| other.is_in_use());
        // One that is older than the one in use is only kept for old work.
        if version.promoted.is_some() || in_use.is_some_and(|in_use| in_use.number > version.number) {
            return Next::Nothing;
        }
        let id = || version.id.clone();
        let waits = |step, reason, text: String, at, person| {
            Next::Wait(Wait {
                step,
                id: Some(version.id.clone()),
                reason: Some(reason),
                text,
                at,
                person,
            })
        };
        let wait = |step, reason, text, at| waits(step, reason, text, at, false);
        let unpublished = |(text, person)| waits("Publish", reasons::WAITS_FOR_PUBLICATION, text, None, person);
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
            return waits("Certify", reasons::WAITS_FOR_CERTIFICATE, text, None, true);
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
        // It was loaded once, and may be lost since.
        if let Err(text) = self.still_loaded(version) {
            return wait("Load", reasons::WAITS_FOR_LOADING, text, None);
        }
        if version.published.is_none() {
            if self.is_published(version) {
                return match self.not_in_manifests(version) {
                    None => Next::Step(Step::NotePublished { id: id() }),
                    Some(wait) => unpublished(wait),
                };
            }
            let wanted = self.wanted(active);
            // Publishing is one step for all versions, and comes before anybody is asked to.
            if !self.is_left_to_a_person() || self.observed.written.as_ref() != Some(&wanted) {
                return Next::Nothing;
            }
            let ids: Vec<&str> = wanted.keys().map(String::as_str).collect();
            let why = match self.settings.publication {
                PublicationMethod::Manual => "",
                PublicationMethod::ConfigMap => ": no DataShareProcessor that refers to this KeyRing has spec.manifest",
            };
            let text = format!(
                "a person{why}: publish just {}, as in the ring's ConfigMap with what is public, then annotate this KeyRing \
                 with {PUBLISHED_ANNOTATION}={}",
                ids.join(" and "),
                ids.join(",")
            );
            return unpublished((text, true));
        }
        // Used only while partners can see it: what is published may have been changed since.
        if !self.is_published(version) {
            let text = format!("{} to be seen in what is published again", version.id);
            return unpublished((text, self.is_left_to_a_person()));
        }
        if let Some(wait) = self.not_in_manifests(version) {
            return unpublished(wait);
        }
        if self.settings.purpose == KeyPurpose::BatchSigning && !is_first {
            let public = version.published.unwrap_or(Timestamp::MAX);
            let seen = self.observed.processors.iter();
            // Whoever lost sight of it counts from when it was seen again.
            let since = seen
                .filter_map(|processor| processor.published.as_ref()?.get(&version.id))
                .fold(version.created.max(public), |since, seen| since.max(*seen));
            let due = self.after(since, self.settings.primary_min_age);
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

    pub(super) fn is_published(&self, version: &Version) -> bool {
        self.observed
            .published
            .as_ref()
            .is_some_and(|keys| keys.contains_key(&version.id))
    }

    pub(super) fn is_written(&self, version: &Version) -> bool {
        let written = self.observed.written.as_ref();
        written.is_some_and(|keys| keys.contains_key(&version.id))
    }

    /// Whose own manifest partners don't get it in, and whether that is for a person to mend.
    fn not_in_manifests(&self, version: &Version) -> Option<(String, bool)> {
        let lacks = |processor: &&ProcessorView| {
            let published = processor.published.as_ref();
            published.is_some_and(|published| !published.contains_key(&version.id) || processor.unserved)
        };
        if self.settings.purpose == KeyPurpose::PacketEncryption {
            let inline = |processor: &ProcessorView| {
                let inline = processor.inline.as_ref().filter(|id| **id != version.id)?;
                Some(format!(
                    "packetEncryptionKey to be taken out of spec.manifest of {}: partners get {inline} there instead of {}",
                    processor.name, version.id
                ))
            };
            if let Some(text) = self.observed.processors.iter().filter(lacks).find_map(inline) {
                return Some((text, true));
            }
        }
        let names: Vec<&str> = (self.observed.processors.iter().filter(lacks))
            .map(|processor| processor.name.as_str())
            .collect();
        (!names.is_empty()).then(|| {
            let text = format!(
                "partners to get {} in the manifest of {}: see ManifestPublished there",
                version.id,
                names.join(", ")
            );
            (text, false)
        })
    }

    /// Whether every worker of every processor has it now, as far as is known.
    pub(super) fn still_loaded(&self, version: &Version) -> Result<(), String> {
        self.loaded(version)?;
        let mut processors = self.observed.processors.iter();
        match processors.find_map(|processor| processor.trouble.as_ref()) {
            Some(trouble) => Err(format!("{trouble}: {} may be lost to workers", version.id)),
            None => Ok(()),
        }
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
}
