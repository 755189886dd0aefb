//! `kubectl prio`: what needs both Kubernetes and the protocol.

mod connect;
mod keys;
mod output;
mod preflight;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A flag is wrong; as all codes here, one of `docs/formats.md` §4.3.
const USAGE: u8 = 64;

/// What needs both Kubernetes and the protocol: checks before go-live, plans of key rotations, keys of the original.
#[derive(Debug, Parser)]
#[command(name = "kubectl-prio", bin_name = "kubectl prio", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    connection: connect::Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(after_help = preflight::AFTER)]
    Preflight(preflight::Args),
    /// Keys of KeyRings.
    #[command(subcommand)]
    Keys(Keys),
}

#[derive(Debug, Subcommand)]
enum Keys {
    #[command(after_help = keys::plan::AFTER)]
    Plan(keys::plan::Args),
    #[command(after_help = keys::import::AFTER)]
    Import(keys::import::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Clap knows which of the two outputs its text belongs to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Preflight(args) => preflight::run(&cli.connection, args).await,
        Command::Keys(Keys::Plan(args)) => keys::plan::run(&cli.connection, args).await,
        Command::Keys(Keys::Import(args)) => keys::import::run(&cli.connection, &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// What to tell the caller.
#[derive(Debug)]
struct Failure {
    /// The process's exit code.
    code: u8,
    /// What is wrong and what to do.
    message: String,
}

impl Failure {
    /// The input is bad, for good.
    fn data(message: impl ToString) -> Self {
        Self {
            code: 65,
            message: message.to_string(),
        }
    }

    /// A file or an object isn't there.
    fn missing(message: impl ToString) -> Self {
        Self {
            code: 66,
            message: message.to_string(),
        }
    }

    /// Keys, parameters, rights or the ledger are wrong.
    fn configuration(message: impl ToString) -> Self {
        Self {
            code: 78,
            message: message.to_string(),
        }
    }

    /// The API server refuses or doesn't answer.
    fn cluster(doing: &str, error: impl std::fmt::Display) -> Self {
        Self {
            code: 69,
            message: format!("{doing}: {error}"),
        }
    }
}
