//! Preflights in a pod.

use std::fs;

use facilitator_core::crypto::PacketDecryptionKey;
use facilitator_core::crypto::csr::signing_request;
use serde_json::{Value, json};

use crate::{Pod, code};

/// The failed lines of a preflight that a pod tells in its last words.
fn preflight(pod: &Pod, of: &str, manifest: Option<&str>) -> Vec<String> {
    let log = pod.path("termination-log");
    fs::write(&log, "").unwrap();
    pod.list(&json!({"stage": "Preflight", "revision": 1, "work": "preflight", "of": of, "inputs": "i", "manifest": manifest}));
    let output = pod.command(0).arg("--termination-log").arg(&log).output().unwrap();
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).lines().count();
    let lines = report["lines"].as_array().unwrap();
    assert_eq!(printed, lines.len());
    let failed = lines.iter().filter(|line| line["outcome"] == "Failed");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    failed
        .map(|line| format!("{} {}", text(&line["check"]), text(&line["mailbox"])))
        .collect()
}

#[test]
fn a_preflight_names_what_is_broken_in_the_pods_last_words_and_puts_nothing() {
    let pod = Pod::new();
    let world = |name: &str| pod.path("world").join(name);
    assert_eq!(preflight(&pod, "Intake", None), [""; 0]);
    assert_eq!(preflight(&pod, "Aggregate", None), [""; 0]);
    assert_eq!(
        fs::read_dir(pod.ledger())
            .unwrap()
            .filter(|entry| { !entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.') })
            .count(),
        0
    );

    fs::rename(world("portal-first"), world("elsewhere")).unwrap();
    assert_eq!(preflight(&pod, "Intake", None), [""; 0], "intake needs no portal");
    assert_eq!(preflight(&pod, "Aggregate", None), ["Write portal"]);
    fs::rename(world("elsewhere"), world("portal-first")).unwrap();

    pod.parameters(|parameters| parameters["ingestorKeys"][0]["publicKey"] = json!("AAAA"));
    // The sample's batches are old: that nobody knows their signer any more keeps nothing from being done.
    assert_eq!(preflight(&pod, "Intake", None), ["IngestorKeys "]);
    pod.parameters(|parameters| parameters["mailboxes"]["ingestion"]["url"] = json!("file:///nowhere/at/all"));
    assert_eq!(preflight(&pod, "Intake", None), ["List ingestion"]);
    pod.parameters(|parameters| parameters["ledgerId"] = json!("00000000-0000-0000-0000-000000000007"));
    assert_eq!(preflight(&pod, "Aggregate", None), ["Identity ledger"]);
    pod.parameters(|_| {});
    let manifest = |id: &str| {
        let read = |name: &str| fs::read_to_string(world("first-keys").join(name)).unwrap();
        let packets = PacketDecryptionKey::parse_list(&read("packet-decryption/0/key")).unwrap();
        let request = signing_request(&packets[0], "us-ct.prod.certificates.example.org").unwrap();
        json!({
            "format": 2, "ingestion-bucket": "gs://i", "peer-validation-bucket": "gs://v",
            "batch-signing-public-keys": {
                id: {"public-key": read("batch-signing/public.pem"), "expiration": "2099-01-01T00:00:00Z"}
            },
            "packet-encryption-keys": {"packets": {"certificate-signing-request": request}},
        })
    };
    let of = |manifest: &Value| preflight(&pod, "Intake", Some(&manifest.to_string()));
    assert_eq!(of(&manifest("first-batch-signing-key")), [""; 0]);
    assert_eq!(of(&manifest("another")), ["SigningKey "]);
    let mut none = manifest("first-batch-signing-key");
    none["packet-encryption-keys"] = json!({});
    assert_eq!(of(&none), ["Manifest "]);
    let key = world("first-keys/packet-decryption/0/key");
    fs::write(&key, "AAAA").unwrap();
    assert_eq!(preflight(&pod, "Aggregate", None), ["PacketKeys "]);
    fs::write(pod.path("parameters/parameters.json"), "{}").unwrap();
    assert_eq!(preflight(&pod, "Intake", None), ["Parameters "]);
}
