//! Where objects are read and written.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The URLs that are written, by a rule's leave: those of others may be in their manifests, and are compared there.
const URLS: &str = "[self.ingestion.url, self.peerValidation.url, self.ledger.url, \
     has(self.outgoing.peer.url) ? self.outgoing.peer.url : '', \
     has(self.outgoing.portal.url) ? self.outgoing.portal.url : '']";
/// Without them the other rules would have nothing to compare.
const OWN: &str = "has(self.ingestion.url) && has(self.peerValidation.url) && has(self.ledger.url)";

/// The five mailboxes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(OWN)
        .message("ingestion, peerValidation and ledger are ours: each needs a url"),
    validation = Rule::new(format!("!({OWN}) || {URLS}.all(url, url == '' || {URLS}.exists_one(other, other == url))"))
        .message("two mailboxes have the same url: each of the five needs its own"),
    validation = Rule::new(format!("!({OWN}) || {URLS}.all(url, url == '' || {URLS}.all(other, !other.startsWith(url + '/')))"))
        .message("one mailbox's url is inside another's: put them side by side"),
)]
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

/// One mailbox. A later refusal is only asked for where the earlier ones don't refuse, so that one fault gives one message.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.url) || self.url.startsWith('file://')")
        .message("url must begin with file:// in this version: mount the mailbox as a volume; s3:// and gs:// are not served yet"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('file://') || self.url.matches('^file://(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')")
        .message("a file:// url is file:// and an absolute folder of letters, digits, '.', '_' and '-', without '..' and without a slash at its end, as in file:///mailboxes/ingestion"),
    validation = Rule::new("!has(self.url) || !self.url.matches('^file:///(bin|boot|dev|etc|lib|proc|run|sbin|sys|tmp|usr|var/run)(/.*)?$')")
        .message("a file:// url may not be a folder of the system, as /etc or /proc: the volume is mounted there"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('file://') || has(self.volume)")
        .message("a file:// mailbox needs volume.claimName: the PersistentVolumeClaim that worker pods mount at the url's folder"),
)]
#[serde(rename_all = "camelCase")]
pub struct Mailbox {
    /// `file:///absolute/folder`: where worker pods and the operator mount the mailbox. An outgoing mailbox may leave it
    /// out where its owner is a `peerRef`: then it is the one in that party's manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 512))]
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
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub claim_name: String,
}
