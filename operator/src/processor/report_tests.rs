#![allow(clippy::unwrap_used)]
use super::*;

fn ledger(id: u128) -> LedgerIdentity {
    LedgerIdentity {
        revision: 1,
        id: uuid::Uuid::from_u128(id),
        instance: "us".to_owned(),
        share: facilitator_core::formats::work::Share::First,
        start_at: "2026-11-20T00:00:00Z".to_owned(),
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
    let unknown = |f: &mut Findings| f.peers = Some(Verdict::new(PEERS_KNOWN, Some(false), reasons::PEER_UNKNOWN, ""));
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
    let overdue = |f: &mut Findings| f.overdue = Some(vec![WindowId::parse("agg/202611200000-202611200800").unwrap()]);
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
fn since_when_partners_get_a_key_is_kept_until_they_get_a_manifest_without_it() {
    let key = |id: &str, published: Option<&str>| serde_json::json!({"keyRing": "r", "id": id, "secret": "r.1", "state": "InUse", "published": published});
    let before = Some("2026-11-20T00:00:00Z");
    let versions = vec![key("a", before), key("b", before), key("c", None)];
    let mut findings = KeyFindings {
        status: serde_json::from_value(serde_json::json!({"versions": versions})).unwrap(),
        ..KeyFindings::default()
    };
    findings.note_published(&["a".to_owned(), "c".to_owned()].into(), Timestamp::UNIX_EPOCH);
    let since: Vec<_> = findings
        .status
        .unwrap()
        .versions
        .into_iter()
        .map(|key| key.published)
        .collect();
    assert_eq!(
        since,
        [before.map(str::to_owned), None, Some("1970-01-01T00:00:00Z".to_owned())]
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
    findings.ledger = Some(ledger(1));
    let before = status(None, &findings, 1, Timestamp::UNIX_EPOCH);
    findings.ledger = Some(ledger(2));
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

#[test]
fn what_a_preflight_found_can_be_told_before_all_else() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let before = status(None, &good(), 1, at(1));
    let found = |lines: usize, finished: Option<&str>| PreflightStatus {
        inputs: "inputs".to_owned(),
        asked: None,
        started: "2026-11-20T00:00:00Z".to_owned(),
        finished: finished.map(str::to_owned),
        lines: vec![
            crds::processor::PreflightLine {
                stage: crds::processor::PreflightStage::Intake,
                check: "Write".to_owned(),
                mailbox: None,
                outcome: crds::processor::PreflightOutcome::Passed,
                detail: String::new(),
                remedy: String::new(),
            };
            lines
        ],
    };
    let verdict = || Verdict::new(crds::conditions::PREFLIGHT, None, reasons::RUNNING, "");
    let told = |before: &DataShareProcessorStatus, found| {
        with_preflight(Some(before), &(Some(found), verdict()), 1, at(2)).inspect(|status| {
            let mut rest = status.clone();
            rest.preflight.clone_from(&before.preflight);
            rest.conditions
                .retain(|condition| condition.type_ != crds::conditions::PREFLIGHT);
            let mut others = before.clone();
            others
                .conditions
                .retain(|condition| condition.type_ != crds::conditions::PREFLIGHT);
            assert_eq!(rest, others, "nothing else changes");
        })
    };
    assert!(with_preflight(Some(&before), &(None, verdict()), 1, at(2)).is_none());
    let begun = told(&before, found(0, None)).unwrap();
    assert!(told(&begun, found(0, None)).is_none(), "told already");
    let half = told(&begun, found(1, None)).unwrap();
    let over = told(&half, found(1, Some("2026-11-20T00:01:00Z"))).unwrap();
    assert!(told(&over, found(1, Some("2026-11-20T00:01:00Z"))).is_none());
}
