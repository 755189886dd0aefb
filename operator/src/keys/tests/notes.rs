//! What people are told.

use crds::conditions::{READY, WAITS_FOR_PERSON, reasons};
use crds::key_ring::{KeyPurpose, KeyRingStatus};
use serde_json::json;

use super::*;
use crate::keys::decide::{Decision, Step};
use crate::keys::note::{asked, note};
use crate::keys::status::{Findings, status};

#[test]
fn each_step_is_told_as_it_was_and_no_copy_is_told_that_is_not_there() {
    let mut ring = Ring::new(KeyPurpose::BatchSigning);
    ring.add(0, |version| version.backed_up = Some(at(0)));
    ring.add(7, |_| {});
    let number = |seconds: i64| 1_700_000_000 + seconds;
    let keys = [(id(0), "public 0".to_owned()), (id(7), "public 7".to_owned())];
    let table = [
        (
            Step::Create { number: number(0) },
            "KeyCreated",
            "in Secret us-ct.1700000000; its second copy was written before, into Secret us-ct.1700000000.backup.",
        ),
        (
            Step::Create { number: number(7) },
            "KeyCreated",
            "in Secret us-ct.1700000007; there is no second copy",
        ),
        (
            Step::Forget { id: id(7) },
            "KeyForgotten",
            "a Secret us-ct.1700000007 or us-ct.1700000007.backup, delete it",
        ),
        (
            Step::NoteLoaded {
                id: id(7),
                since: at(8),
            },
            "KeyLoaded",
            "Every worker has k-1700000007",
        ),
        (
            Step::NoteCertified { id: id(7) },
            "KeyCertified",
            "k-1700000007 is issued",
        ),
        (
            Step::Publish(keys.into()),
            "KeysPublished",
            "k-1700000000 and k-1700000007",
        ),
        (
            Step::NotePublished { id: id(7) },
            "KeyPublished",
            "k-1700000007 is seen",
        ),
        (Step::Promote { id: id(7) }, "KeyInUse", "k-1700000007 is used"),
        (Step::Retire { id: id(7) }, "KeyRetired", "Its Secret stays"),
    ];
    for (step, reason, part) in table {
        let told = note("us-ct", &step, &ring.record);
        assert_eq!(told.reason, reason);
        assert_eq!(told.warning, reason == "KeyForgotten", "{told:?}");
        assert!(told.text.contains(part), "{told:?}");
        let has_copy = ring.record.versions[0].backed_up.is_some() && step == Step::Create { number: number(0) };
        assert_eq!(told.text.contains("copy was written"), has_copy, "{told:?}");
    }
}

/// What a look says, and the status that follows.
fn look(ring: &Ring, before: Option<&KeyRingStatus>, now: i64) -> (Vec<(&'static str, String)>, KeyRingStatus) {
    let decision = ring.decide(now);
    assert_eq!(decision.step, None, "nothing is to be done by itself");
    let told = asked(before, Some(&decision));
    assert!(told.iter().all(|note| note.warning));
    let findings = Findings {
        record: Some(ring.record.clone()),
        decision: Some(decision),
        ..Findings::default()
    };
    let told = told.into_iter().map(|note| (note.reason, note.text)).collect();
    (told, status("us-ct", before, &findings, 1, at(now)))
}

fn waits_for_person(status: &KeyRingStatus) -> (&str, &str) {
    let of = |kind: &str| status.conditions.iter().find(|one| one.type_ == kind).unwrap();
    let condition = of(WAITS_FOR_PERSON);
    (&condition.status, &condition.reason)
}

#[test]
fn a_person_is_asked_once_for_each_version_and_task() {
    let mut ring = Ring::in_use(KeyPurpose::PacketEncryption);
    ring.spec.certificate =
        serde_json::from_value(json!({"commonName": "a.example", "authority": "External"})).unwrap();
    ring.spec.publication = serde_json::from_value(json!({"method": "Manual"})).unwrap();
    ring.observed.processors[0].published = None;
    let (told, idle) = look(&ring, None, 20);
    assert_eq!(told, []);
    assert_eq!(waits_for_person(&idle), ("False", reasons::OK));
    let ready = idle.conditions.iter().find(|one| one.type_ == READY).unwrap();
    let expected = format!("{} is in use.", id(0));
    assert_eq!(ready.message, expected, "nobody looks whether partners get it");

    ring.add(100, |version| version.loaded = Some(at(101)));
    ring.load(100, 101);
    let (told, certificate) = look(&ring, Some(&idle), 102);
    assert!(
        told.len() == 1 && told[0].0 == reasons::WAITS_FOR_CERTIFICATE && told[0].1.contains(&id(100)),
        "{told:?}"
    );
    assert_eq!(waits_for_person(&certificate), ("True", reasons::WAITS_FOR_CERTIFICATE));
    let (again, _) = look(&ring, Some(&certificate), 103);
    assert_eq!(again, [], "once");
    let (unwritten, _) = look(&ring, Some(&idle), 104);
    assert_eq!(unwritten.len(), 1, "a status that couldn't be written told nobody");

    // Until it is old enough nobody is asked for anything; then for what is to be published.
    ring.version(100).certified = Some(at(105));
    let (told, age) = look(&ring, Some(&certificate), 105);
    assert_eq!((told.len(), waits_for_person(&age)), (0, ("False", reasons::OK)));
    ring.observed.written = Some([(id(100), "request 100".to_owned())].into());
    let (told, publication) = look(&ring, Some(&age), 111);
    assert!(
        told.len() == 1
            && told[0].0 == reasons::WAITS_FOR_PUBLICATION
            && told[0].1.contains(&format!("prio-operator.io/published={}", id(100))),
        "{told:?}"
    );
    assert_eq!(waits_for_person(&publication), ("True", reasons::WAITS_FOR_PUBLICATION));
    assert_eq!(look(&ring, Some(&publication), 112).0, []);

    // A look that isn't finished, or whose step isn't done, takes nothing back and has nothing asked again.
    let undone = Decision {
        step: Some(Step::Promote { id: id(100) }),
        ..Decision::default()
    };
    for decision in [None, Some(undone)] {
        let findings = Findings {
            record: Some(ring.record.clone()),
            decision,
            ..Findings::default()
        };
        let after = status("us-ct", Some(&publication), &findings, 1, at(112));
        assert_eq!(waits_for_person(&after), waits_for_person(&publication));
        assert_eq!(after.next, publication.next);
        assert_eq!(look(&ring, Some(&after), 113).0, []);
    }
}
