//! A handle on the one-node cluster that `tests/cluster/cluster` starts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::command;
use crate::images::BINARIES;
use crate::wait::{Seen, until};

/// The environment variable that names the node that end-to-end tests use.
pub const NODE_VARIABLE: &str = "PRIO_OPERATOR_NODE";

/// A cluster that is up.
#[derive(Clone)]
pub struct Cluster {
    /// Its name, as in `tests/cluster/cluster --name`.
    pub name: String,
    /// The project's folder.
    pub repository: PathBuf,
    /// The path of its kubeconfig.
    pub kubeconfig: String,
    /// The Kubernetes API, as administrator.
    pub client: kube::Client,
}

impl Cluster {
    /// Attaches to a cluster that is up.
    ///
    /// # Errors
    /// When none of that name is up, or its API server doesn't answer.
    pub async fn attach(name: &str) -> Result<Self> {
        let repository = repository();
        let script = script(&repository);
        let kubeconfig = command::run(&script, &["--name", name, "kubeconfig"])
            .await?
            .trim()
            .to_owned();
        let config = Kubeconfig::read_from(&kubeconfig).with_context(|| format!("{kubeconfig} can't be read"))?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        Ok(Self {
            name: name.to_owned(),
            repository,
            kubeconfig,
            client,
        })
    }

    /// `kubectl` with arguments; gives its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "").await
    }

    /// `kubectl` with text on standard input.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut all = vec!["--name", &self.name, "kubectl"];
        all.extend(arguments);
        command::run_with_input(script(&self.repository), &all, input).await
    }

    /// `kubectl prio` as it was built, with arguments; gives its exit code and what it prints.
    pub async fn kubectl_prio(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let program = self.repository.join(BINARIES).join("kubectl-prio");
        let all = [&["--kubeconfig", &self.kubeconfig], arguments].concat();
        let output = command::output(program, &all, "").await?;
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ))
    }

    /// `helm` with arguments; gives its output.
    pub async fn helm(&self, arguments: &[&str], values: &Value) -> Result<String> {
        let mut all = vec!["--name", &self.name, "helm"];
        all.extend(arguments);
        all.extend(["--values", "-"]);
        command::run_with_input(script(&self.repository), &all, &values.to_string()).await
    }

    /// A command in the node's namespaces; gives its output.
    pub async fn enter(&self, command: &[&str]) -> Result<String> {
        let all = [&["--name", &self.name, "enter"], command].concat();
        command::run(script(&self.repository), &all).await
    }

    /// Applies objects on the server's side, as this harness.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=prio-operator-tests",
            "-f",
            "-",
        ];
        self.kubectl_with_input(&arguments, &list.to_string()).await?;
        Ok(())
    }

    /// Imports OCI archives into the node.
    pub async fn load(&self, archives: &[PathBuf]) -> Result<()> {
        let mut all: Vec<String> = ["--name", &self.name, "load"].map(str::to_owned).to_vec();
        all.extend(archives.iter().map(|path| path.display().to_string()));
        command::run(script(&self.repository), &all).await?;
        Ok(())
    }

    /// The pods of a namespace with that label selector (empty: all).
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Waits until a pod with that label selector is ready; gives its name.
    pub async fn ready_pod(&self, namespace: &str, selector: &str, limit: Duration) -> Result<String> {
        until(&format!("{selector} in {namespace} is ready"), limit, || async {
            let pods = self.pods(namespace, selector).await?;
            let ready = pods.iter().find(|pod| {
                let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
                conditions
                    .into_iter()
                    .flatten()
                    .any(|it| it.type_ == "Ready" && it.status == "True")
            });
            let name = ready.and_then(|pod| pod.metadata.name.clone());
            Ok(name.map_or_else(|| Seen::NotYet("not ready".to_owned()), Seen::Done))
        })
        .await
    }

    /// What the first pod with that label selector answers at a port: the API server asks it.
    pub async fn pod_text(&self, namespace: &str, selector: &str, port: u16, path: &str) -> Result<String> {
        let pods = self.pods(namespace, selector).await?;
        let name = pods.first().and_then(|pod| pod.metadata.name.as_deref());
        let name = name.with_context(|| format!("no pod {selector} is in {namespace}"))?;
        self.text(&format!("{}/{path}", pod_proxy(namespace, name, port))).await
    }

    /// What the API server answers at a path.
    pub async fn text(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.client.request_text(request).await?)
    }

    /// Ends a pod at once, as a lost machine would.
    pub async fn kill_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match api
            .delete(
                name,
                &DeleteParams {
                    grace_period_seconds: Some(0),
                    ..DeleteParams::default()
                },
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for the end of namespaces and doesn't wait for it.
    pub async fn delete_namespaces(&self, names: &[String]) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        for name in names {
            match api.delete(name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// How a person calls kubectl for this cluster, from any folder, whether or not one is installed.
    pub fn kubectl_command(&self) -> String {
        format!("{} --name {} kubectl", script(&self.repository).display(), self.name)
    }
}

/// The API server's way to a pod.
pub(crate) fn pod_proxy(namespace: &str, pod: &str, port: u16) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy")
}

/// The project's folder, as it was when this was compiled.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn script(repository: &Path) -> PathBuf {
    repository.join("tests/cluster/cluster")
}
