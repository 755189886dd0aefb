//! Two clouds on one node: SeaweedFS speaks S3 for First, fake-gcs-server GCS for Second, each in a namespace of its own.
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
use crate::pods::{container_security, pod_security, reference};
use crate::wait::{Seen, until};

/// The name of a store's Deployment and Service.
const STORE: &str = "store";
/// The Secret by which workers reach S3.
const WORKERS_SECRET: &str = "s3";
/// The Secret by which First's operator lists S3.
const OPERATOR_SECRET: &str = "s3-list";
/// The Secret by which the ingestor and the portal reach S3.
pub const PARTNER_SECRET: &str = "partner";
/// Ports of the two stores.
pub const PORTS: [u16; 2] = [8333, 4443];
/// Where SeaweedFS makes and keeps buckets as folders.
const FILER_PORT: u16 = 8888;
/// The buckets of a party.
const BUCKETS: [&str; 4] = ["ingestion", "peer-validation", "ledger", "portal"];
const START_LIMIT: Duration = Duration::from_secs(120);
const COPY_LIMIT: Duration = Duration::from_secs(120);

/// Who calls S3, and what they may do there.
#[derive(Clone, Debug)]
struct Caller {
    name: String,
    secret: String,
    actions: Vec<String>,
}

impl Caller {
    fn new(name: &str, actions: Vec<String>) -> Self {
        let secret = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect();
        Self {
            name: name.to_owned(),
            secret,
            actions,
        }
    }

    /// As SeaweedFS keeps it, without the rights in `closed`, a bucket.
    fn identity(&self, closed: Option<&str>) -> Value {
        let keys = json!([{"access_key": self.name, "secret_key": self.secret}]);
        let is_open = |action: &&String| action.split_once(':').map(|(_, bucket)| bucket) != closed;
        let actions: Vec<&String> = self.actions.iter().filter(is_open).collect();
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
    /// First's and Second's workers.
    workers: [Caller; 2],
    /// First's operator.
    operator: Caller,
    /// The ingestor and the portal at once: whoever copies in and out here.
    partner: Caller,
}

impl Stores {
    /// Names and keys; nothing is made yet. `names` are First's and Second's.
    pub fn new(names: [&str; 2]) -> Self {
        let of = |actions: &[&str], mailboxes: &[&str]| -> Vec<String> {
            let buckets = mailboxes.iter().map(|mailbox| bucket(names[0], mailbox));
            buckets
                .flat_map(|bucket| actions.iter().map(move |action| format!("{action}:{bucket}")))
                .collect()
        };
        let all = ["Read", "Write", "List"];
        let own = Caller::new("first-workers", of(&all, &BUCKETS));
        Self {
            names: names.map(str::to_owned),
            workers: [own, Caller::new("second-workers", of(&all, &["peer-validation"]))],
            operator: Caller::new("first-operator", of(&["Read", "List"], &OPERATOR_MAILBOXES)),
            partner: Caller::new("partner", of(&all, &["ingestion", "portal"])),
        }
    }

    /// Everybody's secret keys with their callers' names, for a search.
    pub fn secrets(&self) -> Vec<(String, Vec<u8>)> {
        let secret = |caller: &Caller| (caller.name.clone(), caller.secret.clone().into_bytes());
        self.callers().map(secret).into()
    }

    /// The namespace of a party's store.
    pub fn namespace(&self, index: usize) -> String {
        format!("{}-store", self.names[index])
    }

    /// Where a party's store is called.
    pub fn endpoint(&self, index: usize) -> String {
        format!("http://{STORE}.{}.svc:{}", self.namespace(index), PORTS[index])
    }

    /// The URL of a party's mailbox. What one party sends is what the other receives.
    pub fn url(&self, index: usize, mailbox: &str) -> String {
        let (owner, mailbox) = place(index, mailbox);
        let bucket = bucket(&self.names[owner], mailbox);
        [format!("s3://us-east-1/{bucket}"), format!("gs://{bucket}")][owner].clone()
    }

    /// A mailbox of a party's DataShareProcessor.
    pub fn mailbox_object(&self, index: usize, mailbox: &str) -> Value {
        let (owner, _) = place(index, mailbox);
        let mut object = json!({"url": self.url(index, mailbox), "endpoint": self.endpoint(owner)});
        if owner == 0 {
            object["pathStyle"] = json!(true);
            object["credentials"] = json!({"secretRef": {"name": WORKERS_SECRET}});
            if OPERATOR_MAILBOXES.contains(&mailbox) {
                object["operatorCredentials"] = json!({"secretRef": {"name": OPERATOR_SECRET}});
            }
        } else {
            object["credentials"] = json!({"anonymous": {}});
        }
        object
    }

    /// How the ingestor and the portal reach a party's store, with their keys mounted at a folder.
    pub fn partner_access(&self, index: usize, folder: &str) -> Value {
        let credentials = [json!({"secret": {"folder": folder}}), json!("anonymous")][index].clone();
        json!({"endpoint": self.endpoint(index), "pathStyle": index == 0, "credentials": credentials})
    }

