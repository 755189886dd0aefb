//! A ring with its controller, operators, workers and clients, by random events: clocks that jump, writes that fail or whose
//! answer is lost, controllers that die half-way or work on what is stale, operators that are away, Jobs that die, a KeyRing
//! that is deleted and applied again. Whatever happens, no key is used before it is published, published before every worker
//! has it, or retired while anything needs it.

mod cluster;
mod parties;

use std::collections::{BTreeMap, BTreeSet};

use crds::key_ring::{BackupMethod, KeyPurpose};
use crds::processor::Keys;
use facilitator_core::crypto::new_key::NewKey;
use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use cluster::{Cluster, Faulty};
use parties::{Batch, Processor, SimWindow};

use super::*;
use crate::keys::act::act;
use crate::keys::decide::Step;
use crate::keys::status::versions;

use KeyPurpose::{BatchSigning, PacketEncryption};

struct World {
    rng: StdRng,
    spec: KeyRingSpec,
    now: i64,
    rate: f64,
    cluster: Cluster,
    processors: Vec<Processor>,
    /// What the controller reads of the processors: what they said some time ago.
    seen: Vec<ProcessorView>,
    /// What an older controller still believes.
    stale: Option<(Record, u64, Observed)>,
    client: Option<(String, i64)>,
    /// Ids in the order in which they came into use.
    used: Vec<String>,
    retired: BTreeSet<String>,
}

impl World {
    fn new(seed: u64, purpose: KeyPurpose) -> Self {
        let mut spec = spec(purpose);
        spec.backup.method = BackupMethod::Age;
        let processor = |name: &str| Processor {
            name: name.to_owned(),
            status: None,
            proven: BTreeSet::new(),
            jobs: Vec::new(),
            waiting: Vec::new(),
            windows: BTreeMap::new(),
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            spec,
            now: 1_700_000_000,
            rate: 0.15,
            cluster: Cluster {
                status: Some(Vec::new()),
                ..Cluster::default()
            },
            processors: vec![processor("us-ct"), processor("us-ca")],
            seen: Vec::new(),
            stale: None,
            client: None,
            used: Vec::new(),
            retired: BTreeSet::new(),
        }
    }

    fn keys(&self) -> Keys {
        let other = json!({"secretRef": {"name": "other"}});
        let ring = json!({"keyRingRef": {"name": "ring"}});
        serde_json::from_value(match self.spec.purpose {
            BatchSigning => json!({"batchSigning": ring, "packetDecryption": [other]}),
            PacketEncryption => json!({"batchSigning": other, "packetDecryption": [ring]}),
        })
        .unwrap()
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(0..4);
        if self.rng.random_bool(0.002) {
            // Everybody sleeps.
            self.now += self.rng.random_range(0..400);
        }
        match self.rng.random_range(0..100) {
            0..30 => self.controller(),
            30..55 => {
                let index = self.rng.random_range(0..self.processors.len());
                self.operator(index);
            }
            55..75 => self.batch(),
            75..97 => self.workers(),
            97 => self.operator_restarts(),
            98 => self.ring_is_deleted_or_applied(),
            _ => self.stale_controller(),
        }
    }

    /// What the processors' statuses say; read late now and then.
    fn observe(&mut self) -> Observed {
        if self.seen.is_empty() || self.rng.random_bool(0.8) {
            self.seen = self
                .processors
                .iter()
                .map(|processor| {
                    crate::keys::observe::processor_view(&processor.name, "ring", false, processor.status.as_ref())
                })
                .collect();
        }
        Observed {
            processors: self.seen.clone(),
            published: self.cluster.published.clone(),
            ..Observed::default()
        }
    }

    fn controller(&mut self) {
        if self.cluster.status.is_none() {
            return;
        }
        let (record, read) = match &self.cluster.record {
            Some((text, version)) => (Record::read("ring", text, &self.spec).unwrap(), *version),
            None => (Record::new(&self.spec), 0),
        };
        let observed = self.observe();
        if self.rng.random_bool(0.05) {
            self.stale = Some((record.clone(), read, observed.clone()));
        }
        if let Some(record) = self.act(record, read, &observed)
            && self.rng.random_bool(0.9)
        {
            self.cluster.status = Some(versions("ring", &record, &[]));
        }
    }

