//! What a bucket is asked of our rights and of its own rules.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::bucket::Bucket;
use crate::cloud::{PROBE, TOOK_THE_PROBE};
use crate::{ExpiryRule, MailboxError, MailboxErrorKind, ObjectKey};

impl Bucket {
    /// As [`Bucket::put`] of a small object, but with the checksum of another content: the store refuses that, after it has
    /// looked at who we are.
    pub async fn may_put(&self, key: &ObjectKey) -> Result<(), MailboxError> {
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
                    .checksum_sha256(checksum)
                    .set_acl(self.acl())
                    .set_server_side_encryption(encryption)
                    .set_ssekms_key_id(kms_key)
                    .set_if_none_match(self.cloud.required().then(|| "*".to_owned()));
                match self.call(self.cloud.answer_time(), request.send()).await {
                    Ok(_) => Err(self.cloud.error(MailboxErrorKind::Unsupported, key, TOOK_THE_PROBE)),
                    Err(fault) if fault.taken || fault.bad_content => Ok(()),
                    Err(fault) => Err(self.error(fault, key)),
                }
            })
            .await
    }

    /// The rules of its lifecycle that delete current objects of the mailbox, whatever their tags and size.
    pub async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        let rules = self
            .cloud
            .retry
            .run(|_| async move {
                let request = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket);
                match self.call(self.cloud.answer_time(), request.send()).await {
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
        ExpiryRule::inside(&self.cloud.root, prefix, days)
    }
}
