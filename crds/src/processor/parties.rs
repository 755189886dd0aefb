//! Who takes part, and the keys.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The most packet-decryption keys. The admission policies of the cluster chart look at as many Secrets.
pub const MAX_PACKET_KEYS: usize = 12;

/// Who writes ingestion batches.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.inline) != has(self.peerRef)")
    .message("give exactly one of ingestor.inline and ingestor.peerRef"))]
#[serde(rename_all = "camelCase")]
pub struct Ingestor {
    /// Its keys, written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineParty>,
    /// Its keys are those of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_ref: Option<PeerReference>,
}

/// The other share processor.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.inline) != has(self.peerRef)")
    .message("give exactly one of peer.inline and peer.peerRef"))]
#[serde(rename_all = "camelCase")]
pub struct PeerProcessor {
    /// Its keys, written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineParty>,
    /// Its keys are those of its manifest, and its mailbox too where `mailboxes.outgoing.peer` has no url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_ref: Option<PeerReference>,
    /// It runs the original prio-server: windows wait for its answers instead of comparing store times, and as
    /// `Second` no batch is taken in before its validation is there.
    #[serde(default)]
    pub legacy: bool,
}

/// Who reads sum parts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.inline) != has(self.peerRef)")
    .message("give exactly one of portal.inline and portal.peerRef"))]
#[serde(rename_all = "camelCase")]
pub struct Portal {
    /// Its mailbox is under `mailboxes.outgoing.portal`; nothing more is needed of it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlinePortal>,
    /// Its mailbox is that of its manifest where `mailboxes.outgoing.portal` has no url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_ref: Option<PeerReference>,
}

/// A Peer in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
}

/// A portal written inline.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InlinePortal {}

/// A party whose keys are written inline.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineParty {
    /// Keys that may sign its batches, one of each id.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub batch_signing_keys: Vec<PublicKey>,
}

/// A batch-signing public key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!self.publicKey.contains('PRIVATE')")
        .message("publicKey holds a private key: replace that key, it is not secret any more"),
    validation = Rule::new(r"self.publicKey.contains('PRIVATE') || self.publicKey.startsWith('-----BEGIN PUBLIC KEY-----') || self.publicKey.matches('^[A-Za-z0-9+/]+=*$')")
        .message("publicKey must be PEM that begins with -----BEGIN PUBLIC KEY-----, or base64 of the uncompressed P-256 point"),
)]
#[serde(rename_all = "camelCase")]
pub struct PublicKey {
    /// The `key_identifier` in its signatures.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// PEM `PUBLIC KEY` or base64 of the uncompressed P-256 point.
    #[schemars(length(min = 80, max = 1024))]
    pub public_key: String,
}

/// Two entries that name the same Secret or the same KeyRing.
const SAME: &str = "(has(key.secretRef) && has(other.secretRef) && key.secretRef.name == other.secretRef.name) \
     || (has(key.keyRingRef) && has(other.keyRingRef) && key.keyRingRef.name == other.keyRingRef.name)";

/// This party's private keys.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(format!("self.packetDecryption.all(key, self.packetDecryption.exists_one(other, {SAME}))"))
        .message("packetDecryption names a Secret or a KeyRing twice"),
    validation = Rule::new(format!("[self.batchSigning].all(other, self.packetDecryption.all(key, !({SAME})))"))
        .message("batchSigning and packetDecryption name the same Secret or KeyRing: a key for signing is no key for packets"),
)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// The batch-signing key.
    pub batch_signing: KeyReference,
    /// The packet-decryption keys, newest first; old ones stay mounted.
    #[schemars(length(min = 1, max = MAX_PACKET_KEYS))]
    pub packet_decryption: Vec<KeyReference>,
}

/// One key, or the versions of one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.keyRingRef)").message("give exactly one of secretRef and keyRingRef"))]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// A Secret with `key` and `id` (or the original's `secret_key` and `primary_kid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// A KeyRing, all of whose versions are mounted until they are retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ring_ref: Option<KeyRingReference>,
}

/// A KeyRing in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRingReference {
    /// Its name.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
}
