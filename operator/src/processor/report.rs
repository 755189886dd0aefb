//! What a processor's status says. Pure.

use std::collections::BTreeSet;

use crds::conditions::{
    KEYS_LOADED, MAILBOXES_LISTED, MANIFEST_PUBLISHED, PEERS_KNOWN, READY, STALLED, WINDOWS_ON_TIME, WORKERS_READY,
    reasons,
};
use crds::processor::{
    BatchCounts, DataShareProcessorStatus, KeysStatus, PreflightLine, PreflightStatus, WindowCounts,
};
use facilitator_core::formats::ledger::LedgerIdentity;
use facilitator_core::formats::names::WindowId;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::keys::Trouble;
use crate::status::{Verdict, set_condition};

/// Why nothing is planned until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// What to do.
    pub message: String,
}

/// What one look found out of the keys of KeyRings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyFindings {
    /// `None`: the spec refers to no KeyRing.
    pub loaded: Option<Verdict>,
    /// Why no Job may start.
    pub blocking: Option<Trouble>,
    /// What the next operator must know.
    pub status: Option<KeysStatus>,
}

impl KeyFindings {
    /// Takes in which keys partners get. While that isn't known, what is remembered stays: they have what was published.
    pub fn note_published(&mut self, published: &BTreeSet<String>, now: Timestamp) {
        for key in self.status.iter_mut().flat_map(|status| &mut status.versions) {
            let is_public = published.contains(&key.id);
            let since = key.published.take().unwrap_or_else(|| now.to_string());
            key.published = is_public.then_some(since);
        }
    }
}

/// What one look at a processor found out; `None`: not known this time, so the condition stays as it was.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Nothing is planned until somebody changes something.
    pub stall: Option<Stall>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// Whether all that is needed of other parties is known.
    pub peers: Option<Verdict>,
    /// Whether our own manifests are where others read them; nothing where none are asked for.
    pub published: Option<Option<Verdict>>,
    /// Whether the listing worked; where not, one of [`reasons`] and the error.
    pub listed: Option<Result<(), (&'static str, String)>>,
    /// Why the look wasn't finished, where no other condition says it.
    pub failed: Option<String>,
    /// Whether workers start.
    pub workers: Option<Verdict>,
    /// Windows past their time and not over.
    pub overdue: Option<Vec<WindowId>>,
    /// The next cutoff of a window that isn't over.
    pub next_cutoff: Option<Timestamp>,
    /// What is known of the keys of KeyRings; `None`: not known this time.
    pub keys: Option<KeyFindings>,
    /// What a preflight found, and its condition; `None`: not known this time.
    pub preflight: Option<(Option<PreflightStatus>, Verdict)>,
    /// The status as the look itself wrote it before its end.
    pub written: Option<DataShareProcessorStatus>,
    /// Whether the admission policies stand.
    pub guarded: Option<Verdict>,
    /// The ledger's identity, if it has one.
    pub ledger: Option<LedgerIdentity>,
    /// First window that is ours.
    pub start_at: Option<Timestamp>,
    /// See [`super::parameters::agreement_digest`].
    pub agreement_digest: String,
    /// Counts of batches and windows.
    pub counts: Option<(BatchCounts, WindowCounts)>,
}

impl Findings {
    /// No batch waits for a worker or is with one.
    fn is_idle(&self) -> bool {
        self.counts
            .as_ref()
            .is_some_and(|(batches, _)| batches.waiting + batches.running == 0)
    }
}

/// The status that follows; `before` is the one that is there.
#[must_use]
pub fn status(
    before: Option<&DataShareProcessorStatus>,
    findings: &Findings,
    generation: i64,
    now: Timestamp,
) -> DataShareProcessorStatus {
    let mut status = before.cloned().unwrap_or_default();
    let generation = Some(generation);
    let said = |kind| current(&status, kind, generation).is_some();
    // A look that wasn't finished says nothing of what it didn't come to.
    let keeps_stall = findings.counts.is_none() && findings.stall.is_none() && said(STALLED);
    let mut set = |verdict: &Verdict| set_condition(&mut status.conditions, verdict, generation, now);
    match &findings.stall {
        Some(stall) => set(&Verdict::new(STALLED, Some(true), stall.reason, &stall.message)),
        None if keeps_stall => {}
        None => set(&Verdict::new(
            STALLED,
            Some(false),
            reasons::OK,
            "Nothing needs to be changed.",
        )),
    }
    match &findings.listed {
        Some(Ok(())) => set(&Verdict::new(
            MAILBOXES_LISTED,
            Some(true),
            reasons::OK,
            "All mailboxes were listed.",
        )),
        Some(Err((reason, error))) => set(&Verdict::new(MAILBOXES_LISTED, Some(false), *reason, error)),
        None => {}
    }
    if let Some(peers) = &findings.peers {
        set(peers);
    }
    if let Some(workers) = &findings.workers {
        set(workers);
    }
    if let Some(overdue) = &findings.overdue {
        set(&on_time(overdue));
    }
    if let Some(guarded) = &findings.guarded {
        set(guarded);
    }
    if let Some((_, verdict)) = &findings.preflight {
        set(verdict);
    }
    if let Some(loaded) = findings.keys.as_ref().and_then(|keys| keys.loaded.as_ref()) {
        set(loaded);
    }
    match &findings.published {
        Some(Some(published)) => set(published),
        Some(None) => status
            .conditions
            .retain(|condition| condition.type_ != MANIFEST_PUBLISHED),
        None => {}
    }
    let ready = readiness(findings, &status, generation);
    set_condition(&mut status.conditions, &ready, generation, now);
    // The most asked first.
    status
        .conditions
        .sort_by_key(|condition| (condition.type_ != READY, condition.type_ != STALLED));
    status.observed_generation = generation;
    // A ledger that is another's is not remembered: the one of before may come back.
    if let Some(ledger) = findings.ledger.as_ref().filter(|_| findings.stall.is_none()) {
        status.ledger_id = Some(ledger.id.to_string());
    }
    if let Some(start_at) = findings.start_at {
        status.start_at = Some(start_at.to_string());
    }
    if let Some(keys) = &findings.keys {
        status.keys.clone_from(&keys.status);
        if keys.loaded.is_none() {
            status.conditions.retain(|condition| condition.type_ != KEYS_LOADED);
        }
    }
    if let Some((preflight, _)) = &findings.preflight {
        status.preflight.clone_from(preflight);
    }
    status.agreement_digest = Some(findings.agreement_digest.clone());
    if let Some((batches, windows)) = &findings.counts {
        status.batches = Some(batches.clone());
        status.windows = Some(windows.clone());
    }
    status
}

