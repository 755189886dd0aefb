//! DataShareProcessor: one side of the protocol, long-lived.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One party's share processor.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "prio-operator.io",
    version = "v1alpha1",
    kind = "DataShareProcessor",
    plural = "datashareprocessors",
    shortname = "dsp",
    namespaced,
    status = "DataShareProcessorStatus",
    category = "prio",
    doc = "One party's Prio data share processor: where its mailboxes are, which keys it holds, when it sums."
)]
#[serde(rename_all = "camelCase")]
pub struct DataShareProcessorSpec {
    /// Which of the two shares this party holds. Immutable.
    pub share: Share,
    /// The name in manifests and sum-part paths. Immutable.
    pub instance: String,
    /// Who writes ingestion batches.
    pub ingestor: Ingestor,
    /// The other share processor.
    pub peer: PeerProcessor,
    /// Who reads sum parts.
    pub portal: Portal,
    /// The five mailboxes.
    pub mailboxes: Mailboxes,
    /// Which aggregations to process.
    #[serde(default)]
    pub aggregations: Aggregations,
    /// How validation batches are written.
    #[serde(default)]
    pub validation_format: ValidationFormat,
    /// The Secrets with this party's private keys.
    pub keys: Keys,
    /// When windows are summed.
    #[serde(default)]
    pub windows: Windows,
    /// How worker pods run.
    pub workers: Workers,
    /// No new Jobs, running ones finish, windows wait.
    #[serde(default)]
    pub suspend: bool,
}

/// Which of the two shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Share {
    /// Writes `validity_0` and `sum_0`.
    First,
    /// Writes `validity_1` and `sum_1`.
    Second,
}

/// How validation batches are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValidationFormat {
    /// Packets, header and signature: what every reader knows.
    #[default]
    ThreeObjects,
    /// The signature object alone, with header and packets inside.
    SingleObject,
}

/// Who writes ingestion batches.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingestor {
    /// Its keys, written here.
    pub inline: InlineParty,
}

/// The other share processor.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerProcessor {
    /// Its keys, written here.
    pub inline: InlineParty,
    /// It runs the original prio-server.
    #[serde(default)]
    pub legacy: bool,
}

/// Who reads sum parts. Its mailbox is under `mailboxes.outgoing.portal`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Portal {
    /// Nothing more is needed of it here.
    #[serde(default)]
    pub inline: InlinePortal,
}

/// A portal written inline.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InlinePortal {}

/// A party whose keys are written inline.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineParty {
    /// Keys that may sign its batches.
    pub batch_signing_keys: Vec<PublicKey>,
}

/// A batch-signing public key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicKey {
    /// The `key_identifier` in its signatures.
    pub id: String,
    /// PEM `PUBLIC KEY` or base64 of the uncompressed P-256 point.
    pub public_key: String,
}

/// The five mailboxes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mailboxes {
    /// Where the ingestor puts this share's batches.
    pub ingestion: Mailbox,
    /// Where the peer puts its validation batches for us.
    pub peer_validation: Mailbox,
    /// Our own ledger. Its URL is immutable.
    pub ledger: Mailbox,
    /// What belongs to others.
    pub outgoing: Outgoing,
}

/// Mailboxes that belong to others.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outgoing {
    /// The peer's mailbox for our validation batches.
    pub peer: Mailbox,
    /// The portal's mailbox for our sum parts.
    pub portal: Mailbox,
}

/// One mailbox.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mailbox {
    /// `file:///absolute/folder`. The folder is under the volume's mount point.
    pub url: String,
    /// The claim that worker pods mount at the URL's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
}

/// A claim that holds a `file://` mailbox.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of a PersistentVolumeClaim in the same namespace; its root is the mailbox.
    pub claim_name: String,
}

/// Which aggregations to process.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aggregations {
    /// Aggregation ids; empty: all that appear.
    #[serde(default)]
    pub names: Vec<String>,
}

/// This party's private keys.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// The batch-signing key.
    pub batch_signing: KeyReference,
    /// The packet-decryption keys, newest first; old ones stay mounted.
    pub packet_decryption: Vec<KeyReference>,
}

/// One Secret with `key` and `id` (or the original's `secret_key` and `primary_kid`).
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// The Secret.
    pub secret_ref: SecretReference,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name.
    pub name: String,
}

