//! A look at a processor's keys: KeyRings are read, probes decided on, and the use of superseded keys listed.

use std::collections::BTreeMap;

use crds::KeyRing;
use crds::conditions::{KEYS_LOADED, reasons};
use crds::key_ring::VersionState;
use crds::processor::{KeyUse, KeysStatus};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::core::DeserializeGuard;
use snafu::ResultExt;

use super::{ProbeInput, Probes, Ring, Trouble, VersionHere, observed_until, probes, resolve, usage};
use crate::inventory::Inventory;
use crate::processor::look::{Look, REBUILD_LATEST, REBUILD_TICKS};
use crate::processor::memory::Memory;
use crate::processor::observe::Mailboxes;
use crate::processor::report::KeyFindings;
use crate::processor::{ClusterSnafu, MailboxSnafu, ReconcileError};
use crate::status::Verdict;
use crate::window::Schedule;
use crate::workload::{JobView, KeySet, PlannedJob};

/// The shortest and the longest step in which [`KeyUse::observed_until`] moves on: a status isn't written once a tick.
const STEP: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_hours(1));

/// What a look at the keys came to.
#[derive(Clone, Debug)]
pub(in crate::processor) struct KeyLook {
    /// What workers mount; `None`: no Job may start.
    pub(in crate::processor) work: Option<KeySet>,
    /// What probes mount.
    pub(in crate::processor) all: KeySet,
    /// Probes to start.
    pub(in crate::processor) start: Vec<PlannedJob>,
    /// Probes to delete.
    pub(in crate::processor) remove: Vec<String>,
    /// What is told.
    pub(in crate::processor) findings: KeyFindings,
}

