//! Searches all that a cluster shows for private keys: logs, Events, objects, process arguments and environments.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::cluster::Cluster;

/// Where a private scalar was found. The scalar itself is never shown.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Find {
    /// The id of the key.
    pub key: String,
    /// The file, object list or process.
    pub place: String,
}

/// What was searched and what was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Bytes searched, by kind of place.
    pub searched: BTreeMap<&'static str, u64>,
    /// Must be empty.
    pub finds: Vec<Find>,
}

/// The forms in which a scalar would show.
pub struct Patterns(Vec<(String, Vec<u8>)>);

impl Patterns {
    /// Raw bytes, hex in both cases, a list of numbers, and base64 at each of its three alignments.
    pub fn new(scalars: &[(String, Vec<u8>)]) -> Self {
        let mut all = Vec::new();
        for (key, scalar) in scalars {
            let hex: String = scalar.iter().map(|byte| format!("{byte:02x}")).collect();
            let numbers: Vec<String> = scalar.iter().map(u8::to_string).collect();
            let mut forms = vec![
                scalar.clone(),
                hex.to_uppercase().into_bytes(),
                hex.into_bytes(),
                numbers.join(", ").into_bytes(),
            ];
            for skip in 0..3 {
                // Drop whole groups that hold bytes of the surroundings.
                let inner = &scalar[(3 - skip) % 3..];
                let inner = &inner[..inner.len() / 3 * 3];
                forms.push(STANDARD_NO_PAD.encode(inner).into_bytes());
                forms.push(URL_SAFE_NO_PAD.encode(inner).into_bytes());
            }
            all.extend(forms.into_iter().map(|form| (key.clone(), form)));
        }
        Self(all)
    }

    fn search(&self, kind: &'static str, place: &str, text: &[u8], report: &mut Report) {
        *report.searched.entry(kind).or_default() += text.len() as u64;
        for (key, form) in &self.0 {
            if contains(text, form) {
                let find = Find {
                    key: key.clone(),
                    place: format!("{kind}: {place}"),
                };
                if !report.finds.contains(&find) {
                    report.finds.push(find);
                }
            }
        }
    }
}

fn contains(text: &[u8], form: &[u8]) -> bool {
    let first = form[0];
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(form) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Searches the whole cluster. Secrets, where keys belong, are the only objects left out.
///
/// # Errors
/// When something can't be read.
pub async fn search(cluster: &Cluster, scalars: &[(String, Vec<u8>)]) -> Result<Report> {
    let patterns = Patterns::new(scalars);
    let mut report = Report::default();
    objects(cluster, &patterns, &mut report).await?;
    let run = Path::new(&cluster.kubeconfig)
        .parent()
        .context("a kubeconfig has a folder")?;
    files(&run.join("var-log"), "pod logs", &patterns, &mut report)?;
    files(&run.join("log"), "logs of the cluster", &patterns, &mut report)?;
    processes(&patterns, &mut report)?;
    Ok(report)
}

async fn objects(cluster: &Cluster, patterns: &Patterns, report: &mut Report) -> Result<()> {
    let kinds = cluster
        .kubectl(&["api-resources", "--verbs=list", "--output=name"])
        .await?;
    for kind in kinds.lines().filter(|kind| *kind != "secrets") {
        let list = cluster
            .kubectl(&[
                "get",
                kind,
                "--all-namespaces",
                "--output=json",
                "--show-managed-fields",
            ])
            .await?;
        let label = if kind.starts_with("events") {
            "Events"
        } else {
            "objects"
        };
        patterns.search(label, kind, list.as_bytes(), report);
    }
    Ok(())
}

fn files(folder: &Path, kind: &'static str, patterns: &Patterns, report: &mut Report) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, kind, patterns, report)?;
        } else if let Ok(text) = std::fs::read(&path) {
            // A log may go away between the listing and the reading.
            patterns.search(kind, &path.display().to_string(), &text, report);
        }
    }
    Ok(())
}

fn processes(patterns: &Patterns, report: &mut Report) -> Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_process = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        for (file, kind) in [("cmdline", "arguments"), ("environ", "environments")] {
            if let Ok(text) = std::fs::read(path.join(file)) {
                patterns.search(kind, &path.display().to_string(), &text, report);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn finds_a_scalar_in_every_form_and_place() {
        let scalar: Vec<u8> = (100..132).collect();
        let patterns = Patterns::new(&[("key".into(), scalar.clone())]);
        let embedded = |before: usize| {
            let mut bytes = vec![7; before];
            bytes.extend(&scalar);
            bytes.extend([9; 5]);
            STANDARD.encode(bytes)
        };
        let hex: String = scalar.iter().map(|b| format!("{b:02X}")).collect();
        for text in [embedded(0), embedded(1), embedded(65), hex, format!("{scalar:?}")] {
            let mut report = Report::default();
            patterns.search("logs", "x", format!("before {text} after").as_bytes(), &mut report);
            assert_eq!(
                report.finds,
                [Find {
                    key: "key".into(),
                    place: "logs: x".into()
                }],
                "{text}"
            );
        }
        let mut report = Report::default();
        patterns.search("logs", "x", b"nothing here", &mut report);
        assert!(report.finds.is_empty());
    }
}