    /// Another controller, which doesn't know yet that it isn't the one any more.
    fn stale_controller(&mut self) {
        if let Some((record, read, observed)) = self.stale.take() {
            self.act(record, read, &observed);
        }
    }

    /// Steps as long as there are any and all goes well.
    fn act(&mut self, mut record: Record, read: u64, observed: &Observed) -> Option<Record> {
        let settings = Settings::of(&self.spec);
        let (now, mut observed) = (self.time(), observed.clone());
        let mut read = read;
        for _ in 0..8 {
            let decision = decide(&settings, &record, &observed, now);
            assert_eq!(decision.refusal, None);
            let Some(step) = decision.step else { break };
            let before = record.clone();
            let purpose = self.spec.purpose;
            let mut keys = StdRng::seed_from_u64(self.rng.random());
            let mut vault = Faulty {
                cluster: &mut self.cluster,
                rng: &mut self.rng,
                rate: self.rate,
                read,
                now: self.now,
                workers: &self.processors,
            };
            let make = |id: &str| match purpose {
                BatchSigning => NewKey::batch_signing(id, &mut keys),
                PacketEncryption => NewKey::packet_encryption(id, "a.example", &mut keys),
            };
            let done = act(&mut vault, &mut record, &step, &observed, make, now)
                .now_or_never()
                .unwrap();
            read = vault.read;
            self.check(&before, &step);
            done.ok()?;
            observed.published.clone_from(&self.cluster.published);
        }
        Some(record)
    }

    /// What the record says now, whether or not anybody heard of the write.
    fn check(&mut self, before: &Record, step: &Step) {
        let Some((text, _)) = &self.cluster.record else { return };
        let record = Record::read("ring", text, &self.spec).unwrap();
        for version in &record.versions {
            if version.promoted.is_some() && !self.used.contains(&version.id) {
                self.used.push(version.id.clone());
            }
            let is_new = version.retired.is_some() && self.retired.insert(version.id.clone());
            if !is_new {
                continue;
            }
            for processor in &self.processors {
                let needs = |window: &&SimWindow| !window.over && window.needs.contains(&version.id);
                assert_eq!(
                    processor.windows.values().filter(needs).count(),
                    0,
                    "{step:?} {before:?}"
                );
                let jobs = processor.jobs.iter().flat_map(|job| &job.batches);
                let needs = |batch: &&Batch| {
                    [&batch.key, &batch.signer]
                        .into_iter()
                        .flatten()
                        .any(|id| *id == version.id)
                };
                assert_eq!(
                    processor.waiting.iter().chain(jobs).filter(needs).count(),
                    0,
                    "{} at {}",
                    version.id,
                    self.now
                );
            }
        }
    }

    /// What an operator only remembers is gone.
    fn operator_restarts(&mut self) {
        let index = self.rng.random_range(0..self.processors.len());
        self.processors[index].proven.clear();
    }

    fn ring_is_deleted_or_applied(&mut self) {
        self.cluster.status = match self.cluster.status {
            Some(_) if self.rng.random_bool(0.3) => None,
            _ => Some(self.cluster.status.take().unwrap_or_default()),
        };
    }
}

#[test]
fn no_order_of_events_loses_data() {
    let (mut rotations, mut retirements) = (0, 0);
    for seed in 0..40 {
        for purpose in [BatchSigning, PacketEncryption] {
            let mut world = World::new(seed, purpose);
            for _ in 0..1_500 {
                world.step();
            }
            // What fails comes back, and all goes on.
            world.rate = 0.0;
            world.cluster.status.get_or_insert_default();
            let used = world.used.len();
            for _ in 0..1_000 {
                world.step();
            }
            world.cluster.status.get_or_insert_default();
            assert!(
                world.used.len() > used,
                "seed {seed}, {purpose:?}: stuck at {:?}",
                world.cluster.record
            );
            rotations += world.used.len() - 1;
            retirements += world.retired.len();
        }
    }
    assert!(
        rotations > 400 && retirements > 150,
        "{rotations} rotations, {retirements} retirements"
    );
}
