//! Operators with their workers, and clients.

use std::collections::{BTreeMap, BTreeSet};

use crds::key_ring::KeyPurpose::PacketEncryption;
use crds::key_ring::VersionState;
use crds::processor::KeysStatus;
use jiff::Timestamp;
use rand::Rng;

use super::{Settings, World};
use crate::processor::keys::{Ring as ReadRing, resolve};

/// Clients take the published key anew at least so often; with the way of a batch it is less than `noTrafficSeconds`.
const CLIENT_CACHE: i64 = 30;
const BATCH_DELAY: i64 = 10;
const WINDOW: i64 = 60;

#[derive(Clone)]
pub(super) struct Batch {
    pub(super) arrived: i64,
    pub(super) window: i64,
    /// The packet key that its clients encrypted to.
    pub(super) key: Option<String>,
    /// A worker that died recorded it, to be signed by this key.
    pub(super) signer: Option<String>,
}

pub(super) struct Job {
    pub(super) mounts: BTreeSet<String>,
    pub(super) signer: Option<String>,
    pub(super) batches: Vec<Batch>,
    /// Windows that it finishes.
    pub(super) windows: Vec<i64>,
    pub(super) ends: i64,
}

#[derive(Default)]
pub(super) struct SimWindow {
    pub(super) marks: BTreeSet<String>,
    /// Keys that its records and its plan need.
    pub(super) needs: BTreeSet<String>,
    pub(super) over: bool,
}

pub(super) struct Processor {
    pub(super) name: String,
    pub(super) status: Option<KeysStatus>,
    pub(super) proven: BTreeSet<String>,
    pub(super) jobs: Vec<Job>,
    pub(super) waiting: Vec<Batch>,
    pub(super) windows: BTreeMap<i64, SimWindow>,
}

impl World {
    pub(super) fn operator(&mut self, index: usize) {
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

    /// A batch for each processor, of clients that took the published key some time ago.
    pub(super) fn batch(&mut self) {
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

    pub(super) fn workers(&mut self) {
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
