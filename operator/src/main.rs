//! The operator's process: flags, clock, signals, exit codes.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use jiff::Timestamp;
use kube::{Client, Config};
use operator::metrics::Metrics;
use operator::run::{Parts, RunError, run};
use operator::settings::{Flags, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A flag is wrong (`docs/formats.md` §4.3).
const USAGE: u8 = 64;
/// The API server can't be reached, or its address isn't known.
const UNAVAILABLE: u8 = 69;
/// A lease was lost, or the process can't work.
const INTERNAL: u8 = 70;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Clap knows which of the two outputs its text belongs to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let filter = match tracing_subscriber::EnvFilter::try_new(&flags.log) {
        Ok(filter) => filter,
        Err(error) => return refused(USAGE, &format!("`{}` given by --log is no filter: {error}", flags.log)),
    };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let settings = match Settings::try_from(flags) {
        Ok(settings) => settings,
        Err(error) => return refused(USAGE, &error.to_string()),
    };
    let clients = match clients().await {
        Ok(clients) => clients,
        Err(error) => {
            let advice = "run it in a pod, or set KUBECONFIG";
            return refused(UNAVAILABLE, &format!("the cluster isn't known: {error}; {advice}"));
        }
    };
    let (client, lease_client) = clients;
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(&stop) {
        return refused(INTERNAL, &format!("signals can't be waited for: {error}"));
    }
    let metrics = Arc::new(Metrics::default());
    match run(Parts {
        client,
        lease_client,
        settings,
        metrics,
        clock: Timestamp::now,
        stop,
    })
    .await
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ RunError::Listen { .. }) => refused(USAGE, &error.to_string()),
        Err(error @ RunError::LeaseLost) => refused(INTERNAL, &error.to_string()),
    }
}

/// The client for everything, and one without retries for leases.
async fn clients() -> Result<(Client, Client), Box<dyn std::error::Error>> {
    let config = Config::infer().await?;
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
