//! Whether the three admission policies stand: each is tried by a server-side dry run that it must refuse.
//!
//! Without them whoever may create a DataShareProcessor could run a pod with any Secret and account of the namespace, and
//! whoever may edit a window approve that it is released again (`docs/security.md`).

use crds::conditions::{ADMISSION_GUARDED, reasons};
use crds::window::Override;
use crds::{AggregationWindow, AggregationWindowSpec, DataShareProcessor};
use facilitator_core::formats::work::IntakeItem;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use uuid::Uuid;

use super::look::Look;
use super::memory::Memory;
use crate::settings::PolicyNames;
use crate::status::{Verdict, refusal};
use crate::workload::{KeySet, PlannedJob, Work};

/// Name of every object that is only tried.
const PROBE: &str = "prio-operator-guard-probe";
/// An image that no list holds.
const UNLISTED_IMAGE: &str = "prio-operator.invalid/guard-probe";

/// Policies are tried so often while they stand.
const EVERY: SignedDuration = SignedDuration::from_mins(10);
/// And so often while they don't.
const RETRY: SignedDuration = SignedDuration::from_mins(1);

/// Whether policies are to be tried now. `known`: when they were, and what was found out.
pub(crate) fn is_due(known: Option<&(Timestamp, Verdict)>, now: Timestamp) -> bool {
    known.is_none_or(|(tried, verdict)| {
        let every = if verdict.status == Some(true) { EVERY } else { RETRY };
        now.duration_since(*tried) >= every
    })
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was accepted.
    Accepted,
    /// It was refused, with this message.
    Refused(String),
}

impl Answer {
    /// Sorts a dry run's result; other failures than a refusal say nothing.
    pub(crate) fn of<T>(result: kube::Result<T>) -> kube::Result<Self> {
        match result {
            Ok(_) => Ok(Self::Accepted),
            Err(error) => match refusal(&error) {
                Some(message) => Ok(Self::Refused(message.to_owned())),
                None => Err(error),
            },
        }
    }
}

/// A probe, and the policy that must refuse it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The policy's name.
    pub policy: String,
    /// What was tried, for a person.
    pub tried: &'static str,
    /// What became of it.
    pub answer: Answer,
}

/// Judges the probes: every one must be refused by its policy, by name. A refusal by something else proves nothing.
#[must_use]
pub fn judge(probes: &[Probe]) -> Verdict {
    let problems: Vec<String> = probes
        .iter()
        .filter_map(|probe| match &probe.answer {
            Answer::Accepted => Some(format!("{} does not refuse {}", probe.policy, probe.tried)),
            Answer::Refused(message) if message.contains(&format!("'{}'", probe.policy)) => None,
            Answer::Refused(message) => Some(format!(
                "{} was not asked about {} ({message})",
                probe.policy, probe.tried
            )),
        })
        .collect();
    if problems.is_empty() {
        let message = "All admission policies refuse what they must.";
        return Verdict::new(ADMISSION_GUARDED, Some(true), reasons::OK, message);
    }
    let message = format!("{}. Install the chart prio-operator-cluster.", problems.join("; "));
    Verdict::new(ADMISSION_GUARDED, Some(false), reasons::POLICY_MISSING, message)
}

/// Tries the policies in the processor's namespace. `job` is a Job as this operator would make it.
///
/// # Errors
/// Where the API server can't be asked.
pub async fn probe(
    client: &Client,
    policies: &PolicyNames,
    processor: &DataShareProcessor,
    job: &Job,
) -> kube::Result<Verdict> {
    let namespace = processor.namespace().unwrap_or_default();
    let dry_run = dry_run();
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let processors: Api<DataShareProcessor> = Api::namespaced(client.clone(), &namespace);
    let windows: Api<AggregationWindow> = Api::namespaced(client.clone(), &namespace);
    let (host_path, image) = (with_host_path(job.clone()), with_unlisted_image(job.clone()));
    let author = DataShareProcessor {
        metadata: probe_metadata(),
        spec: processor.spec.clone(),
        status: None,
    };
    let approval = approved_by_somebody(processor);
    let (host_path, image, author, approval) = tokio::join!(
        jobs.create(&dry_run, &host_path),
        jobs.create(&dry_run, &image),
        processors.create(&dry_run, &author),
        windows.create(&dry_run, &approval),
    );
    let of_workloads = |tried, answer| Probe {
        policy: policies.workloads.clone(),
        tried,
        answer,
    };
    Ok(judge(&[
        of_workloads("a Job with a hostPath volume", Answer::of(host_path)?),
        of_workloads("a Job with an image that is not listed", Answer::of(image)?),
        Probe {
            policy: policies.authors.clone(),
            tried: "a DataShareProcessor by an author who may not read its Secrets",
            answer: Answer::of(author)?,
        },
        Probe {
            policy: policies.approvals.clone(),
            tried: "an override that nobody approved",
            answer: Answer::of(approval)?,
        },
    ]))
}

