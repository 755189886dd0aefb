//! JSON: the ledger's objects, work lists, parameters and manifests.

use facilitator_core::formats::ledger::{
    Decided, Delivered, LedgerIdentity, LedgerObject, Rejected, Released, WindowResult,
};
use facilitator_core::formats::manifest::{
    DataShareProcessorGlobalManifest, DataShareProcessorSpecificManifest, IngestorManifest, ManifestKind,
    PortalManifest, Purpose, validate,
};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::shard::PlanShard;
use facilitator_core::formats::work::{Parameters, Report, WorkList};
use mailbox::ObjectKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ACCEPTED, Target, said};
use crate::support::root;

fn json<T: LedgerObject>(input: &[u8]) -> Result<String, String> {
    let key = ObjectKey::parse("fuzz").unwrap();
    let value = match T::from_bytes(&key, input) {
        Ok(value) => value,
        Err(error) => return Ok(error.to_string()),
    };
    let written = value
        .to_bytes()
        .map_err(|error| format!("what is read can't be written: {error}"))?;
    let again = T::from_bytes(&key, &written).map_err(|error| format!("what we write isn't read: {error}"))?;
    if again.to_bytes().ok() != Some(written) {
        return Err("what we write reads as something else".into());
    }
    Ok(ACCEPTED.into())
}

fn document<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<String, String> {
    match serde_json::from_slice::<T>(input) {
        Err(error) => Ok(error.to_string()),
        Ok(value) => {
            let written = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
            serde_json::from_slice::<T>(&written)
                .map(|_| ACCEPTED.into())
                .map_err(|error| format!("not read again: {error}"))
        }
    }
}

fn ledger(input: &[u8]) -> Result<Vec<String>, String> {
    Ok(vec![
        json::<LedgerIdentity>(input)?,
        json::<Delivered>(input)?,
        json::<Rejected>(input)?,
        json::<Released>(input)?,
        json::<Decided>(input)?,
        json::<WindowResult>(input)?,
        json::<Report>(input)?,
        json::<Plan>(input)?,
        json::<PlanShard>(input)?,
        json::<Partial>(input)?,
    ])
}

fn work(input: &[u8]) -> Result<Vec<String>, String> {
    Ok(vec![document::<WorkList>(input)?, document::<Parameters>(input)?])
}

/// Seeds that the corpus holds.
fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

fn manifest_files() -> Vec<Vec<u8>> {
    let files = [
        "dsp-global.json",
        "dsp-global-gcp.json",
        "dsp-specific.json",
        "ingestor.json",
        "portal.json",
    ];
    files
        .map(|name| std::fs::read(root().join("manifests").join(name)).unwrap())
        .to_vec()
}

fn manifests(input: &[u8]) -> Result<Vec<String>, String> {
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    for kind in ManifestKind::ALL {
        for purpose in [Purpose::Publish, Purpose::Read] {
            drop(validate(kind, input, purpose, now));
        }
    }
    let processor = DataShareProcessorSpecificManifest::parse(input);
    if let Ok(manifest) = &processor {
        let again = DataShareProcessorSpecificManifest::parse(manifest.to_json().as_bytes());
        if again.ok().as_ref() != Some(manifest) {
            return Err("a manifest that we write reads as something else".into());
        }
    }
    let keys = processor.and_then(|manifest| {
        manifest.trusted_keys()?;
        manifest.packet_encryption_requests()
    });
    Ok(vec![
        said(keys),
        said(DataShareProcessorGlobalManifest::parse(input)),
        said(IngestorManifest::parse(input).and_then(|manifest| manifest.trusted_keys())),
        said(PortalManifest::parse(input)),
    ])
}

pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "manifest",
            parts: &["processor", "global", "ingestor", "portal"],
            seeds: manifest_files,
            run: manifests,
        },
        Target {
            name: "work",
            parts: &["work list", "parameters"],
            seeds: none,
            run: work,
        },
        Target {
            name: "ledger",
            parts: &[
                "identity",
                "delivered",
                "rejected",
                "released",
                "decisions",
                "results",
                "reports",
                "plans",
                "shards",
                "partials",
            ],
            seeds: none,
            run: ledger,
        },
    ]
}
