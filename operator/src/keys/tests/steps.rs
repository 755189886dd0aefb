//! Each step, and what it waits for.

use crds::conditions::reasons;
use crds::key_ring::{KeyPurpose, RotationMode};
use serde_json::json;

use super::*;
use crate::keys::decide::Step;

use KeyPurpose::{BatchSigning, PacketEncryption};

fn waits(decision: &Decision) -> Vec<(&'static str, Option<i64>)> {
    let seconds = |time: Timestamp| time.as_second() - 1_700_000_000;
    decision
        .waits
        .iter()
        .map(|wait| (wait.step, wait.at.map(seconds)))
        .collect()
}

fn texts(ring: &Ring, created: &[i64]) -> Step {
    let texts = created.iter().map(|created| {
        let version = ring.record.version(&id(*created)).unwrap();
        (version.id.clone(), version.public_text().to_owned())
    });
    Step::Publish(texts.collect())
}

#[test]
fn a_first_version_is_made_loaded_published_and_used_without_waiting_for_its_age() {
    for purpose in [BatchSigning, PacketEncryption] {
        let mut ring = Ring::new(purpose);
        let number = 1_700_000_000;
        assert_eq!(ring.decide(0).step, Some(Step::Create { number }));
        ring.add(0, |_| {});
        let waiting = ring.decide(1);
        assert_eq!(
            (waiting.step.clone(), waits(&waiting)[0]),
            (None, ("Load", None)),
            "{purpose:?}"
        );
        assert!(waiting.waits[0].text.contains("us-ct"), "{:?}", waiting.waits[0]);
        ring.load(0, 2);
        assert_eq!(
            ring.decide(3).step,
            Some(Step::NoteLoaded {
                id: id(0),
                since: at(2)
            })
        );
        ring.version(0).loaded = Some(at(2));
        assert_eq!(ring.decide(3).step, Some(texts(&ring, &[0])));
        ring.publish(&[0]);
        assert_eq!(ring.decide(3).step, Some(Step::NotePublished { id: id(0) }));
        ring.version(0).published = Some(at(3));
        assert_eq!(ring.decide(3).step, Some(Step::Promote { id: id(0) }));
        ring.version(0).promoted = Some(at(3));
        let settled = ring.decide(4);
        assert_eq!(
            (settled.step.clone(), waits(&settled)),
            (None, vec![("Create", Some(100))]),
            "{purpose:?}"
        );
        assert_eq!(settled.wake(), Some(at(100)));
    }
}

#[test]
fn nothing_is_published_without_a_processor_that_has_it_nor_before_all_have() {
    let mut ring = Ring::new(BatchSigning);
    ring.add(0, |_| {});
    let nobody = std::mem::take(&mut ring.observed.processors);
    assert!(ring.decide(5).waits[0].text.contains("refers to this KeyRing"));
    let other = ProcessorView {
        name: "us-ca".into(),
        ..ProcessorView::default()
    };
    ring.observed.processors = [nobody, vec![other]].concat();
    ring.load(0, 2);
    let waiting = ring.decide(5);
    assert_eq!(waiting.step, None);
    assert!(waiting.waits[0].text.contains("us-ca") && !waiting.waits[0].text.contains("us-ct"));
    ring.observed.processors[1].loaded.insert(id(0), at(4));
    assert_eq!(
        ring.decide(5).step,
        Some(Step::NoteLoaded {
            id: id(0),
            since: at(4)
        }),
        "since the last of them has it"
    );
}

#[test]
fn a_signing_key_is_public_for_its_age_before_it_signs() {
    let mut ring = Ring::in_use(BatchSigning);
    let number = 1_700_000_100;
    assert_eq!(ring.decide(99).step, None);
    assert_eq!(ring.decide(100).step, Some(Step::Create { number }));
    ring.add(100, |version| version.loaded = Some(at(150)));
    // Both are public: partners meet signatures of both.
    assert_eq!(ring.decide(150).step, Some(texts(&ring, &[0, 100])));
    ring.publish(&[0, 100]);
    ring.version(100).published = Some(at(151));
    let waiting = ring.decide(160);
    assert_eq!((waiting.step.clone(), waits(&waiting)[0]), (None, ("Use", Some(161))));
    assert_eq!(waiting.waits[0].reason, Some(reasons::WAITS_FOR_AGE));
    assert_eq!(ring.decide(161).step, Some(Step::Promote { id: id(100) }));
    // Taken out of what is published by somebody: it isn't used before it is there again.
    ring.publish(&[0]);
    assert_eq!(ring.decide(161).step, Some(texts(&ring, &[0, 100])));
}