/// The status with nothing but what a preflight found; `None`: it says that already.
#[must_use]
pub fn with_preflight(
    before: Option<&DataShareProcessorStatus>,
    found: &(Option<PreflightStatus>, Verdict),
    generation: i64,
    now: Timestamp,
) -> Option<DataShareProcessorStatus> {
    let (preflight, verdict) = found;
    let known = before.and_then(|before| before.preflight.as_ref());
    fn said(status: &PreflightStatus) -> (&[PreflightLine], Option<&str>) {
        (&status.lines, status.finished.as_deref())
    }
    if known.map(said) == preflight.as_ref().map(said) {
        return None;
    }
    let mut status = before.cloned().unwrap_or_default();
    status.preflight.clone_from(preflight);
    set_condition(&mut status.conditions, verdict, Some(generation), now);
    Some(status)
}

fn on_time(overdue: &[WindowId]) -> Verdict {
    let Some(first) = overdue.first() else {
        return Verdict::new(WINDOWS_ON_TIME, Some(true), reasons::OK, "No window is past its time.");
    };
    let others = match overdue.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let message = format!(
        "Window {}{others} should be summed by now: look at its AggregationWindow.",
        first.path()
    );
    Verdict::new(WINDOWS_ON_TIME, Some(false), reasons::WINDOW_OVERDUE, message)
}

/// A condition, unless it is of an older spec.
fn current<'a>(status: &'a DataShareProcessorStatus, kind: &str, generation: Option<i64>) -> Option<&'a Condition> {
    let is_wanted = |condition: &&Condition| condition.type_ == kind && condition.observed_generation == generation;
    status.conditions.iter().find(is_wanted)
}

/// `Ready`: the last look was finished, all parties are known, the listing worked, workers start, no window is overdue; neither stalled nor
/// suspended.
fn readiness(findings: &Findings, status: &DataShareProcessorStatus, generation: Option<i64>) -> Verdict {
    if let Some(stall) = &findings.stall {
        return Verdict::new(READY, Some(false), stall.reason, &stall.message);
    }
    if findings.suspended {
        return Verdict::new(READY, Some(false), reasons::SUSPENDED, suspended(findings.next_cutoff));
    }
    if let Some(failed) = &findings.failed {
        let message = format!("The last look at the processor was not finished: {failed}. It is tried again.");
        return Verdict::new(READY, Some(false), reasons::LOOK_FAILED, message);
    }
    if let Some(trouble) = findings.keys.as_ref().and_then(|keys| keys.blocking.as_ref()) {
        return Verdict::new(READY, Some(false), trouble.reason, &trouble.message);
    }
    for needed in [PEERS_KNOWN, MAILBOXES_LISTED, WORKERS_READY, WINDOWS_ON_TIME] {
        match current(status, needed, generation) {
            Some(condition) if condition.status == "True" => {}
            Some(condition) if condition.status == "False" => {
                return Verdict::new(READY, Some(false), &condition.reason, &condition.message);
            }
            // Whether workers start is known only once there is work for one.
            Some(_) if needed == WORKERS_READY && findings.is_idle() => {}
            _ => return Verdict::new(READY, None, reasons::PENDING, format!("{needed} is not known yet.")),
        }
    }
    Verdict::new(
        READY,
        Some(true),
        reasons::OK,
        "All parties are known, mailboxes are listed, nothing keeps workers from starting, no window is overdue.",
    )
}

/// Cutoffs are both parties': they don't wait for one of them (ledger rule 3).
fn suspended(next_cutoff: Option<Timestamp>) -> String {
    let next = next_cutoff
        .map(|cutoff| format!("; the next is {cutoff}"))
        .unwrap_or_default();
    format!(
        "spec.suspend is set: no new Jobs, running ones finish. Cutoffs don't wait: what isn't validated by both parties \
         by then is left out of the window's sum{next}."
    )
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
