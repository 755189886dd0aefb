//! Two parties on one node: namespaces, folders, claims, Secrets, charts and DataShareProcessors.
//!
//! The parties share only the folders that partners share in life; each has its operator and its workers in namespaces
//! of its own.

mod pair;
mod processor;
mod surroundings;

pub use pair::Pair;
pub(crate) use surroundings::{make_folder, namespace_object, volume_objects};

use anyhow::Result;
use crds::{AggregationWindow, Batch, DataShareProcessor, KeyRing};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// The mailboxes of a party, as its pods see them under `/mailboxes`, and as claims.
pub const MAILBOXES: [&str; 5] = ["ingestion", "peer-validation", "ledger", "outgoing-peer", "portal"];
/// The mailboxes that the operator itself lists.
pub const OPERATOR_MAILBOXES: [&str; 3] = ["ingestion", "peer-validation", "ledger"];
/// `workers.maxPods` of every party here.
pub const MAX_PODS: u32 = 2;
/// The name in sum-part paths of every party here.
pub const INSTANCE: &str = "demo";

/// `spec.windows` of both parties, and how their batches are cut.
#[derive(Clone, Debug)]
pub struct Settings {
    /// RFC 3339: the first window that is ours.
    pub start_at: String,
    /// Seconds; the fixtures were made for three hours.
    pub period_seconds: u32,
    /// Seconds between a cutoff and its planning.
    pub settle_seconds: u32,
    /// The floor.
    pub min_clients: u64,
    /// Batches that one pod takes in.
    pub batches_per_pod: u32,
    /// Batches that one pod sums.
    pub sum_batches_per_pod: u32,
    /// After so many seconds a Job that doesn't start is removed.
    pub start_deadline_seconds: u32,
    /// `All` or `Exceptions`.
    pub batch_objects: &'static str,
    /// At most so many Batches are kept.
    pub max_batch_objects: u32,
    /// `ThreeObjects` or `SingleObject`.
    pub validation_format: &'static str,
    /// Seconds between two looks of an operator.
    pub tick_seconds: u32,
}

impl Settings {
    /// Windows of three hours from a day on, summed soon after their cutoff.
    pub fn from_day(day: jiff::civil::Date) -> Self {
        Self {
            start_at: format!("{day}T00:00:00Z"),
            period_seconds: 10_800,
            settle_seconds: 5,
            min_clients: 10,
            batches_per_pod: 8,
            sum_batches_per_pod: 2_000,
            start_deadline_seconds: 60,
            batch_objects: "All",
            max_batch_objects: 5_000,
            validation_format: "ThreeObjects",
            // Nobody wants to wait for a clock here.
            tick_seconds: 2,
        }
    }

    /// The day on which the windows are.
    ///
    /// # Errors
    /// When `start_at` isn't a time.
    pub fn day(&self) -> Result<jiff::civil::Date> {
        Ok(self
            .start_at
            .parse::<jiff::Timestamp>()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date())
    }
}

/// One party.
#[derive(Clone)]
pub struct Party {
    /// Its name: also its DataShareProcessor's.
    pub name: String,
    /// 0 First, 1 Second.
    pub index: usize,
    /// The namespace of its operator.
    pub operator_namespace: String,
    /// The namespace of its processor, Batches, windows, Jobs, Secrets.
    pub worker_namespace: String,
    client: kube::Client,
}

impl Party {
    fn new(cluster: &Cluster, name: String, index: usize) -> Self {
        Self {
            operator_namespace: format!("{name}-operator"),
            worker_namespace: format!("{name}-workers"),
            name,
            index,
            client: cluster.client.clone(),
        }
    }

    /// Its DataShareProcessors.
    pub fn processors(&self) -> Api<DataShareProcessor> {
        Api::namespaced(self.client.clone(), &self.worker_namespace)
    }

    /// Its processor as it is now.
    pub async fn processor(&self) -> Result<DataShareProcessor> {
        Ok(self.processors().get(&self.name).await?)
    }

    /// All its Batches.
    pub async fn batches(&self) -> Result<Vec<Batch>> {
        let api: Api<Batch> = Api::namespaced(self.client.clone(), &self.worker_namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// All its windows.
    pub async fn windows(&self) -> Result<Vec<AggregationWindow>> {
        let api: Api<AggregationWindow> = Api::namespaced(self.client.clone(), &self.worker_namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// Its KeyRings.
    pub fn key_rings(&self) -> Api<KeyRing> {
        Api::namespaced(self.client.clone(), &self.worker_namespace)
    }

    /// Changes its processor by a merge patch.
    pub async fn patch(&self, patch: &Value) -> Result<()> {
        self.processors()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

/// Installs the chart that a cluster has once: API types and admission policies.
pub async fn install_cluster_chart(cluster: &Cluster) -> Result<()> {
    let chart = cluster
        .repository
        .join("charts/prio-operator-cluster")
        .display()
        .to_string();
    let release = "prio-operator-cluster";
    let arguments = [
        "upgrade",
        "--install",
        release,
        &chart,
        "--namespace",
        "prio-operator-system",
        "--create-namespace",
        "--wait",
    ];
    cluster.helm(&arguments, &json!({})).await?;
    Ok(())
}
