//! Whether workers have new versions: a probe Job under each stage's account finds the keys mounted, and no Job that began
//! without them still runs. With no traffic there is no other worker to ask. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::reasons;
use crds::key_ring::KeyPurpose;
use facilitator_core::formats::work::{ProbedKey, WorkList};
use jiff::{SignedDuration, Timestamp};

use super::{KeyName, Trouble, VersionHere};
use crate::workload::{JobEnd, JobView, PlannedJob, Stage, Timing, Work, cause, cause_of_refusal};

/// So old a proof of a key that isn't used yet is made anew: its Secret may be lost before anybody is told of it.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(6);
/// A worker's exit code where a key isn't there or is another (`docs/formats.md` §4.3).
const EXIT_CONFIGURATION: i32 = 78;

/// What is remembered of probes. Lost with the process and harmless: it is probed again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeMemory {
    /// What each stage's probes found: public halves, and when the youngest probe was made.
    passed: BTreeMap<Stage, BTreeMap<KeyName, (String, Timestamp)>>,
    /// Until when what was found of a key doesn't count: something named it as missing.
    doubted: BTreeMap<KeyName, Timestamp>,
    /// Jobs whose end was counted.
    counted: BTreeSet<String>,
    failures: u32,
    next: Option<Timestamp>,
    trouble: Option<Trouble>,
}

impl ProbeMemory {
    /// Takes in what probes found that are over.
    pub fn note(&mut self, jobs: &[JobView]) {
        for view in jobs.iter().filter(|view| view.end() == Some(JobEnd::Complete)) {
            let (Some(stage), Some(WorkList::KeyProbe { signing, packets, .. })) = (view.probed_stage(), &view.work)
            else {
                continue;
            };
            let found: BTreeSet<&String> = view.reports.iter().flat_map(|report| &report.keys).collect();
            let made = view.created().unwrap_or(Timestamp::MIN);
            let passed = self.passed.entry(stage).or_default();
            for (purpose, keys) in [
                (KeyPurpose::BatchSigning, signing),
                (KeyPurpose::PacketEncryption, packets),
            ] {
                for key in keys.iter().filter(|key| found.contains(&key.id)) {
                    let name = (purpose, key.id.clone());
                    if passed.get(&name).is_none_or(|(_, before)| *before <= made) {
                        passed.insert(name, (key.public_key.clone(), made));
                    }
                }
            }
        }
    }

    fn counts(&self, name: &KeyName, made: Timestamp) -> bool {
        self.doubted.get(name).is_none_or(|doubted| made > *doubted)
    }

    /// When the youngest probe of a stage was made that found this very key.
    fn passed(&self, stage: Stage, version: &VersionHere) -> Option<Timestamp> {
        let name = version.name();
        let (public_key, made) = self.passed.get(&stage)?.get(&name)?;
        (Some(public_key) == version.public_key.as_ref() && self.counts(&name, *made)).then_some(*made)
    }

    /// Whether the probes of a stage found this very key.
    fn has_passed(&self, stage: Stage, version: &VersionHere) -> bool {
        self.passed(stage, version).is_some()
    }

    /// Keys that the probes of both stages found: new Jobs may mount them.
    #[must_use]
    pub fn proven(&self) -> BTreeSet<KeyName> {
        let of = |stage| -> BTreeSet<KeyName> {
            let passed = self.passed.get(&stage).into_iter().flatten();
            let found = passed.filter(|(name, (_, made))| self.counts(name, *made));
            found.map(|(name, _)| name.clone()).collect()
        };
        let (intake, aggregate) = (of(Stage::Intake), of(Stage::Aggregate));
        intake.intersection(&aggregate).cloned().collect()
    }
}

/// All that a decision on probes rests on.
pub struct ProbeInput<'a> {
    /// The rings' versions that aren't retired.
    pub versions: &'a [VersionHere],
    /// The processor's Jobs, probes among them, finished ones too.
    pub jobs: &'a [JobView],
    /// `spec.suspend`: no new Jobs.
    pub suspended: bool,
    /// `spec.workers.startDeadlineSeconds`.
    pub start_deadline: SignedDuration,
    /// The operator's settings.
    pub timing: &'a Timing,
    /// Refusals of probe Jobs since the last decision, in the API server's words.
    pub refused: &'a [String],
    /// Why workers don't start, if they don't.
    pub workers: Option<&'a str>,
    /// [`Probes::memory`] of the last decision, after [`ProbeMemory::note`].
    pub memory: &'a ProbeMemory,
}

