//! `facilitator preflight`.

use std::fs;

use crate::{content, done, facilitator, fails, text};

#[test]
fn a_preflight_by_hand_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done("sample --into demo", here);
    let before = content(&here.join("demo"));
    let lines = done("preflight --parameters demo/first.json", here);
    assert!(lines.contains("✓ Intake    Signature ingestion"), "{lines}");
    assert!(lines.contains("– Intake    Expiry ledger"), "{lines}");
    assert_eq!(content(&here.join("demo")), before, "something was put");
    fs::write(here.join("demo/first-keys/batch-signing/key"), "AAAA").unwrap();
    fails(
        "preflight --parameters demo/first.json --stage intake",
        here,
        78,
        "1 check failed",
    );
    let output = facilitator(&["preflight", "--parameters", "demo/first.json", "--json"], here);
    let failed: Vec<_> = text(&output.stdout)
        .lines()
        .filter(|line| line.contains("\"Failed\""))
        .map(str::to_owned)
        .collect();
    assert!(
        failed.len() == 2 && failed.iter().all(|line| line.contains("\"SigningKey\"")),
        "{failed:?}"
    );
}
