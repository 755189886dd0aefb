#![allow(clippy::unwrap_used)]

mod faults;
mod forecast;
mod notes;
mod observations;
mod refusals;
mod simulation;
mod steps;

use std::collections::BTreeMap;

use crds::KeyRingSpec;
use crds::key_ring::KeyPurpose;
use jiff::Timestamp;
use serde_json::json;

use super::decide::{Decision, Observed, ProcessorView, Settings, decide};
use super::version::{Record, Version, key_id};

/// Seconds since the first version was made.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn id(seconds: i64) -> String {
    key_id("k", 1_700_000_000 + seconds)
}

/// Ages in seconds that are easy to read: used after 10, followed after 100, retired after 300 and 50 without traffic.
fn spec(purpose: KeyPurpose) -> KeyRingSpec {
    let mut spec = json!({
        "purpose": purpose,
        "keyIdPrefix": "k",
        "rotation": {
            "createMinAgeSeconds": 100, "primaryMinAgeSeconds": 10, "retireMinAgeSeconds": 300, "retireMinCount": 1,
            "noTrafficSeconds": 50,
        },
        "backup": {"method": "None"},
    });
    if purpose == KeyPurpose::PacketEncryption {
        spec["certificate"] = json!({"commonName": "a.example"});
    }
    serde_json::from_value(spec).unwrap()
}

/// A ring at a moment.
struct Ring {
    spec: KeyRingSpec,
    record: Record,
    observed: Observed,
}

impl Ring {
    /// With one processor that has a manifest, and nothing else.
    fn new(purpose: KeyPurpose) -> Self {
        let spec = spec(purpose);
        let processor = ProcessorView {
            name: "us-ct".into(),
            published: Some(BTreeMap::new()),
            ..ProcessorView::default()
        };
        Self {
            record: Record::new(&spec),
            spec,
            observed: Observed {
                processors: vec![processor],
                ..Observed::default()
            },
        }
    }

    /// With a first version that is in use since second 5, and public.
    fn in_use(purpose: KeyPurpose) -> Self {
        let mut ring = Self::new(purpose);
        ring.add(0, |version| {
            (version.loaded, version.published, version.promoted) = (Some(at(3)), Some(at(4)), Some(at(5)));
        });
        ring.publish(&[0]);
        ring
    }

    /// A version that is written when it is made.
    fn add(&mut self, created: i64, change: impl FnOnce(&mut Version)) {
        let request = (self.spec.purpose == KeyPurpose::PacketEncryption).then(|| format!("request {created}"));
        let number = 1_700_000_000 + created;
        let mut version = Version::new(number, id(created), at(created), format!("public {created}"), request);
        version.written = Some(at(created));
        change(&mut version);
        self.record.versions.push(version);
    }

    fn version(&mut self, created: i64) -> &mut Version {
        self.record.version_mut(&id(created)).unwrap()
    }

    fn publish(&mut self, created: &[i64]) {
        let texts = created.iter().map(|created| {
            let version = self.record.version(&id(*created)).unwrap();
            (version.id.clone(), version.public_text().to_owned())
        });
        self.observed.published = Some(texts.collect());
        self.observed.written.clone_from(&self.observed.published);
        self.seen_since(created, 0);
    }

    /// Partners get just these in every manifest, since then.
    fn seen_since(&mut self, created: &[i64], since: i64) {
        for published in self
            .observed
            .processors
            .iter_mut()
            .filter_map(|one| one.published.as_mut())
        {
            *published = created.iter().map(|created| (id(*created), at(since))).collect();
        }
    }

    fn load(&mut self, created: i64, since: i64) {
        self.observed.processors[0].loaded.insert(id(created), at(since));
    }

    fn decide(&self, now: i64) -> Decision {
        decide(&Settings::of(&self.spec), &self.record, &self.observed, at(now))
    }
}
