//! Mailboxes in S3 and in stores that speak its protocol.
//!
//! Small objects go by one PutObject with `If-None-Match: *`, larger ones by a multipart upload that ends with the same
//! condition. Each put carries a random mark in its metadata, so that a put whose answer was lost is told apart from
//! another writer's; and the content's SHA-256, where it is known when the put begins.

mod bucket;
mod fault;
mod rights;
mod upload;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumType;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use self::bucket::{Bucket, Reading, content_of};
use self::upload::S3Upload;
use crate::body::{self, Check};
use crate::cloud::SHA256;
use crate::listing;
use crate::{
    Access, ExpiryRule, ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectBody,
    ObjectKey, ObjectMeta, Patience, ProbeEnd, PutOutcome, Upload,
};

/// A mailbox in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct S3Mailbox {
    bucket: Arc<Bucket>,
}

impl S3Mailbox {
    /// Opens no connection yet. `place`: region, bucket, prefix.
    pub fn new(
        url: &MailboxUrl,
        place: (&str, &str, &str),
        access: &Access,
        patience: Patience,
    ) -> Result<Self, MailboxError> {
        let bucket = Arc::new(Bucket::new(url, place, access, patience)?);
        Ok(Self { bucket })
    }
}

/// What the whole content is compared with: the SDK's own check ends with the answer that the checksum came with, and a
/// content that is cut comes in several. `sha256` is our metadata's. A checksum over those of parts can't be compared.
fn check_of(answer: &GetObjectOutput, sha256: Option<String>) -> Check {
    if answer.checksum_type() == Some(&ChecksumType::Composite) {
        return Check::new(sha256, None);
    }
    // With the number of parts at its end it isn't base64.
    let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
    let sha256 = sha256.or_else(|| {
        let digest = decode(answer.checksum_sha256()?).filter(|digest| digest.len() == 32)?;
        Some(body::hex(&digest))
    });
    let known = [
        (CrcAlgorithm::Crc32Iscsi, 4, answer.checksum_crc32_c()),
        (CrcAlgorithm::Crc64Nvme, 8, answer.checksum_crc64_nvme()),
        (CrcAlgorithm::Crc32IsoHdlc, 4, answer.checksum_crc32()),
    ];
    let crc = known.into_iter().find_map(|(algorithm, length, text)| {
        let bytes = decode(text?).filter(|bytes| bytes.len() == length)?;
        let value = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Some((algorithm, value))
    });
    Check::new(sha256, crc)
}

