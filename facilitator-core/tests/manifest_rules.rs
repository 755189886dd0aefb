//! The original's rules on manifests, by `tests/manifest-rules`, which shares no code with our reader and writer: what the
//! original publishes and what we publish holds to them, and each rule that is broken is named. Our own validator is beside it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use facilitator_core::crypto::new_key::NewKey;
use facilitator_core::formats::manifest::{
    BatchSigningPublicKey, DataShareProcessorGlobalManifest, DataShareProcessorIdentity,
    DataShareProcessorSpecificManifest, ManifestKind, PacketEncryptionKey, Severity, validate,
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
const PORTAL: &str = include_str!("fixtures/prio-server/manifests/portal.json");
const COMMON_NAME: &str = "us-ct.test.certificates.example.org";
const SIGNING: &str = "batch-signing-public-keys";
const PACKETS: &str = "packet-encryption-keys";

/// The rules that a manifest breaks, a line each.
fn broken(kind: ManifestKind, text: &str) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let done = Command::new(RULES).arg(kind.name()).arg(file.path()).output().unwrap();
    let lines: Vec<String> = String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    let code = i32::from(!lines.is_empty());
    assert_eq!(
        (done.status.code(), done.stderr.as_slice()),
        (Some(code), b"".as_slice())
    );
    lines
}

/// What our own validator finds worst.
fn ours(kind: ManifestKind, text: &str) -> Option<Severity> {
    let findings = validate(kind, text.as_bytes(), Timestamp::now()).findings;
    findings.iter().map(|finding| finding.severity).max()
}

#[test]
fn the_originals_manifests_hold_to_them() {
    for (kind, text) in ManifestKind::ALL.into_iter().zip([GLOBAL, SPECIFIC, INGESTOR, PORTAL]) {
        assert_eq!(broken(kind, text), [""; 0], "{kind}");
        assert_eq!(ours(kind, text), None, "{kind}");
    }
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
    for seed in 0..16 {
        let text = new_manifest(seed);
        assert_eq!(
            broken(ManifestKind::DataShareProcessorSpecific, &text),
            [""; 0],
            "{text}"
        );
    }
    for (account, id) in [
        (None, None),
        (Some(12_345_678_901), None),
        (None, Some("112233".to_owned())),
    ] {
        let text = DataShareProcessorGlobalManifest {
            format: 1,
            server_identity: DataShareProcessorIdentity {
                gcp_service_account_email: "writer@project.iam.gserviceaccount.com".to_owned(),
                aws_account_id: account,
                gcp_service_account_id: id,
            },
        }
        .to_json();
        assert_eq!(broken(ManifestKind::DataShareProcessorGlobal, &text), [""; 0], "{text}");
    }
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
    let named = |kind: ManifestKind, text: &str, message: &str, severity| {
        let lines = broken(kind, text);
        assert!(lines.iter().any(|line| line.contains(message)), "{message}: {lines:?}");
        assert_eq!(ours(kind, text), Some(severity), "{message}: {lines:?}");
    };
    let texts = BTreeMap::from([
        (Global.name(), GLOBAL),
        (Specific.name(), SPECIFIC),
        (Ingestor.name(), INGESTOR),
        (Portal.name(), PORTAL),
    ]);
    for &(kind, change, message, severity) in table {
        let mut value = serde_json::from_str(texts[kind.name()]).unwrap();
        change(&mut value);
        named(kind, &value.to_string(), message, severity);
    }
    let mut other = serde_json::from_str(SPECIFIC).unwrap();
    key(&mut other, SIGNING)["public-key"] = json!(p384);
    named(Specific, &other.to_string(), "not the 91 bytes", Error);
    let mut other = serde_json::from_str(SPECIFIC).unwrap();
    key(&mut other, PACKETS)["certificate-signing-request"] = json!(request(Some(COMMON_NAME), true));
    named(Specific, &other.to_string(), "not the 91 bytes", Error);
    named(Portal, &format!("{PORTAL}]"), "no JSON", Error);
    let doubled = PORTAL.replacen("\"format\": 1,", "\"format\": 1, \"format\": 1,", 1);
    named(Portal, &doubled, "format: given twice", Error);
    let snake = PORTAL.replace("pha-sum-part-bucket", "pha_sum_part_bucket");
    named(Portal, &snake, "unknown field pha_sum_part_bucket", Error);
}
