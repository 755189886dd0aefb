//! The end of a version.

use crds::key_ring::{KeyPurpose, RotationMode};
use jiff::Timestamp;

use super::{Next, ProcessorView, Ring, Step, Wait};
use crate::keys::version::Version;

impl Ring<'_> {
    /// Whether the oldest version may go.
    pub(super) fn retirement(&self, active: &[&Version]) -> Next {
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
                person: false,
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
                published.is_some_and(|published| published.contains_key(&oldest.id))
            };
            let is_public = self.is_published(oldest) || self.is_written(oldest);
            if is_public || self.observed.processors.iter().any(in_manifest) {
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
}
