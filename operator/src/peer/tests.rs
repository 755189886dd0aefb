//! What looks at web servers mean: tables of publications, changes and failures.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crds::Peer;
use crds::conditions::{MANIFEST_CURRENT, READY, reasons};
use crds::names::APPROVE_MANIFEST_ANNOTATION;
use crds::peer::PeerManifest;
use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::formats::manifest::{GLOBAL_OBJECT, ManifestKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::decide::{Decision, FALLBACK_AFTER, Sight, decide, falls_back};
use super::difference::Difference;
use super::publication::{Document, Publication, WithoutGlobal};

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
fn what_documents_say_is_gathered_and_their_digest_is_that_of_sha256sum() {
    let publication = published(same);
    let manifest = &publication.manifest;
    assert_eq!(publication.warnings, [""; 0]);
    let fields: Vec<_> = manifest
        .fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        fields,
        [
            "ingestion-bucket=gs://prio-demo-us-ct-g-enpa-ingestion",
            "peer-validation-bucket=s3://us-west-1/prio-demo-us-ct-g-enpa-peer-validation",
            "peer-validation-identity=arn:aws:iam::123456789012:role/demo",
            "server-identity.aws-account-id=123456789012",
            "server-identity.gcp-service-account-email=prio-demo-sum-writer@proj.iam.gserviceaccount.com",
        ]
    );
    assert_eq!(manifest.batch_signing_keys[0].id, KEY_ID);
    assert_eq!(
        (
            manifest.batch_signing_keys[0].public_key.len(),
            manifest.packet_encryption_keys.len()
        ),
        (88, 1)
    );
    let formats: Vec<_> = manifest
        .documents
        .iter()
        .map(|one| (one.name.as_str(), one.format))
        .collect();
    assert_eq!(formats, [(GLOBAL_OBJECT, 1), ("us-ct-manifest.json", 2)]);
    // printf a > a; printf b > b; sha256sum a b | sha256sum
    let peer = peer(|_| {});
    let refused = |name: &str, text: &str| document(name, ManifestKind::Portal, text);
    let portal = [refused(GLOBAL_OBJECT, PORTAL)];
    let read = Publication::read(&peer, &portal, None, at(0)).unwrap();
    let line = format!("{}  {GLOBAL_OBJECT}\n", crate::digest::hex_digest(PORTAL.as_bytes()));
    assert_eq!(read.manifest.digest, crate::digest::hex_digest(line.as_bytes()));
    // The order of fetching doesn't matter.
    let both = [refused("b", PORTAL), refused("a", PORTAL)];
    let other = [refused("a", PORTAL), refused("b", PORTAL)];
    let of = |documents: &[Document]| {
        Publication::read(&peer, documents, None, at(0))
            .unwrap()
            .manifest
            .digest
    };
    assert_eq!(of(&both), of(&other));
}

#[test]
fn one_bad_document_is_refused_with_each_reason() {
    let specific = json!({
        "format": 2, "ingestion-bucket": "gs://i", "peer-validation-bucket": "gs://p",
        "batch-signing-public-keys": {}, "packet-encryption-keys": {},
    });
    let documents = [
        document(GLOBAL_OBJECT, ManifestKind::DataShareProcessorGlobal, GLOBAL),
        document(
            "x-manifest.json",
            ManifestKind::DataShareProcessorSpecific,
            &specific.to_string(),
        ),
    ];
    let problems = Publication::read(&peer(|_| {}), &documents, None, at(0)).unwrap_err();
    for field in ["batch-signing-public-keys", "packet-encryption-keys"] {
        let problem = format!("x-manifest.json: {field}: no key");
        assert!(problems.contains(&problem), "{problems}");
    }
    let documents = [document(GLOBAL_OBJECT, ManifestKind::Ingestor, GLOBAL)];
    let problems = Publication::read(&peer(|_| {}), &documents, None, at(0)).unwrap_err();
    assert!(
        problems.contains("global-manifest.json: the ingestor manifest isn't"),
        "another party's global one is needed: {problems}"
    );
}

