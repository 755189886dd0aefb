//! What a bucket is asked of our rights and of its own rules.

use aws_sdk_s3::types::{ChecksumAlgorithm, ExpirationStatus, LifecycleRule};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::bucket::Bucket;
use crate::cloud::{OTHER_MD5, PROBE};
use crate::{ExpiryRule, MailboxError, ObjectKey, ProbeEnd};

impl Bucket {
    /// As [`Bucket::put`] of a small object, but with checksums of another content: the store refuses that, after it has
    /// looked at who we are. `Content-MD5` is as old as S3; compatible stores may not know the later ones.
    pub async fn may_put(&self, key: &ObjectKey) -> Result<ProbeEnd, MailboxError> {
        let name = &self.cloud.name(key)?;
        let checksum = &BASE64_STANDARD.encode(Sha256::digest(b"another content"));
        self.cloud
            .retry
            .run(|_| async move {
                let (encryption, kms_key) = self.encryption();
                let request = self
                    .client
                    .put_object()
                    .bucket(&self.bucket)
                    .key(name)
                    .body(Bytes::from_static(PROBE).into())
                    .content_md5(OTHER_MD5)
                    .checksum_algorithm(ChecksumAlgorithm::Sha256)
                    .checksum_sha256(checksum)
                    .set_acl(self.acl())
                    .set_server_side_encryption(encryption)
                    .set_ssekms_key_id(kms_key)
                    .set_if_none_match(self.cloud.required().then(|| "*".to_owned()));
                let answer = self.call("PutObject", self.cloud.answer_time(), request.send()).await;
                self.cloud.probe_end(key, answer.map(drop))
            })
            .await
    }

    /// The rules of its lifecycle that delete current objects of the mailbox.
    pub async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        let rules = self
            .cloud
            .retry
            .run(|_| async move {
                let request = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket);
                match self
                    .call(
                        "GetBucketLifecycleConfiguration",
                        self.cloud.answer_time(),
                        request.send(),
                    )
                    .await
                {
                    Ok(answer) => Ok(answer.rules.unwrap_or_default()),
                    Err(fault) if fault.no_rules => Ok(Vec::new()),
                    Err(fault) => Err(fault.into_error(&self.cloud.url, None)),
                }
            })
            .await?;
        Ok(rules.iter().filter_map(|rule| self.expiry_rule(rule)).collect())
    }

    fn expiry_rule(&self, rule: &LifecycleRule) -> Option<ExpiryRule> {
        let expiration = rule
            .expiration
            .as_ref()
            .filter(|_| rule.status == ExpirationStatus::Enabled)?;
        if expiration.days.is_none() && expiration.date.is_none() {
            return None;
        }
        let filter = rule.filter.as_ref();
        let and = filter.and_then(|filter| filter.and.as_ref());
        // Our objects have no tags.
        if filter.is_some_and(|filter| filter.tag.is_some()) || and.is_some_and(|and| !and.tags().is_empty()) {
            return None;
        }
        #[allow(deprecated)]
        let old = rule.prefix.as_deref();
        let prefix = filter
            .and_then(|filter| filter.prefix.as_deref())
            .or_else(|| and?.prefix.as_deref())
            .or(old)
            .unwrap_or_default();
        let days = expiration.days.and_then(|days| u64::try_from(days).ok());
        let sized = [
            filter.and_then(|filter| filter.object_size_greater_than),
            filter.and_then(|filter| filter.object_size_less_than),
            and.and_then(|and| and.object_size_greater_than),
            and.and_then(|and| and.object_size_less_than),
        ];
        Some(ExpiryRule {
            partly: sized.iter().any(Option::is_some),
            ..ExpiryRule::inside(&self.cloud.root, prefix, days)?
        })
    }
}
