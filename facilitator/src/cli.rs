//! The command line.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::exit::Failure;
use crate::output::LogFormat;

/// Prio v2 share processing: what one of two organisations does so that both together learn sums, and neither learns a
/// single contribution.
///
/// A device splits its answer into two encrypted shares, one for each of two share processors, First and Second. Each
/// processor takes in its ingestion batches and sends the other a validation batch; then each sums a window of batches
/// and puts a sum part into the portal's mailbox. The two sum parts together are the totals.
///
/// In a cluster, prio-operator runs `facilitator work` in pods. The other commands do the same by hand, on local folders.
#[derive(Debug, Parser)]
#[command(name = "facilitator", version, propagate_version = true, after_long_help = AFTER, after_help = AFTER)]
pub struct Cli {
    /// How log lines on standard error look [default: text, and json for `work`]; RUST_LOG sets their level.
    #[arg(long, global = true, value_enum, env = "LOG_FORMAT", hide_env = true)]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "\
Both parties on one machine, from nothing to totals:
  facilitator sample --into demo
  facilitator intake --parameters demo/first.json
  facilitator intake --parameters demo/second.json
  facilitator aggregate --parameters demo/first.json
  facilitator aggregate --parameters demo/second.json
  facilitator reassemble demo/portal-first demo/portal-second \\
      --keys demo --truth demo/truth.json

Exit codes:
   0  done                        70  a fault of this program
  64  wrong flag or argument      73  an object of another content is in the way
  65  the input is bad, for good  75  asked to stop
  66  a file or object is missing 77  storage refuses access
  69  storage doesn't answer      78  keys, parameters or the ledger are wrong";

/// The commands.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Command {
    // Commands of the flow, in its order, then checks, then what pods run.
    #[command(after_help = commands::sample::AFTER)]
    Sample(commands::sample::Args),
    #[command(after_help = commands::keys::AFTER)]
    Keys(commands::keys::Args),
    #[command(after_help = commands::intake::AFTER)]
    Intake(commands::intake::Args),
    #[command(after_help = commands::aggregate::AFTER)]
    Aggregate(commands::aggregate::Args),
    #[command(after_help = commands::reassemble::AFTER)]
    Reassemble(commands::reassemble::Args),
    #[command(after_help = commands::copy::AFTER)]
    Copy(commands::copy::Args),
    #[command(after_help = commands::lint_manifest::AFTER)]
    LintManifest(commands::lint_manifest::Args),
    #[command(after_help = commands::preflight::AFTER)]
    Preflight(commands::preflight::Args),
    #[command(after_help = commands::work::AFTER)]
    Work(commands::work::Args),
}

impl Command {
    /// How the command logs unless told: pods for collectors, the rest for people.
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Work(_) => LogFormat::Json,
            _ => LogFormat::Text,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What to tell the caller, with the exit code.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Sample(args) => commands::sample::run(args).await,
            Self::Keys(args) => commands::keys::run(args).await,
            Self::Intake(args) => commands::intake::run(args).await,
            Self::Aggregate(args) => commands::aggregate::run(args).await,
            Self::Preflight(args) => commands::preflight::run(args).await,
            Self::Work(args) => commands::work::run(args).await,
            Self::Reassemble(args) => commands::reassemble::run(args).await,
            Self::Copy(args) => commands::copy::run(args).await,
            Self::LintManifest(args) => commands::lint_manifest::run(args).await,
        }
    }
}
