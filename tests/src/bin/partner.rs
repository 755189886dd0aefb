//! In pods beside the parties of demo and tests: their web servers, the ingestor, and a store's front.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use prio_operator_tests::output::say;
use prio_operator_tests::partner::{front, ingest, serve};

/// What runs in pods beside the parties of demo and tests.
#[derive(Debug, Parser)]
enum Command {
    /// Serve the manifests of a ConfigMap by https.
    Serve {
        /// The namespace of the ConfigMap.
        #[arg(long)]
        namespace: String,
        /// Its name.
        #[arg(long)]
        config_map: String,
        /// The folder of `tls.crt` and `tls.key`.
        #[arg(long)]
        tls: PathBuf,
        /// Where to listen.
        #[arg(long)]
        address: SocketAddr,
    },
    /// Write batches as an ingestor does.
    Ingest {
        /// What to write, and for whom: JSON.
        #[arg(long)]
        orders: PathBuf,
        /// The file of the key that signs batches.
        #[arg(long)]
        key: PathBuf,
        /// The file that gets a line for each batch that is written.
        #[arg(long)]
        journal: PathBuf,
    },
    /// Pass on what a store is asked, and its answers with another time.
    Front {
        /// The store's endpoint.
        #[arg(long)]
        store: String,
        /// So many seconds the time is ahead.
        #[arg(long)]
        ahead_seconds: u32,
        /// Where to listen.
        #[arg(long)]
        address: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Serve {
            namespace,
            config_map,
            tls,
            address,
        } => serve::serve(&namespace, &config_map, &tls, address).await,
        Command::Ingest { orders, key, journal } => ingest::ingest(&orders, &key, &journal).await,
        Command::Front {
            store,
            ahead_seconds,
            address,
        } => front::front(&store, ahead_seconds, address).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
