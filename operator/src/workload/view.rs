//! A Job as observed, and how it ended.

use crds::DataShareProcessorSpec;
use facilitator_core::formats::names::WindowId;
use facilitator_core::formats::work::{AggregateItem, Report, WorkList};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};

use super::{Allowance, CANARY_LABEL, GENERATION_ANNOTATION, Stage};

/// A Job with what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct JobView {
    /// The Job.
    pub job: Job,
    /// The work list in its ConfigMap; `None` where that is missing or doesn't decode.
    pub work: Option<WorkList>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Events about the Job and its pods.
    pub events: Vec<Event>,
    /// `reports/<job>/`, read once the Job is finished.
    pub reports: Vec<Report>,
}

/// How a Job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Every index succeeded.
    Complete,
    /// A pod refused its configuration (exit code 78).
    ConfigurationRefused,
    /// Indexes failed, or the deadline passed.
    Failed,
}

/// Pods that the next Job of intake or aggregation may have at once: none while the processor is suspended or workers are
/// waited for.
#[must_use]
pub fn free_pods(spec: &DataShareProcessorSpec, jobs: &[JobView], allowance: Allowance) -> u32 {
    let held = spec.suspend || allowance == Allowance::Wait;
    // A Job whose work list can't be read holds nobody knows what.
    let unknown = jobs.iter().any(|view| !view.is_finished() && view.work.is_none());
    if held || unknown {
        return 0;
    }
    let taken: u32 = jobs.iter().map(JobView::pods_wanted).sum();
    spec.workers.max_pods.saturating_sub(taken)
}

