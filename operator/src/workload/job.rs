//! The Job of a plan, and the ConfigMap with its work list. What a pod is given is `docs/formats.md` §4.

use std::collections::BTreeMap;

use crds::DataShareProcessorSpec;
use crds::names::{MANAGED_BY, PROCESSOR_LABEL, STAGE_LABEL};
use crds::processor::{Mailbox, WorkerStage};
use facilitator_core::formats::preflight::PreflightStage;
use facilitator_core::formats::work::{
    KEYS_DIRECTORY, KeyPins, PARAMETERS_DIRECTORY, REVISION, WORK_DIRECTORY, WorkList,
};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::{CANARY_LABEL, GENERATION_ANNOTATION, KeySet, PlannedJob, Stage, Work, stores};
use crate::digest::short_digest;

/// The one container of a worker pod.
const CONTAINER: &str = "worker";
/// User and group of a worker's process; `nonroot` of distroless images.
const USER: i64 = 65_532;
/// The worker was asked to stop: its pod is replaced and not counted (`docs/formats.md` §4.3).
const EXIT_STOPPED: i32 = 75;
/// The worker refuses its configuration: no other pod would do better.
pub(super) const EXIT_CONFIGURATION: i32 = 78;
/// Failures of an index before it counts as failed; each restart waits longer.
const BACKOFF_PER_INDEX: i32 = 3;

/// What a Job is built from beside its plan.
#[derive(Clone, Copy, Debug)]
pub struct WorkerContext<'a> {
    /// The processor's namespace.
    pub namespace: &'a str,
    /// The processor's name.
    pub processor_name: &'a str,
    /// The processor's UID.
    pub processor_uid: &'a str,
    /// The spec's generation.
    pub generation: i64,
    /// The spec.
    pub spec: &'a DataShareProcessorSpec,
    /// The Secrets to mount.
    pub keys: &'a KeySet,
    /// The workers' image.
    pub image: &'a str,
    /// `Always`, `IfNotPresent` or `Never`; `None`: the cluster's default.
    pub image_pull_policy: Option<&'a str>,
    /// The ConfigMap with `parameters.json`.
    pub parameters_config_map: &'a str,
    /// Seconds after which a Job is ended whatever it does.
    pub active_deadline_seconds: i64,
    /// Seconds for which a finished Job stays, so that its end is seen.
    pub ttl_seconds: i32,
}

/// Builds the ConfigMap with the work list (not owned yet) and the Job. The name follows from processor, work and
/// attempt: to create the same work twice is refused by the API server.
#[must_use]
pub fn build(planned: &PlannedJob, context: &WorkerContext<'_>) -> (ConfigMap, Job) {
    let name = job_name(planned, context);
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(context.namespace.to_owned()),
        labels: Some(labels(planned, context)),
        ..ObjectMeta::default()
    };
    let (revision, work, keys) = (REVISION, name.clone(), pins(context.keys));
    let (count_of_chunks, list) = match planned.work.clone() {
        Work::Intake(chunks) => (
            chunks.len(),
            WorkList::Intake {
                revision,
                work,
                keys,
                chunks,
            },
        ),
        Work::Aggregate(chunks) => (
            chunks.len(),
            WorkList::Aggregate {
                revision,
                work,
                keys,
                chunks,
            },
        ),
        Work::CompactClaims(chunks) => (chunks.len(), WorkList::CompactClaims { revision, work, chunks }),
        Work::Preflight {
            stage,
            inputs,
            manifest,
        } => (
            1,
            WorkList::Preflight {
                revision,
                work,
                of: match stage {
                    Stage::Intake => PreflightStage::Intake,
                    Stage::Aggregate => PreflightStage::Aggregate,
                },
                inputs,
                manifest,
            },
        ),
        Work::KeyProbe { signing, packets, .. } => (
            1,
            WorkList::KeyProbe {
                revision,
                work,
                signing,
                packets,
            },
        ),
    };
    let text = serde_json::to_string(&list).unwrap_or_default();
    let config_map = ConfigMap {
        metadata: metadata.clone(),
        data: Some(BTreeMap::from([("work.json".to_owned(), text)])),
        immutable: Some(true),
        ..ConfigMap::default()
    };
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let generation = (GENERATION_ANNOTATION.to_owned(), context.generation.to_string());
    let job = Job {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([generation])),
            ..metadata
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some(context.active_deadline_seconds),
            backoff_limit_per_index: Some(BACKOFF_PER_INDEX),
            completion_mode: Some("Indexed".to_owned()),
            completions: Some(count(count_of_chunks)),
            parallelism: Some(i32::try_from(planned.parallelism).unwrap_or(i32::MAX)),
            pod_failure_policy: Some(pod_failure_policy()),
            pod_replacement_policy: Some("Failed".to_owned()),
            ttl_seconds_after_finished: Some(context.ttl_seconds),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(planned, context)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(planned.stage(), &name, context)),
            },
            ..JobSpec::default()
        }),
        status: None,
    };
    (config_map, job)
}

