//! Copies between folders and buckets.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use serde_json::{Value, json};

use super::{PARTNER_SECRET, Stores};
use crate::images::Image;
use crate::party::{Pair, volume_objects};
use crate::pods::{container_security, pod_security, reference};
use crate::wait::{Seen, until};

/// Ten thousand batches take minutes.
const COPY_LIMIT: Duration = Duration::from_secs(600);

impl Stores {
    /// Copies what the ingestor wrote from folders into both ingestion buckets.
    ///
    /// # Errors
    /// When a copy fails.
    pub async fn upload(&self, pair: &Pair, facilitator: &Image) -> Result<()> {
        self.copy(pair, facilitator, "ingestion", true).await
    }

    /// Copies both portals' buckets into folders.
    ///
    /// # Errors
    /// When a copy fails.
    pub async fn download(&self, pair: &Pair, facilitator: &Image) -> Result<()> {
        self.copy(pair, facilitator, "portal", false).await
    }

    /// By `facilitator copy` in a pod of each store's namespace, as somebody who isn't on this node would.
    async fn copy(&self, pair: &Pair, facilitator: &Image, mailbox: &str, up: bool) -> Result<()> {
        let serial: u32 = rand::rng().random();
        let name = format!("copy-{mailbox}-{serial:08x}");
        for index in 0..2 {
            let namespace = self.namespace(index);
            let mut objects = Vec::from(volume_objects(&namespace, mailbox, &pair.mailbox(index, mailbox)));
            objects.push(self.partner_secret(&namespace));
            objects.push(self.copy_job(index, &name, facilitator, mailbox, up));
            pair.cluster
                .apply(&objects)
                .await
                .with_context(|| format!("{name} in {namespace}"))?;
        }
        for index in 0..2 {
            let namespace = self.namespace(index);
            until(&format!("{name} in {namespace}"), COPY_LIMIT, || async {
                let status = "jsonpath={.status.succeeded},{.status.failed}";
                let job = format!("job/{name}");
                let status = pair
                    .cluster
                    .kubectl(&["get", &job, "--namespace", &namespace, "--output", status])
                    .await?;
                if status.trim().starts_with('1') {
                    return Ok(Seen::Done(()));
                }
                if status.trim() == "," {
                    return Ok(Seen::NotYet("running".to_owned()));
                }
                Ok(Seen::Never(
                    pair.cluster.kubectl(&["logs", &job, "--namespace", &namespace]).await?,
                ))
            })
            .await?;
        }
        Ok(())
    }

    fn copy_job(&self, index: usize, name: &str, facilitator: &Image, mailbox: &str, up: bool) -> Value {
        let access = self.partner_access(index, "/keys");
        let (folder, url) = ("/folder".to_owned(), self.url(index, mailbox));
        let (from, to, flag) = if up {
            (folder, url, "--to-access")
        } else {
            (url, folder, "--from-access")
        };
        let container = json!({
            "name": "copy", "image": reference(facilitator), "imagePullPolicy": "IfNotPresent",
            "args": ["copy", from, to, flag, access.to_string()], "securityContext": container_security(),
            "volumeMounts": [{"name": "folder", "mountPath": "/folder"}, {"name": "keys", "mountPath": "/keys", "readOnly": true}],
        });
        let pod = json!({
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": pod_security(), "containers": [container],
            "volumes": [{"name": "folder", "persistentVolumeClaim": {"claimName": mailbox}},
                        {"name": "keys", "secret": {"secretName": PARTNER_SECRET}}],
        });
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": self.namespace(index)},
               "spec": {"backoffLimit": 0, "template": {"spec": pod}}})
    }
}
