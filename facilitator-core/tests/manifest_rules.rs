//! The original's rules on manifests, by `tests/manifest-rules`, which shares no code with our reader and writer: what the
//! original publishes and what we publish holds to them, and each rule that is broken is named. Our own validator is beside it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use facilitator_core::crypto::new_key::NewKey;
use facilitator_core::formats::manifest::{
    BatchSigningPublicKey, DataShareProcessorGlobalManifest, DataShareProcessorIdentity,
    DataShareProcessorSpecificManifest, ManifestKind, PacketEncryptionKey, Purpose, Severity, validate,
};
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/manifest-rules");
const GLOBAL: &str = include_str!("fixtures/prio-server/manifests/dsp-global.json");
const SPECIFIC: &str = include_str!("fixtures/prio-server/manifests/dsp-specific.json");
const INGESTOR: &str = include_str!("fixtures/prio-server/manifests/ingestor.json");
const GCP: &str = include_str!("fixtures/prio-server/manifests/dsp-global-gcp.json");
const PORTAL: &str = include_str!("fixtures/prio-server/manifests/portal.json");
const COMMON_NAME: &str = "us-ct.test.certificates.example.org";
const SIGNING: &str = "batch-signing-public-keys";
const PACKETS: &str = "packet-encryption-keys";

/// The rules that each of some manifests breaks, a line each.
fn broken(kind: ManifestKind, texts: &[String]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..texts.len())
        .map(|n| folder.path().join(format!("{n}.json")))
        .collect();
    for (name, text) in names.iter().zip(texts) {
        std::fs::write(name, text).unwrap();
    }
    let done = Command::new(RULES).arg(kind.name()).args(&names).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let of = |name: &PathBuf| {
        let start = format!("{}: ", name.display());
        let lines = said.lines().filter_map(|line| line.strip_prefix(&start));
        lines.map(str::to_owned).collect()
    };
    let lines: Vec<Vec<String>> = names.iter().map(of).collect();
    let code = i32::from(!lines.concat().is_empty());
    assert_eq!(
        (done.status.code(), done.stderr.as_slice()),
        (Some(code), b"".as_slice())
    );
    lines
}

/// What our own validator finds worst in what is to be published.
fn ours(kind: ManifestKind, text: &str) -> Option<Severity> {
    let findings = validate(kind, text.as_bytes(), Purpose::Publish, Timestamp::now()).findings;
    findings.iter().map(|finding| finding.severity).max()
}

#[test]
fn the_originals_manifests_hold_to_them() {
    for (kind, text) in ManifestKind::ALL.into_iter().zip([GLOBAL, SPECIFIC, INGESTOR, PORTAL]) {
        assert_eq!(broken(kind, &[text.to_owned()]), [[""; 0]], "{kind}");
        assert_eq!(ours(kind, text), None, "{kind}");
    }
}

/// The original's set-up on GCP breaks one of its own rules: its partners read that all the same, and we publish none.
#[test]
fn what_the_original_publishes_on_gcp_breaks_a_rule_of_its_own_and_is_read() {
    let kind = ManifestKind::DataShareProcessorGlobal;
    let lines = broken(kind, &[GCP.to_owned()]).concat();
    assert!(lines.len() == 1 && lines[0].contains("two ids"), "{lines:?}");
    assert_eq!(ours(kind, GCP), Some(Severity::Error));
    let read = validate(kind, GCP.as_bytes(), Purpose::Read, Timestamp::now()).accepted();
    assert_eq!(read.unwrap().1[0].path, "server-identity");
}

/// A specific manifest with new keys, as it is published.
fn new_manifest(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let signing = [1, 2].map(|n| NewKey::batch_signing(&format!("us-ct-batch-signing-key-{n}"), &mut rng).unwrap());
    let packet = NewKey::packet_encryption("us-ct-ingestion-packet-decryption-key-3", COMMON_NAME, &mut rng).unwrap();
    let of = |key: &NewKey| {
        let published = BatchSigningPublicKey {
            public_key: key.public_key().to_owned(),
            expiration: "2126-11-26T00:00:00Z".to_owned(),
        };
        (key.id().to_owned(), published)
    };
    let request = PacketEncryptionKey {
        certificate_signing_request: packet.signing_request().unwrap().to_owned(),
    };
    DataShareProcessorSpecificManifest {
        format: 2,
        ingestion_bucket: "gs://us-ct-ingestion".to_owned(),
        ingestion_identity: None,
        peer_validation_bucket: "s3://us-west-1/us-ct-peer-validation/inner".to_owned(),
        peer_validation_identity: Some("arn:aws:iam::123456789012:role/peer".to_owned()),
        batch_signing_public_keys: signing.iter().map(of).collect(),
        packet_encryption_keys: BTreeMap::from([(packet.id().to_owned(), request)]),
    }
    .to_json()
}

