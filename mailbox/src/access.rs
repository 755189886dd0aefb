//! How a mailbox is reached, beside its URL. Holds no secret itself: only paths to them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of one mailbox. The default is what the clouds themselves need: their own endpoints and authorities, the
/// process's own identity, conditional writes.
///
/// A `file://` mailbox takes none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Access {
    /// `http://host[:port]` or `https://host[:port]` of a compatible store; absent: the cloud's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3: the bucket is in the path and not in the host name, as most compatible stores want it.
    #[serde(skip_serializing_if = "is_default")]
    pub path_style: bool,
    /// A PEM file of authorities to trust beside the machine's, for the store and for the token endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<PathBuf>,
    /// The same in PEM, for whoever has no file; never written out.
    #[serde(skip)]
    pub authorities: Option<String>,
    /// Who calls.
    #[serde(skip_serializing_if = "is_default")]
    pub credentials: Credentials,
    /// The key that new objects are encrypted with; absent: as the bucket says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Rights on new objects, where the bucket is another's and keeps access lists.
    #[serde(skip_serializing_if = "Option::is_none", rename = "cannedACL")]
    pub canned_acl: Option<CannedAcl>,
    /// What is done where a name may be taken.
    #[serde(skip_serializing_if = "is_default")]
    pub conditional_writes: ConditionalWrites,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Who calls a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Credentials {
    /// What the process finds around it. S3: the default chain (environment, profile, web identity of IRSA, pod identity,
    /// instance). GCS: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else the metadata server.
    #[default]
    Ambient,
    /// Nobody: requests aren't signed.
    Anonymous,
    /// A Secret mounted as a folder. S3: files `accessKeyId`, `secretAccessKey` and perhaps `sessionToken`; GCS:
    /// `key.json`, a service account's key. Read again before each use of a key that is five minutes old.
    #[serde(rename_all = "camelCase")]
    Secret {
        /// Where it is mounted.
        folder: PathBuf,
    },
    /// GCS: another Google service account, by `generateAccessToken` as the ambient Google identity.
    #[serde(rename_all = "camelCase")]
    GoogleServiceAccount {
        /// Its email.
        email: String,
    },
    /// GCS: an AWS role turned into a Google identity by a workload identity pool.
    #[serde(rename_all = "camelCase")]
    GoogleFromAws {
        /// `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
        provider: String,
        /// The region whose security token service vouches for the role.
        region: String,
        /// The service account to act as; absent: the pool's identity itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<String>,
    },
    /// S3: an AWS role, by a web identity token of Google's.
    #[serde(rename_all = "camelCase")]
    AwsFromGoogle {
        /// The role's ARN.
        role: String,
        /// Whom the token is for, as the role's trust policy has it.
        audience: String,
        /// The service account whose token it is; absent: the ambient one's.
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<String>,
    },
}

/// A key of the cloud's key service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encryption {
    /// S3: id or ARN of a KMS key. GCS: `projects/…/cryptoKeys/…`.
    pub kms_key: String,
}

/// Rights on new objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CannedAcl {
    /// The bucket's owner may do all with what we put into it.
    #[serde(rename = "bucket-owner-full-control")]
    BucketOwnerFullControl,
}

/// What is done where a name may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionalWrites {
    /// The store itself refuses the second put of a name. A store that doesn't is refused.
    #[default]
    Required,
    /// For stores that can't: we look first, then put. Of writers that race, the last wins and each believes it did. Bytes
    /// are deterministic, so that is harmless for what partners share, and never right for a ledger.
    Weak,
}

/// How long calls on a cloud's store wait, and how often they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To connect.
    pub connect: Duration,
    /// From a request to the head of its answer; uploads get another second for each 256 KiB.
    pub answer: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Tries of one call, the first included.
    pub attempts: u32,
    /// Before the second try, at most; twice as long before each further one.
    pub first_wait: Duration,
    /// Before any try, at most.
    pub longest_wait: Duration,
    /// Tries beyond calls' first ones that a mailbox has to spend; every ten successes earn one back.
    pub budget: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(20),
            attempts: 5,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(5),
            budget: 50,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_said_is_the_default_and_the_default_says_nothing() {
        assert_eq!(serde_json::from_str::<Access>("{}").unwrap(), Access::default());
        assert_eq!(serde_json::to_string(&Access::default()).unwrap(), "{}");
    }

    #[test]
    fn all_settings_are_written_and_read() {
        let text = concat!(
            r#"{"endpoint":"https://store:9000","pathStyle":true,"caBundle":"/ca.pem","credentials":{"awsFromGoogle":"#,
            r#"{"role":"arn:aws:iam::1:role/r","audience":"a"}},"encryption":{"kmsKey":"k"},"#,
            r#""cannedACL":"bucket-owner-full-control","conditionalWrites":"Weak"}"#
        );
        let access: Access = serde_json::from_str(text).unwrap();
        assert_eq!(access.conditional_writes, ConditionalWrites::Weak);
        assert_eq!(serde_json::to_string(&access).unwrap(), text);
    }

    #[test]
    fn unknown_settings_are_refused() {
        for text in [
            r#"{"pathstyle":true}"#,
            r#"{"credentials":{"secret":{"folder":"/a","key":"b"}}}"#,
            r#"{"credentials":"none"}"#,
            r#"{"cannedACL":"public-read"}"#,
        ] {
            assert!(serde_json::from_str::<Access>(text).is_err(), "{text}");
        }
    }
}
