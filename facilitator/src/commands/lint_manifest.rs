//! `facilitator lint-manifest`.

use std::path::PathBuf;

use crate::exit::Failure;

/// Examples for the help.
pub const AFTER: &str = "";

/// Check a manifest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file.
    pub file: PathBuf,
}

/// Runs it.
///
/// # Errors
/// Findings, or an unreadable file.
pub async fn run(_args: Args) -> Result<(), Failure> {
    Ok(())
}