/// What is decided.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Jobs to start.
    pub start: Vec<PlannedJob>,
    /// Jobs to delete: they don't start.
    pub remove: Vec<String>,
    /// Versions that all workers have as of now.
    pub loaded: Vec<KeyName>,
    /// Versions that workers had, and that something names as missing.
    pub lost: Vec<KeyName>,
    /// What keeps the others from it.
    pub trouble: Option<Trouble>,
    /// For the next decision.
    pub memory: ProbeMemory,
}

/// Decides.
#[must_use]
pub fn probes(input: &ProbeInput<'_>, now: Timestamp) -> Probes {
    let mut probes = Probes {
        start: Vec::new(),
        remove: Vec::new(),
        loaded: Vec::new(),
        lost: Vec::new(),
        trouble: None,
        memory: input.memory.clone(),
    };
    let (running, works): (Vec<&JobView>, Vec<&JobView>) = input
        .jobs
        .iter()
        .filter(|view| !view.is_deleted())
        .partition(|view| view.probed_stage().is_some());
    count(input, &running, &mut probes, now);
    doubt(input, &mut probes, now);
    let is_lost = |version: &VersionHere, probes: &Probes| probes.lost.contains(&version.name());
    let unproven: Vec<&VersionHere> = input
        .versions
        .iter()
        .filter(|version| version.waits_for_proof() || is_lost(version, &probes))
        .collect();
    let is_old = |version: &&VersionHere, stage: Stage, memory: &ProbeMemory| {
        let made = memory.passed(stage, version);
        made.is_none_or(|made| now.duration_since(made) >= AGAIN_AFTER)
    };
    let known: Vec<&VersionHere> = input
        .versions
        .iter()
        .filter(|version| version.can_be_probed() && version.known.loaded.is_some())
        .filter(|version| Stage::ALL.iter().any(|stage| is_old(version, *stage, &probes.memory)))
        .collect();
    if unproven.is_empty() && known.is_empty() {
        (probes.memory.failures, probes.memory.next, probes.memory.trouble) = (0, None, None);
        return probes;
    }
    let mut waits = None;
    for version in &unproven {
        if !Stage::ALL.iter().all(|stage| probes.memory.has_passed(*stage, version)) {
            continue;
        }
        let older = works
            .iter()
            .find(|view| !view.is_finished() && !view.mounts(&version.known.secret));
        match older {
            None => probes.loaded.push(version.name()),
            Some(view) => {
                waits = Some(format!(
                    "Job {} began without {} and still runs",
                    view.name(),
                    version.known.id
                ));
            }
        }
    }
    for stage in Stage::ALL {
        let wanted = unproven.iter().any(|version| !probes.memory.has_passed(stage, version))
            || known.iter().any(|version| is_old(version, stage, &probes.memory));
        let is_running = running.iter().any(|view| {
            view.probed_stage() == Some(stage)
                && !view.is_finished()
                && !probes.remove.iter().any(|removed| removed == view.name())
        });
        let is_due = probes.memory.next.is_none_or(|next| next <= now);
        if wanted && !is_running && is_due && !input.suspended {
            probes
                .start
                .push(planned(input.versions, stage, probes.memory.failures));
        }
    }
    probes.trouble = probes.memory.trouble.clone().or_else(|| {
        let probing = |message: String| Trouble {
            reason: reasons::PROBING,
            message,
        };
        let ids: Vec<&str> = unproven
            .iter()
            .filter(|version| !probes.loaded.contains(&version.name()))
            .map(|version| version.known.id.as_str())
            .collect();
        if let Some(waits) = waits {
            Some(probing(format!("{waits}.")))
        } else if ids.is_empty() {
            None
        } else if input.suspended {
            Some(probing(format!(
                "{} can't be proven loaded while the processor is suspended.",
                ids.join(", ")
            )))
        } else {
            Some(probing(format!(
                "Jobs under both accounts look for {}.",
                ids.join(", ")
            )))
        }
    });
    probes
}

