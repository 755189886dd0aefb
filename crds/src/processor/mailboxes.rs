//! Where objects are read and written.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::access::{CannedAcl, ConditionalWrites, Encryption, MailboxCredentials};
use crate::peer::CaBundleReference;

/// The URLs that are written, by a rule's leave: those of others may be in their manifests, and are compared there.
const URLS: &str = "[self.ingestion.url, self.peerValidation.url, self.ledger.url, \
     has(self.outgoing.peer.url) ? self.outgoing.peer.url : '', \
     has(self.outgoing.portal.url) ? self.outgoing.portal.url : '']";
/// Without them the other rules would have nothing to compare.
const OWN: &str = "has(self.ingestion.url) && has(self.peerValidation.url) && has(self.ledger.url)";

/// Whether something is said that folders have no use for.
const BUCKETS_ONLY: &str = "has(self.endpoint) || has(self.caBundleRef) || has(self.credentials) \
     || has(self.operatorCredentials) || has(self.encryption) || has(self.cannedACL) \
     || (has(self.pathStyle) && self.pathStyle) \
     || (has(self.conditionalWrites) && self.conditionalWrites == 'Weak')";

/// That no credentials are of this kind, neither the workers' nor the operator's.
fn none_is(kind: &str) -> String {
    let of = |field: &str| format!("!(has(self.{field}) && has(self.{field}.{kind}))");
    format!("{} && {}", of("credentials"), of("operatorCredentials"))
}

/// The five mailboxes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(OWN)
        .message("ingestion, peerValidation and ledger are ours: each needs a url"),
    validation = Rule::new(format!("!({OWN}) || {URLS}.all(url, url == '' || {URLS}.exists_one(other, other == url))"))
        .message("two mailboxes have the same url: each of the five needs its own"),
    validation = Rule::new(format!("!({OWN}) || {URLS}.all(url, url == '' || {URLS}.all(other, !other.startsWith(url + '/')))"))
        .message("one mailbox's url is inside another's: put them side by side"),
    validation = Rule::new("!has(self.ledger.conditionalWrites) || self.ledger.conditionalWrites != 'Weak'")
        .message("the ledger needs a store that honours conditional writes: two workers that race would both be right"),
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
#[x_kube(validation = Rule::new("!has(self.peer.operatorCredentials) && !has(self.portal.operatorCredentials)")
    .message("operatorCredentials are for the mailboxes that the operator lists: ingestion, peerValidation and ledger"))]
#[serde(rename_all = "camelCase")]
pub struct Outgoing {
    /// The peer's mailbox for our validation batches.
    pub peer: Mailbox,
    /// The portal's mailbox for our sum parts.
    pub portal: Mailbox,
}

/// One mailbox. A later refusal is only asked for where the earlier ones don't refuse, so that one fault gives one message.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.url) || self.url.matches('^(file|s3|gs)://')")
        .message("url must begin with file://, s3:// or gs://"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('file://') || self.url.matches('^file://(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')")
        .message("a file:// url is file:// and an absolute folder of letters, digits, '.', '_' and '-', without '..' and without a slash at its end, as in file:///mailboxes/ingestion"),
    validation = Rule::new("!has(self.url) || !self.url.matches('^file:///(bin|boot|dev|etc|lib|proc|run|sbin|sys|tmp|usr|var/run)(/.*)?$')")
        .message("a file:// url may not be a folder of the system, as /etc or /proc: the volume is mounted there"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('file://') || has(self.volume)")
        .message("a file:// mailbox needs volume.claimName: the PersistentVolumeClaim that worker pods mount at the url's folder"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('s3://') || self.url.matches('^s3://[a-z0-9-]+/[a-z0-9][a-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$')")
        .message("an s3:// url is s3://REGION/BUCKET[/PREFIX], without a slash at its end, as in s3://us-west-1/example-ingestion"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('gs://') || self.url.matches('^gs://[a-z0-9][a-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$')")
        .message("a gs:// url is gs://BUCKET[/PREFIX], without a slash at its end, as in gs://example-ingestion"),
    validation = Rule::new("!has(self.volume) || (has(self.url) && self.url.startsWith('file://'))")
        .message("volume is for file:// mailboxes only: a bucket is reached over the network"),
    validation = Rule::new(format!("!has(self.url) || !self.url.startsWith('file://') || !({BUCKETS_ONLY})"))
        .message("endpoint, pathStyle, caBundleRef, credentials, operatorCredentials, encryption, cannedACL and conditionalWrites are for s3:// and gs:// mailboxes only"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('gs://') || !(has(self.cannedACL) || (has(self.pathStyle) && self.pathStyle))")
        .message("pathStyle and cannedACL are for s3:// mailboxes only"),
    validation = Rule::new(format!("!has(self.url) || !self.url.startsWith('gs://') || ({})", none_is("awsFromGoogle")))
        .message("awsFromGoogle gives an AWS role, for s3:// mailboxes only"),
    validation = Rule::new(format!("!has(self.url) || !self.url.startsWith('s3://') || ({} && {})", none_is("googleServiceAccount"), none_is("googleFromAws")))
        .message("googleServiceAccount and googleFromAws give Google identities, for gs:// mailboxes only"),
)]
#[serde(rename_all = "camelCase")]
pub struct Mailbox {
    /// `s3://REGION/BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]`, or `file:///absolute/folder`: where worker pods and the operator
    /// mount the mailbox. An outgoing mailbox may leave it out where its owner is a `peerRef`: then it is the one in that
    /// party's manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 512))]
    pub url: String,
    /// `file://`: the claim that worker pods mount at the URL's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// Of a compatible store: `http://HOST[:PORT]` or `https://HOST[:PORT]`. The operator calls those alone that its chart's
    /// `mailboxes.endpoints` lists. Left out: the cloud's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 8, max = 270),
        regex(pattern = r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
    )]
    pub endpoint: Option<String>,
    /// S3: the bucket is in the path and not in the host name, as most compatible stores want it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_style: bool,
    /// Authorities to trust beside the image's, for the store and for what gives credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleReference>,
    /// Who workers are to the store. Left out: `ambient`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<MailboxCredentials>,
    /// Who the operator is to the store: it lists names, and reads a little of the ledger. Left out: of the kind that
    /// `credentials` are, but by its own account and its own Secret of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_credentials: Option<MailboxCredentials>,
    /// The key that new objects are encrypted with. Left out: as the bucket says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// S3: rights on new objects, where the bucket is another's and keeps access lists.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "cannedACL")]
    pub canned_acl: Option<CannedAcl>,
    /// What is done where a name may be taken. Never `Weak` for the ledger.
    #[serde(default)]
    pub conditional_writes: ConditionalWrites,
}

/// A claim that holds a `file://` mailbox.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of a PersistentVolumeClaim in the same namespace; its root is the mailbox.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub claim_name: String,
}
