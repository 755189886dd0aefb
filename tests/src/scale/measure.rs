//! One snapshot of all counters, and the difference of two.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::usage::{self, StandingPod, Usage};
use super::{Amounts, counters, since};
use crate::party::Pair;

/// The port of an operator's metrics.
const OPERATOR_METRICS: u16 = 8080;
const OPERATOR: &str = "app.kubernetes.io/component=operator";
/// FlowSchemas by which the API server counts what operators ask for, in the order in which they are tried.
const OPERATORS_CALLS: [(&str, &[&str], &str); 3] = [
    ("operators: leases", &["*"], "leases"),
    (
        "operators: writes",
        &["create", "update", "patch", "delete", "deletecollection"],
        "*",
    ),
    ("operators: reads", &["get", "list", "watch"], "*"),
];

/// What a run is measured by.
pub struct Meter {
    pair: Pair,
    run: PathBuf,
    pods: Vec<StandingPod>,
}

/// All counters at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    usage: Usage,
    /// Calls of operators, by kind.
    calls: Amounts,
    /// Writes to the API server, whoever made them.
    writes: Amounts,
    /// Requests to both stores.
    storage: Amounts,
    /// The same by bucket.
    buckets: Amounts,
    /// Of both operators: looks, and seconds of looks and of listings.
    looks: Amounts,
}

impl Meter {
    /// A meter of a pair in two S3, both of which are up, as are the operators.
    ///
    /// # Errors
    /// When a pod isn't there, or the API server refuses to count.
    pub async fn new(pair: &Pair) -> Result<Self> {
        let mut pods = Vec::new();
        for party in &pair.parties {
            let store = pair.stores.as_ref().context("a pair in clouds")?.namespace(party.index);
            for (what, namespace, selector) in [
                ("operator", &party.operator_namespace, OPERATOR),
                ("store", &store, "app=store"),
            ] {
                let pod = pair.cluster.pods(namespace, selector).await?.into_iter().next();
                let uid = pod.and_then(|pod| pod.metadata.uid);
                pods.push(StandingPod {
                    name: format!("{what} of {}", party.name),
                    uid: uid.with_context(|| format!("no pod {selector} is in {namespace}"))?,
                });
            }
        }
        for pod in pair.cluster.pods("kube-system", "").await? {
            pods.extend(pod.metadata.uid.map(|uid| StandingPod {
                name: "DNS".to_owned(),
                uid,
            }));
        }
        pair.cluster.apply(&flow_schemas(pair)).await.context("FlowSchemas")?;
        let run = Path::new(&pair.cluster.kubeconfig)
            .parent()
            .context("a kubeconfig has a folder")?;
        Ok(Self {
            pair: pair.clone(),
            run: run.to_path_buf(),
            pods,
        })
    }

    /// Reads all counters.
    ///
    /// # Errors
    /// When one can't be read.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let (cluster, stores) = (
            &self.pair.cluster,
            self.pair.stores.as_ref().context("a pair in clouds")?,
        );
        let api = cluster.text("/metrics").await.context("the API server's metrics")?;
        let dispatched = "apiserver_flowcontrol_dispatched_requests_total";
        let by_schema = counters::by_label(&api, dispatched, "flow_schema");
        let calls = OPERATORS_CALLS.iter().map(|(what, _, _)| {
            let count = by_schema.get(&schema_name(what)).copied();
            ((*what).to_owned(), count.unwrap_or_default())
        });
        let (mut storage, mut buckets, mut looks) = (Amounts::new(), Amounts::new(), Amounts::new());
        for party in &self.pair.parties {
            let text = stores
                .metrics(cluster, party.index)
                .await
                .context("a store's metrics")?;
            add(&mut storage, counters::storage_requests(&text));
            add(
                &mut buckets,
                counters::by_label(&text, "SeaweedFS_s3_request_total", "bucket"),
            );
            let namespace = &party.operator_namespace;
            let text = cluster.pod_text(namespace, OPERATOR, OPERATOR_METRICS, "metrics").await;
            add(&mut looks, looks_of(&text.context("an operator's metrics")?));
        }
        Ok(Snapshot {
            at: Instant::now(),
            usage: usage::read(&self.run, &self.pods)?,
            calls: calls.collect(),
            writes: counters::api_writes(&api),
            storage,
            buckets,
            looks,
        })
    }
}

