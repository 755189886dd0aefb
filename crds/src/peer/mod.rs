//! Peer: another party, found by the manifests that it publishes.

mod status;

pub use status::{
    HeldChange, MAX_APPROVAL, MAX_APPROVALS, MAX_REMOVED_KEYS, ManifestDocument, PeerManifest, PeerStatus,
    PublishedPacketKey, PublishedSigningKey, RemovedKey,
};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The key of a ConfigMap that holds certificates, where none is named.
const CA_BUNDLE_KEY: &str = "ca.crt";

/// Another party and where its manifests are.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "prio-operator.io",
    version = "v1alpha1",
    kind = "Peer",
    plural = "peers",
    namespaced,
    cel,
    status = "PeerStatus",
    category = "prio",
    doc = "Another party: an ingestor, a share processor or a portal, found by the manifests that it publishes.",
    printcolumn(name = "Party", type_ = "string", json_path = ".spec.party"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(
        name = "Current",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ManifestCurrent")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ManifestCurrent")].reason"#
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = r#".status.conditions[?(@.type=="ManifestCurrent")].lastTransitionTime"#
    ),
    printcolumn(name = "Changed", type_ = "date", json_path = ".status.manifest.acceptedAt"),
    printcolumn(name = "Held", type_ = "string", json_path = ".status.held.approval", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.manifestBaseUrl", priority = 1),
    printcolumn(name = "Instance", type_ = "string", json_path = ".spec.instance", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ManifestCurrent")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.party == oldSelf.spec.party")
        .message("spec.party is immutable: what is known of an ingestor is nothing of a portal; make another Peer")
)]
#[x_kube(
    validation = Rule::new("self.party != 'ShareProcessor' || has(self.instance)")
        .message("a share processor's keys are in INSTANCE-manifest.json: give instance"),
    validation = Rule::new("self.party != 'Portal' || !has(self.instance)")
        .message("a portal has one manifest, global-manifest.json: leave instance out"),
    validation = Rule::new("self.manifestBaseUrl.startsWith('https://')")
        .message("manifestBaseUrl must begin with https://: over anything else others could swap the keys"),
    validation = Rule::new("!self.manifestBaseUrl.startsWith('https://') || self.manifestBaseUrl.matches('^https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~%+-]+)*/?$')")
        .message("manifestBaseUrl must be https://HOST[:PORT][/PATH], without user, query or fragment"),
)]
#[serde(rename_all = "camelCase")]
pub struct PeerSpec {
    /// What it is. Immutable.
    pub party: Party,
    /// The folder that its manifests are under: `global-manifest.json`, and `INSTANCE-manifest.json`.
    #[schemars(length(min = 9, max = 512))]
    pub manifest_base_url: String,
    /// Whose `INSTANCE-manifest.json` it is. Of a share processor: the name of our common instance. Of an ingestor: asked
    /// for where there is no `global-manifest.json`; some name it by the locality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub instance: Option<String>,
    /// The authorities to trust instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleReference>,
    /// How often the manifests are asked for.
    #[serde(default = "refresh_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub refresh_seconds: u32,
    /// What to do about a change that smells of attack or accident: a key replaced under its id, a bucket or an identity
    /// that is another, fewer keys than before, none of the keys of before.
    #[serde(default)]
    pub suspicious_changes: SuspiciousChanges,
    /// Nothing is fetched; what is known stays in use.
    #[serde(default)]
    pub suspend: bool,
}

fn refresh_seconds() -> u32 {
    300
}

/// What another party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Party {
    /// Writes ingestion batches.
    Ingestor,
    /// The other share processor.
    ShareProcessor,
    /// Reads sum parts.
    Portal,
}

/// What to do about a change that smells of attack or accident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SuspiciousChanges {
    /// It waits for the annotation `prio-operator.io/approve-manifest` with its digest; what was known stays in use.
    #[default]
    Hold,
    /// It is taken, and told.
    Accept,
}

/// A ConfigMap in the same namespace with certificates of authorities, in PEM.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in it.
    #[serde(default = "ca_bundle_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub key: String,
}

fn ca_bundle_key() -> String {
    CA_BUNDLE_KEY.to_owned()
}
