//! What processors say, and what follows from it: a key that was loaded may be lost, one that was public may vanish.

use crds::DataShareProcessor;
use crds::conditions::{KEYS_LOADED, MANIFEST_PUBLISHED, WORKERS_READY, reasons};
use crds::key_ring::KeyPurpose;
use serde_json::{Value, json};

use super::*;
use crate::keys::decide::Step;
use crate::keys::observe::{observed, processor_view};
use crate::workload::fixtures;

use KeyPurpose::{BatchSigning, PacketEncryption};

/// A signing key that is public and old enough to be used.
fn due() -> Ring {
    let mut ring = Ring::in_use(BatchSigning);
    ring.add(100, |version| {
        (version.loaded, version.published) = (Some(at(101)), Some(at(102)))
    });
    ring.load(100, 101);
    ring.publish(&[0, 100]);
    ring
}

fn waits_for(ring: &Ring, now: i64, text: &str) {
    let decision = ring.decide(now);
    assert_eq!((&decision.step, &decision.refusal), (&None, &None));
    assert!(decision.waits[0].text.contains(text), "{:?}", decision.waits);
}

#[test]
fn nothing_is_told_to_partners_or_used_that_workers_may_have_lost() {
    let promote = Some(Step::Promote { id: id(100) });
    assert_eq!(due().decide(150).step, promote);
    let mut ring = due();
    ring.observed.processors[0].trouble = Some("KeysLoaded of us-ct to be True (ProbeFailed)".into());
    waits_for(&ring, 150, "KeysLoaded of us-ct");
    let mut ring = due();
    ring.observed.processors[0].loaded.clear();
    waits_for(&ring, 150, "the workers of us-ct to have");
    // Another processor that refers to the ring since.
    let mut ring = due();
    ring.observed.processors.push(ProcessorView {
        name: "us-ca".into(),
        ..ProcessorView::default()
    });
    waits_for(&ring, 150, "the workers of us-ca to have");

    for purpose in [BatchSigning, PacketEncryption] {
        let mut ring = Ring::in_use(purpose);
        ring.add(100, |version| version.loaded = Some(at(101)));
        ring.load(100, 101);
        assert!(matches!(ring.decide(150).step, Some(Step::Publish(_))), "{purpose:?}");
        ring.observed.processors[0].trouble = Some("WorkersReady of us-ct to be True".into());
        waits_for(&ring, 150, "WorkersReady of us-ct");
    }
}

#[test]
fn a_signing_key_is_public_for_its_age_without_a_break() {
    let mut ring = due();
    ring.seen_since(&[0, 100], 145);
    let waiting = ring.decide(150);
    assert_eq!(waiting.waits[0].at, Some(at(155)), "{waiting:?}");
    assert_eq!(ring.decide(155).step, Some(Step::Promote { id: id(100) }));
    ring.observed.processors[0].unserved = true;
    waits_for(&ring, 155, "see ManifestPublished there");
}

#[test]
fn a_packet_key_of_the_spec_that_keeps_the_rings_from_the_manifest_is_named() {
    let mut ring = Ring::new(PacketEncryption);
    ring.add(0, |version| version.loaded = Some(at(1)));
    ring.load(0, 1);
    ring.publish(&[0]);
    ring.seen_since(&[], 0);
    ring.observed.processors[0].inline = Some("by-hand".into());
    waits_for(
        &ring,
        5,
        "packetEncryptionKey to be taken out of spec.manifest of us-ct: partners get by-hand",
    );
}

fn processor(change: impl FnOnce(&mut Value)) -> DataShareProcessor {
    let mut value = serde_json::to_value(fixtures::processor()).unwrap();
    value["spec"]["keys"] = json!({
        "batchSigning": {"keyRingRef": {"name": "ring"}}, "packetDecryption": [{"secretRef": {"name": "packet"}}],
    });
    let key = |ring: &str, id: &str| {
        json!({"keyRing": ring, "id": id, "secret": "s", "state": "InUse", "published": "2026-11-20T00:00:00Z",
               "loaded": "2026-11-19T00:00:00Z"})
    };
    value["status"] = json!({"keys": {"versions": [key("ring", "a"), key("other", "b")]}, "conditions": []});
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!([{"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-11-20T00:00:00Z"}])
}

