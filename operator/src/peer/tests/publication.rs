//! What a party's documents say, all together.

use super::*;

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
fn a_specific_manifest_of_the_older_format_is_read_and_says_the_same() {
    let newer = published(same);
    let older = published(|m| m["format"] = json!(1));
    assert_eq!(older.warnings, [""; 0]);
    let document = &older.manifest.documents[1];
    assert_eq!((document.name.as_str(), document.format), ("us-ct-manifest.json", 1));
    assert_eq!(older.manifest.fields, newer.manifest.fields);
    assert_eq!(older.manifest.batch_signing_keys, newer.manifest.batch_signing_keys);
    // A party that goes on to the newer format changes nothing that anybody would have to approve.
    let first = decide(&peer(|_| {}), &Sight::Published(older), at(0));
    assert_eq!(said(&first, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
    let second = decide(&after(&first, |_| {}), &Sight::Published(newer), at(10));
    assert_eq!(said(&second, MANIFEST_CURRENT), expected("True", reasons::OK, 0));
    assert_eq!(second.status.manifest.as_ref().unwrap().documents[1].format, 2);
    assert_eq!(second.news.len(), 0, "{:?}", second.news);
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
