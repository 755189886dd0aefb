//! Two clouds on one node, one for each party and each in a namespace of its own: SeaweedFS speaks S3, fake-gcs-server GCS.
//!
//! What a party owns is in its own cloud; what it sends its peer goes into the peer's. SeaweedFS knows who calls, so that each
//! caller has keys of its own with the rights that it would have in life; fake-gcs-server lets everybody do everything.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::{Image, StoreImages};
use crate::party::{OPERATOR_MAILBOXES, Pair, namespace_object, volume_objects};
use crate::wait::{Seen, until};

/// The name of a store's Deployment and Service.
const STORE: &str = "store";
/// The Secret by which workers reach S3.
const WORKERS_SECRET: &str = "s3";
/// The Secret by which an operator lists S3.
const OPERATOR_SECRET: &str = "s3-list";
/// Where SeaweedFS makes and keeps buckets as folders.
const FILER_PORT: u16 = 8888;
/// Where SeaweedFS counts requests, for the API server alone: [`Stores::metrics`].
const METRICS_PORT: u16 = 9324;
/// The buckets of a party.
const BUCKETS: [&str; 4] = ["ingestion", "peer-validation", "ledger", "portal"];
const START_LIMIT: Duration = Duration::from_secs(120);
const COPY_LIMIT: Duration = Duration::from_secs(600);

/// What a party's cloud speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SeaweedFS.
    S3,
    /// fake-gcs-server.
    Gcs,
}

impl Kind {
    /// The port of the store.
    fn port(self) -> u16 {
        match self {
            Self::S3 => 8333,
            Self::Gcs => 4443,
        }
    }
}

/// Who calls S3.
#[derive(Clone, Debug)]
struct Caller {
    name: String,
    secret: String,
}

impl Caller {
    fn new(name: &str) -> Self {
        let secret = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect();
        Self {
            name: name.to_owned(),
            secret,
        }
    }

    /// As SeaweedFS is told of it, with what it may do in these buckets.
    fn identity(&self, actions: &[&str], buckets: impl Iterator<Item = String>) -> Value {
        let keys = json!([{"accessKey": self.name, "secretKey": self.secret}]);
        let actions: Vec<String> = buckets
            .flat_map(|bucket| actions.iter().map(move |action| format!("{action}:{bucket}")))
            .collect();
        json!({"name": self.name, "credentials": keys, "actions": actions})
    }

    fn secret_object(&self, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
               "stringData": {"accessKeyId": self.name, "secretAccessKey": self.secret}})
    }
}

/// The stores of two parties.
#[derive(Clone, Debug)]
pub struct Stores {
    names: [String; 2],
    kinds: [Kind; 2],
    /// First's and Second's workers.
    workers: [Caller; 2],
    /// First's and Second's operator, where its cloud is S3.
    operators: [Caller; 2],
    /// The ingestor and the portal at once: whoever copies in and out here.
    partner: Caller,
}

impl Stores {
    /// Names and keys; nothing is made yet. `names` are First's and Second's, `kinds` their clouds'.
    pub fn new(names: [&str; 2], kinds: [Kind; 2]) -> Self {
        Self {
            names: names.map(str::to_owned),
            kinds,
            workers: ["first-workers", "second-workers"].map(Caller::new),
            operators: ["first-operator", "second-operator"].map(Caller::new),
            partner: Caller::new("partner"),
        }
    }

    /// Everybody whom the S3 of that party knows, with rights as in life.
    fn identities(&self, owner: usize) -> Vec<Value> {
        const ALL: [&str; 3] = ["Read", "Write", "List"];
        let of = |mailboxes: &'static [&str]| mailboxes.iter().map(|mailbox| bucket(&self.names[owner], mailbox));
        vec![
            self.workers[owner].identity(&ALL, of(&BUCKETS)),
            self.workers[1 - owner].identity(&ALL, of(&["peer-validation"])),
            self.operators[owner].identity(&["Read", "List"], of(&OPERATOR_MAILBOXES)),
            self.partner.identity(&ALL, of(&["ingestion", "portal"])),
        ]
    }

