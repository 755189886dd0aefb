//! A ring with its controller, operators, workers and clients, by random events: clocks that jump, writes that fail or whose
//! answer is lost, controllers that die half-way or work on what is stale, operators that are away, Jobs that die, a KeyRing
//! that is deleted and applied again. Whatever happens, no key is used before it is published, published before every worker
//! has it, or retired while anything needs it.

use std::collections::{BTreeMap, BTreeSet};

use crds::key_ring::{BackupMethod, KeyPurpose, VersionState};
use crds::processor::{Keys, KeysStatus};
use facilitator_core::crypto::new_key::NewKey;
use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::keys::act::{Vault, act};
use crate::keys::decide::Step;
use crate::keys::status::versions;
use crate::keys::version::PublicKeys;
use crate::processor::keys::{Ring as ReadRing, resolve};

use KeyPurpose::{BatchSigning, PacketEncryption};

/// Clients take the published key anew at least so often; with the way of a batch it is less than `noTrafficSeconds`.
const CLIENT_CACHE: i64 = 30;
const BATCH_DELAY: i64 = 10;
const WINDOW: i64 = 60;

/// What happens to a write.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It isn't done.
    Before,
    /// It is done, and nobody hears of it.
    Lost,
}

#[derive(Debug, snafu::Snafu)]
#[snafu(display("no answer"))]
struct NoAnswer;

/// What the API server holds.
#[derive(Default)]
struct Cluster {
    record: Option<(String, u64)>,
    secrets: BTreeSet<i64>,
    backups: BTreeSet<i64>,
    published: Option<PublicKeys>,
    published_since: BTreeMap<String, i64>,
    /// `status.versions` of the KeyRing; `None`: there is no KeyRing.
    status: Option<Vec<crds::key_ring::KeyVersion>>,
}

struct Faulty<'a> {
    cluster: &'a mut Cluster,
    rng: &'a mut StdRng,
    rate: f64,
    read: u64,
    now: i64,
    workers: &'a [Processor],
}

impl Faulty<'_> {
    fn fault(&mut self) -> Fault {
        match self.rng.random_bool(self.rate) {
            false => Fault::None,
            true if self.rng.random_bool(0.5) => Fault::Before,
            true => Fault::Lost,
        }
    }

    fn write(&mut self, change: impl FnOnce(&mut Self) -> Result<(), NoAnswer>) -> Result<(), NoAnswer> {
        let fault = self.fault();
        if fault != Fault::Before {
            change(self)?;
        }
        if fault == Fault::None { Ok(()) } else { Err(NoAnswer) }
    }
}

impl Vault for Faulty<'_> {
    type Error = NoAnswer;

    async fn write_record(&mut self, record: &Record) -> Result<(), NoAnswer> {
        let text = record.to_text().unwrap();
        self.write(|vault| {
            let there = vault.cluster.record.as_ref().map_or(0, |(_, version)| *version);
            if there != vault.read {
                return Err(NoAnswer);
            }
            vault.read += 1;
            vault.cluster.record = Some((text, vault.read));
            Ok(())
        })
    }

    async fn write_backup(&mut self, number: i64, _: &NewKey) -> Result<bool, NoAnswer> {
        self.write(|vault| vault.cluster.backups.insert(number).then_some(()).ok_or(NoAnswer))?;
        Ok(true)
    }

    async fn write_secret(&mut self, number: i64, _: &NewKey) -> Result<(), NoAnswer> {
        self.write(|vault| {
            assert!(
                vault.cluster.backups.contains(&number),
                "a Secret is written before its second copy"
            );
            // A name that is taken is refused.
            vault.cluster.secrets.insert(number).then_some(()).ok_or(NoAnswer)
        })
    }

    async fn publish(&mut self, keys: &PublicKeys) -> Result<(), NoAnswer> {
        self.write(|vault| {
            for id in keys.keys() {
                let is_new = vault
                    .cluster
                    .published
                    .as_ref()
                    .is_none_or(|before| !before.contains_key(id));
                for processor in vault.workers.iter().filter(|_| is_new) {
                    for job in &processor.jobs {
                        assert!(
                            job.mounts.contains(id),
                            "{id} is published before a Job of {} has it",
                            processor.name
                        );
                    }
                }
                if is_new {
                    vault.cluster.published_since.insert(id.clone(), vault.now);
                }
            }
            vault.cluster.published = Some(keys.clone());
            Ok(())
        })
    }
}

