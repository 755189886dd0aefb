//! KeyRing: a key pair that is renewed by age, version after version, so that no packet and no signature is lost on the way.

mod status;

pub use status::{KeyRingStatus, KeyVersion, MAX_VERSIONS, NextStep, RotationPlan, VersionState};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most recipients of a backup.
const MAX_RECIPIENTS: usize = 8;

/// A key pair that is renewed.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "prio-operator.io",
    version = "v1alpha1",
    kind = "KeyRing",
    plural = "keyrings",
    namespaced,
    cel,
    status = "KeyRingStatus",
    category = "prio",
    doc = "A key pair of this party that is renewed by age: each version is written and backed up, proven loaded, published, \
           used, and retired once no traffic needs it. Deleting a KeyRing deletes no key.",
    printcolumn(name = "Purpose", type_ = "string", json_path = ".spec.purpose"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "In use", type_ = "string", json_path = ".status.inUse"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeVersions"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.next.step"),
    printcolumn(name = "At", type_ = "string", json_path = ".status.next.at"),
    printcolumn(name = "Waits for", type_ = "string", json_path = ".status.next.waitsFor", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')")
        .message("metadata.name becomes part of Secrets' names: a KeyRing's name has at most 40 lower-case letters, digits and hyphens"),
    validation = Rule::new("self.spec.purpose == oldSelf.spec.purpose")
        .message("spec.purpose is immutable: the keys that are there are for that purpose; make another KeyRing"),
    validation = Rule::new("self.spec.keyIdPrefix == oldSelf.spec.keyIdPrefix")
        .message("spec.keyIdPrefix is immutable: partners know the keys by it; make another KeyRing"),
    validation = Rule::new("(self.spec.purpose == 'PacketEncryption') == has(self.spec.certificate)")
        .message("spec.certificate belongs to purpose PacketEncryption, which needs it: manifests publish packet keys in certificate signing requests")
)]
#[serde(rename_all = "camelCase")]
pub struct KeyRingSpec {
    /// What the keys are for. Immutable.
    pub purpose: KeyPurpose,
    /// What the ids of its keys begin with; the time of creation follows, seconds since 1970. Immutable.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub key_id_prefix: String,
    /// When versions are made, used and retired.
    #[serde(default)]
    pub rotation: Rotation,
    /// The certificate signing requests of packet-encryption keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Where a second copy of each key goes, before the first is written.
    pub backup: Backup,
    /// How public keys reach the partners.
    #[serde(default)]
    pub publication: Publication,
}

/// What the keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyPurpose {
    /// They sign batches: all of a ring's public keys are in the manifest, one signs.
    BatchSigning,
    /// Clients encrypt packets to them: one of a ring's public keys is in the manifest, all open packets.
    PacketEncryption,
}

/// When versions are made, used and retired. Ages count from a version's creation.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.primaryMinAgeSeconds) || self.primaryMinAgeSeconds <= self.createMinAgeSeconds")
        .message("primaryMinAgeSeconds must not exceed createMinAgeSeconds: a version would be followed by the next before it is used"),
    validation = Rule::new("self.createMinAgeSeconds <= self.retireMinAgeSeconds")
        .message("createMinAgeSeconds must not exceed retireMinAgeSeconds: a version would be retired before the next is made"),
)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Whether versions follow each other.
    #[serde(default)]
    pub mode: RotationMode,
    /// A new version is made when the youngest is so old, in seconds.
    #[serde(default = "create_min_age_seconds")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub create_min_age_seconds: u32,
    /// A version is used for new work when it is so old, in seconds, and has been public for as long (batch signing) or
    /// is loaded (packet encryption). Default: 7 days for batch signing, 23 hours for packet encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub primary_min_age_seconds: Option<u32>,
    /// A version that isn't used any more may be retired when it is so old, in seconds.
    #[serde(default = "retire_min_age_seconds")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub retire_min_age_seconds: u32,
    /// So many versions are kept whatever their age.
    #[serde(default = "retire_min_count")]
    #[schemars(range(min = 1, max = 3))]
    pub retire_min_count: u32,
    /// A version is retired only after no traffic under it has been seen for so many seconds.
    #[serde(default = "no_traffic_seconds")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub no_traffic_seconds: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            mode: RotationMode::default(),
            create_min_age_seconds: create_min_age_seconds(),
            primary_min_age_seconds: None,
            retire_min_age_seconds: retire_min_age_seconds(),
            retire_min_count: retire_min_count(),
            no_traffic_seconds: no_traffic_seconds(),
        }
    }
}

/// Nine months of 30 days, as the original's rotator.
fn create_min_age_seconds() -> u32 {
    9 * 30 * 86_400
}

/// Thirteen months of 30 days, as the original's rotator.
fn retire_min_age_seconds() -> u32 {
    13 * 30 * 86_400
}

fn retire_min_count() -> u32 {
    2
}

fn no_traffic_seconds() -> u32 {
    30 * 86_400
}

/// Whether versions follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationMode {
    /// By age.
    #[default]
    Enabled,
    /// Only the first version is made, and nothing is retired.
    Disabled,
}

/// The certificate signing requests in which manifests publish packet-encryption keys.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The subject's common name, by the partner's rule `<namespace>.<env>.certificates.<domain>`.
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
    )]
    pub common_name: String,
    /// Whether somebody has to issue a certificate before a version is published.
    #[serde(default)]
    pub authority: CertificateAuthority,
}

/// Who issues certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CertificateAuthority {
    /// Nobody has to: partners take the request from the manifest.
    #[default]
    None,
    /// A person brings the request in the status to an authority, and annotates the KeyRing with
    /// `prio-operator.io/certificate-issued: <key id>` when the certificate is there.
    External,
}

/// Where a second copy of each key goes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!self.recipients.exists(recipient, recipient.contains('SECRET'))")
        .message("recipients holds an age identity, which is secret: replace it, and give the recipient that age-keygen -y shows, age1…"),
    validation = Rule::new("(self.method == 'Age') == (self.recipients.size() > 0)")
        .message("recipients belong to method Age, which needs at least one: who holds its identity can restore the keys"),
)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// How the copy is wrapped.
    pub method: BackupMethod,
    /// age recipients: each of their identities opens the copies. Nothing in the cluster holds an identity.
    #[serde(default)]
    #[schemars(length(max = MAX_RECIPIENTS), inner(length(min = 62, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub recipients: Vec<String>,
}

/// How the second copy is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupMethod {
    /// With age, in a Secret beside the key's.
    Age,
    /// There is no second copy: who loses the Secret loses what is encrypted to it.
    None,
}

/// How public keys reach the partners.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// Who publishes.
    #[serde(default)]
    pub method: PublicationMethod,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PublicationMethod {
    /// The keys controller writes what the manifest must hold of this ring into the ConfigMap `<name>.public`, and reads
    /// it back.
    #[default]
    ConfigMap,
    /// A person takes it from there to the manifest, and annotates the KeyRing with `prio-operator.io/published: <key ids>`
    /// when the manifest holds just these.
    Manual,
}
