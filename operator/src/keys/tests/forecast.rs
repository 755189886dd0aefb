//! What a plan says.

use crds::key_ring::KeyPurpose;
use serde_json::json;

use super::*;
use crate::keys::forecast::{as_if_asked, forecast};

use KeyPurpose::{BatchSigning, PacketEncryption};

fn lines(ring: &Ring, now: i64, until: i64, limit: usize) -> Vec<String> {
    let settings = Settings::of(&ring.spec);
    let foreseen = forecast(&settings, &ring.record, &ring.observed, at(now), at(until), limit);
    let seconds = |time: Timestamp| time.as_second() - 1_700_000_000;
    foreseen
        .iter()
        .map(|one| {
            format!(
                "{}: {}{}",
                seconds(one.at),
                one.what,
                if one.if_first.is_some() { " (waits)" } else { "" }
            )
        })
        .collect()
}

#[test]
fn a_whole_turn_is_foreseen_with_its_times() {
    let ring = Ring::in_use(BatchSigning);
    let new = id(100);
    assert_eq!(
        lines(&ring, 20, 500, 5),
        [
            format!("100: make {new}: its Secret; there is no second copy"),
            format!("100: every worker has {new} (waits)"),
            format!("100: publish {} and {new}", id(0)),
            // The processor has to say that partners get it.
            format!("110: use {new} for new work instead of {} (waits)", id(0)),
            format!("200: make {}: its Secret; there is no second copy", id(200)),
        ]
    );
    let mut ring = Ring::in_use(PacketEncryption);
    // What was published before the plan begins goes with the key that follows.
    ring.observed.processors[0].published = Some([(id(0), at(3))].into());
    let said = lines(&ring, 20, 320, 100);
    assert!(said.contains(&format!("110: publish {new}")), "{said:?}");
    assert!(
        said.contains(&format!(
            "300: retire {}: workers don't mount it any more; its Secret stays",
            id(0)
        )),
        "{said:?}"
    );
}

#[test]
fn a_second_copy_is_foreseen_only_where_one_is_made() {
    let mut ring = Ring::in_use(BatchSigning);
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    for (backup, expected) in [
        (json!({"method": "None"}), "its Secret; there is no second copy"),
        (
            json!({"method": "Age", "recipients": [recipient]}),
            "its second copy, then its Secret",
        ),
    ] {
        ring.spec.backup = serde_json::from_value(backup).unwrap();
        assert_eq!(lines(&ring, 20, 150, 1), [format!("100: make {}: {expected}", id(100))]);
    }
}

#[test]
fn a_rotation_is_foreseen_before_it_is_asked_for() {
    let mut ring = Ring::in_use(BatchSigning);
    // Asked for once, and answered by the version that is there; none follows by itself.
    ring.observed.rotate = Some("first".into());
    ring.record.rotation_answered = Some("first".into());
    ring.spec.rotation.mode = crds::key_ring::RotationMode::Disabled;
    assert_eq!(lines(&ring, 20, 300, 9), [""; 0]);
    let (record, observed) = (ring.record.clone(), ring.observed.clone());
    ring.observed = as_if_asked(&ring.record, &ring.observed);
    let new = id(20);
    assert_eq!(
        lines(&ring, 20, 300, 9),
        [
            format!("20: make {new}: its Secret; there is no second copy"),
            format!("20: every worker has {new} (waits)"),
            format!("20: publish {} and {new}", id(0)),
            format!("30: use {new} for new work instead of {} (waits)", id(0)),
        ],
        "just one"
    );
    assert_eq!(ring.record, record);
    // One that is on its way comes first, as it would if it were asked for.
    ring.observed = observed;
    ring.spec.rotation.mode = crds::key_ring::RotationMode::Enabled;
    ring.add(18, |_| {});
    ring.observed = as_if_asked(&ring.record, &ring.observed);
    let said = lines(&ring, 20, 60, 9);
    let place = |part: &str| said.iter().position(|line| line.contains(part));
    assert!(place(&format!("use {}", id(18))) < place("make "), "{said:?}");
    assert!(place("make ").is_some(), "{said:?}");
}

#[test]
fn persons_and_processors_that_are_waited_for_are_named() {
    let mut ring = Ring::in_use(PacketEncryption);
    ring.spec.certificate =
        serde_json::from_value(json!({"commonName": "a.example", "authority": "External"})).unwrap();
    let settings = Settings::of(&ring.spec);
    let foreseen = forecast(&settings, &ring.record, &ring.observed, at(20), at(300), 9);
    let certified = foreseen.iter().find(|one| one.what.contains("is issued")).unwrap();
    assert!(
        certified
            .to_string()
            .contains("after waiting for a person: bring the certificate"),
        "{certified}"
    );
    ring.observed.processors.clear();
    ring.record.versions.clear();
    (ring.observed.published, ring.observed.written) = (None, None);
    let said = forecast(&settings, &ring.record, &ring.observed, at(0), at(300), 10);
    assert!(
        said.last()
            .unwrap()
            .to_string()
            .contains("a DataShareProcessor that refers"),
        "{said:?}"
    );
}

#[test]
fn a_refusal_is_the_whole_plan() {
    let mut ring = Ring::in_use(BatchSigning);
    ring.observed
        .published
        .as_mut()
        .unwrap()
        .insert("stranger".into(), "public".into());
    let said = lines(&ring, 20, 500, 10);
    assert!(said.len() == 1 && said[0].contains("stranger"), "{said:?}");
}