    /// Everybody's secret keys with their callers' names, for a search.
    pub fn secrets(&self) -> Vec<(String, Vec<u8>)> {
        let callers = self.workers.iter().chain(&self.operators).chain([&self.partner]);
        callers
            .map(|caller| (caller.name.clone(), caller.secret.clone().into_bytes()))
            .collect()
    }

    /// The namespace of a party's store.
    pub fn namespace(&self, index: usize) -> String {
        format!("{}-store", self.names[index])
    }

    /// Where a party's store is called.
    pub fn endpoint(&self, index: usize) -> String {
        format!(
            "http://{STORE}.{}.svc:{}",
            self.namespace(index),
            self.kinds[index].port()
        )
    }

    /// The URL of a party's mailbox. What one party sends is what the other receives.
    pub fn url(&self, index: usize, mailbox: &str) -> String {
        let (owner, mailbox) = place(index, mailbox);
        let bucket = bucket(&self.names[owner], mailbox);
        match self.kinds[owner] {
            Kind::S3 => format!("s3://us-east-1/{bucket}"),
            Kind::Gcs => format!("gs://{bucket}"),
        }
    }

    /// A mailbox of a party's DataShareProcessor.
    pub fn mailbox_object(&self, index: usize, mailbox: &str) -> Value {
        let (owner, _) = place(index, mailbox);
        let mut object = json!({"url": self.url(index, mailbox), "endpoint": self.endpoint(owner)});
        match self.kinds[owner] {
            Kind::S3 => {
                object["pathStyle"] = json!(true);
                object["credentials"] = json!({"secretRef": {"name": WORKERS_SECRET}});
                if OPERATOR_MAILBOXES.contains(&mailbox) {
                    object["operatorCredentials"] = json!({"secretRef": {"name": OPERATOR_SECRET}});
                }
            }
            Kind::Gcs => object["credentials"] = json!({"anonymous": {}}),
        }
        object
    }

    /// The Secrets of a party: its workers', and its operator's own.
    pub fn secret_objects(&self, index: usize, worker_namespace: &str, operator_namespace: &str) -> Vec<Value> {
        let mut objects = vec![self.workers[index].secret_object(worker_namespace, WORKERS_SECRET)];
        if self.kinds[index] == Kind::S3 {
            objects.push(self.operators[index].secret_object(operator_namespace, OPERATOR_SECRET));
        }
        objects
    }

