//! Two clouds on one node, one for each party and each in a namespace of its own: SeaweedFS speaks S3, fake-gcs-server GCS.
//!
//! What a party owns is in its own cloud; what it sends its peer goes into the peer's. SeaweedFS knows who calls, so that each
//! caller has keys of its own with the rights that it would have in life; fake-gcs-server lets everybody do everything.

mod copy;
mod front;
mod rights;
mod server;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::rights::Caller;
use crate::cluster::{Cluster, pod_proxy};
use crate::images::StoreImages;
use crate::party::{OPERATOR_MAILBOXES, namespace_object};

/// The name of a store's Deployment and Service.
const STORE: &str = "store";
/// The Secret by which workers reach S3.
const WORKERS_SECRET: &str = "s3";
/// The Secret by which an operator lists S3.
const OPERATOR_SECRET: &str = "s3-list";
/// The Secret by which the ingestor and the portal reach S3.
pub const PARTNER_SECRET: &str = "partner";
/// Where SeaweedFS makes and keeps buckets as folders.
const FILER_PORT: u16 = 8888;
/// Where SeaweedFS counts requests, for the API server alone: [`Stores::metrics`].
const METRICS_PORT: u16 = 9324;
/// The buckets of a party.
const BUCKETS: [&str; 4] = ["ingestion", "peer-validation", "ledger", "portal"];
const START_LIMIT: Duration = Duration::from_secs(120);

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

    /// Everybody's secret keys with their callers' names, for a search.
    pub fn secrets(&self) -> Vec<(String, Vec<u8>)> {
        let listers = self.kinds.iter().zip(&self.operators);
        let listers = listers
            .filter(|(kind, _)| **kind == Kind::S3)
            .map(|(_, operator)| operator);
        let callers = self.workers.iter().chain(listers).chain([&self.partner]);
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

    /// How the ingestor and the portal reach a party's store, with their keys mounted at a folder.
    pub fn partner_access(&self, index: usize, folder: &str) -> Value {
        let kind = self.kinds[index];
        let credentials = match kind {
            Kind::S3 => json!({"secret": {"folder": folder}}),
            Kind::Gcs => json!("anonymous"),
        };
        json!({"endpoint": self.endpoint(index), "pathStyle": kind == Kind::S3, "credentials": credentials})
    }

    /// The Secret with these keys.
    pub fn partner_secret(&self, namespace: &str) -> Value {
        self.partner.secret_object(namespace, PARTNER_SECRET)
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
            // Where a front would be, too: tests start one while all runs.
            "endpoints": [self.endpoint(index), self.front(index)],
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

    /// Starts both stores, makes their buckets, and lets callers in.
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
            let pod = cluster.ready_pod(&namespace, "app=store", START_LIMIT).await?;
            for mailbox in BUCKETS {
                let bucket = bucket(&self.names[index], mailbox);
                let made = make_bucket(cluster, &namespace, &pod, self.kinds[index], &bucket).await;
                made.with_context(|| format!("bucket {bucket}"))?;
            }
        }
        for index in 0..2 {
            self.permit_all(cluster, index).await?;
        }
        Ok(())
    }

    /// Has the SeaweedFS of a party delete what is in a mailbox under a prefix after so many days; `None`: nothing any more. It is
    /// a setting of the filer's, which is told to whoever asks for the bucket's lifecycle.
    ///
    /// # Errors
    /// When the store can't be told, or keeps no rules.
    pub async fn expire(
        &self,
        cluster: &Cluster,
        index: usize,
        mailbox: &str,
        rule: Option<(&str, u32)>,
    ) -> Result<()> {
        ensure!(self.kinds[index] == Kind::S3, "fake-gcs-server keeps no lifecycle");
        let (namespace, bucket) = (self.namespace(index), bucket(&self.names[index], mailbox));
        let pod = cluster.ready_pod(&namespace, "app=store", START_LIMIT).await?;
        let location = |(prefix, days): (&str, u32)| {
            let folder = format!("/buckets/{bucket}/{prefix}");
            json!({"locationPrefix": folder, "collection": bucket, "ttl": format!("{days}d")})
        };
        let settings = json!({"locations": rule.map(location).into_iter().collect::<Vec<_>>()});
        let path = format!("{}/etc/seaweedfs/filer.conf", pod_proxy(&namespace, &pod, FILER_PORT));
        let request = http::Request::put(path).body(settings.to_string().into_bytes())?;
        let told = cluster.client.request_text(request).await;
        told.with_context(|| format!("what expires in {bucket}"))?;
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

/// By what each store has for its administrator, through the API server: pods are let to nothing but its interface.
async fn make_bucket(cluster: &Cluster, namespace: &str, pod: &str, kind: Kind, bucket: &str) -> Result<()> {
    let proxy = |port| pod_proxy(namespace, pod, port);
    let request = match kind {
        Kind::S3 => http::Request::post(format!("{}/buckets/{bucket}/", proxy(FILER_PORT))).body(Vec::new())?,
        Kind::Gcs => http::Request::post(format!("{}/storage/v1/b?project=demo", proxy(kind.port())))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(json!({ "name": bucket }).to_string().into_bytes())?,
    };
    cluster.client.request_text(request).await?;
    Ok(())
}