/// What happened between two snapshots.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Seconds between the two.
    pub seconds: f64,
    /// CPU seconds by part.
    pub cpu: Amounts,
    /// CPU seconds of the machine.
    pub machine_cpu: f64,
    /// Bytes by standing pod, since it started.
    pub peak_memory: Amounts,
    /// Calls of both operators to the API server.
    pub calls: Amounts,
    /// Writes to the API server, whoever made them.
    pub writes: Amounts,
    /// Requests to both stores, by type and code.
    pub storage: Amounts,
    /// The same by bucket.
    pub buckets: Amounts,
    /// Of both operators together.
    pub looks: Amounts,
}

impl Costs {
    /// Of what happened between two snapshots.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        Self {
            seconds: after.at.duration_since(before.at).as_secs_f64(),
            cpu: since(&before.usage.cpu, &after.usage.cpu),
            machine_cpu: after.usage.machine - before.usage.machine,
            peak_memory: after.usage.peak_memory.clone(),
            calls: since(&before.calls, &after.calls),
            writes: since(&before.writes, &after.writes),
            storage: since(&before.storage, &after.storage),
            buckets: since(&before.buckets, &after.buckets),
            looks: since(&before.looks, &after.looks),
        }
    }

    /// Objects that were created, as the API server counts it.
    pub fn created(&self, resource: &str) -> f64 {
        self.writes
            .get(&format!("POST {resource}"))
            .copied()
            .unwrap_or_default()
    }
}

/// So that the API server counts the operators' calls apart, and treats them as before.
fn flow_schemas(pair: &Pair) -> Vec<Value> {
    let subjects: Vec<Value> = pair
        .parties
        .iter()
        .map(|party| {
            let account = json!({"name": "prio-operator", "namespace": party.operator_namespace});
            json!({"kind": "ServiceAccount", "serviceAccount": account})
        })
        .collect();
    let schema = |(at, (what, verbs, resource)): (usize, &(&str, &[&str], &str))| {
        let rule = json!({"verbs": verbs, "apiGroups": ["*"], "resources": [resource], "clusterScope": true, "namespaces": ["*"]});
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
            "metadata": {"name": schema_name(what), "labels": {"prio-operator.io/test": "true"}},
            "spec": {
                "priorityLevelConfiguration": {"name": "workload-low"},
                "matchingPrecedence": 1000 + at,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{"subjects": subjects, "resourceRules": [rule]}],
            },
        })
    };
    OPERATORS_CALLS.iter().enumerate().map(schema).collect()
}

fn schema_name(what: &str) -> String {
    what.replace(": ", "-")
}

fn looks_of(text: &str) -> Amounts {
    let mut looks: Amounts = [
        ("looks", "prio_operator_reconcile_seconds_count"),
        ("seconds of looks", "prio_operator_reconcile_seconds_sum"),
        ("failed looks", "prio_operator_reconcile_errors_total"),
    ]
    .map(|(what, metric)| (what.to_owned(), counters::total(text, metric)))
    .into();
    let listings = counters::by_label(text, "prio_operator_mailbox_listing_seconds_sum", "mailbox");
    looks.extend(
        listings
            .into_iter()
            .map(|(mailbox, seconds)| (format!("seconds of listing {mailbox}"), seconds)),
    );
    looks
}

fn add(to: &mut Amounts, more: Amounts) {
    for (name, value) in more {
        *to.entry(name).or_default() += value;
    }
}