/// The ConfigMap, owned by its Job as created: they go together.
#[must_use]
pub fn owned_by(mut config_map: ConfigMap, job: &Job) -> ConfigMap {
    config_map.metadata.owner_references = Some(vec![OwnerReference {
        api_version: Job::api_version(&()).into_owned(),
        kind: Job::kind(&()).into_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }]);
    config_map
}

/// The keys that the work is done with, as far as KeyRings say which the Secrets hold.
fn pins(keys: &KeySet) -> KeyPins {
    KeyPins {
        signer: keys.signing.first().and_then(|mount| mount.id.clone()),
        packet_keys: keys.packets.iter().filter_map(|mount| mount.id.clone()).collect(),
    }
}

/// At most 53 characters: with `-` and an index of four digits it is still a pod's host name.
fn job_name(planned: &PlannedJob, context: &WorkerContext<'_>) -> String {
    let what = match planned.work {
        Work::CompactClaims(_) => "claims",
        Work::Intake(_) | Work::Aggregate(_) | Work::KeyProbe { .. } | Work::Preflight { .. } => planned.work.label(),
    };
    let mut parts = vec![
        context.processor_uid.to_owned(),
        what.to_owned(),
        planned.attempt.to_string(),
    ];
    // A canary, or a try under a changed spec, doesn't wait for what an earlier Job of the same work leaves behind.
    parts.extend([planned.canary.to_string(), context.generation.to_string()]);
    match &planned.work {
        Work::Intake(chunks) => parts.extend(chunks.iter().flat_map(|chunk| {
            let items = chunk
                .iter()
                .map(|i| format!("{}/{}/{}/{}", i.aggregation, i.time, i.uuid, i.take_anyway));
            items.chain(["chunk".to_owned()])
        })),
        Work::Aggregate(chunks) => parts.extend(chunks.iter().flat_map(|chunk| {
            let items = chunk.iter().map(|i| {
                let window = format!("{}/{}-{}/{:?}", i.aggregation, i.start, i.end, i.cutoffs);
                let part = i.part.as_ref().map(|part| format!("{part:?}")).unwrap_or_default();
                match &i.approval {
                    None => format!("{window}{part}"),
                    Some(approval) => format!("{window}/{approval:?}"),
                }
            });
            items.chain(["chunk".to_owned()])
        })),
        Work::CompactClaims(chunks) => {
            parts.extend(chunks.iter().flatten().map(|i| format!("{}/{}", i.packet_key, i.day)));
        }
        Work::Preflight { inputs, .. } => parts.push(inputs.clone()),
        Work::KeyProbe { signing, packets, .. } => {
            parts.extend(
                signing
                    .iter()
                    .chain(packets)
                    .flat_map(|key| [key.id.clone(), key.public_key.clone()]),
            );
        }
    }
    // Under other keys it is another try.
    let KeyPins { signer, packet_keys } = pins(context.keys);
    parts.extend(signer.into_iter().chain(packet_keys));
    let processor: String = context.processor_name.chars().take(30).collect();
    let digest = short_digest(parts.iter().map(String::as_str), 12);
    format!("{}-{what}-{digest}", processor.trim_end_matches(['-', '.']))
}

fn labels(planned: &PlannedJob, context: &WorkerContext<'_>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = [
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        ("app.kubernetes.io/name", "prio-facilitator"),
        (PROCESSOR_LABEL, context.processor_name),
        (STAGE_LABEL, planned.work.label()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if planned.canary {
        labels.insert(CANARY_LABEL.to_owned(), "true".to_owned());
    }
    labels
}

fn pod_labels(planned: &PlannedJob, context: &WorkerContext<'_>) -> BTreeMap<String, String> {
    let mut labels = context.spec.workers.pod_labels.clone();
    labels.extend(self::labels(planned, context));
    labels
}

/// The first rule that fits decides.
fn pod_failure_policy() -> PodFailurePolicy {
    let exit = |action: &str, operator: &str, values: &[i32]| PodFailurePolicyRule {
        action: action.to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(CONTAINER.to_owned()),
            operator: operator.to_owned(),
            values: values.to_vec(),
        }),
        on_pod_conditions: None,
    };
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
    };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![disrupted]),
            },
            exit("Ignore", "In", &[EXIT_STOPPED]),
            exit("FailJob", "In", &[EXIT_CONFIGURATION]),
            exit("Count", "NotIn", &[EXIT_STOPPED, EXIT_CONFIGURATION]),
        ],
    }
}

