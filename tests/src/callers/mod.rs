//! Who calls the web servers that serve manifests, and which pods there were meanwhile: no worker ever calls one.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use serde_json::Value;

pub use self::pods::Pods;
use self::pods::Presence;
use crate::cluster::Cluster;
use crate::output::say;
use crate::party::Pair;
use crate::web::Webs;

/// What a web server's log says before a caller's address.
const CALLED_BY: &str = "called by ";

/// A connection to a web server: a line of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    from: IpAddr,
    at: Timestamp,
}

impl Call {
    /// One that was accepted just now.
    pub fn now(from: SocketAddr) -> Self {
        Self {
            from: from.ip().to_canonical(),
            at: Timestamp::now(),
        }
    }

    /// Reads a line of a log; `None`: it is about something else.
    fn parse(line: &str) -> Option<Self> {
        let (from, at) = line.strip_prefix(CALLED_BY)?.split_once(" at ")?;
        Some(Self {
            from: from.parse().ok()?,
            at: at.parse().ok()?,
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CALLED_BY}{} at {}", self.from, self.at)
    }
}

/// Who made these calls, and how many each. `node`: addresses of the node itself, whose kubelet looks whether a server is up.
/// `may_call`: the pods that may.
///
/// # Errors
/// When a worker may have made one, or it isn't known that nobody but these did.
fn judge(
    calls: &[Call],
    pods: &[Presence],
    node: &[IpAddr],
    may_call: impl Fn(&Presence) -> bool,
) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for call in calls {
        let callers: Vec<_> = pods.iter().filter(|pod| pod.may_have_made(call)).collect();
        if let Some(worker) = callers.iter().find(|pod| pod.stage().is_some()) {
            bail!("{call}: that is {worker}, which is a worker");
        }
        if let Some(other) = callers.iter().find(|pod| !may_call(pod)) {
            bail!("{call}: that is {other}, which has nothing to look for there");
        }
        let name = match callers.first() {
            Some(caller) => caller.to_string(),
            None if node.contains(&call.from) => "the node".to_owned(),
            None => bail!("{call}: no pod is known that had this address then"),
        };
        *counts.entry(name).or_default() += 1;
    }
    Ok(counts)
}

/// Asserts that the web servers were called by the parties' operators, by the ingestor and by the node, and by nobody else;
/// that each was called by a pod, and that there were workers of each stage which could have. `logs`: those of servers that are
/// gone, by namespace.
///
/// # Errors
/// When that isn't so.
pub async fn no_worker_called(pair: &Pair, webs: &Webs, pods: &Pods, logs: &[(&str, String)]) -> Result<()> {
    let (cluster, node) = (&pair.cluster, node_addresses(&pair.cluster).await?);
    let mut calls = Vec::new();
    for namespace in webs.namespaces() {
        let mut text = String::new();
        for (_, log) in logs.iter().filter(|(of, _)| *of == namespace) {
            text.push_str(log);
        }
        text.push_str(&log(cluster, namespace).await?);
        let of_server: Vec<Call> = text.lines().filter_map(Call::parse).collect();
        calls.push((namespace, of_server));
    }
    let pods = pods.seen();
    let may_call = |pod: &Presence| {
        let is_operator = pair
            .parties
            .iter()
            .any(|party| party.operator_namespace == pod.namespace);
        let is_ingestor =
            pod.namespace == webs.ingestor.namespace && pod.labels.get("app").map(String::as_str) == Some("ingestor");
        is_operator || is_ingestor
    };
    for (namespace, calls) in &calls {
        let counts = judge(calls, &pods, &node, may_call).with_context(|| format!("the web server in {namespace}"))?;
        let told: Vec<String> = counts.iter().map(|(who, count)| format!("{count} of {who}")).collect();
        say(format!(
            "   calls of the web server in {namespace}: {}",
            told.join(", ")
        ));
        ensure!(
            counts.keys().any(|who| who.starts_with("pod ")),
            "no pod called the web server in {namespace}: nothing is shown"
        );
    }
    for party in &pair.parties {
        let of_party = |pod: &&Presence| pod.namespace == party.worker_namespace && pod.address.is_some();
        let stages: BTreeSet<_> = pods.iter().filter(of_party).filter_map(Presence::stage).collect();
        ensure!(
            ["intake", "aggregate"].iter().all(|stage| stages.contains(stage)),
            "{}: workers were seen of {stages:?} alone: nothing is shown",
            party.name
        );
    }
    Ok(())
}