/// Takes back what is known of new versions that a failed probe, or a worker that doesn't start, names: work goes on
/// without them.
fn doubt(input: &ProbeInput<'_>, probes: &mut Probes, now: Timestamp) {
    let said = [
        probes.memory.trouble.as_ref().map(|trouble| trouble.message.clone()),
        input.workers.map(str::to_owned),
    ];
    let names = |version: &&VersionHere| {
        let mut said = said.iter().flatten();
        said.any(|said| said.contains(&version.known.secret) || said.contains(&version.known.id))
    };
    let new = || input.versions.iter().filter(|version| version.is_new());
    for version in new().filter(names) {
        let has_passed = Stage::ALL.iter().any(|stage| probes.memory.has_passed(*stage, version));
        if version.known.loaded.is_some() || has_passed {
            probes.memory.doubted.insert(version.name(), now);
        }
        if version.known.loaded.is_some() {
            probes.lost.push(version.name());
        }
    }
    let kept: BTreeSet<KeyName> = new().map(VersionHere::name).collect();
    probes.memory.doubted.retain(|name, _| kept.contains(name));
}

/// Counts probes that failed, don't start or were refused.
fn count(input: &ProbeInput<'_>, running: &[&JobView], probes: &mut Probes, now: Timestamp) {
    let mut failed: Option<String> = None;
    for view in running {
        match view.end() {
            Some(JobEnd::Complete) => {
                // Whatever was in the way is gone: of a stage, at least.
                if probes.memory.counted.insert(view.uid().to_owned()) {
                    (probes.memory.trouble, probes.memory.next) = (None, None);
                }
            }
            Some(_) => {
                if probes.memory.counted.insert(view.uid().to_owned()) {
                    let said = view.termination_message(EXIT_CONFIGURATION);
                    let said = said.unwrap_or_else(|| "see its pod's log".to_owned());
                    failed = Some(format!("Job {}: {said}", view.name()));
                }
            }
            None => {
                let waited = view.waiting_since().map(|since| now.duration_since(since));
                if waited.is_some_and(|waited| waited >= input.start_deadline) {
                    let why = cause(view).map_or_else(
                        || "no pod runs, and Kubernetes names no cause".to_owned(),
                        |c| c.message,
                    );
                    failed = Some(format!("Job {}: {why}", view.name()));
                    probes.remove.push(view.name().to_owned());
                }
            }
        }
    }
    if let Some(message) = input.refused.last() {
        failed = Some(cause_of_refusal(message).message);
    }
    let uids: BTreeSet<&str> = running.iter().map(|view| view.uid()).collect();
    probes.memory.counted.retain(|uid| uids.contains(uid.as_str()));
    if let Some(message) = failed {
        let factor = 1_i32.checked_shl(probes.memory.failures.min(20)).unwrap_or(i32::MAX);
        let wait = input
            .timing
            .canary_first
            .checked_mul(factor)
            .unwrap_or(input.timing.canary_last);
        probes.memory.next = now.checked_add(wait.min(input.timing.canary_last)).ok();
        probes.memory.failures = probes.memory.failures.saturating_add(1);
        let message = format!("{}. Tried again from time to time.", message.trim_end_matches('.'));
        probes.memory.trouble = Some(Trouble {
            reason: reasons::PROBE_FAILED,
            message,
        });
    }
}

fn planned(versions: &[VersionHere], stage: Stage, attempt: u32) -> PlannedJob {
    let of = |purpose: KeyPurpose| {
        let versions = versions
            .iter()
            .filter(|version| version.purpose == purpose && !version.left_out);
        let key = |version: &VersionHere| {
            Some(ProbedKey {
                id: version.known.id.clone(),
                public_key: version.public_key.clone()?,
            })
        };
        versions.filter_map(key).collect()
    };
    PlannedJob {
        work: Work::KeyProbe {
            stage,
            signing: of(KeyPurpose::BatchSigning),
            packets: of(KeyPurpose::PacketEncryption),
        },
        parallelism: 1,
        attempt,
        canary: false,
    }
}
