//! What looks at web servers mean: tables of publications, changes and failures.
#![allow(clippy::unwrap_used)]

mod publication;
mod suspicious;

use std::time::Duration;

use crds::Peer;
use crds::conditions::{MANIFEST_CURRENT, READY, reasons};
use crds::names::APPROVE_MANIFEST_ANNOTATION;
use crds::peer::PeerManifest;
use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::formats::manifest::{GLOBAL_OBJECT, ManifestKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::decide::{Decision, FALLBACK_AFTER, Sight, falls_back};
use super::difference::Difference;
use super::publication::{Document, Publication, WithoutGlobal};
use crate::told::Told;

const SPECIFIC: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/dsp-specific.json");
const GLOBAL: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/dsp-global.json");
const GCP: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/dsp-global-gcp.json");
const INGESTOR: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/ingestor.json");
const PORTAL: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/portal.json");
const KEY_ID: &str = "demo-us-ct-g-enpa-batch-signing-key";
const POINTS: [&str; 2] = [
    "BIl6j+J6dYttxALdjISDv6ZI4/VWVEhUzaS05LgrsfswmbLOgNt9HUC2E0w+9RqZx3XMkdEHBHfNuCSMpOwofVQ=",
    "BHHn+u9JB3LByxZqEMdx1I8Nc6OcOdxMyblqn7leIowr3m2zKbDfROqZzaSq56szBwpQQOKtZd382A4pQWOUoZk=",
];

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn key(point: usize) -> Value {
    let pem = BatchVerifyingKey::parse(POINTS[point]).unwrap().to_pem();
    json!({"public-key": pem, "expiration": "2123-06-30T00:00:00Z"})
}

fn peer(change: impl Fn(&mut Value)) -> Peer {
    let mut value = json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "Peer",
        "metadata": {"name": "other", "namespace": "prio", "uid": "u", "generation": 1},
        "spec": {"party": "ShareProcessor", "manifestBaseUrl": "https://other.example", "instance": "us-ct"},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn document(name: &str, kind: ManifestKind, text: &str) -> Document {
    Document {
        name: name.to_owned(),
        kind,
        bytes: text.to_owned().into(),
    }
}

/// The share processor's publication with its specific manifest changed.
fn published(change: impl Fn(&mut Value)) -> Publication {
    let mut specific: Value = serde_json::from_str(SPECIFIC).unwrap();
    change(&mut specific);
    let documents = [
        document(GLOBAL_OBJECT, ManifestKind::DataShareProcessorGlobal, GLOBAL),
        document(
            "us-ct-manifest.json",
            ManifestKind::DataShareProcessorSpecific,
            &specific.to_string(),
        ),
    ];
    Publication::read(&peer(|_| {}), &documents, None, at(0)).unwrap()
}

fn same(_: &mut Value) {}

fn replaced(m: &mut Value) {
    m["batch-signing-public-keys"][KEY_ID] = key(0);
}

fn added(m: &mut Value) {
    m["batch-signing-public-keys"]["new"] = key(0);
}

/// The decision of a process that has just begun.
fn decide(peer: &Peer, sight: &Sight, now: Timestamp) -> Decision {
    super::decide::decide(peer, sight, &Told::default(), now)
}

/// What a Peer becomes that has the status of a decision before.
fn after(before: &Decision, change: impl Fn(&mut Value)) -> Peer {
    let mut peer = peer(change);
    peer.status = Some(before.status.clone());
    peer
}

fn said(decision: &Decision, kind: &str) -> (String, String, i64) {
    let condition = decision
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    let since = condition.last_transition_time.0.as_second() - at(0).as_second();
    (condition.status.clone(), condition.reason.clone(), since)
}

fn expected(status: &str, reason: &str, since: i64) -> (String, String, i64) {
    (status.to_owned(), reason.to_owned(), since)
}

fn told(decision: &Decision) -> Vec<(bool, &str)> {
    decision.news.iter().map(|news| (news.warning, news.reason)).collect()
}

fn digest(decision: &Decision) -> &str {
    &decision.status.manifest.as_ref().unwrap().digest
}

#[test]
fn a_first_manifest_is_used_and_one_that_stays_changes_nothing() {
    let sight = Sight::Published(published(same));
    let first = decide(&peer(|_| {}), &sight, at(0));
    assert_eq!(said(&first, READY), expected("True", reasons::OK, 0));
    assert_eq!(said(&first, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
    assert_eq!(told(&first), [(false, reasons::MANIFEST_CHANGED)]);
    assert!(first.news[0].message.contains(KEY_ID), "{:?}", first.news);
    let second = decide(&after(&first, |_| {}), &sight, at(300));
    assert_eq!(
        (&second.status, second.news.len()),
        (&first.status, 0),
        "no write, no Event"
    );
    // Other white space: another digest, and nothing to tell.
    let mut relaid = published(same);
    relaid.manifest.digest = "0".repeat(64);
    let third = decide(&after(&first, |_| {}), &Sight::Published(relaid), at(600));
    assert_eq!(third.news.len(), 0);
    assert_eq!(third.status.manifest.as_ref().unwrap().accepted_at, at(0).to_string());
    assert_eq!(digest(&third), "0".repeat(64));
}

#[test]
fn the_last_good_manifest_stays_whatever_comes_after_it() {
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let down = Sight::Failed("https://other.example/x: Connection refused".to_owned());
    let bad = Sight::Refused("us-ct-manifest.json: it is no JSON".to_owned());
    let failed = decide(&after(&good, |_| {}), &down, at(10));
    assert_eq!(said(&failed, READY), expected("True", reasons::OK, 0));
    assert_eq!(
        said(&failed, MANIFEST_CURRENT),
        expected("False", reasons::FETCH_FAILED, 10)
    );
    assert_eq!(told(&failed), [(true, reasons::FETCH_FAILED)]);
    assert!(
        failed.news[0].message.contains("In use stays the one of 2027-01-15"),
        "{:?}",
        failed.news
    );
    let again = decide(&after(&failed, |_| {}), &down, at(20));
    assert_eq!((&again.status, again.news.len()), (&failed.status, 0));
    // Since when it isn't current stays, whatever keeps it from that.
    let refused = decide(&after(&again, |_| {}), &bad, at(30));
    assert_eq!(
        said(&refused, MANIFEST_CURRENT),
        expected("False", reasons::MANIFEST_REFUSED, 10)
    );
    assert_eq!(told(&refused), [(true, reasons::MANIFEST_REFUSED)]);
    assert_eq!(refused.status.manifest, good.status.manifest);
    let mended = decide(&after(&refused, |_| {}), &Sight::Published(published(same)), at(40));
    assert_eq!(said(&mended, MANIFEST_CURRENT), expected("True", reasons::OK, 40));
    assert_eq!(told(&mended), [(false, reasons::OK)]);
    assert_eq!(mended.status.manifest, good.status.manifest);
}

#[test]
fn each_cause_of_trouble_is_told_once_while_it_lasts() {
    let refused = |what: &str| Sight::Refused(format!("us-ct-manifest.json: {what}"));
    let failed = |what: &str| Sight::Failed(format!("https://other.example/us-ct-manifest.json: {what}"));
    let missing = || failed("the server answers 404 Not Found");
    let expired = |seconds: u32| {
        failed(&format!(
            "certificate expired: it is {}, it was valid until 1800000000 ({seconds} seconds ago)",
            1_800_000_000 + seconds
        ))
    };
    let moved = |m: &mut Value| m["peer-validation-bucket"] = json!("gs://evil");
    let unreadable = |line: u32| refused(&format!("expected value at line {line} column 1"));
    let table = [
        (
            Sight::Published(published(same)),
            vec![(false, reasons::MANIFEST_CHANGED)],
        ),
        (missing(), vec![(true, reasons::FETCH_FAILED)]),
        (missing(), vec![]),
        (expired(10), vec![(true, reasons::FETCH_FAILED)]),
        (expired(310), vec![]),
        // Two servers that take turns.
        (missing(), vec![]),
        (expired(900), vec![]),
        (unreadable(1), vec![(true, reasons::MANIFEST_REFUSED)]),
        (unreadable(2), vec![]),
        (
            refused("ingestion-bucket: it is missing"),
            vec![(true, reasons::MANIFEST_REFUSED)],
        ),
        (Sight::Published(published(same)), vec![(false, reasons::OK)]),
        (missing(), vec![(true, reasons::FETCH_FAILED)]),
        (Sight::Suspended, vec![]),
        (missing(), vec![(true, reasons::FETCH_FAILED)]),
        (
            Sight::Published(published(replaced)),
            vec![(true, reasons::CHANGE_HELD)],
        ),
        (Sight::Published(published(moved)), vec![(true, reasons::CHANGE_HELD)]),
        (Sight::Published(published(replaced)), vec![]),
        (Sight::Published(published(moved)), vec![]),
    ];
    let (mut before, mut memory) = (peer(|_| {}), Told::default());
    for (step, (sight, expected)) in (0..).zip(table) {
        let decision = super::decide::decide(&before, &sight, &memory, at(10 * step));
        assert_eq!(told(&decision), expected, "{step}: {sight:?}");
        before = after(&decision, |_| {});
        memory = decision.told;
    }
}

#[test]
fn a_held_change_is_told_once_however_long_its_text() {
    let far = |m: &mut Value| {
        for bucket in ["ingestion-bucket", "peer-validation-bucket"] {
            m[bucket] = json!(format!("gs://{}", "far".repeat(150)));
        }
    };
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let held = decide(&after(&good, |_| {}), &Sight::Published(published(far)), at(10));
    assert_eq!(told(&held), [(true, reasons::CHANGE_HELD)]);
    let again = decide(&after(&held, |_| {}), &Sight::Published(published(far)), at(20));
    assert_eq!((&again.status, again.news.len()), (&held.status, 0));
}

#[test]
fn without_any_good_manifest_nothing_is_ready() {
    let table = [
        (Sight::Failed("no".into()), reasons::FETCH_FAILED),
        (Sight::Refused("no".into()), reasons::MANIFEST_REFUSED),
        (Sight::Invalid("no".into()), reasons::INVALID_SPEC),
        (Sight::Suspended, reasons::SUSPENDED),
    ];
    for (sight, reason) in table {
        let decision = decide(&peer(|_| {}), &sight, at(0));
        assert_eq!(said(&decision, READY), expected("False", reason, 0));
        assert_eq!(decision.status.manifest, None);
    }
}

#[test]
fn after_a_failure_it_is_tried_sooner_and_then_later_and_later() {
    let of = |refresh, failures| super::wait(Duration::from_secs(refresh), failures).as_secs();
    assert_eq!(
        [of(300, 0), of(300, 1), of(300, 2), of(300, 5), of(300, 6)],
        [300, 10, 20, 160, 300]
    );
    assert_eq!([of(10, 3), of(86_400, 40)], [10, 86_400]);
}