impl Look<'_> {
    /// `suspended`: a person wants no new Jobs. Peers that aren't known suspend work too, but not probes: our keys must
    /// be loaded before they are published, and a partner may wait for our manifest as we do for its own.
    pub(in crate::processor) async fn keys(
        &self,
        memory: &mut Memory,
        mailboxes: &Mailboxes,
        schedule: &Schedule,
        inventory: &Inventory,
        jobs: &[JobView],
        suspended: bool,
    ) -> Result<KeyLook, ReconcileError> {
        let spec = &self.processor.spec;
        let rings = self.rings().await?;
        memory.probes.note(jobs);
        let before = self.processor.status.as_ref().and_then(|status| status.keys.as_ref());
        let mut resolved = resolve(&spec.keys, &rings.by_name, before, &memory.probes.proven());
        let refused = std::mem::take(&mut memory.refused_probes);
        let probes = probes(
            &ProbeInput {
                versions: &resolved.versions,
                jobs,
                suspended,
                start_deadline: SignedDuration::from_secs(spec.workers.start_deadline_seconds.into()),
                timing: &self.context.timing,
                refused: &refused,
                memory: &memory.probes,
            },
            self.now,
        );
        memory.probes = probes.memory.clone();
        for version in &mut resolved.versions {
            if probes.loaded.contains(&version.known.id) {
                version.known.loaded = Some(self.now.to_string());
            }
        }
        if self.uses_are_due(memory, &resolved.versions) {
            let until = observed_until(inventory, self.now);
            for version in resolved.versions.iter_mut().filter(|version| is_superseded(version)) {
                let marks = mailboxes.key_uses(&version.known.id).await.context(MailboxSnafu)?;
                let found = usage(&marks, inventory, schedule, self.now);
                version.known.last_used = found.last_used.map(|time| time.to_string());
                version.known.needed_by = found.needed_by.map(|window| format!("window {window}"));
                let known = version.known.observed_until.as_deref();
                version.known.observed_until = Some(moved_on(known, until, rings.step));
            }
            memory.uses_listed = Some(self.now);
        }
        // Without any key of a purpose a probe can't begin, as no worker can.
        let is_startable = !resolved.all.signing.is_empty() && !resolved.all.packets.is_empty();
        let blocking = resolved.work.as_ref().err().cloned();
        let loaded = resolved
            .has_rings
            .then(|| loaded(blocking.as_ref().or(resolved.trouble.as_ref()), &probes));
        let versions: Vec<KeyUse> = resolved.versions.into_iter().map(|version| version.known).collect();
        Ok(KeyLook {
            work: resolved.work.ok(),
            all: resolved.all,
            start: if is_startable { probes.start } else { Vec::new() },
            remove: probes.remove,
            findings: KeyFindings {
                loaded,
                blocking,
                status: resolved.has_rings.then_some(KeysStatus { versions }),
            },
        })
    }

    /// What workers mount; where none may start, all that is there: a preflight says what is missing.
    pub(in crate::processor) async fn mounted_keys(&self, memory: &Memory) -> Result<KeySet, ReconcileError> {
        let rings = self.rings().await?;
        let before = self.processor.status.as_ref().and_then(|status| status.keys.as_ref());
        let resolved = resolve(
            &self.processor.spec.keys,
            &rings.by_name,
            before,
            &memory.probes.proven(),
        );
        Ok(resolved.work.unwrap_or(resolved.all))
    }

    /// The KeyRings that the spec refers to, as they are now. One that doesn't decode counts as one that isn't there.
    async fn rings(&self) -> Result<Rings, ReconcileError> {
        let keys = &self.processor.spec.keys;
        let api: Api<DeserializeGuard<KeyRing>> = Api::namespaced(self.context.client.clone(), &self.key.0);
        let mut rings = Rings {
            by_name: BTreeMap::new(),
            step: STEP.1,
        };
        for reference in std::iter::once(&keys.batch_signing).chain(&keys.packet_decryption) {
            let Some(name) = reference.key_ring_ref.as_ref().map(|ring| &ring.name) else {
                continue;
            };
            let Some(DeserializeGuard(Ok(ring))) = api.get_opt(name).await.context(ClusterSnafu)? else {
                continue;
            };
            let quiet = SignedDuration::from_secs(ring.spec.rotation.no_traffic_seconds.into());
            rings.step = rings.step.min(quiet / 10);
            let found = Ring {
                purpose: ring.spec.purpose,
                versions: ring.status.map(|status| status.versions).unwrap_or_default(),
            };
            rings.by_name.insert(name.clone(), found);
        }
        rings.step = rings.step.max(STEP.0);
        Ok(rings)
    }

    /// Marks are listed as often as old windows are looked for, and at once where a key is superseded of which nothing is known.
    fn uses_are_due(&self, memory: &Memory, versions: &[VersionHere]) -> bool {
        let tick = SignedDuration::try_from(self.context.settings.tick).unwrap_or(REBUILD_LATEST);
        let every = tick
            .checked_mul(REBUILD_TICKS)
            .map_or(REBUILD_LATEST, |every| every.min(REBUILD_LATEST));
        let is_new = |version: &VersionHere| version.known.observed_until.is_none();
        let mut superseded = versions.iter().filter(|version| is_superseded(version)).peekable();
        superseded.peek().is_some()
            && (superseded.any(is_new)
                || memory
                    .uses_listed
                    .is_none_or(|listed| self.now.duration_since(listed) >= every))
    }
}

struct Rings {
    by_name: BTreeMap<String, Ring>,
    step: SignedDuration,
}

fn is_superseded(version: &VersionHere) -> bool {
    version.known.state == VersionState::Superseded
}

/// `until` where that is a step further than what is known, or before it.
fn moved_on(known: Option<&str>, until: Timestamp, step: SignedDuration) -> String {
    let known = known.and_then(|known| known.parse::<Timestamp>().ok());
    match known {
        Some(known) if until >= known && until.duration_since(known) < step => known.to_string(),
        _ => until.to_string(),
    }
}

fn loaded(trouble: Option<&Trouble>, probes: &Probes) -> Verdict {
    match trouble.or(probes.trouble.as_ref()) {
        Some(trouble) => Verdict::new(KEYS_LOADED, Some(false), trouble.reason, &trouble.message),
        None => Verdict::new(
            KEYS_LOADED,
            Some(true),
            reasons::OK,
            "The workers of both stages have every version of the KeyRings.",
        ),
    }
}
