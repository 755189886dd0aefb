//! The next version.

use crds::key_ring::RotationMode;
use jiff::Timestamp;

use super::{Next, Ring, Step, Wait};
use crate::keys::version::Version;

impl Ring<'_> {
    /// Whether another version is to be made.
    pub(super) fn creation(&self, youngest: &Version, active: usize) -> Next {
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
                person: false,
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