#[async_trait]
impl Mailbox for S3Mailbox {
    fn url(&self) -> &MailboxUrl {
        &self.bucket.cloud.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let bucket = &self.bucket;
        let answer = bucket
            .cloud
            .retry
            .run(|_| async move {
                bucket
                    .get(key, None, None)
                    .await
                    .map_err(|fault| bucket.error(fault, key))
            })
            .await?;
        let sha256 = answer.metadata().and_then(|all| all.get(SHA256)).cloned();
        let meta = bucket.meta(key, answer.content_length(), answer.last_modified(), sha256.clone())?;
        let reading = Reading {
            bucket: Arc::clone(bucket),
            key: key.clone(),
            version: answer.e_tag().map(str::to_owned),
        };
        let check = check_of(&answer, sha256);
        let first = content_of(bucket, key, answer);
        let stream = body::stream(
            Box::new(reading),
            first,
            meta.size,
            check,
            Arc::clone(&bucket.cloud.retry),
        );
        Ok(ObjectBody { meta, stream })
    }

    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        let bucket = &self.bucket;
        let Some(range) = &body::range(offset, length) else {
            let there = self.head(key).await?;
            let absent = || bucket.cloud.error(MailboxErrorKind::NotFound, key, "");
            return there.map(|_| Bytes::new()).ok_or_else(absent);
        };
        bucket
            .cloud
            .retry
            .run(|_| async move {
                match bucket.get(key, Some(range.clone()), None).await {
                    Ok(answer) => {
                        let announced = answer.content_length().and_then(|length| u64::try_from(length).ok());
                        let content = content_of(bucket, key, answer);
                        body::part(
                            content,
                            announced,
                            length,
                            &bucket.cloud.retry.patience,
                            |kind, detail| bucket.cloud.error(kind, key, detail),
                        )
                        .await
                    }
                    Err(fault) if fault.out_of_range => Ok(Bytes::new()),
                    Err(fault) => Err(bucket.error(fault, key)),
                }
            })
            .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        Ok(self.bucket.head(key).await?.map(|(meta, _)| meta))
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.bucket.cloud.name(key)?;
        Ok(Box::new(S3Upload::new(Arc::clone(&self.bucket), key.clone())))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.bucket.put(key, &content).await
    }

    async fn may_put(&self, key: &ObjectKey) -> Result<ProbeEnd, MailboxError> {
        self.bucket.may_put(key).await
    }

    async fn may_begin_upload(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        let mut upload = Box::new(S3Upload::new(Arc::clone(&self.bucket), key.clone()));
        upload.begin().await?;
        // Where that is refused, an upload without parts stays. Objects are listed without it, and it costs nothing.
        let _ = upload.abort().await;
        Ok(())
    }

    async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        self.bucket.expiry_rules().await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        listing::list(&*self.bucket, &self.bucket.cloud.root, request).await
    }

    async fn check_conditional_writes(&self, key: &ObjectKey, content: Bytes) -> Result<(), MailboxError> {
        let bucket = &self.bucket;
        let whole = || bucket.put(key, &content);
        let pieces = async {
            let mut upload = S3Upload::new(Arc::clone(bucket), key.clone());
            upload.begin().await?;
            upload.write(content.clone()).await?;
            Ok(Box::new(upload) as Box<dyn Upload>)
        };
        let (whole, pieces) = (("PutObject", whole), ("CompleteMultipartUpload", pieces));
        bucket
            .cloud
            .check_conditional_writes(key, "If-None-Match", whole, pieces)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256_OF_DIGITS: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";

    /// The store's checksums of `123456789`, of whole objects and of parts.
    #[test]
    fn a_content_is_compared_with_every_checksum_of_the_whole() {
        use ChecksumType::{Composite, FullObject};
        let answer = GetObjectOutput::builder;
        let sha256 = BASE64_STANDARD.encode([
            0x15, 0xe2, 0xb0, 0xd3, 0xc3, 0x38, 0x91, 0xeb, 0xb0, 0xf1, 0xef, 0x60, 0x9e, 0xc4, 0x19, 0x42, 0x0c, 0x20,
            0xe3, 0x20, 0xce, 0x94, 0xc6, 0x5f, 0xbc, 0x8c, 0x33, 0x12, 0x44, 0x8e, 0xb2, 0x25,
        ]);
        for (name, answer, ours, found) in [
            ("CRC32C", answer().checksum_crc32_c("4waSgw=="), None, Some("CRC32C")),
            (
                "CRC32C of parts",
                answer().checksum_crc32_c("4waSgw==").checksum_type(FullObject),
                None,
                Some("CRC32C"),
            ),
            (
                "CRC64NVME",
                answer().checksum_crc64_nvme("rosUhgp5mIg="),
                None,
                Some("CRC64NVME"),
            ),
            ("CRC32", answer().checksum_crc32("y/Q5Jg=="), None, Some("CRC")),
            ("SHA-256", answer().checksum_sha256(&sha256), None, Some("SHA-256")),
            ("ours", answer(), Some(SHA256_OF_DIGITS), Some("SHA-256")),
            ("nothing", answer(), None, None),
            ("a sum of sums", answer().checksum_crc32_c("4waSgw==-3"), None, None),
            (
                "a sum of sums by its type",
                answer().checksum_crc32_c("4waSgw==").checksum_type(Composite),
                None,
                None,
            ),
            ("too short", answer().checksum_crc32_c("4waS"), None, None),
        ] {
            let answer = answer.build();
            let check = || check_of(&answer, ours.map(str::to_owned));
            assert_eq!(check().whole(b"123456789"), None, "{name}");
            let fault = check().whole(b"123456780");
            assert_eq!(fault.is_some(), found.is_some(), "{name}: {fault:?}");
            assert!(
                found.is_none_or(|found| fault.is_some_and(|fault| fault.contains(found))),
                "{name}: {fault:?}"
            );
        }
    }
}
