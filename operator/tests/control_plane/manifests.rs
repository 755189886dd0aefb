//! The manifests that tests publish.

use std::collections::BTreeMap;
use std::process::Command;

use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::formats::manifest::{GLOBAL_OBJECT, ManifestKind};
use serde_json::{Value, json};

/// Points on P-256, in base64.
pub const POINTS: [&str; 2] = [
    "BIl6j+J6dYttxALdjISDv6ZI4/VWVEhUzaS05LgrsfswmbLOgNt9HUC2E0w+9RqZx3XMkdEHBHfNuCSMpOwofVQ=",
    "BHHn+u9JB3LByxZqEMdx1I8Nc6OcOdxMyblqn7leIowr3m2zKbDfROqZzaSq56szBwpQQOKtZd382A4pQWOUoZk=",
];
/// A request for a certificate that holds.
pub const REQUEST: &str = include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/csr.pem");

/// What the original's set-up on GCP publishes of a share processor: two ids.
pub const BOTH_IDS: &str =
    include_str!("../../../facilitator-core/tests/fixtures/prio-server/manifests/dsp-global-gcp.json");

fn keys(keys: &[(&str, usize)]) -> Value {
    let of = |(id, point): &(&str, usize)| {
        let pem = BatchVerifyingKey::parse(POINTS[*point]).unwrap().to_pem();
        (
            (*id).to_owned(),
            json!({"public-key": pem, "expiration": "2123-06-30T00:00:00Z"}),
        )
    };
    keys.iter().map(of).collect()
}

/// A share processor's specific manifest with keys of these ids and points.
pub fn share_processor(signing: &[(&str, usize)], bucket: &str) -> String {
    json!({
        "format": 2,
        "ingestion-bucket": "gs://theirs-ingestion",
        "peer-validation-bucket": bucket,
        "batch-signing-public-keys": keys(signing),
        "packet-encryption-keys": {"packet": {"certificate-signing-request": REQUEST}},
    })
    .to_string()
}

/// An ingestor's.
pub fn ingestor(signing: &[(&str, usize)]) -> String {
    json!({
        "format": 1,
        "server-identity": {"gcp-service-account-email": "ingestor@project.iam.gserviceaccount.com"},
        "batch-signing-public-keys": keys(signing),
    })
    .to_string()
}

/// A portal's.
pub fn portal() -> String {
    json!({"format": 1, "facilitator-sum-part-bucket": "gs://facilitator-sums", "pha-sum-part-bucket": "gs://pha-sums"})
        .to_string()
}

/// What is published by name holds to the original's rules, by a program that shares no code with ours.
pub fn hold_to_the_originals_rules(documents: &BTreeMap<String, String>) {
    assert!(!documents.is_empty());
    for (name, text) in documents {
        let kind = if name == GLOBAL_OBJECT {
            ManifestKind::DataShareProcessorGlobal
        } else {
            ManifestKind::DataShareProcessorSpecific
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/manifest-rules");
        let done = Command::new(rules).arg(kind.name()).arg(file).output().unwrap();
        assert!(done.status.success(), "{name}: {done:?}");
    }
}