#[derive(Clone)]
struct Batch {
    arrived: i64,
    window: i64,
    /// The packet key that its clients encrypted to.
    key: Option<String>,
    /// A worker that died recorded it, to be signed by this key.
    signer: Option<String>,
}

struct Job {
    mounts: BTreeSet<String>,
    signer: Option<String>,
    batches: Vec<Batch>,
    /// Windows that it finishes.
    windows: Vec<i64>,
    ends: i64,
}

#[derive(Default)]
struct SimWindow {
    marks: BTreeSet<String>,
    /// Keys that its records and its plan need.
    needs: BTreeSet<String>,
    over: bool,
}

struct Processor {
    name: String,
    status: Option<KeysStatus>,
    proven: BTreeSet<String>,
    jobs: Vec<Job>,
    waiting: Vec<Batch>,
    windows: BTreeMap<i64, SimWindow>,
}

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
                    crate::keys::observe::processor_view(&processor.name, "ring", processor.status.as_ref())
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

    fn operator(&mut self, index: usize) {
        let now = self.now;
        let keys = self.keys();
        let rings = self.cluster.status.as_ref().map(|versions| {
            let ring = ReadRing {
                purpose: self.spec.purpose,
                versions: versions.clone(),
            };
            ("ring".to_owned(), ring)
        });
        let has_ring = rings.is_some();
        let rings = rings.into_iter().collect();
        let processor = &mut self.processors[index];
        // Probes take a while, and mount what is there.
        let before = resolve(&keys, &rings, processor.status.as_ref(), &processor.proven);
        for version in before
            .versions
            .iter()
            .filter(|version| version.waits_for_proof() && has_ring)
        {
            let number: i64 = version.known.secret.rsplit('.').next().unwrap().parse().unwrap();
            if self.cluster.secrets.contains(&number) && self.rng.random_bool(0.3) {
                processor.proven.insert(version.known.id.clone());
            }
        }
        let mut resolved = resolve(&keys, &rings, processor.status.as_ref(), &processor.proven);
        for version in resolved.versions.iter_mut().filter(|version| version.waits_for_proof()) {
            let everywhere = processor.jobs.iter().all(|job| job.mounts.contains(&version.known.id));
            if processor.proven.contains(&version.known.id) && everywhere && self.rng.random_bool(0.7) {
                version.known.loaded = Some(Timestamp::from_second(now).unwrap().to_string());
            }
        }
        let arrivals = processor
            .jobs
            .iter()
            .flat_map(|job| &job.batches)
            .chain(&processor.waiting)
            .map(|batch| batch.arrived);
        let until = arrivals.fold(now, i64::min);
        for version in &mut resolved.versions {
            if version.known.state != VersionState::Superseded {
                continue;
            }
            let marked = || {
                processor
                    .windows
                    .iter()
                    .filter(|(_, window)| window.marks.contains(&version.known.id))
            };
            let text = |second: i64| Timestamp::from_second(second).unwrap().to_string();
            version.known.last_used = marked().map(|(start, _)| text(start + WINDOW)).next_back();
            version.known.needed_by = marked()
                .find(|(_, window)| !window.over)
                .map(|(start, _)| start.to_string());
            version.known.observed_until = Some(text(until));
        }
        processor.status = Some(KeysStatus {
            versions: resolved.versions.into_iter().map(|version| version.known).collect(),
        });
        let Ok(work) = resolved.work else { return };
        if !processor.jobs.is_empty() && self.rng.random_bool(0.5) {
            return;
        }
        let due = |(start, window): (&i64, &SimWindow)| (!window.over && start + WINDOW + 30 < now).then_some(*start);
        let held: BTreeSet<i64> = processor
            .jobs
            .iter()
            .flat_map(|job| job.windows.iter().copied())
            .collect();
        // A window is summed once all that came for it is taken in.
        let open: BTreeSet<i64> = processor
            .jobs
            .iter()
            .flat_map(|job| &job.batches)
            .chain(&processor.waiting)
            .map(|b| b.window)
            .collect();
        let windows = processor
            .windows
            .iter()
            .filter_map(due)
            .filter(|start| !held.contains(start) && !open.contains(start))
            .collect();
        let job = Job {
            mounts: work.all().filter_map(|mount| mount.id.clone()).collect(),
            signer: work.signing[0].id.clone(),
            batches: std::mem::take(&mut processor.waiting),
            windows,
            ends: now + self.rng.random_range(1..60),
        };
        if !job.batches.is_empty() || !job.windows.is_empty() {
            processor.jobs.push(job);
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

    /// A batch for each processor, of clients that took the published key some time ago.
    fn batch(&mut self) {
        let published = self
            .cluster
            .published
            .as_ref()
            .and_then(|keys| keys.keys().next().cloned());
        let is_old = self
            .client
            .as_ref()
            .is_none_or(|(_, taken)| self.now - taken >= CLIENT_CACHE);
        if is_old || self.rng.random_bool(0.3) {
            self.client = published.map(|id| (id, self.now));
        }
        let Some((id, _)) = &self.client else { return };
        let key = (self.spec.purpose == PacketEncryption).then(|| id.clone());
        for processor in &mut self.processors {
            // Made up to ten seconds ago, when clients had that key or a younger one.
            let made = self.now - self.rng.random_range(0..BATCH_DELAY);
            processor.waiting.push(Batch {
                arrived: self.now,
                window: made.div_euclid(WINDOW) * WINDOW,
                key: key.clone(),
                signer: None,
            });
            processor.windows.entry(made.div_euclid(WINDOW) * WINDOW).or_default();
        }
    }

    fn workers(&mut self) {
        let settings = Settings::of(&self.spec);
        for processor in &mut self.processors {
            let (over, running) = std::mem::take(&mut processor.jobs)
                .into_iter()
                .partition(|job| job.ends <= self.now);
            processor.jobs = running;
            for job in over {
                for batch in job.batches {
                    if processor.windows[&batch.window].over {
                        continue;
                    }
                    if let Some(key) = &batch.key {
                        assert!(
                            job.mounts.contains(key),
                            "{}: a packet under {key}, and mounted are {:?}",
                            processor.name,
                            job.mounts
                        );
                    }
                    // A record that is there says who signs; a new one is signed by the key of today.
                    let signer = batch.signer.clone().or(job.signer.clone());
                    if let Some(signer) = &signer {
                        assert!(job.mounts.contains(signer), "{}: {signer} can't sign", processor.name);
                        if batch.signer.is_none() {
                            let public = self.cluster.published_since.get(signer).copied();
                            let first = self.used.first() == Some(signer);
                            let long =
                                public.is_some_and(|public| self.now - public >= settings.primary_min_age.as_secs());
                            assert!(
                                public.is_some() && (long || first),
                                "{signer} signs before partners know it"
                            );
                            let published = self.cluster.published.as_ref().unwrap();
                            assert!(
                                published.contains_key(signer),
                                "{signer} signs, and {published:?} is published"
                            );
                        }
                    }
                    let window = processor.windows.get_mut(&batch.window).unwrap();
                    let ids = || [&batch.key, &signer].into_iter().flatten().cloned();
                    window.marks.extend(ids());
                    if self.rng.random_bool(0.1) {
                        // Died after the mark.
                        processor.waiting.push(batch);
                        continue;
                    }
                    window.needs.extend(ids());
                    if self.rng.random_bool(0.1) {
                        // Died after the record.
                        processor.waiting.push(Batch { signer, ..batch });
                    }
                }
                for start in job.windows {
                    let window = processor.windows.get_mut(&start).unwrap();
                    for id in &window.needs {
                        assert!(job.mounts.contains(id), "{}: window {start} needs {id}", processor.name);
                    }
                    window.marks.extend(job.signer.clone());
                    window.needs.extend(job.signer.clone());
                    window.over = self.rng.random_bool(0.8);
                }
            }
        }
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
