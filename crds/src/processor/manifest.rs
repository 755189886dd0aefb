//! What this party tells others of itself: its own manifests.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::parties::PublicKey;
use crate::peer::CaBundleReference;

/// This party's own manifests, in the original's formats: `INSTANCE-manifest.json`, and `global-manifest.json` where
/// `serverIdentity` is given.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Where they are written.
    pub publish_to: PublishTo,
    /// Where partners fetch them: they are read back there. Left out: only what was written is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<ServedAt>,
    /// Who writes to partners' buckets; without it there is no `global-manifest.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_identity: Option<ServerIdentity>,
    /// The bucket that the ingestor is told, `gs://BUCKET[/PREFIX]` or `s3://REGION/BUCKET[/PREFIX]`. Default:
    /// `mailboxes.ingestion.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub ingestion_bucket: Option<String>,
    /// What the ingestor assumes to write there: an AWS role's ARN, or a GCP service account's e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub ingestion_identity: Option<String>,
    /// The bucket that the peer is told. Default: `mailboxes.peerValidation.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub peer_validation_bucket: Option<String>,
    /// What the peer assumes to write there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub peer_validation_identity: Option<String>,
    /// The public halves of the keys that sign our batches, one of each id: those in use, and those that are to be. Those
    /// of a KeyRing in `keys.batchSigning` are published with them by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub batch_signing_public_keys: Vec<PublicKey>,
    /// When partners may stop to trust those keys, RFC 3339. The original never looks at it.
    #[serde(default = "expiration")]
    #[schemars(length(min = 20, max = 40))]
    pub expiration: String,
    /// The key that packets are encrypted to. Left out: the one that the KeyRing in `keys.packetDecryption` publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_encryption_key: Option<PacketEncryptionKey>,
}

fn expiration() -> String {
    "2123-01-01T00:00:00Z".to_owned()
}

/// Where manifests are written.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishTo {
    /// A ConfigMap that a web server serves.
    pub config_map: ConfigMapReference,
}

/// A ConfigMap in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapReference {
    /// Its name. The operator makes it; it must be one of `manifests.configMaps` of the party chart.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
}

/// Where partners fetch manifests.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.baseUrl.matches('^https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~%+-]+)*/?$')")
        .message("baseUrl must be https://HOST[:PORT][/PATH]: partners take manifests over nothing else"),
)]
#[serde(rename_all = "camelCase")]
pub struct ServedAt {
    /// The folder that partners are told.
    #[schemars(length(min = 9, max = 512))]
    pub base_url: String,
    /// The authorities to trust instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleReference>,
}

/// Who writes to partners' buckets.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!(has(self.awsAccountId) && has(self.gcpServiceAccountId))")
        .message("give at most one of awsAccountId and gcpServiceAccountId: the original refuses a manifest with both"),
)]
#[serde(rename_all = "camelCase")]
pub struct ServerIdentity {
    /// E-mail address of the GCP service account that writes sum parts and validations.
    #[schemars(length(min = 3, max = 320))]
    pub gcp_service_account_email: String,
    /// The AWS account, 12 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 12, max = 12), regex(pattern = r"^[0-9]{12}$"))]
    pub aws_account_id: Option<String>,
    /// The numeric id of the GCP service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[0-9]+$"))]
    pub gcp_service_account_id: Option<String>,
}

/// A packet encryption key as manifests hold it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.certificateSigningRequest.startsWith('-----BEGIN CERTIFICATE REQUEST-----')")
        .message("certificateSigningRequest must be PEM that begins with -----BEGIN CERTIFICATE REQUEST-----"),
)]
#[serde(rename_all = "camelCase")]
pub struct PacketEncryptionKey {
    /// Its id.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// PEM `CERTIFICATE REQUEST`, its common name NAMESPACE.ENVIRONMENT.certificates.DOMAIN.
    #[schemars(length(min = 100, max = 4096))]
    pub certificate_signing_request: String,
}
