//! Which cluster and which namespace, as kubectl has them.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::Failure;

/// The flags that kubectl has too.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// The namespace; default: that of the context.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; default: the current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig; default: $KUBECONFIG, ~/.kube/config, or the pod's own account.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Connection {
    /// A client, and the namespace.
    ///
    /// # Errors
    /// No kubeconfig that can be used.
    pub async fn client(&self) -> Result<(Client, String), Failure> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let wrong = |error: &dyn std::fmt::Display| Failure::cluster("the cluster isn't known", error);
        let config = match (&self.kubeconfig, &self.context) {
            (Some(file), _) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| wrong(&error))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?,
            (None, None) => Config::infer().await.map_err(|error| wrong(&error))?,
        };
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        Ok((client, namespace))
    }
}
