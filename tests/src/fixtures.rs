//! The original's own ingestion batches, placed under other dates (no signature covers a batch's path), and the truth
//! about them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The day in the fixtures' paths, and as it stands in window names.
const FIXTURE_DAY: &str = "2026/11/20";
const FIXTURE_DAY_COMPACT: &str = "20261120";

/// What a window's two sum parts must add up to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`.
    pub start: String,
    /// `YYYYMMDDHHmm`.
    pub end: String,
    /// Batches that are in at both parties.
    pub batches: Vec<TruthBatch>,
    /// Clients in them.
    pub clients: u64,
    /// One total per bin.
    pub totals: Vec<u64>,
}

/// A batch of a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TruthBatch {
    /// Its UUID.
    pub id: String,
    /// `YYYY/MM/DD/HH/mm`.
    pub time: String,
}

impl Truth {
    /// As people write it: `kittens-seen 202611200000-202611200300`.
    pub fn name(&self) -> String {
        format!("{} {}-{}", self.aggregation, self.start, self.end)
    }
}

/// The folder of the fixtures.
pub fn folder(repository: &Path) -> PathBuf {
    repository.join("facilitator-core/tests/fixtures/prio-server")
}

/// Copies the fixtures' ingestion batches into both ingestion mailboxes, under another day, and gives the truth.
///
/// # Errors
/// When a file can't be read or written.
pub fn place(repository: &Path, day: Date, mailboxes: [&Path; 2]) -> Result<Vec<Truth>> {
    let fixtures = folder(repository);
    let text = std::fs::read_to_string(fixtures.join("truth.json"))
        .with_context(|| format!("{} can't be read", fixtures.display()))?;
    let mut windows: Vec<Truth> = serde_json::from_str(&text).context("truth.json of the fixtures")?;
    let compact = day.strftime("%Y%m%d").to_string();
    let path = day.strftime("%Y/%m/%d").to_string();
    for window in &mut windows {
        for batch in &mut window.batches {
            let from = batch.time.clone();
            batch.time = batch.time.replace(FIXTURE_DAY, &path);
            for (share, mailbox) in ["first", "second"].into_iter().zip(mailboxes) {
                let source = fixtures
                    .join(share)
                    .join("ingestion")
                    .join(&window.aggregation)
                    .join(&from);
                let objects = INGESTION_SUFFIXES
                    .map(|suffix| (suffix, std::fs::read(source.join(format!("{}{suffix}", batch.id)))));
                for (suffix, bytes) in objects {
                    let name = format!("{}/{}/{}{suffix}", window.aggregation, batch.time, batch.id);
                    put(mailbox, &name, &bytes.with_context(|| format!("fixture {name}"))?)?;
                }
            }
        }
        window.start = window.start.replace(FIXTURE_DAY_COMPACT, &compact);
        window.end = window.end.replace(FIXTURE_DAY_COMPACT, &compact);
    }
    Ok(windows)
}

/// The suffixes of an ingestion batch's objects in the order of writing: the signature is the commit.
pub const INGESTION_SUFFIXES: [&str; 3] = [".batch.avro", ".batch", ".batch.sig"];

/// Puts an object as an ingestor does: at once, never half.
///
/// # Errors
/// When it can't be written.
pub fn put(mailbox: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = mailbox.join(name);
    let folder = path.parent().context("an object's name has a folder")?;
    std::fs::create_dir_all(folder)?;
    let part = tempfile::NamedTempFile::new_in(mailbox.parent().unwrap_or(mailbox))?;
    std::fs::write(part.path(), bytes)?;
    std::fs::set_permissions(part.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    part.persist(&path)
        .with_context(|| format!("{} can't be written", path.display()))?;
    Ok(())
}
