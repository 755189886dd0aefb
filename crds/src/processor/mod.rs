//! DataShareProcessor: one side of the protocol, long-lived.

mod access;
mod mailboxes;
mod manifest;
mod parties;
mod preflight;
mod replay_guard;
mod status;
mod windows;
mod workers;

pub use access::{
    AwsFromGoogle, CannedAcl, ConditionalWrites, Encryption, GoogleFromAws, GoogleServiceAccount, MailboxCredentials,
    NoSettings,
};
pub use mailboxes::{Mailbox, Mailboxes, Outgoing, Volume};
pub use manifest::{ConfigMapReference, Manifest, PacketEncryptionKey, PublishTo, ServedAt, ServerIdentity};
pub use parties::{
    Ingestor, InlineParty, InlinePortal, KeyReference, KeyRingReference, Keys, MAX_PACKET_KEYS, PeerProcessor,
    PeerReference, Portal, PublicKey, SecretReference,
};
pub use preflight::{PreflightLine, PreflightOutcome, PreflightStage, PreflightStatus};
pub use replay_guard::ReplayGuard;
pub use status::{BatchCounts, DataShareProcessorStatus, KeyUse, KeysStatus, WindowCounts};
pub use windows::{Cutoff, Windows};
pub use workers::{BatchObjects, MAX_PULL_SECRETS, WorkerStage, Workers};

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
    cel,
    status = "DataShareProcessorStatus",
    category = "prio",
    doc = "One party's Prio data share processor: where its mailboxes are, which keys it holds, when it sums.",
    printcolumn(name = "Share", type_ = "string", json_path = ".spec.share"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = r#".status.conditions[?(@.type=="Ready")].lastTransitionTime"#
    ),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.batches.waiting"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.batches.running"),
    printcolumn(name = "Blocked", type_ = "integer", json_path = ".status.batches.blocked"),
    printcolumn(name = "Open", type_ = "integer", json_path = ".status.windows.open"),
    printcolumn(name = "Summed", type_ = "integer", json_path = ".status.windows.summed"),
    printcolumn(name = "Overdue", type_ = "integer", json_path = ".status.windows.overdue"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".spec.instance", priority = 1),
    printcolumn(name = "Ledger", type_ = "string", json_path = ".status.ledgerId", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')")
        .message("metadata.name becomes part of Jobs' names: at most 40 lower-case letters, digits and hyphens"),
    validation = Rule::new("self.spec.share == oldSelf.spec.share")
        .message("spec.share is immutable: what was summed belongs to that share; make another DataShareProcessor"),
    validation = Rule::new("self.spec.instance == oldSelf.spec.instance")
        .message("spec.instance is immutable: sum parts are named by it; make another DataShareProcessor"),
    validation = Rule::new("!self.spec.instance.matches('[.]release-[0-9]+$')")
        .message("spec.instance may not end in .release- and digits: sum parts that are released again are named so"),
    validation = Rule::new("self.spec.mailboxes.ledger.url == oldSelf.spec.mailboxes.ledger.url").message(
        "spec.mailboxes.ledger.url is immutable: with another ledger everything would be summed again; \
         make another DataShareProcessor"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.mailboxes.outgoing.peer.url) || has(self.peer.peerRef)")
        .message("mailboxes.outgoing.peer needs a url; only with peer.peerRef the peer's manifest has it"),
    validation = Rule::new("has(self.mailboxes.outgoing.portal.url) || has(self.portal.peerRef)")
        .message("mailboxes.outgoing.portal needs a url; only with portal.peerRef the portal's manifest has it"),
    validation = Rule::new("!has(self.manifest) || has(self.keys.batchSigning.keyRingRef) || (has(self.manifest.batchSigningPublicKeys) && size(self.manifest.batchSigningPublicKeys) > 0)")
        .message("manifest needs batchSigningPublicKeys; only a KeyRing in keys.batchSigning has them"),
    validation = Rule::new("!has(self.manifest) || has(self.manifest.packetEncryptionKey) || self.keys.packetDecryption.exists_one(key, has(key.keyRingRef))")
        .message("manifest needs packetEncryptionKey; only where keys.packetDecryption refers to just one KeyRing that has it"),
)]
#[serde(rename_all = "camelCase")]
pub struct DataShareProcessorSpec {
    /// Which of the two shares this party holds. Immutable.
    pub share: Share,
    /// The name in manifests and sum-part paths. Immutable.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
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
    /// This party's private keys.
    pub keys: Keys,
    /// When windows are summed.
    #[serde(default)]
    pub windows: Windows,
    /// Whether a packet that another batch has is refused.
    #[serde(default)]
    pub replay_guard: ReplayGuard,
    /// How worker pods run.
    pub workers: Workers,
    /// What others are told of this party. Left out: the operator publishes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// No new Jobs, running ones finish, cutoffs don't wait; `Ready=False`, reason `Suspended`.
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

/// Which aggregations to process.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.names.all(name, !(name in ['task-markers', 'prio-operator']))")
    .message("task-markers and prio-operator are reserved names, no aggregations"))]
#[serde(rename_all = "camelCase")]
pub struct Aggregations {
    /// Aggregation ids; empty: all that appear.
    #[serde(default)]
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
}