fn pod(stage: Stage, work_config_map: &str, context: &WorkerContext<'_>) -> PodSpec {
    let workers = &context.spec.workers;
    let WorkerStage {
        service_account_name,
        resources,
    } = match stage {
        Stage::Intake => &workers.intake,
        Stage::Aggregate => &workers.aggregate,
    };
    let (volumes, mounts) = volumes(stage, work_config_map, context).into_iter().unzip();
    let pod_uid = EnvVar {
        name: "POD_UID".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: "metadata.uid".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    };
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(context.image.to_owned()),
        image_pull_policy: context.image_pull_policy.map(str::to_owned),
        args: Some(vec!["work".to_owned()]),
        env: Some(vec![pod_uid]),
        resources: resources.clone(),
        volume_mounts: Some(mounts),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    };
    PodSpec {
        service_account_name: Some(service_account_name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            // Lets the process read its Secrets and write to claims that belong to root.
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container],
        volumes: Some(volumes),
        node_selector: (!workers.node_selector.is_empty()).then(|| workers.node_selector.clone()),
        tolerations: (!workers.tolerations.is_empty()).then(|| workers.tolerations.clone()),
        affinity: workers.affinity.clone(),
        priority_class_name: workers.priority_class_name.clone(),
        image_pull_secrets: (!workers.image_pull_secrets.is_empty()).then(|| workers.image_pull_secrets.clone()),
        ..PodSpec::default()
    }
}

/// Each volume with its mount; only what the stage needs.
fn volumes(stage: Stage, work_config_map: &str, context: &WorkerContext<'_>) -> Vec<(Volume, VolumeMount)> {
    let mut volumes = vec![
        config_map("parameters", context.parameters_config_map, PARAMETERS_DIRECTORY),
        config_map("work", work_config_map, WORK_DIRECTORY),
    ];
    for (n, key) in context.keys.signing.iter().enumerate() {
        volumes.push(match n.checked_sub(1) {
            None => secret("batch-signing", &key.secret, &format!("{KEYS_DIRECTORY}/batch-signing")),
            Some(n) => {
                let path = format!("{KEYS_DIRECTORY}/batch-signing-others/{n}");
                secret(&format!("batch-signing-other-{n}"), &key.secret, &path)
            }
        });
    }
    volumes.extend(context.keys.packets.iter().enumerate().map(|(n, key)| {
        let path = format!("{KEYS_DIRECTORY}/packet-decryption/{n}");
        secret(&format!("packet-decryption-{n}"), &key.secret, &path)
    }));
    let mailboxes = &context.spec.mailboxes;
    let used: &[(&str, &Mailbox, bool)] = match stage {
        Stage::Intake => &[
            ("ingestion", &mailboxes.ingestion, true),
            ("ledger", &mailboxes.ledger, false),
            ("outgoing-peer", &mailboxes.outgoing.peer, false),
        ],
        Stage::Aggregate => &[
            ("ingestion", &mailboxes.ingestion, true),
            ("peer-validation", &mailboxes.peer_validation, true),
            ("ledger", &mailboxes.ledger, false),
            // To read back when our validations came there.
            ("outgoing-peer", &mailboxes.outgoing.peer, true),
            ("outgoing-portal", &mailboxes.outgoing.portal, false),
        ],
    };
    volumes.extend(
        used.iter()
            .filter_map(|(name, mailbox, read_only)| claim(name, mailbox, *read_only)),
    );
    volumes.extend(stores::volumes(mailboxes, used.iter().map(|(_, mailbox, _)| *mailbox)));
    volumes
}

pub(super) fn config_map(name: &str, config_map: &str, path: &str) -> (Volume, VolumeMount) {
    let source = ConfigMapVolumeSource {
        name: config_map.to_owned(),
        ..ConfigMapVolumeSource::default()
    };
    (
        Volume {
            name: name.to_owned(),
            config_map: Some(source),
            ..Volume::default()
        },
        mount(name, path, true),
    )
}

pub(super) fn secret(name: &str, secret: &str, path: &str) -> (Volume, VolumeMount) {
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    (
        Volume {
            name: name.to_owned(),
            secret: Some(source),
            ..Volume::default()
        },
        mount(name, path, true),
    )
}

/// A folder's claim at the folder's own path; `None` for mailboxes that no volume holds.
fn claim(name: &str, mailbox: &Mailbox, read_only: bool) -> Option<(Volume, VolumeMount)> {
    let path = mailbox.url.strip_prefix("file://")?;
    let source = PersistentVolumeClaimVolumeSource {
        claim_name: mailbox.volume.as_ref()?.claim_name.clone(),
        read_only: read_only.then_some(true),
    };
    let volume = Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(source),
        ..Volume::default()
    };
    Some((volume, mount(name, path, read_only)))
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
