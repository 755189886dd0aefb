//! What the operator gives a worker pod, and what the pod reports: JSON, `docs/formats.md` §3.8 and §4.

use mailbox::Access;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::preflight::PreflightStage;

/// The revision of every JSON document here.
pub const REVISION: u32 = 1;
/// The folder in the pod that holds `parameters.json`.
pub const PARAMETERS_DIRECTORY: &str = "/etc/prio-operator/parameters";
/// The folder in the pod that holds `work.json`.
pub const WORK_DIRECTORY: &str = "/etc/prio-operator/work";
/// The folder in the pod that holds the mounted Secrets.
pub const KEYS_DIRECTORY: &str = "/etc/prio-operator/keys";
/// The folder in a pod, a worker's or the operator's own, that holds a folder for each Secret by which mailboxes are reached.
pub const MAILBOX_SECRETS_DIRECTORY: &str = "/etc/prio-operator/mailboxes/secrets";
/// The folder in a worker's pod that holds a folder for each ConfigMap with authorities that a mailbox trusts.
pub const MAILBOX_AUTHORITIES_DIRECTORY: &str = "/etc/prio-operator/mailboxes/authorities";

/// Which of the two share processors this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Share {
    /// Index 0: writes `validity_0` and `sum_0`; its shares are whole vectors.
    First,
    /// Index 1: writes `validity_1` and `sum_1`; its shares are seeds.
    Second,
}

impl Share {
    /// 0 for First, 1 for Second: the N of object names.
    pub fn index(self) -> u8 {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    /// The other party's share.
    pub fn peer(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// How validation batches are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValidationFormat {
    /// Packets, header and signature: what every reader knows.
    #[default]
    ThreeObjects,
    /// The signature object alone, header and packets inside.
    SingleObject,
}

/// A batch-signing public key of a partner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKeyParameter {
    /// The `key_identifier` in signatures.
    pub id: String,
    /// PEM `PUBLIC KEY`, or base64 of the uncompressed point or of a PKCS#8 key's public part.
    pub public_key: String,
}

/// Which custom resource the work is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessorParameter {
    /// Namespace of the DataShareProcessor.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// One mailbox: where it is and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailboxParameter {
    /// `file:///folder`, `s3://region/bucket[/prefix]` or `gs://bucket[/prefix]`.
    pub url: String,
    /// Absent: as the cloud itself wants it, with the pod's own identity.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
}

fn is_default(access: &Access) -> bool {
    *access == Access::default()
}

/// The five mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailboxParameters {
    /// Where the ingestor puts our share's batches.
    pub ingestion: MailboxParameter,
    /// Where the peer puts its validation batches for us.
    pub peer_validation: MailboxParameter,
    /// Our own ledger.
    pub ledger: MailboxParameter,
    /// The peer's mailbox for our validation batches.
    pub peer: MailboxParameter,
    /// Where sum parts go.
    pub portal: MailboxParameter,
}

/// What of a window's settings a worker must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowParameters {
    /// A window's length in seconds, whole minutes.
    pub period_seconds: u32,
    /// No sum of fewer clients is released (ledger rule 7).
    pub min_clients: u64,
}

/// `parameters.json`: all that a pod needs and that isn't secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    /// [`REVISION`].
    pub revision: u32,
    /// The custom resource that this is for.
    pub processor: ProcessorParameter,
    /// Which share we hold.
    pub share: Share,
    /// The name in sum-part paths.
    pub instance: String,
    /// The ledger that the status remembers; `None` before the first worker ran.
    pub ledger_id: Option<Uuid>,
    /// The first window that is ours, RFC 3339; goes into a new ledger.
    pub start_at: String,
    /// The five mailboxes.
    pub mailboxes: MailboxParameters,
    /// Keys that may sign ingestion batches.
    pub ingestor_keys: Vec<PublicKeyParameter>,
    /// Keys that may sign the peer's validation batches.
    pub peer_keys: Vec<PublicKeyParameter>,
    /// The peer runs the original (ledger rule 13).
    pub legacy_peer: bool,
    /// How we write validation batches.
    pub validation_format: ValidationFormat,
    /// How many packet-decryption Secrets are mounted.
    pub packet_decryption_keys: u32,
    /// How many Secrets of other signing keys are mounted: what those keys began is finished with them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other_signing_keys: u32,
    /// The windows' settings.
    pub windows: WindowParameters,
    /// Whether packets are looked for in other batches.
    pub replay_guard: ReplayGuardParameters,
}

/// Whether and how far a packet that another batch has is refused (ledger rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayGuardParameters {
    /// `false`: packets are claimed and looked for nowhere.
    pub enabled: bool,
    /// Batches whose paths' days are at most so many days apart are compared.
    pub horizon_days: u16,
}

/// One ingestion batch of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntakeItem {
    /// The aggregation id.
    pub aggregation: String,
    /// The path's time, `YYYY/MM/DD/HH/mm`.
    pub time: String,
    /// The batch's UUID.
    pub uuid: Uuid,
    /// Last planning before the cutoff: take it with undecryptable packets excluded (ledger rule 2).
    #[serde(default)]
    pub take_anyway: bool,
}

