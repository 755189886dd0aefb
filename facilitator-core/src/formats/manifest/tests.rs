#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-11-22T00:00:00Z";
const PROCESSOR: &str = include_str!("../../../tests/fixtures/prio-server/manifests/dsp-specific.json");
const GLOBAL: &str = include_str!("../../../tests/fixtures/prio-server/manifests/dsp-global.json");
const INGESTOR: &str = include_str!("../../../tests/fixtures/prio-server/manifests/ingestor.json");
const GCP: &str = include_str!("../../../tests/fixtures/prio-server/manifests/dsp-global-gcp.json");
const PORTAL: &str = include_str!("../../../tests/fixtures/prio-server/manifests/portal.json");

fn findings(kind: ManifestKind, text: &str) -> Vec<Finding> {
    validate(kind, text.as_bytes(), Purpose::Publish, NOW.parse().unwrap()).findings
}

fn with(text: &str, change: impl Fn(&mut Value)) -> String {
    let mut value = serde_json::from_str(text).unwrap();
    change(&mut value);
    value.to_string()
}

#[test]
fn accepts_what_the_original_accepts() {
    let manifests = [GLOBAL, PROCESSOR, INGESTOR, PORTAL];
    for (kind, text) in ManifestKind::ALL.into_iter().zip(manifests) {
        assert_eq!(findings(kind, text), [], "{kind}");
    }
    let processor = DataShareProcessorSpecificManifest::parse(PROCESSOR.as_bytes()).unwrap();
    assert!(
        processor
            .trusted_keys()
            .unwrap()
            .get("demo-us-ct-g-enpa-batch-signing-key")
            .is_some()
    );
    let requests = processor.packet_encryption_requests().unwrap();
    let request = requests.values().next().unwrap();
    assert!(request.signature_verifies);
    assert_eq!(
        request.common_name.as_deref(),
        Some("us-ct.demo.certificates.isrg-prio.org")
    );
    assert_eq!(
        IngestorManifest::parse(INGESTOR.as_bytes())
            .unwrap()
            .trusted_keys()
            .unwrap()
            .len(),
        1
    );
}

/// The fixtures are of the newer formats.
#[test]
fn reads_the_older_formats_too() {
    use ManifestKind::{DataShareProcessorGlobal as Global, DataShareProcessorSpecific as Processor};
    for (kind, text, format) in [(Global, GLOBAL, 0), (Processor, PROCESSOR, 1)] {
        let older = with(text, |m| m["format"] = json!(format));
        assert_ne!(serde_json::from_str::<Value>(text).unwrap()["format"], json!(format));
        assert_eq!(findings(kind, &older), [], "{kind} {format}");
    }
}

#[test]
fn writes_what_it_reads() {
    let global = DataShareProcessorGlobalManifest::parse(GLOBAL.as_bytes()).unwrap();
    let processor = DataShareProcessorSpecificManifest::parse(PROCESSOR.as_bytes()).unwrap();
    let ingestor = IngestorManifest::parse(INGESTOR.as_bytes()).unwrap();
    let portal = PortalManifest::parse(PORTAL.as_bytes()).unwrap();
    assert_eq!(
        DataShareProcessorGlobalManifest::parse(global.to_json().as_bytes()).unwrap(),
        global
    );
    assert_eq!(
        DataShareProcessorSpecificManifest::parse(processor.to_json().as_bytes()).unwrap(),
        processor
    );
    assert_eq!(
        IngestorManifest::parse(ingestor.to_json().as_bytes()).unwrap(),
        ingestor
    );
    assert_eq!(PortalManifest::parse(portal.to_json().as_bytes()).unwrap(), portal);
    assert!(!processor.to_json().contains("null"));
}

#[test]
fn refuses_what_the_format_does_not_say() {
    use ManifestKind::{DataShareProcessorGlobal as Global, DataShareProcessorSpecific as Processor, Ingestor, Portal};
    let doubled = INGESTOR.replacen(
        "\"ingestor-key-1\": {",
        "\"ingestor-key-1\": {\"public-key\":\"a\",\"expiration\":\"b\"}, \"ingestor-key-1\": {",
        1,
    );
    assert_ne!(doubled, INGESTOR);
    let cases = [
        (
            Global,
            with(GLOBAL, |m| m["format"] = json!(2)),
            "has format 2; 0 and 1 can be read",
        ),
        (
            Processor,
            with(PROCESSOR, |m| m["format"] = json!(0)),
            "has format 0; 1 and 2 can be read",
        ),
        (
            Portal,
            with(PORTAL, |m| m["format"] = json!("1")),
            "invalid type: string",
        ),
        (Portal, with(PORTAL, |m| m["extra"] = json!(1)), "unknown field `extra`"),
        (
            Ingestor,
            with(INGESTOR, |m| m["server-identity"]["aws-iam-entity"] = Value::Null),
            "invalid type: null",
        ),
        (
            Processor,
            with(PROCESSOR, |m| m["peer-validation-identity"] = Value::Null),
            "invalid type: null",
        ),
        (
            Global,
            with(GLOBAL, |m| m["server-identity"]["gcp-service-account-id"] = json!("1")),
            "give at most one",
        ),
        (
            Ingestor,
            with(INGESTOR, |m| {
                drop(
                    m["server-identity"]
                        .as_object_mut()
                        .unwrap()
                        .remove("gcp-service-account-email"),
                )
            }),
            "missing field",
        ),
        (Ingestor, doubled, "is given twice"),
        (
            Processor,
            with(PROCESSOR, |m| m["ingestion-bucket"] = json!("s3://us-west-1")),
            "no storage URL",
        ),
        (Portal, format!("{PORTAL} x"), "trailing characters"),
        (Portal, String::new(), "EOF"),
    ];
    for (kind, text, message) in cases {
        let found = findings(kind, &text);
        assert_eq!(found.len(), 1, "{text}");
        assert!(
            found[0].severity == Severity::Error && found[0].message.contains(message),
            "{found:?}"
        );
    }
}

