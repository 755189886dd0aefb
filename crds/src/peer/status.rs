//! What is known of another party.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::key_ring::KeyPurpose;

/// Keys that aren't published any more and are remembered.
pub const MAX_REMOVED_KEYS: usize = 64;
/// Approvals that are remembered.
pub const MAX_APPROVALS: usize = 16;
/// The most characters of an approval that are remembered.
pub const MAX_APPROVAL: usize = 128;

/// What is known of another party: the last good manifest lives here, so that no restart forgets it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("default" = crate::schema::pending_status()))]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The generation that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Stalled` and `ManifestCurrent`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The manifest in use: the last good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PeerManifest>,
    /// A change that waits for a person's approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldChange>,
    /// Values of the annotation `prio-operator.io/approve-manifest` that are used up, the last of them: they approve nothing
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_APPROVALS), inner(length(max = MAX_APPROVAL)))]
    pub approvals_used: Vec<String>,
    /// Keys that were published and aren't any more, the last of them: who comes back under such an id must be the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_REMOVED_KEYS))]
    pub removed_keys: Vec<RemovedKey>,
    /// What is odd about the manifest in use and doesn't keep it from use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub warnings: Vec<String>,
}

/// A manifest that was found good: of several documents all that they say.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerManifest {
    /// SHA-256 of what `sha256sum` prints of its documents in the order of their names.
    #[schemars(length(min = 64, max = 64))]
    pub digest: String,
    /// When it came into use, RFC 3339.
    #[schemars(length(max = 40))]
    pub accepted_at: String,
    /// The base URL that it was found under.
    #[schemars(length(max = 512))]
    pub base_url: String,
    /// The instance that it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub instance: Option<String>,
    /// What it was read from.
    #[schemars(length(max = 2))]
    pub documents: Vec<ManifestDocument>,
    /// Keys that may sign this party's batches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub batch_signing_keys: Vec<PublishedSigningKey>,
    /// Keys that packets for this party are encrypted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub packet_encryption_keys: Vec<PublishedPacketKey>,
    /// Buckets and identities, by the manifest's own names, such as `peer-validation-bucket`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 512)))]
    pub fields: BTreeMap<String, String>,
}

/// One object under the base URL.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocument {
    /// Its name under the base URL.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Its format version.
    #[schemars(range(min = 0))]
    pub format: i64,
    /// SHA-256 of its bytes.
    #[schemars(length(min = 64, max = 64))]
    pub sha256: String,
}

/// A batch-signing key of a manifest.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedSigningKey {
    /// The `key_identifier` in signatures.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// Base64 of the uncompressed P-256 point.
    #[schemars(length(max = 88))]
    pub public_key: String,
    /// As the manifest writes it; nobody refuses a key for it.
    #[schemars(length(max = 64))]
    pub expiration: String,
}

/// A packet encryption key of a manifest.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPacketKey {
    /// Its id.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// Base64 of the uncompressed P-256 point of its certificate signing request.
    #[schemars(length(max = 88))]
    pub public_key: String,
}

/// A key that was published once.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedKey {
    /// What it was for.
    pub purpose: KeyPurpose,
    /// Its id.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// SHA-256 of its `publicKey` as it was written here.
    #[schemars(length(min = 64, max = 64))]
    pub sha256: String,
}

/// A change that waits for the annotation `prio-operator.io/approve-manifest` with the value that it names.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldChange {
    /// The digest of the manifest that waits.
    #[schemars(length(min = 64, max = 64))]
    pub digest: String,
    /// The annotation's value that approves it: the digest, with `:2` and so on where that is used up.
    #[serde(default)]
    #[schemars(length(max = MAX_APPROVAL))]
    pub approval: String,
    /// When it was first seen, RFC 3339.
    #[schemars(length(max = 40))]
    pub since: String,
    /// Why it waits.
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub suspicious: Vec<String>,
    /// All that it changes, what is suspicious included.
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub changes: Vec<String>,
}