/// When windows are summed. Both parties must agree on all of it but `startAt`, `historyDays`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Windows {
    /// Windows that begin before it are not ours, RFC 3339; default: the creation of the resource, rounded up to a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// Length of a window, whole minutes.
    #[serde(default = "default_period_seconds")]
    pub period_seconds: u32,
    /// How long after its end a window waits for batches.
    #[serde(default = "default_grace_period_seconds")]
    pub grace_period_seconds: u32,
    /// How long before planning the cutoff is, so that every store shows what was written by then.
    #[serde(default = "default_settle_seconds")]
    pub settle_seconds: u32,
    /// How often an empty-handed window moves its cutoff by one period.
    #[serde(default = "default_max_defers")]
    pub max_defers: u32,
    /// No sum of fewer clients is released.
    #[serde(default = "default_min_clients")]
    pub min_clients: u64,
    /// How long AggregationWindows are kept.
    #[serde(default = "default_history_days")]
    pub history_days: u32,
    /// Extra cutoffs for old windows, agreed with the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cutoffs: Vec<Cutoff>,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            start_at: None,
            period_seconds: default_period_seconds(),
            grace_period_seconds: default_grace_period_seconds(),
            settle_seconds: default_settle_seconds(),
            max_defers: default_max_defers(),
            min_clients: default_min_clients(),
            history_days: default_history_days(),
            cutoffs: Vec::new(),
        }
    }
}

fn default_period_seconds() -> u32 {
    28_800
}

fn default_grace_period_seconds() -> u32 {
    14_400
}

fn default_settle_seconds() -> u32 {
    600
}

fn default_max_defers() -> u32 {
    3
}

fn default_min_clients() -> u64 {
    100
}

fn default_history_days() -> u32 {
    90
}

/// An extra cutoff, agreed with the peer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cutoff {
    /// The aggregation id.
    pub aggregation: String,
    /// The window's start, `YYYYMMDDHHmm`.
    pub start: String,
    /// The cutoff, RFC 3339; in the future when set.
    pub cutoff: String,
}

/// How worker pods run.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workers {
    /// Intake pods.
    pub intake: WorkerStage,
    /// Aggregate pods.
    pub aggregate: WorkerStage,
    /// Batches that one pod takes in, 1 is pod-per-batch.
    #[serde(default = "batches_per_pod")]
    pub batches_per_pod: u32,
    /// Pods that run at once, of one stage.
    #[serde(default = "max_pods")]
    pub max_pods: u32,
    /// Which batches get a Batch object.
    #[serde(default)]
    pub batch_objects: BatchObjects,
    /// At most so many Batch objects; the rest is a count.
    #[serde(default = "max_batch_objects")]
    pub max_batch_objects: u32,
    /// A Job none of whose pods runs after it is removed, and the cause named.
    #[serde(default = "start_deadline_seconds")]
    pub start_deadline_seconds: u32,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Labels added to worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
}

fn batches_per_pod() -> u32 {
    100
}

fn max_pods() -> u32 {
    20
}

fn max_batch_objects() -> u32 {
    5_000
}

fn start_deadline_seconds() -> u32 {
    300
}

/// One stage's pods.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStage {
    /// The service account of this stage's pods; they mount no API token.
    pub service_account_name: String,
    /// As in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Which batches get a Batch object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchObjects {
    /// Every one, up to `maxBatchObjects`.
    #[default]
    All,
    /// Rejected, blocked, late and crashing ones.
    Exceptions,
}

/// What a person should know of the processor.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataShareProcessorStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `MailboxesListed`, `WorkersReady`, `WindowsOnTime`, `AdmissionGuarded` and `Stalled`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The ledger's id: gone or different means `Stalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_id: Option<String>,
    /// The first window that is ours, RFC 3339; the ledger holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// Digest of what both parties must agree on: compare it with the peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement_digest: Option<String>,
    /// Batches of open windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<BatchCounts>,
    /// Windows by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowCounts>,
}

/// Batches of open windows, by outcome.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchCounts {
    /// Found and not taken in yet.
    pub waiting: i64,
    /// In a running Job.
    pub running: i64,
    /// Taken in.
    pub validated: i64,
    /// Refused for good.
    pub rejected: i64,
    /// Wait for a key or a right.
    pub blocked: i64,
    /// Came after their window's plan.
    pub late: i64,
    /// Names in the mailboxes that are no batch's.
    pub unknown_names: i64,
}

/// Windows by state.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowCounts {
    /// Their cutoff is to come.
    pub open: i64,
    /// Summed.
    pub summed: i64,
    /// Ended without a sum: empty, below the floor, missed.
    pub without_sum: i64,
    /// Failed.
    pub failed: i64,
    /// Past their time and not summed.
    pub overdue: i64,
}