#[test]
fn what_a_processor_says_of_the_ring_is_read_with_its_times() {
    let manifest = json!({"publishTo": {"configMap": {"name": "m"}}});
    let view = processor_view("ring", &processor(|one| one["spec"]["manifest"] = manifest.clone()));
    let published = view.published.unwrap();
    assert_eq!(
        published.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "2026-11-20T00:00:00Z".parse().unwrap())]
    );
    assert_eq!(view.known.into_iter().collect::<Vec<_>>(), ["a"]);
    assert!(view.loaded.contains_key("a") && !view.unserved && view.inline.is_none());
    assert_eq!(processor_view("ring", &processor(|_| {})).published, None);

    let table = [
        (KEYS_LOADED, "True", reasons::OK, false, false),
        (KEYS_LOADED, "False", reasons::PROBE_FAILED, true, false),
        (KEYS_LOADED, "False", reasons::KEY_RING_UNUSABLE, true, false),
        // Both are so on the way of every first key.
        (KEYS_LOADED, "False", reasons::NO_KEY_YET, false, false),
        (KEYS_LOADED, "False", reasons::PROBING, false, false),
        (WORKERS_READY, "False", reasons::MOUNT_MISSING, true, false),
        (WORKERS_READY, "Unknown", reasons::PENDING, false, false),
        (MANIFEST_PUBLISHED, "False", reasons::NOT_SERVED, false, true),
        (MANIFEST_PUBLISHED, "True", reasons::OK, false, false),
    ];
    for (kind, status, reason, troubled, unserved) in table {
        let one = processor(|one| one["status"]["conditions"] = condition(kind, status, reason));
        let view = processor_view("ring", &one);
        assert_eq!(
            (view.trouble.is_some(), view.unserved),
            (troubled, unserved),
            "{kind} {status} {reason}"
        );
    }
}

#[test]
fn what_is_written_counts_as_published_only_where_a_manifest_takes_it() {
    let ring = |method: &str, published: Option<&str>| -> crds::KeyRing {
        let annotations = published.map(|ids| json!({"prio-operator.io/published": ids}));
        serde_json::from_value(json!({
            "apiVersion": "prio-operator.io/v1alpha1", "kind": "KeyRing",
            "metadata": {"name": "ring", "annotations": annotations},
            "spec": {"purpose": "BatchSigning", "keyIdPrefix": "k", "backup": {"method": "None"}, "publication": {"method": method}},
        }))
        .unwrap()
    };
    let with_manifest = processor(|one| one["spec"]["manifest"] = json!({"publishTo": {"configMap": {"name": "m"}}}));
    let without = processor(|_| {});
    let of = |ring: &crds::KeyRing, processor: &DataShareProcessor| {
        let written = [("a".to_owned(), "public a".to_owned())].into();
        let observed = observed(
            ring,
            &Record::new(&ring.spec),
            std::slice::from_ref(processor),
            Some(written),
        );
        assert_eq!(observed.written.unwrap().len(), 1);
        observed
            .published
            .map(|keys| keys.into_keys().collect::<Vec<_>>().join(","))
    };
    assert_eq!(of(&ring("ConfigMap", None), &with_manifest).as_deref(), Some("a"));
    assert_eq!(of(&ring("ConfigMap", None), &without), None);
    assert_eq!(of(&ring("ConfigMap", Some("b, c")), &without).as_deref(), Some("b,c"));
    assert_eq!(of(&ring("Manual", None), &with_manifest), None);
    assert_eq!(of(&ring("Manual", Some("b")), &with_manifest).as_deref(), Some("b"));
}