    /// The Secret with these keys.
    pub fn partner_secret(&self, namespace: &str) -> Value {
        self.partner.secret_object(namespace, PARTNER_SECRET)
    }

    /// The Secrets of a party: its workers', and its operator's own.
    pub fn secret_objects(&self, index: usize, worker_namespace: &str, operator_namespace: &str) -> Vec<Value> {
        let mut objects = vec![self.workers[index].secret_object(worker_namespace, WORKERS_SECRET)];
        if index == 0 {
            objects.push(self.operator.secret_object(operator_namespace, OPERATOR_SECRET));
        }
        objects
    }

    /// `mailboxes` of a party's chart, and what `workers.secrets` lists for them.
    pub fn chart_values(&self, index: usize) -> (Value, &'static str) {
        let from = |index| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace(index)}}});
        let mailboxes = json!({
            "secrets": if index == 0 { vec![OPERATOR_SECRET] } else { Vec::new() },
            "endpoints": [self.endpoint(index)],
            "network": {"enabled": true, "ports": PORTS, "to": [from(0), from(1)], "identityServers": []},
        });
        (mailboxes, WORKERS_SECRET)
    }

    /// Starts both stores and makes their buckets.
    ///
    /// # Errors
    /// When one doesn't come up.
    pub async fn start(&self, cluster: &Cluster, images: &StoreImages) -> Result<()> {
        let mut objects = Vec::new();
        for (index, image) in [&images.s3, &images.gcs].into_iter().enumerate() {
            objects.push(namespace_object(&self.namespace(index)));
            objects.extend(self.objects(index, image));
        }
        cluster.apply(&objects).await.context("the stores")?;
        for index in 0..2 {
            let namespace = self.namespace(index);
            let pod = cluster.ready_pod(&namespace, "app=store", START_LIMIT).await?;
            for mailbox in BUCKETS {
                let bucket = bucket(&self.names[index], mailbox);
                let made = make_bucket(cluster, &namespace, &pod, index, &bucket).await;
                made.with_context(|| format!("bucket {bucket}"))?;
            }
        }
        for caller in self.callers() {
            self.permit(cluster, caller, None).await?;
        }
        Ok(())
    }

    /// Takes every right in one of their own buckets from First's workers, while all runs; `None`: they have them all again.
    ///
    /// # Errors
    /// When the store can't be told.
    pub async fn keep_out_first_workers(&self, cluster: &Cluster, mailbox: Option<&str>) -> Result<()> {
        let closed = mailbox.map(|mailbox| bucket(&self.names[0], mailbox));
        self.permit(cluster, &self.workers[0], closed.as_deref()).await
    }

    fn callers(&self) -> [&Caller; 4] {
        [&self.workers[0], &self.workers[1], &self.operator, &self.partner]
    }

    /// Tells SeaweedFS who a caller is and what it may do; that is so within a moment.
    async fn permit(&self, cluster: &Cluster, caller: &Caller, closed: Option<&str>) -> Result<()> {
        let namespace = self.namespace(0);
        let pod = cluster.ready_pod(&namespace, "app=store", START_LIMIT).await?;
        let path = format!(
            "{}/etc/iam/identities/{}.json",
            proxy(&namespace, &pod, FILER_PORT),
            caller.name
        );
        let request = http::Request::put(path).body(caller.identity(closed).to_string().into_bytes())?;
        let told = cluster.client.request_text(request).await;
        told.with_context(|| format!("the rights of {}", caller.name))?;
        Ok(())
    }

    /// The store itself, its settings, and who may call it at which port.
    fn objects(&self, index: usize, image: &Image) -> Vec<Value> {
        let (namespace, port) = (self.namespace(index), PORTS[index]);
        // Nobody may do anything before the store is told of callers: what is in this file could never be changed.
        let settings = json!({"identities": []}).to_string();
        let metadata = json!({"name": STORE, "namespace": namespace});
        let labels = json!({"app": STORE});
        let (args, ready) = match index {
            // Nothing leaves this machine, and no bucket is made by whoever writes into it.
            0 => (
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
                ],
                json!({"httpGet": {"path": "/dir/assign", "port": 9333}, "periodSeconds": 1}),
            ),
            _ => (
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

/// The API server's way to a pod.
fn proxy(namespace: &str, pod: &str, port: u16) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy")
}

/// By what each store has for its administrator, through the API server: pods are let to nothing but its interface.
async fn make_bucket(cluster: &Cluster, namespace: &str, pod: &str, index: usize, bucket: &str) -> Result<()> {
    let proxy = |port| proxy(namespace, pod, port);
    let request = match index {
        0 => http::Request::post(format!("{}/buckets/{bucket}/", proxy(FILER_PORT))).body(Vec::new())?,
        _ => http::Request::post(format!("{}/storage/v1/b?project=demo", proxy(PORTS[1])))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(json!({ "name": bucket }).to_string().into_bytes())?,
    };
    cluster.client.request_text(request).await?;
    Ok(())
}
