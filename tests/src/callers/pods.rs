//! Pods as they come and go, and the addresses that each has meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::names::STAGE_LABEL;
use futures::{StreamExt, pin_mut};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::task::JoinSet;

use super::Call;
use crate::cluster::Cluster;
use crate::output::say;

/// Kubernetes tells whole seconds of when a container ended.
const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// A pod that is deleted at once, without having ended, may run on for so long.
const LINGERING: SignedDuration = SignedDuration::from_secs(30);
/// A pod, and the time within which it may have called somebody: never too short. Addresses are used again.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) address: Option<IpAddr>,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Presence {
    /// As Kubernetes tells of a pod; `None`: no node has it yet.
    fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let containers = status.container_statuses.as_deref().unwrap_or_default();
        let ends = containers.iter().map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            Some(ended.finished_at.as_ref()?.0 + SECOND)
        });
        // A container of a pod that is over isn't started again.
        let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let until = ends.collect::<Option<Vec<_>>>().filter(|_| is_over);
        Some(Self {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            address: status.pod_ip.as_ref().and_then(|address| address.parse().ok()),
            from: status.start_time.as_ref()?.0,
            until: until.and_then(|ends| ends.into_iter().max()),
        })
    }

    pub(super) fn may_have_made(&self, call: &Call) -> bool {
        self.address == Some(call.from) && self.from <= call.at && self.until.is_none_or(|until| call.at <= until)
    }

    /// Where it is a worker: which.
    pub(super) fn stage(&self) -> Option<&str> {
        self.labels.get(STAGE_LABEL).map(String::as_str)
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

/// By UID.
type Presences = BTreeMap<String, Presence>;

/// All pods of a node, written down as they come and go.
pub struct Pods {
    seen: Arc<Mutex<Presences>>,
    _watch: JoinSet<()>,
}

impl Pods {
    /// Begins.
    pub fn watch(cluster: &Cluster) -> Self {
        let seen = Arc::new(Mutex::new(Presences::new()));
        let pods: Api<Pod> = Api::all(cluster.client.clone());
        let noted = seen.clone();
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            let events = watcher(pods, watcher::Config::default()).default_backoff();
            pin_mut!(events);
            let mut listed = BTreeSet::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => note(&mut lock(&noted), &mut listed, event),
                    Err(error) => say(format!("   the watch of pods begins anew: {error}")),
                }
            }
        });
        Self { seen, _watch: watch }
    }

    pub(super) fn seen(&self) -> Vec<Presence> {
        lock(&self.seen).values().cloned().collect()
    }
}

fn lock(seen: &Mutex<Presences>) -> MutexGuard<'_, Presences> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what a watch tells. `listed`: the pods that are there, while a watch begins anew.
fn note(seen: &mut Presences, listed: &mut BTreeSet<String>, event: Event<Pod>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(pod) => {
            listed.extend(pod.metadata.uid.clone());
            there(seen, &pod);
        }
        Event::InitDone => {
            let missing = seen.iter_mut().filter(|(uid, _)| !listed.contains(*uid));
            missing.for_each(|(_, presence)| gone(presence));
        }
        Event::Apply(pod) => there(seen, &pod),
        Event::Delete(pod) => {
            there(seen, &pod);
            if let Some(presence) = pod.metadata.uid.and_then(|uid| seen.get_mut(&uid)) {
                gone(presence);
            }
        }
    }
}

fn there(seen: &mut Presences, pod: &Pod) {
    let (Some(uid), Some(mut presence)) = (pod.metadata.uid.clone(), Presence::of(pod)) else {
        return;
    };
    let before = seen.get(&uid).and_then(|before| before.address);
    presence.address = presence.address.or(before);
    seen.insert(uid, presence);
}

fn gone(presence: &mut Presence) {
    presence.until.get_or_insert(Timestamp::now() + LINGERING);
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    pub(in crate::callers) fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A pod in a namespace, of a stage, with an address, that began and ended.
    pub(in crate::callers) fn pod(
        namespace: &str,
        stage: Option<&str>,
        address: Option<&str>,
        began: i64,
        ended: Option<i64>,
    ) -> Pod {
        let state = match ended {
            Some(ended) => json!({"terminated": {"exitCode": 0, "finishedAt": time(ended).to_string()}}),
            None => json!({"running": {}}),
        };
        let container =
            json!({"name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "state": state});
        let labels: BTreeMap<_, _> = stage.map(|stage| (STAGE_LABEL, stage)).into_iter().collect();
        serde_json::from_value(json!({
            "metadata": {"name": "pod", "namespace": namespace, "uid": format!("{namespace} {began}"), "labels": labels},
            "status": {"phase": if ended.is_some() { "Succeeded" } else { "Running" }, "podIP": address,
                       "startTime": time(began).to_string(), "containerStatuses": [container]},
        }))
        .unwrap()
    }

    pub(in crate::callers) fn seen(pods: Vec<Pod>) -> Vec<Presence> {
        let (mut seen, mut listed) = (Presences::new(), BTreeSet::new());
        for pod in pods {
            note(&mut seen, &mut listed, Event::Apply(pod));
        }
        seen.into_values().collect()
    }

    #[test]
    fn what_is_gone_is_remembered_with_its_address() {
        let (mut seen, mut listed) = (Presences::new(), BTreeSet::new());
        let running = |namespace: &str, address| pod(namespace, Some("intake"), address, 10, None);
        for event in [
            Event::Init,
            Event::InitApply(running("one", Some("10.0.0.7"))),
            Event::InitDone,
            Event::Apply(running("two", Some("10.0.0.8"))),
            Event::Apply(running("two", None)),
            Event::Delete(running("two", None)),
        ] {
            note(&mut seen, &mut listed, event);
        }
        let of = |seen: &Presences, namespace: &str| {
            let presence = seen.values().find(|presence| presence.namespace == namespace);
            presence.map(|presence| (presence.address.unwrap().to_string(), presence.until.is_some()))
        };
        assert_eq!(of(&seen, "one"), Some(("10.0.0.7".to_owned(), false)));
        assert_eq!(of(&seen, "two"), Some(("10.0.0.8".to_owned(), true)));
        // A watch that begins anew doesn't find the first any more.
        for event in [Event::Init, Event::InitDone] {
            note(&mut seen, &mut listed, event);
        }
        assert_eq!(of(&seen, "one"), Some(("10.0.0.7".to_owned(), true)));
    }
}
