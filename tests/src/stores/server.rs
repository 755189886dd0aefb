//! What a store is on the node.

use serde_json::{Value, json};

use super::{FILER_PORT, Kind, METRICS_PORT, STORE, Stores};
use crate::images::Image;
use crate::pods::{container_security, pod_security, reference};

impl Stores {
    /// The store itself, its settings, and who may call it at which port.
    pub(super) fn objects(&self, index: usize, image: &Image) -> Vec<Value> {
        let (namespace, kind) = (self.namespace(index), self.kinds[index]);
        let port = kind.port();
        // Nobody may do anything before the store is told of callers: what is in this file could never be changed.
        let settings = json!({"identities": []}).to_string();
        let metadata = json!({"name": STORE, "namespace": namespace});
        let labels = json!({"app": STORE});
        let (args, ready) = match kind {
            // Nothing leaves this machine, and no bucket is made by whoever writes into it.
            Kind::S3 => (
                vec![
                    "-logtostderr=true".to_owned(),
                    "-v=0".to_owned(),
                    "server".to_owned(),
                    "-dir=/data".to_owned(),
                    "-ip=127.0.0.1".to_owned(),
                    "-ip.bind=0.0.0.0".to_owned(),
                    "-master.telemetry=false".to_owned(),
                    "-master.volumeSizeLimitMB=64".to_owned(),
                    "-volume.max=60".to_owned(),
                    "-volume.preStopSeconds=0".to_owned(),
                    "-filer".to_owned(),
                    "-s3".to_owned(),
                    "-s3.autoCreateBucket=false".to_owned(),
                    "-s3.port.iceberg=0".to_owned(),
                    "-s3.port.lance=0".to_owned(),
                    "-s3.config=/etc/store/s3.json".to_owned(),
                    // Callers are read out of the filer's own store alone.
                    "-filer.saveToFilerLimit=4096".to_owned(),
                    format!("-s3.port={port}"),
                    format!("-filer.port={FILER_PORT}"),
                    format!("-metricsPort={METRICS_PORT}"),
                ],
                json!({"httpGet": {"path": "/dir/assign", "port": 9333}, "periodSeconds": 1}),
            ),
            Kind::Gcs => (
                vec![
                    "-backend=filesystem".to_owned(),
                    "-filesystem-root=/data".to_owned(),
                    "-scheme=http".to_owned(),
                    "-host=0.0.0.0".to_owned(),
                    "-log-level=warn".to_owned(),
                    format!("-port={port}"),
                    format!("-public-host={STORE}.{namespace}.svc:{port}"),
                ],
                json!({"httpGet": {"path": "/storage/v1/b", "port": port}, "periodSeconds": 1}),
            ),
        };
        let container = json!({
            "name": STORE, "image": reference(image), "imagePullPolicy": "IfNotPresent",
            "args": args, "workingDir": "/data", "env": [{"name": "HOME", "value": "/data"}], "readinessProbe": ready,
            "ports": [{"name": "store", "containerPort": port}],
            "securityContext": container_security(),
            "volumeMounts": [
                {"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"},
                {"name": "settings", "mountPath": "/etc/store", "readOnly": true},
            ],
        });
        let pod = json!({
            "automountServiceAccountToken": false, "enableServiceLinks": false, "securityContext": pod_security(),
            "containers": [container], "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}},
                        {"name": "settings", "configMap": {"name": STORE}}],
        });
        vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"s3.json": settings}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
                   "spec": {"selector": labels, "ports": [{"name": "store", "port": port, "targetPort": "store"}]}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata,
                   "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"],
                            "ingress": [{"ports": [{"port": port, "protocol": "TCP"}]}]}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                   "spec": {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels},
                            "template": {"metadata": {"labels": labels}, "spec": pod}}}),
        ]
    }
}
