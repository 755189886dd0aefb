#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::processor::example;
use crate::processor::served::{FOR_LONG, is_fresh};
use crate::status::set_condition;

const CSR: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/csr.pem");
const POINT: &str = "BIl6j+J6dYttxALdjISDv6ZI4/VWVEhUzaS05LgrsfswmbLOgNt9HUC2E0w+9RqZx3XMkdEHBHfNuCSMpOwofVQ=";

const OTHER_POINT: &str = "BHHn+u9JB3LByxZqEMdx1I8Nc6OcOdxMyblqn7leIowr3m2zKbDfROqZzaSq56szBwpQQOKtZd382A4pQWOUoZk=";

fn made(change: impl Fn(&mut Value)) -> Result<Documents, String> {
    let mut value = json!({
        "publishTo": {"configMap": {"name": "manifests"}},
        "serverIdentity": {"gcpServiceAccountEmail": "writer@project.iam.gserviceaccount.com", "awsAccountId": "012345678901"},
        "ingestionBucket": "gs://ours-ingestion",
        "ingestionIdentity": "arn:aws:iam::123456789012:role/ingestor",
        "peerValidationBucket": "s3://us-west-1/ours-peer-validation/inner",
        "batchSigningPublicKeys": [{"id": "signing-2", "publicKey": POINT}],
        "packetEncryptionKey": {"id": "packet-1", "certificateSigningRequest": CSR},
    });
    change(&mut value);
    made_with(value, &PublicParts::default())
}

fn made_with(value: Value, parts: &PublicParts) -> Result<Documents, String> {
    let manifest: Manifest = serde_json::from_value(value).unwrap();
    let keys = Keys::of(&manifest, parts).map_err(|problem| match problem {
        Problem::Refused(problem) => problem,
        Problem::NoneYet(field) => format!("none yet: {field}"),
    })?;
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    documents(&example::processor(), &manifest, keys, now)
}

/// What two KeyRings have published.
fn of_rings() -> PublicParts {
    let public_key = BatchVerifyingKey::parse(POINT).unwrap().to_pem();
    let expiration = "2126-01-01T00:00:00Z".to_owned();
    let certificate_signing_request = CSR.to_owned();
    PublicParts {
        signing: [("ring-1".to_owned(), BatchSigningPublicKey { public_key, expiration })].into(),
        packets: [(
            "ring-2".to_owned(),
            PacketEncryptionKey {
                certificate_signing_request,
            },
        )]
        .into(),
    }
}

