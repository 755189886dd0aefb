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
}
