//! Looks at the cluster: a processor's Jobs with all that belongs to them, and its AggregationWindows.

use std::collections::{BTreeMap, BTreeSet};

use crds::AggregationWindow;
use crds::names::PROCESSOR_LABEL;
use facilitator_core::formats::work::WorkList;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};

use crate::metrics::Metrics;
use crate::undecodable;
use crate::workload::{JobEnd, JobView, last_seen};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Work lists by the UID of their Job: they never change.
pub type WorkCache = BTreeMap<String, WorkList>;

/// The Jobs of a processor, finished ones too as long as they exist. Their reports come later, from the ledger.
///
/// # Errors
/// Those of the API server.
pub async fn jobs(
    client: &Client,
    namespace: &str,
    processor: &str,
    cache: &mut WorkCache,
) -> kube::Result<Vec<JobView>> {
    let of_processor = ListParams::default().labels(&format!("{PROCESSOR_LABEL}={processor}"));
    let jobs = Api::<Job>::namespaced(client.clone(), namespace)
        .list(&of_processor)
        .await?
        .items;
    let uids: BTreeSet<String> = jobs.iter().filter_map(Job::uid).collect();
    cache.retain(|uid, _| uids.contains(uid));
    let mut views: Vec<JobView> = jobs
        .into_iter()
        .map(|job| JobView {
            job,
            ..JobView::default()
        })
        .collect();
    // Pods of a Job that is over only tell why a worker refused its configuration, and what a preflight found.
    let tells = |view: &JobView| {
        !view.is_finished() || view.end() == Some(JobEnd::ConfigurationRefused) || view.preflight_stage().is_some()
    };
    let pods = if views.iter().any(tells) {
        Api::<Pod>::namespaced(client.clone(), namespace)
            .list(&of_processor)
            .await?
            .items
    } else {
        Vec::new()
    };
    for view in &mut views {
        let uid = view.uid().to_owned();
        view.pods = pods.iter().filter(|pod| is_of(pod, &uid)).cloned().collect();
        view.work = match cache.get(view.uid()) {
            Some(work) => Some(work.clone()),
            None => work(client, namespace, &view.job).await?,
        };
        if let Some(work) = &view.work {
            cache.insert(view.uid().to_owned(), work.clone());
        }
    }
    // Causes are only looked for where no pod runs.
    if views.iter().any(|view| !view.is_finished() && !view.is_running()) {
        let warnings = ListParams::default().fields("type=Warning");
        let mut events = Api::<Event>::namespaced(client.clone(), namespace)
            .list(&warnings)
            .await?
            .items;
        events.sort_by_key(last_seen);
        for view in &mut views {
            view.events = events.iter().filter(|event| is_about(event, view)).cloned().collect();
        }
    }
    Ok(views)
}

/// Whether the Job made the pod: labels anyone may write, and of a deleted Job's name there may be another.
fn is_of(pod: &Pod, job_uid: &str) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == job_uid)
}

/// Whether an Event is about the Job or a pod of it.
fn is_about(event: &Event, view: &JobView) -> bool {
    let uid = event.involved_object.uid.as_deref();
    uid.is_some()
        && (uid == view.job.metadata.uid.as_deref() || view.pods.iter().any(|pod| uid == pod.metadata.uid.as_deref()))
}

/// The work list of a Job, from the ConfigMap of its name, if it is this Job's.
async fn work(client: &Client, namespace: &str, job: &Job) -> kube::Result<Option<WorkList>> {
    let Some(config_map) = Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .get_opt(&job.name_any())
        .await?
    else {
        return Ok(None);
    };
    let is_owned = config_map
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
    let text = config_map
        .data
        .as_ref()
        .filter(|_| is_owned)
        .and_then(|data| data.get("work.json"));
    Ok(text.and_then(|text| match serde_json::from_str(text) {
        Ok(work) => Some(work),
        Err(error) => {
            tracing::warn!(job = job.name_any(), %error, "a work list can't be read: another version wrote it");
            None
        }
    }))
}

/// The AggregationWindows of a processor that decode; the others are counted.
///
/// Selected by field, which is immutable, and not by label, which anyone may have changed.
///
/// # Errors
/// Those of the API server.
pub async fn windows(
    client: &Client,
    namespace: &str,
    processor: &str,
    metrics: &Metrics,
) -> kube::Result<Vec<AggregationWindow>> {
    let api: Api<DeserializeGuard<AggregationWindow>> = Api::namespaced(client.clone(), namespace);
    let mut parameters = ListParams::default()
        .fields(&format!("spec.processor={processor}"))
        .limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        for DeserializeGuard(window) in page.items {
            match window {
                Ok(window) => all.extend(Some(window).filter(|window| window.spec.processor == processor)),
                Err(invalid) => undecodable::count(metrics, "AggregationWindow", &invalid),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pods_are_those_that_the_job_controls() {
        let pod = |controller: bool, uid: &str| -> Pod {
            serde_json::from_value(serde_json::json!({"metadata": {
                "labels": {"batch.kubernetes.io/job-name": "intake"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "intake", "uid": uid, "controller": controller}],
            }}))
            .unwrap()
        };
        assert!(is_of(&pod(true, "job"), "job"));
        assert!(!is_of(&pod(true, "the Job of that name before"), "job"));
        assert!(!is_of(&pod(false, "job"), "job"));
    }

    #[test]
    fn events_are_those_of_the_job_and_its_pods_latest_last() {
        let event = |uid: &str, last: &str| -> Event {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "involvedObject": {"uid": uid}, "lastTimestamp": last,
            }))
            .unwrap()
        };
        let view = JobView {
            job: serde_json::from_value(serde_json::json!({"metadata": {"uid": "job"}})).unwrap(),
            pods: vec![serde_json::from_value(serde_json::json!({"metadata": {"uid": "pod"}})).unwrap()],
            ..JobView::default()
        };
        let early = event("job", "2026-11-20T00:00:00Z");
        let late = event("pod", "2026-11-20T00:00:01Z");
        assert!(last_seen(&early) < last_seen(&late));
        assert!(is_about(&early, &view) && is_about(&late, &view));
        assert!(!is_about(&event("other", "2026-11-20T00:00:00Z"), &view));
    }
}
