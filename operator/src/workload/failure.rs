//! Why a Job's pods don't start, read from what Kubernetes says of the Job and its pods.

use crds::conditions::reasons;
use k8s_openapi::api::core::v1::{Event, Pod};

use super::JobView;
use super::view::{is_pending, last_seen};

/// Why workers don't start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// What Kubernetes says, and of which object.
    pub message: String,
}

/// The first cause found: what a pod's own status says, then its Events, then the Job's. `None`: nothing is wrong, or
/// nothing is known yet.
pub(crate) fn cause(view: &JobView) -> Option<Cause> {
    if view.is_finished() || view.is_running() {
        return None;
    }
    let of_pods = view.pods.iter().filter(|pod| is_pending(pod)).find_map(|pod| {
        of_containers(pod)
            .or_else(|| of_events(view, pod))
            .or_else(|| of_scheduling(pod))
    });
    of_pods.or_else(|| of_creation(view))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `status.containerStatuses[].state.waiting`, as the kubelet writes it.
fn of_containers(pod: &Pod) -> Option<Cause> {
    pod.status
        .as_ref()?
        .container_statuses
        .iter()
        .flatten()
        .find_map(|status| {
            let waiting = status.state.as_ref()?.waiting.as_ref()?;
            let said = waiting
                .message
                .as_deref()
                .or(waiting.reason.as_deref())
                .unwrap_or_default();
            let reason = match waiting.reason.as_deref()? {
                "ErrImagePull"
                | "ImagePullBackOff"
                | "InvalidImageName"
                | "ErrImageNeverPull"
                | "RegistryUnavailable"
                | "ImageInspectError"
                | "SignatureValidationFailed" => reasons::IMAGE_NOT_PULLED,
                "CreateContainerConfigError" if said.contains("not found") => reasons::MOUNT_MISSING,
                "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "PostStartHookError" => {
                    reasons::NOT_STARTED
                }
                _ => return None,
            };
            Some(Cause {
                reason,
                message: format!("Pod {}: image {}: {said}", name(pod), status.image),
            })
        })
}

/// A pod's latest Event of what keeps it from being made: while a volume's Secret or claim is missing, its own status
/// says only ContainerCreating.
fn of_events(view: &JobView, pod: &Pod) -> Option<Cause> {
    let uid = pod.metadata.uid.as_deref();
    let is_wanted = |event: &&Event| {
        let kept_out = matches!(
            event.reason.as_deref(),
            Some("FailedMount" | "FailedAttachVolume" | "FailedCreatePodSandBox")
        );
        kept_out && event.involved_object.uid.as_deref() == uid && !passes_by_itself(view, event)
    };
    let event = view
        .events
        .iter()
        .filter(is_wanted)
        .max_by_key(|event| last_seen(event))?;
    let reason = match event.reason.as_deref() {
        Some("FailedCreatePodSandBox") => reasons::NOT_STARTED,
        _ => reasons::MOUNT_MISSING,
    };
    let said = event.message.as_deref().unwrap_or_default();
    Some(Cause {
        reason,
        message: format!("Pod {}: {said}", name(pod)),
    })
}

/// What passes by itself. The work list comes a moment after its Job: once it is there, the kubelet's complaint is
/// history. On a busy node the kubelet's own caches lag for a second or two.
fn passes_by_itself(view: &JobView, event: &Event) -> bool {
    let said = event.message.as_deref().unwrap_or_default();
    let about_work_list = view.work.is_some() && said.contains(&format!("configmap \"{}\"", view.name()));
    about_work_list || said.contains("failed to sync configmap cache") || said.contains("failed to sync secret cache")
}

/// The `PodScheduled` condition, as the scheduler writes it.
fn of_scheduling(pod: &Pod) -> Option<Cause> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let said = scheduled.message.as_deref().unwrap_or("no node takes it");
    let missing_claim = said.contains("persistentvolumeclaim") && said.contains("not found");
    let reason = if missing_claim {
        reasons::MOUNT_MISSING
    } else {
        reasons::UNSCHEDULABLE
    };
    (scheduled.reason.as_deref() == Some("Unschedulable")).then(|| Cause {
        reason,
        message: format!("Pod {}: {said}", name(pod)),
    })
}

/// `FailedCreate` Events of the Job: its pods are refused, the first ones or further ones.
fn of_creation(view: &JobView) -> Option<Cause> {
    let said = view.refused_creation()?.message.as_deref().unwrap_or_default();
    Some(Cause {
        message: format!("Job {}: {said}", view.name()),
        ..cause_of_refusal(said)
    })
}

/// Sorts the API server's refusal of a Job or a pod.
#[must_use]
pub fn cause_of_refusal(message: &str) -> Cause {
    let holds = |text: &str| message.contains(text);
    let reason = if holds("exceeded quota") || holds("failed quota") || holds("usage per") {
        reasons::QUOTA_EXCEEDED
    } else if holds("error looking up service account") || (holds("serviceaccount") && holds("not found")) {
        reasons::SERVICE_ACCOUNT_MISSING
    } else if holds("cannot create resource") {
        reasons::RIGHTS_MISSING
    } else if holds("forbidden") || holds("denied") {
        reasons::ADMISSION_REFUSED
    } else {
        reasons::NOT_STARTED
    };
    Cause {
        reason,
        message: message.to_owned(),
    }
}
