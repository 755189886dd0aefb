//! What lies in mailboxes: to prove that nothing is written twice or changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

/// Which file an object is: another inode or time of writing means that it was written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    inode: u64,
    modified: i64,
    modified_nanoseconds: i64,
    size: u64,
}

/// Every object under a folder by its name.
pub type Snapshot = BTreeMap<String, Written>;

/// Takes a snapshot of all mailboxes of a pair but what an ingestor writes; reports of Jobs, one per pod, are left out.
///
/// # Errors
/// When a folder can't be read.
pub fn snapshot(folder: &Path) -> Result<Snapshot> {
    let mut all = Snapshot::new();
    collect(folder, "", &mut all)?;
    all.retain(|name, _| !name.starts_with("ingestion-") && !name.contains("/reports/") && !name.contains("/."));
    Ok(all)
}

fn collect(folder: &Path, prefix: &str, all: &mut Snapshot) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // A temporary file of a running put may be gone by now.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            collect(&entry.path(), &format!("{name}/"), all)?;
        } else {
            let written = Written {
                inode: meta.ino(),
                modified: meta.mtime(),
                modified_nanoseconds: meta.mtime_nsec(),
                size: meta.size(),
            };
            all.insert(name, written);
        }
    }
    Ok(())
}

/// Names that were there before and are gone or another file now.
pub fn changed(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    before
        .iter()
        .filter(|(name, written)| after.get(*name) != Some(written))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Names that are new.
pub fn added(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    after
        .keys()
        .filter(|name| !before.contains_key(*name))
        .cloned()
        .collect()
}