/// One window of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AggregateItem {
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`, inclusive.
    pub start: String,
    /// `YYYYMMDDHHmm`, exclusive.
    pub end: String,
    /// The cutoffs that are due, in order, milliseconds since 1970: the first with a member is planned.
    pub cutoffs: Vec<i64>,
    /// What of a large window is to be done; `None`: all that isn't done yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<WindowPart>,
    /// The approval under which the window is released once more; `None` for its first release.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// A part of a large window's work, of one range of its batches: two cuts as names of ranges hold them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WindowPart {
    /// Look at its batches; whoever sees that nobody is left makes the plan.
    PlanShard(String),
    /// Count and sum those that are in the plan, and leave the sealed partial sum.
    PartialSum(String),
}

/// An approved override: a window may be released once more (ledger rule 6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// Which release of the window, 2 to 9.
    pub release: u8,
    /// When it expires, milliseconds since 1970: from then on no set is frozen under it.
    pub expires_at_millis: i64,
    /// Who approved it, as the API server knows them.
    pub approved_by: String,
    /// Why, for whoever looks at it later.
    pub reason: String,
}

/// One day of one packet key's claims to compact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompactItem {
    /// The packet key's folder of claims, 32 hex digits.
    pub packet_key: String,
    /// The day on which they were announced, `YYYYMMDD`.
    pub day: String,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The keys that work is done with, where KeyRings say which are mounted: a retry across a rotation takes the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyPins {
    /// Id of the key that signs new records and plans; `None`: the one that is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Ids of packet keys that must be mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packet_keys: Vec<String>,
}

impl KeyPins {
    /// Whether nothing is pinned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.signer.is_none() && self.packet_keys.is_empty()
    }
}

/// A key that a probe must find mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbedKey {
    /// Its id.
    pub id: String,
    /// Its public half, PEM `PUBLIC KEY`.
    pub public_key: String,
}

/// `work.json`: a Job's chunks, one per completion index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", deny_unknown_fields)]
pub enum WorkList {
    /// Ingestion batches to take in.
    Intake {
        /// [`REVISION`].
        revision: u32,
        /// The Job's name: the folder of its reports.
        work: String,
        /// The keys to use.
        #[serde(default, skip_serializing_if = "KeyPins::is_empty")]
        keys: KeyPins,
        /// One list per completion index.
        chunks: Vec<Vec<IntakeItem>>,
    },
    /// Windows to sum.
    Aggregate {
        /// [`REVISION`].
        revision: u32,
        /// The Job's name: the folder of its reports.
        work: String,
        /// The keys to use.
        #[serde(default, skip_serializing_if = "KeyPins::is_empty")]
        keys: KeyPins,
        /// One list per completion index.
        chunks: Vec<Vec<AggregateItem>>,
    },
    /// Keys to look for in the mounted Secrets: nothing else is done.
    KeyProbe {
        /// [`REVISION`].
        revision: u32,
        /// The Job's name: the folder of its reports.
        work: String,
        /// Keys that must sign.
        signing: Vec<ProbedKey>,
        /// Keys that must open packets.
        packets: Vec<ProbedKey>,
    },
    /// Checks to make, as `docs/formats.md` §4.4 has them: nothing else is done, and the pod's termination message has the lines.
    Preflight {
        /// [`REVISION`].
        revision: u32,
        /// The Job's name.
        work: String,
        /// Whose work is to be possible.
        of: PreflightStage,
        /// What asked for it, as the operator knows that again.
        inputs: String,
        /// Our own specific manifest as it is published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<String>,
    },
    /// Days of claims to compact.
    CompactClaims {
        /// [`REVISION`].
        revision: u32,
        /// The Job's name.
        work: String,
        /// One list per completion index.
        chunks: Vec<Vec<CompactItem>>,
    },
}

/// How the intake of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BatchOutcome {
    /// The record, the validation batch and `delivered` are there.
    Validated,
    /// Final: `rejected/` says why.
    Rejected,
    /// Tried again later: a key or a right is missing.
    Blocked,
}

/// How the aggregation of a window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WindowOutcome {
    /// The sum part is in the portal.
    Summed,
    /// Fewer valid clients than the floor: no sum part.
    BelowFloor,
    /// Final: `results/` says why.
    Failed,
    /// No batch was in time at any of the cutoffs.
    NoMembers,
    /// Tried again later.
    Blocked,
    /// Its part is done; the window isn't over.
    Part,
    /// Its part can't be done, for good: whoever sums the window says so.
    PartFailed,
}

/// A batch in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchReport {
    /// The aggregation id.
    pub aggregation: String,
    /// The path's time, `YYYY/MM/DD/HH/mm`.
    pub time: String,
    /// The batch's UUID.
    pub uuid: Uuid,
    /// How it ended.
    pub outcome: BatchOutcome,
    /// A reason of `docs/formats.md` §3.4 or §3.8; empty for Validated.
    pub reason: String,
    /// What a person should know, one sentence.
    pub message: String,
    /// Packets in the batch.
    pub packets: u64,
    /// Packets that are excluded, for any reason.
    pub excluded: u64,
}

/// A window in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowReport {
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYYMMDDHHmm`.
    pub start: String,
    /// `YYYYMMDDHHmm`.
    pub end: String,
    /// Which release; `None` for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u8>,
    /// How it ended.
    pub outcome: WindowOutcome,
    /// A reason of `docs/formats.md` §3.7 or §3.8; empty for Summed.
    pub reason: String,
    /// What a person should know, one sentence.
    pub message: String,
    /// The cutoff that the plan was made at.
    pub cutoff_millis: Option<i64>,
}

/// `reports/<work>/<index>-<pod uid>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// [`REVISION`].
    pub revision: u32,
    /// The Job's name.
    pub work: String,
    /// The completion index.
    pub index: u32,
    /// The pod that wrote it.
    pub pod_uid: String,
    /// One per batch of an intake chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<BatchReport>,
    /// One per window of an aggregation chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowReport>,
    /// Ids of the keys that a probe found mounted, each with the public half that it was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}
