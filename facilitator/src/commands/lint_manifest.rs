//! `facilitator lint-manifest`: checks a manifest before partners read it.

use std::path::PathBuf;

use clap::ValueEnum;
use facilitator_core::formats::manifest::{ManifestKind, Purpose, Severity, validate};
use jiff::Timestamp;

use crate::exit::{ExitClass, Failure};
use crate::output;

/// Examples for the help.
pub const AFTER: &str = "\
Examples:
  facilitator lint-manifest --kind portal-global global-manifest.json
  facilitator lint-manifest --kind data-share-processor-specific \\
      us-ct-g-enpa-manifest.json

Each finding is a line: how bad it is, where, what is wrong and what to do.
Exit code 65: there are errors, so partners can't use the manifest or a part of
it; warnings alone exit with 0.";

/// Whose manifest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An ingestor's `global-manifest.json`.
    IngestorGlobal,
    /// An ingestor's manifest for one locality or instance.
    IngestorSpecific,
    /// A share processor's `global-manifest.json`: who it is.
    DataShareProcessorGlobal,
    /// A share processor's `<instance>-manifest.json`: its buckets and keys.
    DataShareProcessorSpecific,
    /// A portal's `global-manifest.json`: where sum parts go.
    PortalGlobal,
}

impl From<Kind> for ManifestKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::IngestorGlobal | Kind::IngestorSpecific => Self::Ingestor,
            Kind::DataShareProcessorGlobal => Self::DataShareProcessorGlobal,
            Kind::DataShareProcessorSpecific => Self::DataShareProcessorSpecific,
            Kind::PortalGlobal => Self::Portal,
        }
    }
}

/// Check a manifest: form, buckets, identities, and every key in it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose manifest it is.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// The manifest.
    pub file: PathBuf,
}

/// Runs it.
///
/// # Errors
/// An unreadable file, or a manifest with errors.
pub async fn run(args: Args) -> Result<(), Failure> {
    let name = args.file.display();
    let bytes =
        std::fs::read(&args.file).map_err(|error| Failure::of_file(format_args!("can't read {name}"), &error))?;
    let findings = validate(args.kind.into(), &bytes, Purpose::Publish, Timestamp::now()).findings;
    for finding in &findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = if finding.path.is_empty() {
            "the manifest"
        } else {
            finding.path.as_str()
        };
        output::line(format_args!("{severity}: {place}: {}", finding.message));
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    if errors > 0 {
        return Err(Failure::new(
            ExitClass::Data,
            format_args!("{name} has {}", output::count(errors as u64, "error", "errors")),
            "mend them before publishing it",
        ));
    }
    output::line(format_args!(
        "{name}: fine, {}",
        output::count(findings.len() as u64, "warning", "warnings")
    ));
    Ok(())
}
