//! In pods beside the parties: their web servers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use prio_operator_tests::output::say;
use prio_operator_tests::partner::serve;

/// What runs in pods beside the parties.
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Serve {
        namespace,
        config_map,
        tls,
        address,
    } = Command::parse();
    match serve::serve(&namespace, &config_map, &tls, address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
