//! The ingestor of a pair with KeyRings: a pod that reads the parties' manifests by https, and writes into both clouds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::Image;
use crate::partner::ingest::{Order, Orders, PartyOrders};
use crate::party::{INSTANCE, Pair, make_folder, volume_objects};
use crate::pods::{container_security, pod_security, reference};
use crate::samples::Written;
use crate::stores::PARTNER_SECRET;
use crate::wait::{Seen, until};

/// The Secret with its key, and the claim of the folder with its journals.
const SIGNING: &str = "ingestor";
const JOURNALS: &str = "journals";
/// So old a manifest may become before it asks again, in seconds.
pub const REFRESH_SECONDS: u32 = 5;

/// The ingestor.
pub struct Ingestor {
    cluster: Cluster,
    namespace: String,
    image: Image,
    folder: PathBuf,
    orders: Orders,
}

impl Ingestor {
    /// Makes its key's Secret, its manifest and its folder. The web servers' namespaces must be there.
    ///
    /// # Errors
    /// When the pair has no KeyRings or no stores, or something can't be made.
    pub async fn set_up(pair: &Pair, image: Image) -> Result<Self> {
        let rings = pair.rings.as_ref().context("an ingestor needs manifests")?;
        let stores = pair.stores.as_ref().context("an ingestor writes into clouds")?;
        let namespace = rings.webs.ingestor.namespace.clone();
        let folder = pair.folder.join("ingestor");
        make_folder(&folder)?;
        let key = &pair.keys.ingestor;
        let mut objects = Vec::from(volume_objects(&namespace, JOURNALS, &folder));
        objects.push(rings.ingestor_manifest(&pair.keys)?);
        objects.push(stores.partner_secret(&namespace));
        objects.push(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SIGNING, "namespace": namespace},
                            "stringData": {"key": key.secret}}),
        );
        pair.cluster.apply(&objects).await.context("the ingestor")?;
        let party = |index: usize| -> Result<PartyOrders> {
            Ok(PartyOrders {
                manifest_base_url: rings.webs.parties[index].base_url(),
                instance: INSTANCE.to_owned(),
                access: serde_json::from_value(stores.partner_access(index, "/store"))?,
            })
        };
        Ok(Self {
            cluster: pair.cluster.clone(),
            namespace,
            image,
            folder,
            orders: Orders {
                authorities: rings.webs.authority.clone(),
                parties: [party(0)?, party(1)?],
                signer: key.id.clone(),
                refresh_seconds: REFRESH_SECONDS,
                batches: Vec::new(),
            },
        })
    }

    /// Starts a pod that writes these batches.
    ///
    /// # Errors
    /// When it can't be made.
    pub async fn start(&self, name: &str, batches: Vec<Order>) -> Result<()> {
        let orders = Orders {
            batches,
            ..self.orders.clone()
        };
        let orders = serde_json::to_string(&orders)?;
        let metadata = json!({"name": name, "namespace": self.namespace});
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"orders.json": orders}});
        self.cluster
            .apply(&[config, self.pod(name)])
            .await
            .with_context(|| format!("pod {name}"))
    }

    fn pod(&self, name: &str) -> Value {
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
        let container = json!({
            "name": "ingestor", "image": reference(&self.image), "imagePullPolicy": "IfNotPresent",
            "args": ["ingest", "--orders", "/orders/orders.json", "--key", "/signing/key",
                     "--journal", format!("/journals/{name}.jsonl")],
            "securityContext": container_security(),
            "volumeMounts": [mount("orders", "/orders"), mount("signing", "/signing"), mount("store", "/store"),
                             {"name": "journals", "mountPath": "/journals"}],
        });
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": self.namespace, "labels": {"app": "ingestor"}},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 60, "securityContext": pod_security(), "containers": [container],
            "volumes": [
                {"name": "orders", "configMap": {"name": name}},
                {"name": "signing", "secret": {"secretName": SIGNING}},
                {"name": "store", "secret": {"secretName": PARTNER_SECRET}},
                {"name": "journals", "persistentVolumeClaim": {"claimName": JOURNALS}},
            ],
        }})
    }

    /// Waits until a pod has written all its batches.
    ///
    /// # Errors
    /// When it fails.
    pub async fn finished(&self, name: &str, limit: Duration) -> Result<()> {
        until(&format!("{name} has written its batches"), limit, || async {
            Ok(match self.phase(name).await?.as_str() {
                "Succeeded" => Seen::Done(()),
                "Failed" => Seen::Never(self.log(name).await?),
                phase => Seen::NotYet(phase.to_owned()),
            })
        })
        .await
    }

    /// An error, with its log, where a pod has failed.
    ///
    /// # Errors
    /// That one.
    pub async fn check(&self, name: &str) -> Result<()> {
        if self.phase(name).await? == "Failed" {
            anyhow::bail!("{name} failed: {}", self.log(name).await?);
        }
        Ok(())
    }

    /// Asks a pod to stop: a batch that is begun is written whole.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn stop(&self, name: &str) -> Result<()> {
        let arguments = ["delete", "pod", name, "--namespace", &self.namespace, "--wait=true"];
        self.cluster.kubectl(&arguments).await?;
        Ok(())
    }

    /// What a pod has written so far.
    ///
    /// # Errors
    /// When its journal can't be read.
    pub fn written(&self, name: &str) -> Result<Vec<Written>> {
        let path = self.folder.join(format!("{name}.jsonl"));
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&path)?;
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display())))
            .collect()
    }

    async fn phase(&self, name: &str) -> Result<String> {
        let output = "--output=jsonpath={.status.phase}";
        let phase = ["get", "pod", name, "--namespace", &self.namespace, output];
        Ok(self.cluster.kubectl(&phase).await?.trim().to_owned())
    }

    async fn log(&self, name: &str) -> Result<String> {
        let log = ["logs", name, "--namespace", &self.namespace, "--tail=20"];
        self.cluster.kubectl(&log).await
    }
}