    /// `mailboxes` of a party's chart, and what `workers.secrets` lists for them.
    pub fn chart_values(&self, index: usize) -> (Value, &'static str) {
        let from = |index| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace(index)}}});
        let mailboxes = json!({
            "secrets": if self.kinds[index] == Kind::S3 { vec![OPERATOR_SECRET] } else { Vec::new() },
            "endpoints": [self.endpoint(index)],
            "network": {"enabled": true, "ports": self.ports(), "to": [from(0), from(1)], "identityServers": []},
        });
        (mailboxes, WORKERS_SECRET)
    }

    /// The ports of both, each once.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports = self.kinds.map(Kind::port).to_vec();
        ports.dedup();
        ports
    }

    /// Starts both stores and makes their buckets.
    ///
    /// # Errors
    /// When one doesn't come up.
    pub async fn start(&self, cluster: &Cluster, images: &StoreImages) -> Result<()> {
        let mut objects = Vec::new();
        for index in 0..2 {
            let image = match self.kinds[index] {
                Kind::S3 => &images.s3,
                Kind::Gcs => &images.gcs,
            };
            objects.push(namespace_object(&self.namespace(index)));
            objects.extend(self.objects(index, image));
        }
        cluster.apply(&objects).await.context("the stores")?;
        for index in 0..2 {
            let namespace = self.namespace(index);
            let pod = until(&format!("the store in {namespace} is ready"), START_LIMIT, || async {
                let pods = cluster.pods(&namespace, "app=store").await?;
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
            .await?;
            for mailbox in BUCKETS {
                let bucket = bucket(&self.names[index], mailbox);
                let made = make_bucket(cluster, &namespace, &pod, self.kinds[index], &bucket).await;
                made.with_context(|| format!("bucket {bucket}"))?;
            }
        }
        Ok(())
    }

    /// What the SeaweedFS of a party counts, in Prometheus' words.
    ///
    /// # Errors
    /// When it isn't there.
    pub async fn metrics(&self, cluster: &Cluster, index: usize) -> Result<String> {
        cluster
            .pod_text(&self.namespace(index), "app=store", METRICS_PORT, "metrics")
            .await
    }

    /// The store itself, its settings, and who may call it at which port.
    fn objects(&self, index: usize, image: &Image) -> Vec<Value> {
        let (namespace, kind) = (self.namespace(index), self.kinds[index]);
        let port = kind.port();
        let settings = json!({ "identities": self.identities(index) }).to_string();
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
            "name": STORE, "image": format!("{}:{}", image.repository, image.tag), "imagePullPolicy": "IfNotPresent",
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
                        {"name": "settings", "secret": {"secretName": STORE}}],
        });
        vec![
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"s3.json": settings}}),
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
            objects.push(self.partner.secret_object(&namespace, "partner"));
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
        let kind = self.kinds[index];
        let credentials = match kind {
            Kind::S3 => json!({"secret": {"folder": "/keys"}}),
            Kind::Gcs => json!("anonymous"),
        };
        let access =
            json!({"endpoint": self.endpoint(index), "pathStyle": kind == Kind::S3, "credentials": credentials});
        let (folder, url) = ("/folder".to_owned(), self.url(index, mailbox));
        let (from, to, flag) = if up {
            (folder, url, "--to-access")
        } else {
            (url, folder, "--from-access")
        };
        let container = json!({
            "name": "copy", "image": format!("{}:{}", facilitator.repository, facilitator.tag), "imagePullPolicy": "IfNotPresent",
            "args": ["copy", from, to, flag, access.to_string()], "securityContext": container_security(),
            "volumeMounts": [{"name": "folder", "mountPath": "/folder"}, {"name": "keys", "mountPath": "/keys", "readOnly": true}],
        });
        let pod = json!({
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": pod_security(), "containers": [container],
            "volumes": [{"name": "folder", "persistentVolumeClaim": {"claimName": mailbox}},
                        {"name": "keys", "secret": {"secretName": "partner"}}],
        });
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": self.namespace(index)},
               "spec": {"backoffLimit": 0, "template": {"spec": pod}}})
    }
}

/// Whose mailbox it is that a party names so, and what the owner calls it.
fn place(index: usize, mailbox: &str) -> (usize, &str) {
    if mailbox == "outgoing-peer" {
        (1 - index, "peer-validation")
    } else {
        (index, mailbox)
    }
}

fn bucket(party: &str, mailbox: &str) -> String {
    format!("{party}-{mailbox}")
}

fn pod_security() -> Value {
    json!({"runAsNonRoot": true, "runAsUser": 65_532, "runAsGroup": 65_532, "fsGroup": 65_532,
           "seccompProfile": {"type": "RuntimeDefault"}})
}

fn container_security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}

/// By what each store has for its administrator, through the API server: pods are let to nothing but its interface.
async fn make_bucket(cluster: &Cluster, namespace: &str, pod: &str, kind: Kind, bucket: &str) -> Result<()> {
    let proxy = |port: u16| format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy");
    let request = match kind {
        Kind::S3 => http::Request::post(format!("{}/buckets/{bucket}/", proxy(FILER_PORT))).body(Vec::new())?,
        Kind::Gcs => http::Request::post(format!("{}/storage/v1/b?project=demo", proxy(kind.port())))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(json!({ "name": bucket }).to_string().into_bytes())?,
    };
    cluster.client.request_text(request).await?;
    Ok(())
}
