//! A front of a party's store, in the store's namespace: the same store, with a clock that is ahead.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{START_LIMIT, Stores};
use crate::cluster::Cluster;
use crate::images::Image;
use crate::pods::{container_security, pod_security, reference};

/// The name of its Deployment and Service.
const FRONT: &str = "front";

impl Stores {
    /// Where the front of a party's store is called, once there is one: at the store's own port, which callers are let out to.
    pub fn front(&self, index: usize) -> String {
        let port = self.kinds[index].port();
        format!("http://{FRONT}.{}.svc:{port}", self.namespace(index))
    }

    /// Starts it; `image` is the partner's.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn start_front(&self, cluster: &Cluster, image: &Image, index: usize, ahead_seconds: u32) -> Result<()> {
        let objects = self.front_objects(image, index, ahead_seconds);
        cluster.apply(&objects).await.context("the store's front")?;
        let namespace = self.namespace(index);
        cluster.ready_pod(&namespace, "app=front", START_LIMIT).await?;
        Ok(())
    }

    fn front_objects(&self, image: &Image, index: usize, ahead_seconds: u32) -> [Value; 2] {
        let port = self.kinds[index].port();
        let metadata = json!({"name": FRONT, "namespace": self.namespace(index)});
        let labels = json!({"app": FRONT});
        let container = json!({
            "name": FRONT, "image": reference(image), "imagePullPolicy": "IfNotPresent",
            "args": ["front", "--store", self.endpoint(index), "--ahead-seconds", ahead_seconds.to_string(),
                     "--address", format!("0.0.0.0:{port}")],
            "ports": [{"name": "store", "containerPort": port}],
            "readinessProbe": {"tcpSocket": {"port": "store"}, "periodSeconds": 1},
            "securityContext": container_security(),
        });
        let pod = json!({
            "automountServiceAccountToken": false, "enableServiceLinks": false, "securityContext": pod_security(),
            "containers": [container], "terminationGracePeriodSeconds": 1,
        });
        [
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
                   "spec": {"selector": labels, "ports": [{"name": "store", "port": port, "targetPort": "store"}]}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                   "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                            "template": {"metadata": {"labels": labels}, "spec": pod}}}),
        ]
    }
}
