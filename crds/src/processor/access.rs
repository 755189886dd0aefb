//! How mailboxes in buckets are reached, beside their URLs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretReference;

/// Who calls a store. Without any, `ambient`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(
    "[has(self.ambient), has(self.anonymous), has(self.secretRef), has(self.googleServiceAccount), \
      has(self.googleFromAws), has(self.awsFromGoogle)].exists_one(given, given)"
).message("give exactly one kind of credentials"))]
#[serde(rename_all = "camelCase")]
pub struct MailboxCredentials {
    /// What the pod finds around it. S3: the AWS SDK's default chain (IRSA, EKS pod identity, the instance). GCS: the
    /// metadata server (GKE workload identity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambient: Option<NoSettings>,
    /// Nobody: requests aren't signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<NoSettings>,
    /// A Secret. S3: keys `accessKeyId`, `secretAccessKey` and perhaps `sessionToken`; GCS: `key.json`, a service account's
    /// key. Of workers it is in the processor's namespace; of the operator in the operator's, where its chart's
    /// `mailboxes.secrets` lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// GCS: another Google service account, as which the ambient identity may act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub google_service_account: Option<GoogleServiceAccount>,
    /// GCS: the ambient AWS role, turned into a Google identity by a workload identity pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub google_from_aws: Option<GoogleFromAws>,
    /// S3: an AWS role, by a web identity token of the ambient Google identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_from_google: Option<AwsFromGoogle>,
}

/// Nothing more to say: `{}`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NoSettings {}

/// A Google service account.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoogleServiceAccount {
    /// Its email.
    #[schemars(length(min = 3, max = 254), regex(pattern = r"^[A-Za-z0-9._-]+@[A-Za-z0-9.:-]+$"))]
    pub email: String,
}

/// An AWS role as a Google identity.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoogleFromAws {
    /// `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
    #[schemars(
        length(min = 1, max = 512),
        regex(
            pattern = r"^//iam\.googleapis\.com/projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+$"
        )
    )]
    pub provider: String,
    /// The AWS region whose security token service vouches for the role.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// The service account to act as. Left out: the pool's identity itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 254), regex(pattern = r"^[A-Za-z0-9._-]+@[A-Za-z0-9.:-]+$"))]
    pub email: Option<String>,
}

/// An AWS role by a Google identity.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsFromGoogle {
    /// The role's ARN.
    #[schemars(
        length(min = 20, max = 2048),
        regex(pattern = r"^arn:[a-z-]+:iam::[0-9]{12}:role/[!-~]+$")
    )]
    pub role: String,
    /// Whom the token is for, as the role's trust policy has it (`accounts.google.com:oaud`).
    #[schemars(length(min = 1, max = 1024))]
    pub audience: String,
    /// The service account whose token it is. Left out: the ambient one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 254), regex(pattern = r"^[A-Za-z0-9._-]+@[A-Za-z0-9.:-]+$"))]
    pub email: Option<String>,
}

/// A key of the cloud's key service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// S3: id or ARN of a KMS key. GCS: `projects/…/cryptoKeys/…`.
    #[schemars(length(min = 1, max = 2048))]
    pub kms_key: String,
}

/// Rights on new objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CannedAcl {
    /// The bucket's owner may do all with what we put into it.
    #[serde(rename = "bucket-owner-full-control")]
    BucketOwnerFullControl,
}

/// What is done where a name may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionalWrites {
    /// The store itself refuses the second put of a name; one that doesn't is refused.
    #[default]
    Required,
    /// For old stores of partners: we look first, then put.
    Weak,
}
