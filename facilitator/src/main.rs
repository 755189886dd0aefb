//! `facilitator`: what runs in a worker pod, and the same by hand on local folders.

mod allocator;
mod cli;
mod commands;
mod exit;
mod key_folders;
mod output;
mod parts;
mod places;
mod reassembly;
mod sample_batch;
#[cfg(test)]
#[path = "../../facilitator-core/tests/support/scanning.rs"]
mod scanning;
mod truth;
mod worker;
mod world;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::exit::ExitClass;

fn main() -> ExitCode {
    allocator::keep_no_long_blocks();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `--help` and `--version` come this way too.
        Err(error) if !error.use_stderr() => {
            output::text(error.render());
            return ExitClass::Done.into();
        }
        Err(error) => {
            output::usage(&error.render());
            return ExitClass::Usage.into();
        }
    };
    output::start_log(cli.log_format.unwrap_or_else(|| cli.command.log_format()));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::failure(
                &format!("can't start threads: {error}"),
                "raise the limit of processes and threads",
            );
            return ExitClass::Internal.into();
        }
    };
    match runtime.block_on(cli.command.run()) {
        Ok(()) => ExitClass::Done.into(),
        Err(failure) => {
            output::failure(&failure.message, &failure.advice);
            failure.exit.into()
        }
    }
}
