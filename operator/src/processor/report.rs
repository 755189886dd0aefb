//! What a processor's status says. Pure.

use std::collections::BTreeSet;

use crds::conditions::{
    KEYS_LOADED, MAILBOXES_LISTED, MANIFEST_PUBLISHED, PEERS_KNOWN, READY, STALLED, WINDOWS_ON_TIME, WORKERS_READY,
    reasons,
};
use crds::processor::{BatchCounts, DataShareProcessorStatus, KeysStatus, PreflightStatus, WindowCounts};
use facilitator_core::formats::ledger::LedgerIdentity;
use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::Share;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use uuid::Uuid;

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
    /// Takes in which keys partners get.
    pub fn note_published(&mut self, published: Option<&BTreeSet<String>>, now: Timestamp) {
        for key in self.status.iter_mut().flat_map(|status| &mut status.versions) {
            let is_public = published.is_some_and(|published| published.contains(&key.id));
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

/// Compares the ledger that is there with the one that the status remembers and with the spec.
#[must_use]
pub fn check_ledger(
    found: Option<&LedgerIdentity>,
    remembered: Option<&str>,
    instance: &str,
    share: Share,
) -> Option<Stall> {
    let Some(found) = found else {
        return remembered.map(|id| Stall {
            reason: reasons::LEDGER_GONE,
            message: format!(
                "The ledger {id} has no ledger.json any more. Bring the ledger back, or correct its URL; starting with an empty \
                 one would sum everything again."
            ),
        });
    };
    let problem = if found.instance != instance || found.share != share {
        format!(
            "The ledger belongs to instance {} with share {:?}, this is {instance} with share {share:?}",
            found.instance, found.share
        )
    } else if remembered.is_some_and(|id| id.parse::<Uuid>().ok() != Some(found.id)) {
        format!(
            "The ledger is {}, the one used so far was {}",
            found.id,
            remembered.unwrap_or_default()
        )
    } else {
        return None;
    };
    Some(Stall {
        reason: reasons::LEDGER_MISMATCH,
        message: format!("{problem}. Correct mailboxes.ledger or bring the ledger back."),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(id: u128, instance: &str, share: Share) -> LedgerIdentity {
        let start_at = "2026-11-20T00:00:00Z".to_owned();
        LedgerIdentity {
            revision: 1,
            id: Uuid::from_u128(id),
            instance: instance.to_owned(),
            share,
            start_at,
        }
    }

    #[test]
    fn a_ledger_is_adopted_once_and_never_swapped() {
        let (one, two) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string());
        let ours = identity(1, "us", Share::First);
        let table = [
            (None, None, None),
            (None, Some(&one), Some(reasons::LEDGER_GONE)),
            (Some(&ours), None, None),
            (Some(&ours), Some(&one), None),
            (Some(&ours), Some(&two), Some(reasons::LEDGER_MISMATCH)),
            (
                Some(&identity(1, "them", Share::First)),
                Some(&one),
                Some(reasons::LEDGER_MISMATCH),
            ),
            (
                Some(&identity(1, "us", Share::Second)),
                None,
                Some(reasons::LEDGER_MISMATCH),
            ),
        ]
        .map(|(found, remembered, expected)| (found.cloned(), remembered.cloned(), expected));
        for (found, remembered, expected) in table {
            let stall = check_ledger(found.as_ref(), remembered.as_deref(), "us", Share::First);
            assert_eq!(stall.map(|stall| stall.reason), expected, "{found:?} {remembered:?}");
        }
    }

    fn good() -> Findings {
        Findings {
            peers: Some(Verdict::new(PEERS_KNOWN, Some(true), reasons::OK, "")),
            listed: Some(Ok(())),
            workers: Some(Verdict::new(WORKERS_READY, Some(true), reasons::OK, "")),
            overdue: Some(Vec::new()),
            counts: Some(Default::default()),
            ..Findings::default()
        }
    }

    fn ready(findings: &Findings) -> (String, String) {
        let status = status(None, findings, 1, Timestamp::UNIX_EPOCH);
        let ready = &status.conditions[0];
        assert_eq!(ready.type_, READY);
        (ready.status.clone(), ready.reason.clone())
    }

    #[test]
    fn ready_says_the_first_thing_that_is_wrong() {
        let of = |change: fn(&mut Findings)| {
            let mut findings = good();
            change(&mut findings);
            ready(&findings)
        };
        let expected = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(of(|_| {}), expected("True", reasons::OK));
        assert_eq!(of(|f| f.suspended = true), expected("False", reasons::SUSPENDED));
        assert_eq!(
            of(|f| f.listed = Some(Err((reasons::ACCESS_DENIED, "no".into())))),
            expected("False", reasons::ACCESS_DENIED)
        );
        let unknown =
            |f: &mut Findings| f.peers = Some(Verdict::new(PEERS_KNOWN, Some(false), reasons::PEER_UNKNOWN, ""));
        assert_eq!(of(unknown), expected("False", reasons::PEER_UNKNOWN));
        assert_eq!(of(|f| f.workers = None), expected("Unknown", reasons::PENDING));
        let refused = |f: &mut Findings| {
            f.workers = Some(Verdict::new(
                WORKERS_READY,
                Some(false),
                reasons::QUOTA_EXCEEDED,
                "full",
            ))
        };
        assert_eq!(of(refused), expected("False", reasons::QUOTA_EXCEEDED));
        let not_run = |f: &mut Findings| f.workers = Some(Verdict::new(WORKERS_READY, None, reasons::PENDING, ""));
        assert_eq!(of(not_run), expected("True", reasons::OK));
        let not_run_yet = |f: &mut Findings| {
            f.workers = Some(Verdict::new(WORKERS_READY, None, reasons::PENDING, ""));
            f.counts.as_mut().unwrap().0.waiting = 1;
        };
        assert_eq!(of(not_run_yet), expected("Unknown", reasons::PENDING));
        assert_eq!(
            of(|f| f.failed = Some("too slow".into())),
            expected("False", reasons::LOOK_FAILED)
        );
        let unguarded = |f: &mut Findings| {
            f.guarded = Some(Verdict::new(
                "AdmissionGuarded",
                Some(false),
                reasons::POLICY_MISSING,
                "",
            ))
        };
        assert_eq!(of(unguarded), expected("True", reasons::OK));
        let overdue =
            |f: &mut Findings| f.overdue = Some(vec![WindowId::parse("agg/202611200000-202611200800").unwrap()]);
        assert_eq!(of(overdue), expected("False", reasons::WINDOW_OVERDUE));
        let stalled = |f: &mut Findings| {
            f.stall = Some(Stall {
                reason: reasons::LEDGER_GONE,
                message: "gone".into(),
            })
        };
        assert_eq!(of(stalled), expected("False", reasons::LEDGER_GONE));
    }

    #[test]
    fn a_look_that_is_not_finished_is_told_and_says_nothing_of_the_rest() {
        let ready_of = |status: &DataShareProcessorStatus| {
            let ready = &status.conditions[0];
            (ready.status.clone(), ready.reason.clone(), ready.observed_generation)
        };
        let said = |status: &str, reason: &str, generation| (status.to_owned(), reason.to_owned(), Some(generation));
        let good = status(None, &good(), 1, Timestamp::UNIX_EPOCH);
        assert_eq!(ready_of(&good), said("True", reasons::OK, 1));
        let hangs = Findings {
            failed: Some("not done after 300 s".into()),
            ..Findings::default()
        };
        let failed = status(Some(&good), &hangs, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(ready_of(&failed), said("False", reasons::LOOK_FAILED, 1));

        // Of another spec nothing is known, whatever was said of the one before.
        let nothing = status(Some(&good), &Findings::default(), 2, Timestamp::UNIX_EPOCH);
        assert_eq!(ready_of(&nothing), said("Unknown", reasons::PENDING, 2));

        let gone = Stall {
            reason: reasons::LEDGER_GONE,
            message: String::new(),
        };
        let stalled = Findings {
            stall: Some(gone),
            ..Findings::default()
        };
        let stalled = status(None, &stalled, 1, Timestamp::UNIX_EPOCH);
        let reason = |status: &DataShareProcessorStatus| {
            status
                .conditions
                .iter()
                .find(|c| c.type_ == STALLED)
                .unwrap()
                .reason
                .clone()
        };
        assert_eq!(
            reason(&status(Some(&stalled), &hangs, 1, Timestamp::UNIX_EPOCH)),
            reasons::LEDGER_GONE
        );
        assert_eq!(
            reason(&status(Some(&stalled), &hangs, 2, Timestamp::UNIX_EPOCH)),
            reasons::OK
        );
    }

    #[test]
    fn a_second_look_that_finds_the_same_changes_nothing() {
        let first = status(None, &good(), 1, Timestamp::from_second(1).unwrap());
        assert_eq!(
            status(Some(&first), &good(), 1, Timestamp::from_second(9).unwrap()),
            first
        );
    }

    #[test]
    fn a_swapped_ledger_is_not_remembered() {
        let mut findings = good();
        findings.ledger = Some(identity(1, "us", Share::First));
        let before = status(None, &findings, 1, Timestamp::UNIX_EPOCH);
        findings.ledger = Some(identity(2, "us", Share::First));
        findings.stall = Some(Stall {
            reason: reasons::LEDGER_MISMATCH,
            message: String::new(),
        });
        let after = status(Some(&before), &findings, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(after.ledger_id, before.ledger_id);
    }

    #[test]
    fn a_suspended_processor_says_that_cutoffs_do_not_wait() {
        let message = suspended(Some(Timestamp::UNIX_EPOCH));
        assert!(
            message.contains("Cutoffs don't wait") && message.ends_with("the next is 1970-01-01T00:00:00Z."),
            "{message}"
        );
        assert!(suspended(None).ends_with("window's sum."));
    }
}