#[test]
fn a_packet_key_is_published_alone_when_it_is_loaded_and_old_enough() {
    let mut ring = Ring::in_use(PacketEncryption);
    ring.add(100, |version| version.loaded = Some(at(101)));
    let waiting = ring.decide(109);
    assert_eq!(
        (waiting.step.clone(), waits(&waiting)[0]),
        (None, ("Publish", Some(110)))
    );
    assert_eq!(ring.decide(110).step, Some(texts(&ring, &[100])), "just one");
    ring.version(100).loaded = None;
    assert_eq!(waits(&ring.decide(110))[0], ("Load", None));
    ring.version(100).loaded = Some(at(101));
    ring.publish(&[100]);
    assert_eq!(ring.decide(111).step, Some(Step::NotePublished { id: id(100) }));
    ring.version(100).published = Some(at(111));
    assert_eq!(ring.decide(111).step, Some(Step::Promote { id: id(100) }));
}

#[test]
fn an_external_authority_is_a_person_and_the_wait_says_so() {
    let mut ring = Ring::in_use(PacketEncryption);
    ring.spec.certificate =
        serde_json::from_value(json!({"commonName": "a.example", "authority": "External"})).unwrap();
    ring.add(100, |version| version.loaded = Some(at(101)));
    let waiting = ring.decide(500);
    assert_eq!((waiting.step.clone(), waits(&waiting)[0]), (None, ("Certify", None)));
    assert_eq!(waiting.waits[0].reason, Some(reasons::WAITS_FOR_CERTIFICATE));
    assert!(
        waiting.waits[0]
            .text
            .contains(&format!("certificate-issued={}", id(100))),
        "{:?}",
        waiting.waits[0]
    );
    ring.observed.certified.insert(id(100));
    assert_eq!(ring.decide(500).step, Some(Step::NoteCertified { id: id(100) }));
    ring.version(100).certified = Some(at(500));
    assert_eq!(ring.decide(500).step, Some(texts(&ring, &[100])));
}

#[test]
fn where_a_person_publishes_nothing_is_used_before_the_person_says_so() {
    let mut ring = Ring::in_use(BatchSigning);
    ring.spec.publication = serde_json::from_value(json!({"method": "Manual"})).unwrap();
    ring.add(100, |version| version.loaded = Some(at(101)));
    let waiting = ring.decide(500);
    assert_eq!((waiting.step.clone(), waits(&waiting)[0]), (None, ("Publish", None)));
    assert!(
        waiting.waits[0]
            .text
            .contains(&format!("published={},{}", id(0), id(100))),
        "{:?}",
        waiting.waits[0]
    );
    ring.publish(&[0, 100]);
    assert_eq!(ring.decide(500).step, Some(Step::NotePublished { id: id(100) }));
}

/// Two versions, the second in use since second 120.
fn superseded(purpose: KeyPurpose) -> Ring {
    let mut ring = Ring::in_use(purpose);
    ring.version(0).superseded = Some(at(120));
    ring.add(100, |version| {
        (version.loaded, version.published, version.promoted) = (Some(at(101)), Some(at(102)), Some(at(120)));
    });
    ring.spec.rotation.create_min_age_seconds = 300;
    match purpose {
        BatchSigning => ring.publish(&[0, 100]),
        PacketEncryption => ring.publish(&[100]),
    }
    ring
}

fn retire_wait(ring: &Ring, now: i64) -> (Option<i64>, String) {
    let decision = ring.decide(now);
    assert_eq!(decision.step, None, "{now}");
    let wait = decision.waits.iter().find(|wait| wait.step == "Retire").unwrap();
    (wait.at.map(|at| at.as_second() - 1_700_000_000), wait.text.clone())
}

