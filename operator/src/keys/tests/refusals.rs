//! What the original's rotator refuses, and what it would refuse to publish.

use crds::conditions::reasons;
use crds::key_ring::KeyPurpose;

use super::*;
use crate::keys::decide::check_publication;
use crate::keys::version::PublicKeys;

use KeyPurpose::{BatchSigning, PacketEncryption};

fn refused(ring: &Ring, now: i64, reason: &str) -> String {
    let decision = ring.decide(now);
    assert_eq!(decision.step, None);
    let refusal = decision.refusal.unwrap();
    assert_eq!(refusal.reason, reason);
    refusal.message
}

#[test]
fn a_version_from_the_future_stops_everything() {
    let mut ring = Ring::in_use(BatchSigning);
    ring.add(200, |_| {});
    assert!(ring.decide(140).refusal.is_none(), "clocks differ by a minute");
    let message = refused(&ring, 139, reasons::VERSION_FROM_FUTURE);
    assert!(message.contains(&id(200)), "{message}");
}

#[test]
fn ages_that_contradict_each_other_stop_everything() {
    for change in [
        |ring: &mut Ring| ring.spec.rotation.primary_min_age_seconds = Some(101),
        |ring: &mut Ring| ring.spec.rotation.create_min_age_seconds = 301,
    ] {
        let mut ring = Ring::in_use(BatchSigning);
        change(&mut ring);
        refused(&ring, 50, reasons::AGES_REFUSED);
    }
    let mut ring = Ring::in_use(BatchSigning);
    ring.spec.rotation.primary_min_age_seconds = None;
    assert!(
        ring.decide(50).refusal.is_none(),
        "a default gives way to what is written"
    );
}

#[test]
fn a_published_key_that_the_ring_lacks_stops_everything() {
    for purpose in [BatchSigning, PacketEncryption] {
        let mut ring = Ring::in_use(purpose);
        ring.observed
            .published
            .as_mut()
            .unwrap()
            .insert("stranger".into(), "public".into());
        let message = refused(&ring, 500, reasons::PUBLISHED_KEY_UNKNOWN);
        assert!(message.contains("stranger"), "{message}");
        // So does a ring that forgot its versions: it must not begin anew over keys that clients still use.
        let mut ring = Ring::in_use(purpose);
        ring.record.versions.clear();
        refused(&ring, 500, reasons::PUBLISHED_KEY_UNKNOWN);
    }
}

#[test]
fn another_key_under_an_id_of_the_ring_stops_everything() {
    for purpose in [BatchSigning, PacketEncryption] {
        let mut ring = Ring::in_use(purpose);
        ring.observed
            .published
            .as_mut()
            .unwrap()
            .insert(id(0), "another".into());
        let message = refused(&ring, 500, reasons::PUBLISHED_KEY_DIFFERS);
        assert!(message.contains(&id(0)), "{message}");
        let mut ring = Ring::in_use(purpose);
        let text = ring.observed.published.as_mut().unwrap().get_mut(&id(0)).unwrap();
        text.push('\n');
        assert!(ring.decide(50).refusal.is_none(), "a line's end is no other key");
    }
}

#[test]
fn nothing_is_published_that_breaks_a_rule_of_manifests() {
    let publication = |ring: &Ring, keys: &[(&str, &str)], before: Option<&PublicKeys>| {
        let after: PublicKeys = keys
            .iter()
            .map(|(id, text)| ((*id).to_owned(), (*text).to_owned()))
            .collect();
        check_publication(ring.spec.purpose, before, &after, &ring.record)
    };
    let mut signing = Ring::in_use(BatchSigning);
    signing.add(100, |_| {});
    let (old, new) = (id(0), id(100));
    let before = signing.observed.published.clone();
    let refusals: [(&[(&str, &str)], &str); 6] = [
        (&[], "no key"),
        (&[("stranger", "public")], "no active version"),
        (
            &[(&old, "public 0"), (&new, "public 100")],
            "before every worker has it",
        ),
        (&[(&old, "another")], "another key would be published"),
        (&[(&new, "public 100")], "before every worker has it"),
        (&[(&old, "public 0")], ""),
    ];
    for (keys, expected) in refusals {
        let said = publication(&signing, keys, before.as_ref()).err().unwrap_or_default();
        assert!(
            said.contains(expected) && said.is_empty() == expected.is_empty(),
            "{keys:?}: {said}"
        );
    }
    signing.version(100).loaded = Some(at(101));
    assert!(
        publication(&signing, &[(&new, "public 100")], None)
            .unwrap_err()
            .contains("would vanish")
    );
    signing.version(0).retired = Some(at(400));
    publication(&signing, &[(&new, "public 100")], None).unwrap();
    assert!(
        publication(&signing, &[(&old, "public 0")], None)
            .unwrap_err()
            .contains("no active version")
    );

    let mut packet = Ring::in_use(PacketEncryption);
    packet.add(100, |version| version.loaded = Some(at(101)));
    let both = [(old.as_str(), "request 0"), (new.as_str(), "request 100")];
    assert!(publication(&packet, &both, None).unwrap_err().contains("just one"));
    publication(&packet, &both[1..], None).unwrap();
}
