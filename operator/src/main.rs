//! The operator's process: flags, clock, signals, exit codes.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;
use kube::{Client, Config};
use operator::keys;
use operator::keys::settings::KeysFlags;
use operator::metrics::Metrics;
use operator::run::{Parts, RunError, run};
use operator::settings::{Flags, SettingsError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A flag is wrong (`docs/formats.md` §4.3).
const USAGE: u8 = 64;
/// The API server can't be reached, or its address isn't known.
const UNAVAILABLE: u8 = 69;
/// A lease was lost, or the process can't work.
const INTERNAL: u8 = 70;
/// A connection to the API server that is waited on and says nothing for so long is dead: watches end after 290 seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // The keys controller is the same program with an account of its own.
    if arguments.get(1).is_some_and(|mode| mode == "keys") {
        arguments.remove(0);
        return match KeysFlags::try_parse_from(arguments) {
            Ok(flags) => {
                let filter = flags.log.clone();
                controller(flags, &filter, keys::run::run).await
            }
            Err(error) => usage(&error),
        };
    }
    match Flags::try_parse_from(arguments) {
        Ok(flags) => {
            let filter = flags.log.clone();
            controller(flags, &filter, run).await
        }
        Err(error) => usage(&error),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Clap knows which of the two outputs its text belongs to.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// Runs a controller with the settings that its flags give.
async fn controller<F, S>(flags: F, filter: &str, run: impl AsyncFnOnce(Parts<S>) -> Result<(), RunError>) -> ExitCode
where
    S: TryFrom<F, Error = SettingsError>,
{
    if let Err(refused) = log(filter) {
        return refused;
    }
    let settings = match S::try_from(flags) {
        Ok(settings) => settings,
        Err(error) => return refused(USAGE, &error.to_string()),
    };
    let (client, lease_client, stop) = match begin().await {
        Ok(begun) => begun,
        Err(refused) => return refused,
    };
    let parts = Parts {
        client,
        lease_client,
        settings,
        metrics: Arc::new(Metrics::default()),
        clock: Timestamp::now,
        stop,
    };
    ended(run(parts).await)
}

fn log(filter: &str) -> Result<(), ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| refused(USAGE, &format!("`{filter}` given by --log is no filter: {error}")))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// The clients, and what signals cancel.
async fn begin() -> Result<(Client, Client, CancellationToken), ExitCode> {
    let (client, lease_client) = clients().await.map_err(|error| {
        let advice = "run it in a pod, or set KUBECONFIG";
        refused(UNAVAILABLE, &format!("the cluster isn't known: {error}; {advice}"))
    })?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(|error| refused(INTERNAL, &format!("signals can't be waited for: {error}")))?;
    Ok((client, lease_client, stop))
}

fn ended(result: Result<(), RunError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ RunError::Listen { .. }) => refused(USAGE, &error.to_string()),
        Err(error @ RunError::LeaseLost) => refused(INTERNAL, &error.to_string()),
    }
}

/// The client for everything, and one without retries for leases.
async fn clients() -> Result<(Client, Client), Box<dyn std::error::Error>> {
    let mut config = Config::infer().await?;
    // A list or watch whose connection died without a word would wait for ever. The API server ends watches before that.
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    let mut without_retries = config.clone();
    without_retries.default_retry = false;
    Ok((Client::try_from(config)?, Client::try_from(without_retries)?))
}

fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: running reconciles finish");
        stop.cancel();
    });
    Ok(())
}

/// One line for a person, whatever the log's filter is.
fn refused(code: u8, message: &str) -> ExitCode {
    // Nothing is left to do where not even that can be written.
    let _ = writeln!(std::io::stderr(), "operator: {message}");
    ExitCode::from(code)
}