#[test]
fn what_we_write_holds_to_them_whatever_the_keys() {
    let specific: Vec<String> = (0..16).map(new_manifest).collect();
    let broken_by = |kind, texts: &[String]| broken(kind, texts).concat();
    assert_eq!(broken_by(ManifestKind::DataShareProcessorSpecific, &specific), [""; 0]);
    let ids = [
        (None, None),
        (Some(12_345_678_901), None),
        (None, Some("112233".to_owned())),
    ];
    let global = ids.map(|(aws_account_id, gcp_service_account_id)| {
        let server_identity = DataShareProcessorIdentity {
            gcp_service_account_email: "writer@project.iam.gserviceaccount.com".to_owned(),
            aws_account_id,
            gcp_service_account_id,
        };
        DataShareProcessorGlobalManifest {
            format: 1,
            server_identity,
        }
        .to_json()
    });
    assert_eq!(broken_by(ManifestKind::DataShareProcessorGlobal, &global), [""; 0]);
}

/// The only key of a field.
fn key<'a>(manifest: &'a mut Value, field: &str) -> &'a mut Value {
    manifest[field].as_object_mut().unwrap().values_mut().next().unwrap()
}

/// A request of a key on another curve, or of another name than a certificate's of this system.
fn request(common_name: Option<&str>, other_curve: bool) -> String {
    let key = if other_curve {
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()
    } else {
        KeyPair::generate().unwrap()
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// Replaces one character of the base64 in a PEM, counted from the end of it.
fn altered(pem: &str, from_end: usize) -> String {
    let mut bytes = pem.trim_end().as_bytes().to_vec();
    let at = bytes.len() - pem.lines().last().unwrap().len() - 1 - from_end;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap() + "\n"
}

#[test]
fn each_rule_that_is_broken_is_named() {
    use ManifestKind::{DataShareProcessorGlobal as Global, DataShareProcessorSpecific as Specific, Ingestor, Portal};
    use Severity::{Error, Warning};
    type Change = fn(&mut Value);
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().public_key_pem();
    assert!(p384.starts_with("-----BEGIN PUBLIC KEY-----"));
    // Kind, change, what is said of it, and what our validator says.
    let table: &[(ManifestKind, Change, &str, Severity)] = &[
        (Global, |m| m["format"] = json!(2), "format: none of", Error),
        (Specific, |m| m["format"] = json!(0), "format: none of", Error),
        (Specific, |m| m["format"] = json!("2"), "format: none of", Error),
        (Specific, |m| m["format"] = json!(2.0), "format: none of", Error),
        (Portal, |m| m["format"] = json!(2), "format: none of", Error),
        (Ingestor, |m| m["extra"] = json!(1), "unknown field extra", Error),
        (
            Specific,
            |m| key(m, SIGNING)["extra"] = json!(1),
            "unknown field extra",
            Error,
        ),
        (
            Specific,
            |m| key(m, PACKETS)["public-key"] = json!("x"),
            "unknown field public-key",
            Error,
        ),
        (
            Global,
            |m| m["server-identity"]["gcp-service-account-id"] = json!("1"),
            "two ids",
            Error,
        ),
        (
            Global,
            |m| m["server-identity"]["aws-account-id"] = json!("123456789012"),
            "aws-account-id: no number",
            Error,
        ),
        (
            Global,
            |m| m["server-identity"]["aws-account-id"] = json!(1_234_567_890_123_u64),
            "of up to 12 digits",
            Warning,
        ),
        (
            Global,
            |m| m["server-identity"] = json!({"aws-account-id": 1}),
            "gcp-service-account-email is missing",
            Error,
        ),
        (
            Global,
            |m| m["server-identity"]["gcp-service-account-email"] = json!("me"),
            "no address",
            Warning,
        ),
        (
            Ingestor,
            |m| m["server-identity"]["aws-iam-entity"] = Value::Null,
            "aws-iam-entity: null",
            Error,
        ),
        (
            Ingestor,
            |m| m["server-identity"]["aws-account-id"] = json!(1),
            "unknown field aws-account-id",
            Error,
        ),
        (
            Specific,
            |m| m["ingestion-identity"] = Value::Null,
            "ingestion-identity: null",
            Error,
        ),
        (
            Specific,
            |m| m["peer-validation-identity"] = json!(""),
            "peer-validation-identity: no plain text",
            Error,
        ),
        (
            Specific,
            |m| m["ingestion-bucket"] = json!("/mailboxes/ingestion"),
            "ingestion-bucket: neither",
            Warning,
        ),
        (
            Specific,
            |m| m["ingestion-bucket"] = json!("file:///ingestion"),
            "ingestion-bucket: neither",
            Warning,
        ),
        (
            Specific,
            |m| m["peer-validation-bucket"] = json!("s3://us-west-1"),
            "peer-validation-bucket: neither",
            Error,
        ),
        (
            Portal,
            |m| m["pha-sum-part-bucket"] = json!("gs://"),
            "pha-sum-part-bucket: neither",
            Error,
        ),
        (
            Portal,
            |m| m["pha-sum-part-bucket"] = Value::Null,
            "pha-sum-part-bucket: null",
            Error,
        ),
        (
            Specific,
            |m| m[SIGNING] = json!({}),
            "batch-signing-public-keys: no key",
            Error,
        ),
        (
            Specific,
            |m| m[PACKETS] = json!({}),
            "packet-encryption-keys: not exactly one",
            Error,
        ),
        (
            Specific,
            |m| {
                let more = key(m, PACKETS).clone();
                m[PACKETS]["more"] = more;
            },
            "packet-encryption-keys: not exactly one",
            Warning,
        ),
        (
            Ingestor,
            |m| {
                let more = key(m, SIGNING).clone();
                m[SIGNING]["more"] = more;
            },
            "the same key under another id",
            Warning,
        ),
        (
            Ingestor,
            |m| m[SIGNING] = json!({"": key(m, SIGNING).clone()}),
            ": no plain text",
            Error,
        ),
        (
            Ingestor,
            |m| key(m, SIGNING)["expiration"] = json!("tomorrow"),
            "no time of RFC 3339",
            Warning,
        ),
        (
            Ingestor,
            |m| key(m, SIGNING)["expiration"] = json!("2126-02-30T00:00:00Z"),
            "no time of RFC 3339",
            Warning,
        ),
        (
            Ingestor,
            |m| key(m, SIGNING)["expiration"] = json!("2023-06-30T00:00:00Z"),
            "expiration: past",
            Warning,
        ),
        (
            Ingestor,
            |m| {
                let pem = key(m, SIGNING)["public-key"]
                    .as_str()
                    .unwrap()
                    .replace("PUBLIC KEY", "EC PUBLIC KEY");
                key(m, SIGNING)["public-key"] = json!(pem);
            },
            "not one PEM block PUBLIC KEY",
            Error,
        ),
        (
            Ingestor,
            |m| {
                let pem = altered(key(m, SIGNING)["public-key"].as_str().unwrap(), 10);
                key(m, SIGNING)["public-key"] = json!(pem);
            },
            "the point isn't on the curve",
            Error,
        ),
        (
            Specific,
            |m| {
                let pem = altered(key(m, PACKETS)["certificate-signing-request"].as_str().unwrap(), 10);
                key(m, PACKETS)["certificate-signing-request"] = json!(pem);
            },
            "not signed by the key that it holds",
            Error,
        ),
        (
            Specific,
            |m| key(m, PACKETS)["certificate-signing-request"] = json!(request(Some("us-ct"), false)),
            "subject 'CN=us-ct', not CN=NAMESPACE",
            Warning,
        ),
        (
            Specific,
            |m| key(m, PACKETS)["certificate-signing-request"] = json!(request(None, false)),
            "subject '', not CN=NAMESPACE",
            Warning,
        ),
    ];
    let mut cases: Vec<(ManifestKind, String, &str, Severity)> = Vec::new();
    let texts = [
        (Global, GLOBAL),
        (Specific, SPECIFIC),
        (Ingestor, INGESTOR),
        (Portal, PORTAL),
    ];
    for &(kind, change, message, severity) in table {
        let (_, text) = texts.iter().find(|(of, _)| *of == kind).unwrap();
        let mut value = serde_json::from_str(text).unwrap();
        change(&mut value);
        cases.push((kind, value.to_string(), message, severity));
    }
    let with = |field: &str, name: &str, text: String| {
        let mut value = serde_json::from_str(SPECIFIC).unwrap();
        key(&mut value, field)[name] = json!(text);
        value.to_string()
    };
    let other = with(PACKETS, "certificate-signing-request", request(Some(COMMON_NAME), true));
    let doubled = PORTAL.replacen("\"format\": 1,", "\"format\": 1, \"format\": 1,", 1);
    let snake = PORTAL.replace("pha-sum-part-bucket", "pha_sum_part_bucket");
    cases.extend([
        (Specific, with(SIGNING, "public-key", p384), "not the 91 bytes", Error),
        (Specific, other, "not the 91 bytes", Error),
        (Portal, format!("{PORTAL}]"), "no JSON", Error),
        (Portal, doubled, "format: given twice", Error),
        (Portal, snake, "unknown field pha_sum_part_bucket", Error),
    ]);
    for kind in ManifestKind::ALL {
        let cases: Vec<_> = cases.iter().filter(|(of, ..)| *of == kind).collect();
        let texts: Vec<String> = cases.iter().map(|(_, text, ..)| text.clone()).collect();
        for ((_, text, message, severity), lines) in cases.into_iter().zip(broken(kind, &texts)) {
            assert!(lines.iter().any(|line| line.contains(message)), "{message}: {lines:?}");
            assert_eq!(ours(kind, text), Some(*severity), "{message}: {lines:?}");
        }
    }
}
