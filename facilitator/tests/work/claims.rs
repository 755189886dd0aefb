//! Compactions of claims in a pod.

use std::collections::BTreeMap;
use std::fs;

use facilitator_core::formats::claims::{ClaimsObject, RUN_PREFIX_BYTES, RunHeader, header_length, parse_claims_name};
use serde_json::{Value, json};

use crate::{Pod, code, files};

/// The ledger's objects.
fn objects(pod: &Pod) -> BTreeMap<String, Vec<u8>> {
    let ledger = pod.ledger();
    let object = |path: &std::path::PathBuf| {
        let name = path.strip_prefix(&ledger).unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    let all = files(&ledger);
    all.iter()
        .map(object)
        .filter(|(name, _)| !name.starts_with('.'))
        .collect()
}

#[test]
fn claims_are_compacted_once_and_the_run_alone_refuses_a_replay() {
    let pod = Pod::of(4);
    let list = pod.intake_list();
    pod.list(&list);
    for index in 0..4 {
        assert_eq!(code(&pod.run(index)), 0);
    }
    let before = objects(&pod);
    let chunks: Vec<_> = before.keys().filter_map(|name| parse_claims_name(name)).collect();
    assert_eq!(chunks.len(), 4);

    let (key, day) = (chunks[0].0, chunks[0].1.day());
    let item = json!({"packetKey": key.to_string(), "day": day.to_string()});
    pod.list(&json!({"stage": "CompactClaims", "revision": 1, "work": "claims-1", "chunks": [[item]]}));
    let output = pod.run(0);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let compacted = objects(&pod);
    let name = ClaimsObject::Run { day, number: 1 }.key(key).to_string();
    let run = &compacted[&name];
    let header = header_length(run).unwrap() + RUN_PREFIX_BYTES;
    let header = &run[RUN_PREFIX_BYTES as usize..header as usize];
    let header = RunHeader::decode(1, header).unwrap();
    assert_eq!((header.runs.len(), header.runs[0].entries), (1, 40));
    let is_in = |object: &ClaimsObject| matches!(object, ClaimsObject::Chunk(name) if header.covers(name));
    assert!(chunks.iter().all(|(_, object)| is_in(object)), "{header:?}");
    let mut expected = before;
    expected.insert(name, run.clone());
    assert!(compacted == expected, "the run comes in, and nothing else changes");

    let second = pod.command(0).env("POD_UID", "pod-2").output().unwrap();
    assert_eq!(code(&second), 0);
    assert!(objects(&pod) == compacted, "a second pod changed something");

    // No signature covers a batch's path: the same packets in another batch. The chunks go first, so that the run alone knows.
    for (_, chunk) in &chunks {
        fs::remove_file(pod.ledger().join(chunk.key(key).as_str())).unwrap();
    }
    let mut replay = list["chunks"][0][0].clone();
    let ingestion = pod.path("world/ingestion-first/kittens-seen");
    let from = ingestion.join(replay["time"].as_str().unwrap());
    replay["time"] = json!("2026/11/20/09/00");
    let to = ingestion.join("2026/11/20/09/00");
    fs::create_dir_all(&to).unwrap();
    for file in files(&from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
    pod.list(&json!({"stage": "Intake", "revision": 1, "work": "replay", "chunks": [[replay]]}));
    assert_eq!(code(&pod.run(0)), 0);
    let report = fs::read(pod.ledger().join("reports/replay/0-pod-1")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let batch = &report["batches"][0];
    assert_eq!(
        (&batch["outcome"], &batch["reason"]),
        (&json!("Rejected"), &json!("NoUsablePackets")),
        "{batch}"
    );
}
