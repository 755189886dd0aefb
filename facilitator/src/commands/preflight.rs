//! `facilitator preflight`: whether a processor's workers could do their work, by hand.

use std::path::PathBuf;

use clap::ValueEnum;
use facilitator_core::formats::preflight::{Line, Outcome, PreflightStage};

use super::intake::keys_folder;
use crate::exit::{ExitClass, Failure};
use crate::worker::preflight;
use crate::{output, places};

/// Shown below the arguments.
pub const AFTER: &str = "\
Looks at keys, manifest, mailboxes, clocks and the ledger as the workers of
each stage would: run it with their identity. Nothing is put but the ledger's
preflight.json. Each check is a line, ✓ passed, ✗ failed with what to do, or
– not checkable from here. Exit code 78: a check failed.

  facilitator preflight --parameters demo/first.json";

/// Check that work could be done: keys, rights, clocks, formats.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The processor: a parameters.json, as `facilitator sample` writes.
    #[arg(long, value_name = "FILE")]
    parameters: PathBuf,
    /// The folder with batch-signing/ and packet-decryption/0/ [default: beside FILE, its name with -keys for .json]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Only what this stage needs.
    #[arg(long, value_enum)]
    stage: Option<Stage>,
    /// Our own manifest as it is published, to compare keys with.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    Intake,
    Aggregate,
}

/// Runs the command.
///
/// # Errors
/// [`ExitClass::Configuration`] where a check failed; a manifest that can't be read.
pub async fn run(args: Args) -> Result<(), Failure> {
    let keys = keys_folder(&args.parameters, args.keys);
    let manifest = args.manifest.map(|file| places::read_text(&file)).transpose()?;
    let stages = match args.stage {
        Some(Stage::Intake) => &[PreflightStage::Intake][..],
        Some(Stage::Aggregate) => &[PreflightStage::Aggregate],
        None => &[PreflightStage::Intake, PreflightStage::Aggregate],
    };
    let mut failed = 0;
    for stage in stages {
        let lines = preflight::lines(&args.parameters, &keys, *stage, manifest.as_deref()).await;
        failed += lines.iter().filter(|line| line.outcome == Outcome::Failed).count();
        for line in &lines {
            if args.json {
                output::line(preflight::json(*stage, line));
            } else {
                output::line(readable(*stage, line));
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    let message = format!("{} failed", output::count(failed as u64, "check", "checks"));
    Err(Failure::new(
        ExitClass::Configuration,
        message,
        "the lines above say what to do",
    ))
}

fn readable(stage: PreflightStage, line: &Line) -> String {
    let sign = match line.outcome {
        Outcome::Passed => "✓",
        Outcome::Failed => "✗",
        Outcome::NotCheckable => "–",
    };
    let mailbox = line
        .mailbox
        .map(|place| format!(" {}", name(&place)))
        .unwrap_or_default();
    let what = format!("{:?}{mailbox}", line.check);
    let stage = format!("{stage:?}");
    let mut text = format!("{sign} {stage:<9} {what:<26} {}", line.detail);
    if !line.remedy.is_empty() {
        text.push_str(&format!("\n              → {}", line.remedy));
    }
    text
}

/// As the parameters name it.
fn name(place: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(place).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