#[test]
fn a_version_is_retired_only_when_it_is_old_and_no_traffic_needs_it() {
    for purpose in [BatchSigning, PacketEncryption] {
        let mut ring = superseded(purpose);
        let retire = Some(Step::Retire { id: id(0) });
        let view = |ring: &mut Ring, change: &dyn Fn(&mut ProcessorView)| change(&mut ring.observed.processors[0]);
        assert_eq!(retire_wait(&ring, 200).0, Some(300), "its age");
        assert!(retire_wait(&ring, 310).1.contains("us-ct to say what it has seen"));
        // Nothing came since it was superseded, but what came is only known until then.
        view(&mut ring, &|view| {
            view.observed_until.insert(id(0), at(169));
        });
        let (when, why) = retire_wait(&ring, 310);
        assert!(when.is_none() && why.contains("us-ct to take in"), "{why}");
        view(&mut ring, &|view| {
            view.observed_until.insert(id(0), at(170));
        });
        assert_eq!(ring.decide(310).step, retire);
        // Traffic at 290 counts from then.
        view(&mut ring, &|view| {
            view.last_used.insert(id(0), at(290));
            view.observed_until.insert(id(0), at(309));
        });
        assert_eq!(retire_wait(&ring, 310).0, Some(340));
        view(&mut ring, &|view| {
            view.observed_until.insert(id(0), at(345));
        });
        assert_eq!(ring.decide(345).step, retire);
        // Whatever the age: a window that isn't finished needs it.
        view(&mut ring, &|view| {
            drop(view.needed_by.insert(id(0), "window agg/1-2".into()))
        });
        assert!(retire_wait(&ring, 345).1.contains("window agg/1-2"));
        view(&mut ring, &|view| view.needed_by.clear());
        // Of two processors both must be through with it.
        let mut both = superseded(purpose);
        both.observed.processors = [
            &ring.observed.processors[..],
            &[ProcessorView {
                name: "us-ca".into(),
                ..Default::default()
            }],
        ]
        .concat();
        assert!(retire_wait(&both, 345).1.contains("us-ca"));
        // Nobody refers to the ring: nobody knows.
        ring.observed.processors.clear();
        assert!(retire_wait(&ring, 345).1.contains("refers to this KeyRing"));
    }
}

#[test]
fn so_many_versions_stay_and_the_one_in_use_always() {
    let mut ring = superseded(BatchSigning);
    ring.observed.processors[0].observed_until.insert(id(0), at(10_000));
    assert_eq!(ring.decide(350).step, Some(Step::Retire { id: id(0) }));
    ring.spec.rotation.retire_min_count = 2;
    assert_eq!(ring.decide(350).step, None);
    let mut alone = Ring::in_use(PacketEncryption);
    alone.spec.rotation.create_min_age_seconds = 100_000;
    alone.spec.rotation.retire_min_age_seconds = 100_000;
    alone.observed.processors[0].observed_until.insert(id(0), at(1_000_000));
    assert!(!matches!(alone.decide(90_000).step, Some(Step::Retire { .. })));
}

#[test]
fn a_retired_signing_key_leaves_what_is_published_and_no_other_does() {
    let mut ring = superseded(BatchSigning);
    ring.version(0).retired = Some(at(350));
    assert_eq!(ring.decide(351).step, Some(texts(&ring, &[100])));
}

#[test]
fn rotation_that_is_off_makes_the_first_version_only() {
    let mut ring = Ring::new(BatchSigning);
    ring.spec.rotation.mode = RotationMode::Disabled;
    assert!(matches!(ring.decide(0).step, Some(Step::Create { .. })));
    let mut ring = superseded(BatchSigning);
    ring.spec.rotation.mode = RotationMode::Disabled;
    ring.observed.processors[0].observed_until.insert(id(0), at(10_000));
    let decision = ring.decide(9_000);
    assert_eq!((decision.step, decision.waits), (None, vec![]));
    ring.observed.rotate = Some("now".into());
    assert!(
        matches!(ring.decide(9_000).step, Some(Step::Create { .. })),
        "a person asked"
    );
    ring.record.rotation_answered = Some("now".into());
    assert_eq!(ring.decide(9_000).step, None, "once");
}

#[test]
fn one_version_is_on_its_way_at_a_time_and_not_more_are_active_than_workers_mount() {
    let mut ring = Ring::in_use(PacketEncryption);
    ring.add(100, |_| {});
    ring.observed.rotate = Some("now".into());
    let decision = ring.decide(900);
    assert_eq!(
        (decision.step.clone(), waits(&decision)),
        (None, vec![("Load", None), ("Create", None)])
    );
    assert!(decision.waits[1].text.contains("one version is on its way"));

    let mut ring = Ring::in_use(BatchSigning);
    for created in [100, 200, 300] {
        for version in &mut ring.record.versions {
            version.superseded.get_or_insert(at(created));
        }
        ring.add(created, |v| {
            (v.loaded, v.published, v.promoted) = (Some(at(created)), Some(at(created)), Some(at(created)));
        });
    }
    ring.publish(&[0, 100, 200, 300]);
    let decision = ring.decide(900);
    assert_eq!(decision.step, None);
    assert!(
        decision.waits.iter().any(|wait| wait.text.contains("4 are active")),
        "{decision:?}"
    );
}

#[test]
fn a_version_that_was_not_written_to_its_end_is_forgotten() {
    let mut ring = Ring::in_use(BatchSigning);
    ring.add(100, |version| version.written = None);
    assert_eq!(ring.decide(101).step, Some(Step::Forget { id: id(100) }));
}

#[test]
fn what_vanished_from_what_is_published_is_published_again() {
    let mut ring = Ring::in_use(PacketEncryption);
    ring.observed.published = None;
    assert_eq!(ring.decide(50).step, Some(texts(&ring, &[0])));
}