pub(crate) fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

pub(crate) fn probe_metadata() -> ObjectMeta {
    ObjectMeta {
        name: Some(PROBE.to_owned()),
        ..ObjectMeta::default()
    }
}

/// A window whose override says that another than the operator approved it.
fn approved_by_somebody(processor: &DataShareProcessor) -> AggregationWindow {
    AggregationWindow {
        metadata: probe_metadata(),
        spec: AggregationWindowSpec {
            processor: processor.name_any(),
            aggregation: "probe".to_owned(),
            start: "200001010000".to_owned(),
            end: "200001010100".to_owned(),
            overriding: Some(Override {
                release: 2,
                cutoff: "2000-01-02T00:00:00Z".to_owned(),
                expires_at: "2000-01-03T00:00:00Z".to_owned(),
                reason: "probe".to_owned(),
                approved_by: Some(PROBE.to_owned()),
            }),
        },
        status: None,
    }
}

fn with_host_path(mut job: Job) -> Job {
    job.metadata = probe_metadata();
    if let Some(pod) = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) {
        pod.volumes.get_or_insert_default().push(Volume {
            name: "guard-probe".to_owned(),
            host_path: Some(HostPathVolumeSource {
                path: "/".to_owned(),
                type_: None,
            }),
            ..Volume::default()
        });
    }
    job
}

fn with_unlisted_image(mut job: Job) -> Job {
    job.metadata = probe_metadata();
    for container in job
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut())
        .into_iter()
        .flat_map(|pod| &mut pod.containers)
    {
        container.image = Some(UNLISTED_IMAGE.to_owned());
    }
    job
}

impl Look<'_> {
    /// Tries the admission policies from time to time; `None`: not known.
    pub(super) async fn guard(&self, memory: &mut Memory) -> Option<Verdict> {
        if is_due(memory.guard.as_ref(), self.now) {
            let item = IntakeItem {
                aggregation: "probe".into(),
                time: "2000/01/01/00/00".into(),
                uuid: Uuid::nil(),
                take_anyway: false,
            };
            let planned = PlannedJob {
                work: Work::Intake(vec![vec![item]]),
                parallelism: 1,
                attempt: 0,
                canary: false,
            };
            let (_, job) = self.actor().build(&planned, &KeySet::default(), PROBE);
            match probe(
                &self.context.client,
                &self.context.settings.policies,
                self.processor,
                &job,
            )
            .await
            {
                Ok(verdict) => memory.guard = Some((self.now, verdict)),
                Err(error) => tracing::warn!(%error, "the admission policies could not be tried"),
            }
        }
        memory.guard.as_ref().map(|(_, verdict)| verdict.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_refusal_by_the_policy_itself_counts() {
        let refused = |text: &str| Answer::Refused(text.to_owned());
        let by_policy =
            "jobs.batch \"p\" is forbidden: ValidatingAdmissionPolicy 'w' with binding 'w' denied request: no hostPath";
        let table = [
            (Answer::Accepted, Some(false)),
            (refused(by_policy), Some(true)),
            (
                refused("jobs.batch is forbidden: User \"o\" cannot create resource \"jobs\""),
                Some(false),
            ),
            (
                refused("ValidatingAdmissionPolicy 'w-other' denied request"),
                Some(false),
            ),
        ];
        for (answer, expected) in table {
            let probe = Probe {
                policy: "w".into(),
                tried: "a Job",
                answer: answer.clone(),
            };
            assert_eq!(judge(&[probe]).status, expected, "{answer:?}");
        }
    }

    #[test]
    fn the_message_names_the_policy_that_is_missing() {
        let probe = |policy: &str, answer| Probe {
            policy: policy.into(),
            tried: "a Job",
            answer,
        };
        let verdict = judge(&[
            probe("one", Answer::Accepted),
            probe("two", Answer::Refused("by 'two'".into())),
        ]);
        assert_eq!(verdict.reason, reasons::POLICY_MISSING);
        assert!(
            verdict.message.contains("one") && !verdict.message.contains("two"),
            "{}",
            verdict.message
        );
    }
}
