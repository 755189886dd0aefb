//! What is mounted, what is asked for, and which keys work still needs.
#![allow(clippy::unwrap_used)]

mod mounts;
mod proofs;
mod uses;

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::reasons;
use crds::key_ring::{KeyPurpose, KeyVersion, VersionState};
use crds::processor::{KeyUse, Keys, KeysStatus};
use facilitator_core::formats::ledger::Verdict;
use facilitator_core::formats::work::{Report, WorkList};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    KeyName, ProbeInput, ProbeMemory, Probes, Resolution, Ring, VersionHere, observed_until, probes, resolve, usage,
};
use crate::workload::fixtures::{Mailboxes, WINDOW, at, batch, processor, schedule, started, window};
use crate::workload::{JobView, KeySet, Stage, Timing};

use KeyPurpose::{BatchSigning, PacketEncryption};
use VersionState::{InUse, Loaded, Published, Superseded, Written};

fn version(ring: &str, number: i64, state: VersionState) -> KeyVersion {
    serde_json::from_value(json!({
        "id": format!("{ring}-key-{number}"), "secret": format!("{ring}.{number}"), "state": state,
        "created": "2026-11-20T00:00:00Z", "publicKey": format!("public {ring} {number}"),
    }))
    .unwrap()
}

fn ring(purpose: KeyPurpose, versions: Vec<KeyVersion>) -> Ring {
    Ring { purpose, versions }
}

/// Signing by `signing`, packets by `packets` and the Secret `old`.
fn keys() -> Keys {
    serde_json::from_value(json!({
        "batchSigning": {"keyRingRef": {"name": "signing"}},
        "packetDecryption": [{"keyRingRef": {"name": "packets"}}, {"secretRef": {"name": "old"}}],
    }))
    .unwrap()
}

/// Versions of the two rings.
fn rings(signing: Vec<KeyVersion>, packets: Vec<KeyVersion>) -> BTreeMap<String, Ring> {
    [
        ("signing".to_owned(), ring(BatchSigning, signing)),
        ("packets".to_owned(), ring(PacketEncryption, packets)),
    ]
    .into()
}

fn in_use() -> BTreeMap<String, Ring> {
    rings(vec![version("signing", 1, InUse)], vec![version("packets", 1, InUse)])
}

fn resolved(rings: &BTreeMap<String, Ring>, before: &[KeyUse], proven: &[KeyName]) -> Resolution {
    let before = KeysStatus {
        versions: before.to_vec(),
    };
    resolve(&keys(), rings, Some(&before), &proven.iter().cloned().collect())
}

fn secrets(keys: &KeySet) -> String {
    keys.all()
        .map(|mount| mount.secret.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn work(resolution: &Resolution) -> Result<String, &'static str> {
    resolution.work.as_ref().map(secrets).map_err(|trouble| trouble.reason)
}

fn known(ring: &str, number: i64, state: VersionState, loaded: bool) -> KeyUse {
    serde_json::from_value(json!({
        "keyRing": ring, "id": format!("{ring}-key-{number}"), "secret": format!("{ring}.{number}"), "state": state,
        "loaded": loaded.then_some("2026-11-20T00:00:00Z"),
    }))
    .unwrap()
}