/// What the original's own set-up writes on GCP has both ids: nobody else should, and its partners must be able to read it.
#[test]
fn both_ids_are_read_and_not_published() {
    let found = |purpose| {
        let findings = validate(
            ManifestKind::DataShareProcessorGlobal,
            GCP.as_bytes(),
            purpose,
            NOW.parse().unwrap(),
        );
        let one = findings.findings.first().unwrap().clone();
        assert_eq!((findings.findings.len(), one.path.as_str()), (1, "server-identity"));
        assert!(one.message.contains("give at most one"), "{one:?}");
        (one.severity, findings.accepted().is_ok())
    };
    assert_eq!(found(Purpose::Publish), (Severity::Error, false));
    assert_eq!(found(Purpose::Read), (Severity::Warning, true));
}

#[test]
fn looks_at_every_key_where_the_original_does_not() {
    let other = include_str!("../../../tests/fixtures/prio-server/manifests/pub.pem");
    let text = with(PROCESSOR, |m| {
        m["batch-signing-public-keys"]["second"] = json!({"public-key": other, "expiration": "2026-11-30T00:00:00Z"});
        m["batch-signing-public-keys"]["third"] =
            json!({"public-key": "rubbish", "expiration": "2020-01-01T00:00:00Z"});
        m["batch-signing-public-keys"]["fourth"] =
            json!({"public-key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "expiration": "never"});
        m["packet-encryption-keys"] = json!({"k": {"certificate-signing-request": "rubbish"}});
        m["ingestion-bucket"] = json!("/tmp/x");
    });
    let found = findings(ManifestKind::DataShareProcessorSpecific, &text);
    let paths: Vec<_> = found
        .iter()
        .map(|finding| (finding.severity, finding.path.as_str()))
        .collect();
    assert_eq!(
        paths,
        [
            (Severity::Error, "batch-signing-public-keys.fourth.public-key"),
            (Severity::Error, "batch-signing-public-keys.third.public-key"),
            (Severity::Error, "packet-encryption-keys.k.certificate-signing-request"),
            (Severity::Warning, "batch-signing-public-keys.fourth.expiration"),
            (Severity::Warning, "batch-signing-public-keys.second.expiration"),
            (Severity::Warning, "batch-signing-public-keys.second.public-key"),
            (Severity::Warning, "batch-signing-public-keys.third.expiration"),
            (Severity::Warning, "ingestion-bucket"),
        ]
    );
    let empty = with(INGESTOR, |m| m["batch-signing-public-keys"] = json!({}));
    assert_eq!(findings(ManifestKind::Ingestor, &empty)[0].severity, Severity::Error);
}

#[test]
fn what_would_not_fit_into_a_status_is_refused() {
    use ManifestKind::{DataShareProcessorSpecific as Processor, Ingestor, Portal};
    let key = || {
        let ingestor: Value = serde_json::from_str(INGESTOR).unwrap();
        ingestor["batch-signing-public-keys"]["ingestor-key-1"].clone()
    };
    let keys = |count: usize| (0..count).map(|n| (format!("k{n}"), key())).collect::<Value>();
    let with_id = |id: &str| {
        with(INGESTOR, |m| {
            m["batch-signing-public-keys"][id] = key();
        })
    };
    let cases = [
        (
            Ingestor,
            with(INGESTOR, |m| m["batch-signing-public-keys"] = keys(MAX_KEYS + 1)),
            "65 keys",
        ),
        (Ingestor, with_id(""), "it is empty"),
        (Ingestor, with_id("a\nb"), "a control character"),
        (Ingestor, with_id(&"k".repeat(MAX_KEY_ID_BYTES + 1)), "254 bytes"),
        (
            Processor,
            with(PROCESSOR, |m| m["peer-validation-identity"] = json!("")),
            "it is empty",
        ),
        (
            Portal,
            with(PORTAL, |m| {
                m["pha-sum-part-bucket"] = json!(format!("gs://{}", "b".repeat(MAX_TEXT_BYTES)))
            }),
            "517 bytes",
        ),
        (
            Portal,
            format!("{PORTAL}{}", " ".repeat(MAX_MANIFEST_BYTES)),
            "262144 are read at most",
        ),
    ];
    for (kind, text, message) in cases {
        let errors = validate(kind, text.as_bytes(), Purpose::Publish, NOW.parse().unwrap())
            .accepted()
            .unwrap_err();
        assert!(
            errors.iter().any(|error| error.message.contains(message)),
            "{message}: {errors:?}"
        );
        assert!(errors.iter().all(|error| !error.path.contains('\n')), "{errors:?}");
    }
    let most = with(INGESTOR, |m| m["batch-signing-public-keys"] = keys(MAX_KEYS));
    let (manifest, warnings) = validate(Ingestor, most.as_bytes(), Purpose::Publish, NOW.parse().unwrap())
        .accepted()
        .unwrap();
    assert!(matches!(manifest, Manifest::Ingestor(_)));
    assert_eq!(warnings.len(), MAX_KEYS - 1, "the same key under many ids");
}

#[test]
fn manifests_come_over_https_alone() {
    for url in ["https://m.example", "https://m.example/", "https://m.example:8443/a/b"] {
        check_base_url(url).unwrap();
    }
    for url in [
        "http://m.example",
        "https://",
        "https:///a",
        "HTTPS://m.example",
        "m.example",
        "",
        "https://u@m.example",
        "https://m.example?x",
        "https://m example",
    ] {
        assert!(check_base_url(url).is_err(), "{url}");
    }
}
