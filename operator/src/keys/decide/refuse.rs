//! What stops everything.

use crds::conditions::reasons;
use jiff::SignedDuration;

use super::{Refusal, Ring};

/// How far another machine's clock may be ahead.
const CLOCK_LEEWAY: SignedDuration = SignedDuration::from_mins(1);

impl Ring<'_> {
    /// What the original's rotator refuses before it does anything.
    pub(super) fn refusal(&self) -> Option<Refusal> {
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
        for processor in &self.observed.processors {
            let strange = processor.known.iter().find(|id| self.record.version(id).is_none());
            if let Some(id) = strange {
                let message = format!(
                    "{} works with the key {id} of this ring, and the ring doesn't have it. Restore the ConfigMap with the \
                     ring's versions; to begin anew, make a KeyRing of another name",
                    processor.name
                );
                return refused(reasons::PUBLISHED_KEY_UNKNOWN, message);
            }
        }
        let observed = self.observed;
        for (id, text) in [&observed.published, &observed.written].into_iter().flatten().flatten() {
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
}