impl JobView {
    /// The Job's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.job.metadata.name.as_deref().unwrap_or_default()
    }

    /// The Job's UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.job.metadata.uid.as_deref().unwrap_or_default()
    }

    fn stage_by(&self, label: fn(Stage) -> &'static str) -> Option<Stage> {
        let said = self.job.metadata.labels.as_ref()?.get(crds::names::STAGE_LABEL)?;
        Stage::ALL.into_iter().find(|stage| label(*stage) == said)
    }

    /// What its pods do, by its label; `None` for a Job that isn't ours.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.stage_by(Stage::label)
    }

    /// Under which stage's account it looks for keys; `None` for a Job that works.
    #[must_use]
    pub fn probed_stage(&self) -> Option<Stage> {
        self.stage_by(Stage::probe_label)
    }

    /// Under which stage's account it is a preflight; `None` for any other Job.
    #[must_use]
    pub fn preflight_stage(&self) -> Option<Stage> {
        self.stage_by(Stage::preflight_label)
    }

    /// Whether its pods mount a Secret.
    #[must_use]
    pub fn mounts(&self, secret: &str) -> bool {
        let pod = self.job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let volumes = pod.and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
        let mut named = volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_deref());
        named.any(|name| name == secret)
    }

    /// Whether it was made to see if workers start again.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        self.job
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(CANARY_LABEL))
    }

    /// The generation of the spec that it was made for.
    #[must_use]
    pub fn generation(&self) -> Option<i64> {
        self.job
            .metadata
            .annotations
            .as_ref()?
            .get(GENERATION_ANNOTATION)?
            .parse()
            .ok()
    }

    /// Its pods' image.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.job
            .spec
            .as_ref()?
            .template
            .spec
            .as_ref()?
            .containers
            .first()?
            .image
            .as_deref()
    }

    /// When it was created.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.job.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// Whether it is on its way out.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.job.metadata.deletion_timestamp.is_some()
    }

    /// How it ended; `None` while it runs. A Job is over only with its `Complete` or `Failed` condition: before that
    /// (`FailureTarget`, `SuccessCriteriaMet`) pods may still run.
    #[must_use]
    pub fn end(&self) -> Option<JobEnd> {
        let conditions = self.job.status.as_ref()?.conditions.as_ref()?;
        let met = |kind: &str| conditions.iter().find(|c| c.type_ == kind && c.status == "True");
        if met("Complete").is_some() {
            return Some(JobEnd::Complete);
        }
        met("Failed").map(|failed| match failed.reason.as_deref() {
            Some("PodFailurePolicy") => JobEnd::ConfigurationRefused,
            _ => JobEnd::Failed,
        })
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.end().is_some()
    }

    /// Pods that it still wants at once: what it takes from `maxPods`.
    #[must_use]
    pub fn pods_wanted(&self) -> u32 {
        if self.is_finished() {
            return 0;
        }
        let spec = self.job.spec.as_ref();
        let of = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
        let parallelism = of(spec.and_then(|spec| spec.parallelism)).unwrap_or(1);
        let completions = of(spec.and_then(|spec| spec.completions)).unwrap_or(1);
        let succeeded = of(self.job.status.as_ref().and_then(|status| status.succeeded)).unwrap_or(0);
        parallelism.min(completions.saturating_sub(succeeded))
    }

    /// Whether a pod of it runs now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.statuses()
            .any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
    }

    /// Whether a pod of it ever ran.
    #[must_use]
    pub fn has_started(&self) -> bool {
        let counted = self.job.status.as_ref().is_some_and(|status| {
            status.succeeded.unwrap_or(0) > 0 || status.failed.unwrap_or(0) > 0 || status.ready.unwrap_or(0) > 0
        });
        counted
            || self.statuses().any(|status| {
                let ran = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
                    state
                        .as_ref()
                        .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
                };
                ran(&status.state) || ran(&status.last_state)
            })
    }

    /// Since when no pod runs although one should: a pod's creation, or since when further pods are refused; else the
    /// Job's creation if no pod ever ran.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Timestamp> {
        if self.is_finished() || self.is_running() {
            return None;
        }
        let pending = self.pods.iter().filter(|pod| is_pending(pod));
        let oldest = pending
            .filter_map(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
            .min();
        if !self.has_started() {
            return self.created().or(oldest);
        }
        // Between two pods, a Job may be at work: only a refusal says that it isn't.
        oldest.or_else(|| {
            let refused = self.refused_creation()?;
            let first = refused.first_timestamp.as_ref().map(|time| time.0);
            first.max(self.last_pod_ended()).or(self.created())
        })
    }

    /// The latest `FailedCreate` Event of the Job, if no pod waits or runs and none ended since: its pods are refused.
    pub(super) fn refused_creation(&self) -> Option<&Event> {
        if self.is_running() || self.pods.iter().any(is_pending) {
            return None;
        }
        let of_job = |event: &&Event| {
            event.reason.as_deref() == Some("FailedCreate") && event.involved_object.kind.as_deref() == Some("Job")
        };
        let ended = self.last_pod_ended();
        self.events
            .iter()
            .filter(of_job)
            .max_by_key(|event| last_seen(event))
            .filter(|event| last_seen(event) >= ended)
    }

    fn last_pod_ended(&self) -> Option<Timestamp> {
        let ends = self
            .statuses()
            .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
        ends.map(|time| time.0).max()
    }

    /// Whether an index came to its end: it is done, or it failed as often as it may. One that never ran, or was cut off
    /// with its Job, says nothing of its work.
    #[must_use]
    pub fn has_ended(&self, index: usize) -> bool {
        let Some(status) = &self.job.status else { return false };
        let lists = [&status.completed_indexes, &status.failed_indexes];
        lists.into_iter().flatten().any(|list| holds(list, index))
    }

    /// What a pod that exited with `code` wrote to its termination log: one line for people.
    #[must_use]
    pub fn termination_message(&self, code: i32) -> Option<String> {
        let terminated = self
            .statuses()
            .filter_map(|status| status.state.as_ref()?.terminated.as_ref());
        let message = terminated
            .filter(|end| end.exit_code == code)
            .find_map(|end| end.message.clone())?;
        Some(message.lines().next().unwrap_or_default().trim().to_owned()).filter(|line| !line.is_empty())
    }

    /// How a container of it ended that failed, as the kubelet says it: `OOMKilled (exit code 137)`.
    #[must_use]
    pub fn failed_container(&self) -> Option<String> {
        let mut ended = self
            .statuses()
            .filter_map(|status| status.state.as_ref()?.terminated.as_ref());
        let end = ended.find(|end| end.exit_code != 0)?;
        let reason = end.reason.as_deref().unwrap_or("Error");
        Some(format!("{reason} (exit code {})", end.exit_code))
    }

    /// Why it failed, as the Job controller says it.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let conditions = self.job.status.as_ref()?.conditions.as_ref()?;
        let failed = conditions.iter().find(|c| c.type_ == "Failed" && c.status == "True")?;
        let said = [failed.reason.as_deref(), failed.message.as_deref()];
        let said: Vec<&str> = said.into_iter().flatten().collect();
        Some(said.join(": ")).filter(|said| !said.is_empty())
    }

    /// Whether it is to sum the window.
    #[must_use]
    pub fn holds_window(&self, id: &WindowId) -> bool {
        let Some(WorkList::Aggregate { chunks, .. }) = &self.work else {
            return false;
        };
        let release = |item: &AggregateItem| item.approval.as_ref().map_or(1, |approval| approval.release);
        chunks.iter().flatten().any(|item| {
            release(item) == id.release()
                && item.aggregation == id.aggregation.as_str()
                && item.start == id.start.to_compact()
                && item.end == id.end.to_compact()
        })
    }

    fn statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.pods
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref())
            .flatten()
    }
}

pub(super) fn is_pending(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
}

/// When an Event was seen last, in whichever of its fields the writer keeps that.
#[must_use]
pub fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let times = [
        series.map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
    ];
    times
        .into_iter()
        .flatten()
        .max()
        .or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// Whether a list of indexes as the Job controller writes it, such as `1,3-5`, holds one.
fn holds(list: &str, index: usize) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.trim().parse::<usize>(), last.trim().parse::<usize>()), (Ok(first), Ok(last)) if (first..=last).contains(&index))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_indexes_are_read_as_kubernetes_writes_them() {
        let of = |list| (0..8).filter(|index| holds(list, *index)).collect::<Vec<_>>();
        assert_eq!(of(""), [0; 0]);
        assert_eq!(of("3"), [3]);
        assert_eq!(of("1,3-5,7"), [1, 3, 4, 5, 7]);
    }
}