/// A share processor's publication without a good global document.
fn without_global(peer: &Peer, global: Result<&str, WithoutGlobal>) -> Publication {
    let mut documents = vec![document(
        "us-ct-manifest.json",
        ManifestKind::DataShareProcessorSpecific,
        SPECIFIC,
    )];
    let without = match global {
        Ok(text) => {
            documents.push(document(GLOBAL_OBJECT, ManifestKind::DataShareProcessorGlobal, text));
            None
        }
        Err(without) => Some(without),
    };
    Publication::read(peer, &documents, without, at(0)).unwrap()
}

#[test]
fn what_the_original_publishes_on_gcp_is_read_with_both_ids_and_a_warning() {
    let publication = without_global(&peer(|_| {}), Ok(GCP));
    let fields = &publication.manifest.fields;
    assert_eq!(
        (
            fields["server-identity.aws-account-id"].as_str(),
            fields["server-identity.gcp-service-account-id"].as_str(),
        ),
        ("123456789012", "112233445566778899001")
    );
    assert!(
        publication.warnings.len() == 1 && publication.warnings[0].contains("server-identity: it holds both"),
        "{:?}",
        publication.warnings
    );
    let decision = decide(&peer(|_| {}), &Sight::Published(publication.clone()), at(0));
    assert_eq!(said(&decision, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
    assert_eq!(decision.status.warnings, publication.warnings);
}

#[test]
fn a_share_processors_keys_do_not_wait_for_its_global_document() {
    let fails = |is_gone, why: &str| WithoutGlobal {
        is_gone,
        why: why.to_owned(),
    };
    // A server that fails, one that has none, no JSON, and another kind of document.
    let globals = || {
        [
            (Err(fails(false, "it answers 500")), "it answers 500"),
            (Err(fails(true, "it answers 404")), "it answers 404"),
            (
                Ok("{"),
                "global-manifest.json: the data-share-processor-global manifest isn't",
            ),
            (Ok(PORTAL), "unknown field"),
        ]
    };
    for (global, why) in globals() {
        let publication = without_global(&peer(|_| {}), global);
        assert_eq!(publication.manifest.batch_signing_keys[0].id, KEY_ID);
        let names: Vec<_> = publication
            .manifest
            .documents
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["us-ct-manifest.json"], "{why}");
        assert!(
            publication
                .manifest
                .fields
                .keys()
                .all(|name| !name.starts_with("server-identity"))
        );
        assert!(
            publication.warnings.len() == 1
                && publication.warnings[0].contains(why)
                && publication.warnings[0].contains("isn't known"),
            "{why}: {:?}",
            publication.warnings
        );
    }
    // What was known of it stays while it fails, so that nothing changes, and nothing waits for another digest.
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    for (global, why) in globals() {
        let is_gone = why == "it answers 404";
        let publication = without_global(&after(&good, |_| {}), global);
        let decision = decide(&after(&good, |_| {}), &Sight::Published(publication.clone()), at(10));
        assert_eq!(said(&decision, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
        assert_eq!(decision.status.warnings.len(), 1);
        let fields = &decision.status.manifest.as_ref().unwrap().fields;
        assert_eq!(fields.contains_key("server-identity.aws-account-id"), !is_gone, "{why}");
        assert_eq!(told(&decision).is_empty(), !is_gone, "{why}: {:?}", decision.news);
        let elsewhere = after(&good, |peer| {
            peer["spec"]["manifestBaseUrl"] = json!("https://new.example")
        });
        let fresh = without_global(&elsewhere, Err(fails(false, "it answers 500")));
        assert_eq!(fresh.manifest.documents.len(), 1, "another server's is none of it");
    }
}

#[test]
fn a_change_that_smells_is_known_from_one_that_does_not() {
    let before = published(same).manifest;
    type Change = fn(&mut Value);
    let table: [(&str, Change, &str, &str); 10] = [
        ("nothing", same, "", ""),
        ("a key added", added, "batch-signing key \"new\" added", ""),
        (
            "a key replaced",
            replaced,
            "replaced under its id",
            "replaced under its id",
        ),
        (
            "all keys other",
            |m| m["batch-signing-public-keys"] = json!({"new": key(0)}),
            "removed",
            "no batch-signing key of before is left",
        ),
        (
            "the same key under another id",
            |m| m["batch-signing-public-keys"] = json!({"new": m["batch-signing-public-keys"][KEY_ID].clone()}),
            "\"new\" added",
            "",
        ),
        (
            "expiration",
            |m| m["batch-signing-public-keys"][KEY_ID]["expiration"] = json!("2124-06-30T00:00:00Z"),
            "expires 2124-06-30T00:00:00Z, was 2123-06-30T00:00:00Z",
            "",
        ),
        (
            "another bucket",
            |m| m["peer-validation-bucket"] = json!("s3://us-west-1/evil"),
            "peer-validation-bucket moved: s3://us-west-1/evil, was s3://us-west-1/prio",
            "peer-validation-bucket moved",
        ),
        (
            "another store",
            |m| m["ingestion-bucket"] = json!("s3://us-west-1/prio-demo-us-ct-g-enpa-ingestion"),
            "ingestion-bucket moved",
            "ingestion-bucket moved",
        ),
        (
            "another folder of the bucket",
            |m| m["ingestion-bucket"] = json!("gs://prio-demo-us-ct-g-enpa-ingestion/inner"),
            "ingestion-bucket moved",
            "",
        ),
        (
            "another role",
            |m| m["peer-validation-identity"] = json!("arn:aws:iam::210987654321:role/demo"),
            "peer-validation-identity replaced",
            "peer-validation-identity replaced",
        ),
    ];
    for (name, change, told, smells) in table {
        let difference = Difference::between(&before, &published(change).manifest, &[]);
        let (told_all, suspicious) = (difference.changes.join("; "), difference.suspicious.join("; "));
        assert!(
            told_all.contains(told) && told_all.is_empty() == told.is_empty(),
            "{name}: {told_all}"
        );
        assert!(
            suspicious.contains(smells) && suspicious.is_empty() == smells.is_empty(),
            "{name}: {suspicious}"
        );
    }
    let more = published(added).manifest;
    let difference = Difference::between(&more, &before, &[]);
    assert!(
        difference.suspicious[0].contains("fewer batch-signing keys than before: 1, were 2"),
        "{difference:?}"
    );
    let fewer_documents = PeerManifest {
        documents: before.documents[..1].to_vec(),
        ..before.clone()
    };
    let difference = Difference::between(&before, &fewer_documents, &[]);
    assert!(
        difference.changes[0].contains("read from global-manifest.json instead of"),
        "{difference:?}"
    );
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
fn a_change_that_smells_waits_for_its_own_digest() {
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let change = Sight::Published(published(replaced));
    let held = decide(&after(&good, |_| {}), &change, at(10));
    assert_eq!(
        said(&held, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 10)
    );
    assert_eq!(said(&held, READY), expected("True", reasons::OK, 0));
    assert_eq!(held.status.manifest, good.status.manifest);
    let waits = held.status.held.clone().unwrap();
    assert_eq!(
        (waits.since.as_str(), waits.suspicious.len()),
        (at(10).to_string().as_str(), 2)
    );
    let command = format!(
        "kubectl -n prio annotate peer other --overwrite {APPROVE_MANIFEST_ANNOTATION}={}",
        waits.digest
    );
    assert!(
        held.news[0].warning && held.news[0].message.contains(&command),
        "{:?}",
        held.news
    );

    let again = decide(&after(&held, |_| {}), &change, at(20));
    assert_eq!((&again.status, again.news.len()), (&held.status, 0));
    // Another change is told again, and waits anew.
    let other = published(|m| {
        replaced(m);
        m["peer-validation-bucket"] = json!("gs://evil");
    });
    let other = decide(&after(&held, |_| {}), &Sight::Published(other), at(30));
    assert_eq!(told(&other), [(true, reasons::CHANGE_HELD)]);
    assert_eq!(other.status.held.as_ref().unwrap().since, at(30).to_string());
    // While the server is down the question stays; when they take it back it is gone.
    let down = decide(&after(&held, |_| {}), &Sight::Failed("no".into()), at(40));
    assert_eq!(down.status.held, held.status.held);
    let back = decide(&after(&held, |_| {}), &Sight::Published(published(same)), at(40));
    assert_eq!((&back.status.held, told(&back)), (&None, vec![(false, reasons::OK)]));

    let annotated = |digest: &str| {
        let digest = digest.to_owned();
        move |peer: &mut Value| peer["metadata"]["annotations"] = json!({APPROVE_MANIFEST_ANNOTATION: digest})
    };
    let wrong = decide(&after(&held, annotated(digest(&good))), &change, at(50));
    assert_eq!(
        wrong.status.manifest, good.status.manifest,
        "another digest approves nothing"
    );
    let approved = decide(&after(&held, annotated(&waits.digest)), &change, at(60));
    assert_eq!(
        (digest(&approved), &approved.status.held),
        (waits.digest.as_str(), &None)
    );
    assert_eq!(
        told(&approved),
        [(false, reasons::MANIFEST_CHANGED), (false, reasons::OK)]
    );
    assert_eq!(
        approved.status.manifest.as_ref().unwrap().accepted_at,
        at(60).to_string()
    );
}

fn approve(value: &str) -> impl Fn(&mut Value) {
    let value = value.to_owned();
    move |peer: &mut Value| peer["metadata"]["annotations"] = json!({APPROVE_MANIFEST_ANNOTATION: value})
}

#[test]
fn an_approval_is_used_up() {
    let both = |m: &mut Value| {
        replaced(m);
        added(m);
    };
    let (change, more) = (Sight::Published(published(replaced)), Sight::Published(published(both)));
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let held = decide(&after(&good, |_| {}), &change, at(10));
    let a = held.status.held.clone().unwrap().digest;
    let taken = decide(&after(&held, approve(&a)), &change, at(20));
    assert_eq!(
        (digest(&taken), &taken.status.approvals_used),
        (a.as_str(), &vec![a.clone()])
    );
    let stays = decide(&after(&taken, approve(&a)), &change, at(25));
    assert_eq!((&stays.status, stays.news.len()), (&taken.status, 0));
    // Another one follows without a question, and a server that goes back is asked about, although the annotation is there.
    let next = decide(&after(&stays, approve(&a)), &more, at(30));
    assert_ne!(digest(&next), a);
    let back = decide(&after(&next, approve(&a)), &change, at(40));
    assert_eq!(
        said(&back, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 40)
    );
    let command = format!("{APPROVE_MANIFEST_ANNOTATION}={a}:2. It is");
    assert!(back.news[0].message.contains(&command), "{:?}", back.news);
    assert_eq!(back.status.held.as_ref().unwrap().approval, format!("{a}:2"));
    // Nor is it approved by anything that was used up, in whatever order that comes, or by taking the annotation away.
    let without = decide(&after(&next, |_| {}), &change, at(40));
    assert_eq!(without.status.held.as_ref().unwrap().approval, format!("{a}:2"));
    let again = decide(&after(&back, approve(&format!("{a}:2"))), &change, at(50));
    assert_eq!((digest(&again), &again.status.held), (a.as_str(), &None));
    let next = decide(&after(&again, approve(&format!("{a}:2"))), &more, at(60));
    let older = decide(&after(&next, approve(&a)), &change, at(65));
    assert!(older.status.held.is_some(), "GitOps went back to the one before");
    let third = decide(&after(&next, approve(&format!("{a}:2"))), &change, at(70));
    assert!(
        third.news[0].message.contains(&format!("={a}:3. It is")),
        "{:?}",
        third.news
    );

    // One for a manifest that came without a question is used up as well.
    let unasked = decide(&peer(approve(&a)), &change, at(0));
    let next = decide(&after(&unasked, approve(&a)), &more, at(10));
    let back = decide(&after(&next, approve(&a)), &change, at(20));
    assert_eq!(
        said(&back, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 20)
    );
}

#[test]
fn an_id_that_comes_back_must_have_its_key() {
    let with = |keys: &[(&str, usize)]| {
        let keys: Vec<(String, usize)> = keys.iter().map(|(id, point)| ((*id).to_owned(), *point)).collect();
        Sight::Published(published(move |m| {
            for (id, point) in &keys {
                m["batch-signing-public-keys"][id] = key(*point);
            }
        }))
    };
    let first = decide(&peer(|_| {}), &with(&[("old", 0)]), at(0));
    let gone = decide(&after(&first, |_| {}), &with(&[("new", 0)]), at(10));
    assert_eq!(
        said(&gone, MANIFEST_CURRENT),
        expected("True", reasons::OK, 0),
        "as many as before"
    );
    let removed = &gone.status.removed_keys;
    assert!(removed.len() == 1 && removed[0].id == "old", "{removed:?}");
    let same_key = decide(&after(&gone, |_| {}), &with(&[("new", 0), ("old", 0)]), at(20));
    assert_eq!(said(&same_key, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
    assert_eq!(same_key.status.removed_keys, []);
    let other_key = decide(&after(&gone, |_| {}), &with(&[("new", 0), ("old", 1)]), at(20));
    assert_eq!(
        said(&other_key, MANIFEST_CURRENT),
        expected("False", reasons::CHANGE_HELD, 20)
    );
    let held = other_key.status.held.as_ref().unwrap();
    assert!(
        held.suspicious.len() == 1 && held.suspicious[0].contains("\"old\" comes back with another key"),
        "{held:?}"
    );
    // Another server's ids are none of it.
    let elsewhere = |peer: &mut Value| peer["spec"]["manifestBaseUrl"] = json!("https://new.example");
    let moved = decide(&after(&gone, elsewhere), &with(&[("new", 0), ("old", 1)]), at(20));
    assert_eq!((&moved.status.held, moved.status.removed_keys.len()), (&None, 0));
    // However many come and go, only so many are remembered: the last.
    let mut now = first;
    for number in 0..100 {
        now = decide(
            &after(&now, |_| {}),
            &with(&[(format!("k{number}").as_str(), 0)]),
            at(30 + number),
        );
    }
    let removed = &now.status.removed_keys;
    assert_eq!((removed.len(), removed[63].id.as_str()), (64, "k98"));
}

#[test]
fn a_change_is_taken_at_once_where_nobody_is_to_be_asked() {
    let good = decide(&peer(|_| {}), &Sight::Published(published(same)), at(0));
    let plain = decide(&after(&good, |_| {}), &Sight::Published(published(added)), at(10));
    assert_eq!(told(&plain), [(false, reasons::MANIFEST_CHANGED)]);
    let changes = [
        |peer: &mut Value| peer["spec"]["suspiciousChanges"] = json!("Accept"),
        |peer: &mut Value| peer["spec"]["manifestBaseUrl"] = json!("https://new.example"),
        |peer: &mut Value| peer["spec"]["instance"] = json!("us-pa"),
    ];
    for change in changes {
        let taken = decide(&after(&good, change), &Sight::Published(published(replaced)), at(10));
        assert_ne!(digest(&taken), digest(&good));
        assert!(
            taken.news[0].message.contains("replaced under its id"),
            "{:?}",
            taken.news
        );
    }
    let other_place = |peer: &mut Value| peer["spec"]["manifestBaseUrl"] = json!("https://new.example");
    let failed = decide(&after(&good, other_place), &Sight::Failed("mistyped".into()), at(10));
    assert_eq!(
        failed.status.manifest, good.status.manifest,
        "a mistyped address takes nothing away"
    );
}

#[test]
fn an_ingestors_specific_manifest_is_asked_for_where_the_global_one_does_not_come() {
    let read = |name: &str| {
        let documents = [document(name, ManifestKind::Ingestor, INGESTOR)];
        Publication::read(&peer(|_| {}), &documents, None, at(0))
            .unwrap()
            .manifest
    };
    let (global, specific) = (read(GLOBAL_OBJECT), read("us-ct-manifest.json"));
    let (soon, late) = (SignedDuration::from_secs(1), FALLBACK_AFTER);
    let table = [
        (true, None, soon, true),
        (true, Some(&global), soon, true),
        (false, None, soon, false),
        (false, None, late, true),
        (false, Some(&global), soon, false),
        (false, Some(&global), late, true),
        (false, Some(&specific), soon, true),
    ];
    for (missing, in_use, failing, expected) in table {
        let falls = falls_back(missing, in_use, GLOBAL_OBJECT, failing);
        assert_eq!(
            falls,
            expected,
            "{missing} {:?} {failing}",
            in_use.map(|m| &m.documents[0].name)
        );
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