#[test]
fn keys_of_rings_are_published_beside_those_of_the_spec_and_under_no_other_id() {
    let base = json!({
        "publishTo": {"configMap": {"name": "manifests"}},
        "ingestionBucket": "gs://ours-ingestion",
        "peerValidationBucket": "gs://ours-peer-validation",
    });
    let with = |id: &str| {
        let mut value = base.clone();
        value["batchSigningPublicKeys"] = json!([{"id": id, "publicKey": POINT}]);
        value
    };
    let ids = |documents: &Documents, field: &str| {
        let manifest: Value = serde_json::from_str(&documents["example-manifest.json"]).unwrap();
        manifest[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let documents = made_with(with("of-the-spec"), &of_rings()).unwrap();
    assert_eq!(ids(&documents, "batch-signing-public-keys"), ["of-the-spec", "ring-1"]);
    assert_eq!(ids(&documents, "packet-encryption-keys"), ["ring-2"]);
    assert!(
        made_with(with("ring-1"), &of_rings())
            .unwrap_err()
            .contains("the KeyRing has one of that id")
    );
    assert_eq!(
        made_with(base.clone(), &PublicParts::default()).unwrap_err(),
        "none yet: batchSigning"
    );
    let unsigned = PublicParts {
        packets: BTreeMap::new(),
        ..of_rings()
    };
    assert_eq!(made_with(base, &unsigned).unwrap_err(), "none yet: packetDecryption");
}

/// The original's rules as the reference lists them, without our own parser: unknown fields are refused, keys are PEM of
/// exactly 91 bytes of DER with one prefix, URLs are gs:// or s3://, `null` is no value, at most one id of an identity.
#[test]
fn what_we_publish_obeys_the_originals_rules() {
    let documents = made(|_| {}).unwrap();
    let names: Vec<&str> = documents.keys().map(String::as_str).collect();
    assert_eq!(names, ["example-manifest.json", "global-manifest.json"]);
    let read = |name: &str| serde_json::from_str::<Value>(&documents[name]).unwrap();
    let (specific, global) = (read("example-manifest.json"), read("global-manifest.json"));
    assert_eq!(
        specific
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        [
            "batch-signing-public-keys",
            "format",
            "ingestion-bucket",
            "ingestion-identity",
            "packet-encryption-keys",
            "peer-validation-bucket",
        ]
    );
    assert_eq!((&specific["format"], &global["format"]), (&json!(2), &json!(1)));
    assert_eq!(specific["ingestion-bucket"], json!("gs://ours-ingestion"));
    assert_eq!(
        specific["peer-validation-bucket"],
        json!("s3://us-west-1/ours-peer-validation/inner")
    );
    let key = &specific["batch-signing-public-keys"]["signing-2"];
    assert_eq!(key.as_object().unwrap().len(), 2);
    key["expiration"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let pem = key["public-key"].as_str().unwrap();
    let body = pem.strip_prefix("-----BEGIN PUBLIC KEY-----\n").unwrap();
    let body: String = body
        .strip_suffix("-----END PUBLIC KEY-----\n")
        .unwrap()
        .lines()
        .collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    // RFC 5480: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }.
    let prefix =
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    assert_eq!((der.len(), &der[..26]), (91, prefix.as_slice()));
    let packet = specific["packet-encryption-keys"].as_object().unwrap();
    assert_eq!(packet.len(), 1, "exactly the primary one");
    let request = packet["packet-1"]["certificate-signing-request"].as_str().unwrap();
    assert!(
        request.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"),
        "{request}"
    );
    let identity = global["server-identity"].as_object().unwrap();
    assert_eq!(identity["aws-account-id"], json!(12_345_678_901_u64), "a number");
    assert!(!identity.contains_key("gcp-service-account-id") && !documents.values().any(|text| text.contains("null")));
    assert_eq!(documents, made(|_| {}).unwrap(), "the same spec gives the same bytes");
    assert_eq!(made(|m| m["serverIdentity"] = Value::Null).unwrap().len(), 1);
}

#[test]
fn what_partners_could_not_use_is_not_published() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 5] = [
        (
            |m| m["ingestionBucket"] = Value::Null,
            "mailboxes.ingestion.url is file:///mailboxes/ingestion, which partners can't reach: give ingestionBucket",
        ),
        (
            |m| m["peerValidationBucket"] = json!("s3://us-west-1"),
            "peerValidationBucket: \"s3://us-west-1\" is no storage URL",
        ),
        (
            |m| m["batchSigningPublicKeys"][0]["publicKey"] = json!("A".repeat(88)),
            "key \"signing-2\"",
        ),
        (
            |m| {
                m["packetEncryptionKey"]["certificateSigningRequest"] =
                    json!("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n")
            },
            "packet-encryption-keys.packet-1.certificate-signing-request",
        ),
        (
            |m| m["ingestionIdentity"] = json!("a\nb"),
            "ingestion-identity: it holds a control character",
        ),
    ];
    for (change, message) in table {
        let problem = made(change).unwrap_err();
        assert!(problem.contains(message), "{problem}");
    }
}

#[test]
fn caches_must_ask_again_soon() {
    let table = [
        (Some("no-cache"), true),
        (Some("public, max-age=60"), true),
        (Some("public, max-age=3600"), false),
        (Some("no-store"), true),
        (Some("public"), false),
        (None, false),
    ];
    for (header, expected) in table {
        assert_eq!(is_fresh(header), expected, "{header:?}");
    }
}

#[test]
fn what_partners_get_instead_is_named() {
    let name = "example-manifest.json";
    let ours = made(|_| {}).unwrap()[name].clone();
    let other = made(|m| m["batchSigningPublicKeys"][0]["id"] = json!("signing-3")).unwrap()[name].clone();
    let moved = made(|m| m["ingestionBucket"] = json!("gs://elsewhere")).unwrap()[name].clone();
    let key = made(|m| m["batchSigningPublicKeys"][0]["publicKey"] = json!(OTHER_POINT)).unwrap()[name].clone();
    let flat = serde_json::from_str::<Value>(&ours).unwrap().to_string();
    let fresh = Some("no-cache");
    let table = [
        (
            ours.as_str(),
            fresh,
            true,
            reasons::OK,
            "partners get that at https://m",
        ),
        (
            &ours,
            None,
            true,
            reasons::CACHED_TOO_LONG,
            "comes without Cache-Control: caches",
        ),
        (
            &ours,
            Some("max-age=3600"),
            true,
            reasons::CACHED_TOO_LONG,
            "comes with Cache-Control: max-age=3600",
        ),
        (
            &flat,
            fresh,
            false,
            reasons::NOT_SERVED,
            "says the same in another form",
        ),
        ("<html>", fresh, false, reasons::NOT_SERVED, "which can't be read"),
        (&other, fresh, false, reasons::NOT_SERVED, "\"signing-2\" removed"),
        (&other, None, false, reasons::NOT_SERVED, "\"signing-3\" added"),
        (
            &moved,
            fresh,
            false,
            reasons::NOT_SERVED,
            "ingestion-bucket moved: gs://elsewhere, was gs://ours-ingestion",
        ),
        (
            &key,
            fresh,
            false,
            reasons::OTHER_KEY_SERVED,
            "\"signing-2\" replaced under its id",
        ),
    ];
    let expected = Expected {
        name,
        ours: &ours,
        former: None,
        had_time: false,
    };
    for (text, header, is_served, reason, part) in table {
        let verdict = verdict(
            &served(&expected, text.as_bytes(), header),
            "ConfigMap manifests holds it",
            "https://m",
            false,
        );
        assert_eq!(
            (verdict.status, verdict.reason.as_str()),
            (Some(is_served), reason),
            "{verdict:?}"
        );
        assert!(verdict.message.contains(part), "{verdict:?}");
    }
    // A web server that lags behind a corrected key serves no other key.
    let lagging = Expected {
        former: Some(&key),
        had_time: true,
        ..expected
    };
    assert_eq!(
        served(&lagging, key.as_bytes(), fresh),
        Served::Not(format!("{name} there is still the one of before"))
    );
    // A key that is added may be one of before that, but not for long.
    let had_time = Expected {
        had_time: true,
        ..expected
    };
    assert!(matches!(served(&expected, other.as_bytes(), fresh), Served::Not(_)));
    assert!(matches!(
        served(&had_time, other.as_bytes(), fresh),
        Served::OtherKey(_)
    ));
    assert!(matches!(served(&had_time, moved.as_bytes(), fresh), Served::Not(_)));
    // Of several documents the worst is told.
    let cached = || Served::Cached("z".into());
    assert_eq!(cached().max(Served::Same), cached());
    assert_eq!(Served::Not("a".into()).max(cached()), Served::Not("a".into()));
    assert_eq!(
        Served::OtherKey("a".into()).max(Served::Not("z".into())),
        Served::OtherKey("a".into())
    );
}

#[test]
fn what_partners_do_not_get_is_told_from_a_web_server_that_lags() {
    let documents = |text: &str| Documents::from([("m".to_owned(), text.to_owned())]);
    let at = |second| Timestamp::from_second(second).unwrap();
    let not = || Served::Not("m there is still the one of before".to_owned());
    let other_key = || Served::OtherKey("\"signing-2\" replaced under its id".to_owned());
    let table = [
        (0, "one", not(), false),
        (179, "one", not(), false),
        (180, "one", not(), true),
        (200, "one", not(), true),
        (210, "one", Served::Same, false),
        (215, "two", Served::Same, false),
        (220, "two", not(), false),
        (390, "two", not(), false),
        // Others have a lag of their own.
        (395, "three", not(), false),
        (500, "three", not(), false),
        (580, "three", not(), true),
        (590, "three", other_key(), false),
        (600, "three", not(), false),
    ];
    let mut looked_for = None;
    for (second, text, served, expected) in table {
        let following = LookedFor::follow(looked_for.take(), documents(text), at(second));
        let for_long = looked_for.insert(following).note(&served, at(second));
        assert_eq!(for_long, expected, "{second}");
        let message = verdict(&served, "ConfigMap manifests holds it", "https://m", for_long).message;
        assert_eq!(message.contains(FOR_LONG), expected, "{message}");
    }

    // What the process before this one saw.
    let published = |is_so: bool, reason: &str, message: &str| {
        let mut conditions = Vec::new();
        let verdict = Verdict::new(MANIFEST_PUBLISHED, Some(is_so), reason, message);
        set_condition(&mut conditions, &verdict, Some(1), at(7));
        missed_before(&conditions)
    };
    assert_eq!(published(false, reasons::NOT_SERVED, FOR_LONG), Some(at(7)));
    assert_eq!(published(false, reasons::NOT_SERVED, ""), None, "False for what else?");
    assert_eq!(published(false, reasons::PUBLISH_FAILED, ""), None);
    assert_eq!(published(true, reasons::OK, ""), None);
    assert_eq!(missed_before(&[]), None);
}

#[test]
fn what_partners_got_before_outlives_another_spec() {
    let documents = |text: &str| Documents::from([("m".to_owned(), text.to_owned())]);
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut one = LookedFor::follow(None, documents("one"), at(1));
    one.found = Some((at(2), Verdict::new(MANIFEST_PUBLISHED, Some(true), reasons::OK, "")));
    let two = LookedFor::follow(Some(one.clone()), documents("two"), at(3));
    assert_eq!((&two.former, two.since, &two.found), (&documents("one"), at(3), &None));
    // Another look, another spec that says the same: the web server still lags behind the first.
    let mut again = LookedFor::follow(Some(two.clone()), documents("two"), at(9));
    again.forget_found();
    assert_eq!(again, two);
    one.forget_found();
    assert_eq!(one.found, None);
}