/// What a server says since it began; nothing where there is none.
async fn log(cluster: &Cluster, namespace: &str) -> Result<String> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let mut text = String::new();
    for pod in cluster.pods(namespace, "app=web").await? {
        let statuses = pod.status.and_then(|status| status.container_statuses);
        let restarts: i32 = statuses.iter().flatten().map(|status| status.restart_count).sum();
        ensure!(
            restarts == 0,
            "the web server in {namespace} began anew: who called before isn't known"
        );
        let name = pod.metadata.name.unwrap_or_default();
        text.push_str(&api.logs(&name, &LogParams::default()).await?);
    }
    Ok(text)
}

/// Every address that a node has for itself: what its kubelet may call from.
async fn node_addresses(cluster: &Cluster) -> Result<Vec<IpAddr>> {
    let told = cluster.enter(&["ip", "-json", "-4", "address", "show"]).await?;
    let links: Vec<Value> = serde_json::from_str(&told).context("what `ip` says of the node")?;
    let addresses = links.iter().flat_map(|link| link["addr_info"].as_array()).flatten();
    let addresses = addresses.filter_map(|address| address["local"].as_str()?.parse().ok());
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::pods::tests::{pod, seen, time};
    use super::*;

    fn call(address: &str, second: i64) -> Call {
        Call {
            from: address.parse().unwrap(),
            at: time(second),
        }
    }

    #[test]
    fn a_call_is_of_whoever_had_the_address_then() {
        let pods = seen(vec![
            pod("workers", Some("intake"), Some("10.0.0.7"), 10, Some(20)),
            pod("operator", None, Some("10.0.0.7"), 30, None),
            pod("other", None, Some("10.0.0.8"), 0, None),
        ]);
        let node = ["10.0.0.1".parse().unwrap()];
        let judged = |calls: &[Call]| judge(calls, &pods, &node, |pod| pod.namespace == "operator");
        let counts = judged(&[call("10.0.0.7", 30), call("10.0.0.7", 99), call("10.0.0.1", 15)]).unwrap();
        assert_eq!(
            counts,
            [("pod operator/pod".to_owned(), 2), ("the node".to_owned(), 1)].into()
        );
        for (call, wrong) in [
            (call("10.0.0.7", 10), "pod workers/pod, which is a worker"),
            (call("10.0.0.7", 21), "pod workers/pod, which is a worker"),
            (call("10.0.0.7", 25), "no pod is known"),
            (
                call("10.0.0.8", 25),
                "pod other/pod, which has nothing to look for there",
            ),
            (call("10.0.0.9", 25), "no pod is known"),
        ] {
            let error = judged(&[call]).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
        // Where two may have had it, the worker is suspected.
        let pods = seen(vec![
            pod("workers", Some("aggregate"), Some("10.0.0.7"), 10, None),
            pod("operator", None, Some("10.0.0.7"), 5, None),
        ]);
        let error = judge(&[call("10.0.0.7", 50)], &pods, &[], |_| true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("a worker"), "{error}");
    }

    #[test]
    fn a_line_of_a_log_is_read_as_it_was_written() {
        let call = Call::now("[::ffff:10.0.0.7]:4711".parse().unwrap());
        assert_eq!(call.from.to_string(), "10.0.0.7");
        assert_eq!(Call::parse(&call.to_string()), Some(call));
        assert_eq!(Call::parse("serves ConfigMap a/b at 0.0.0.0:8443"), None);
    }
}
