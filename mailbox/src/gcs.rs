//! Mailboxes in Google Cloud Storage and in stores that speak its JSON interface.
//!
//! Every upload is one request with `uploadType=multipart` and `ifGenerationMatch=0`, small ones whole, larger ones as they
//! are written: of GCS's ways to upload it alone takes metadata, honours the condition on every server that we know, and
//! leaves nothing behind where it is cut. Each put carries a random mark in its metadata, so that a put whose answer was
//! lost is told apart from another writer's; and the content's SHA-256, where it is known when the put begins.

mod bucket;
mod rights;
mod upload;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use self::bucket::{Bucket, Reading, announced, content_of, crc32c_of};
use self::upload::GcsUpload;
use crate::body::{self, Check};
use crate::cloud::SHA256;
use crate::listing;
use crate::{
    Access, ExpiryRule, ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectBody,
    ObjectKey, ObjectMeta, Patience, ProbeEnd, PutOutcome, Upload,
};

/// A mailbox in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct GcsMailbox {
    bucket: Arc<Bucket>,
}

impl GcsMailbox {
    /// Opens no connection yet. `place`: bucket, prefix.
    pub fn new(
        url: &MailboxUrl,
        place: (&str, &str),
        access: &Access,
        patience: Patience,
    ) -> Result<Self, MailboxError> {
        let bucket = Arc::new(Bucket::new(url, place, access, patience)?);
        Ok(Self { bucket })
    }
}

fn as_crc(crc32c: u32) -> (CrcAlgorithm, u64) {
    (CrcAlgorithm::Crc32Iscsi, crc32c.into())
}

#[async_trait]
impl Mailbox for GcsMailbox {
    fn url(&self) -> &MailboxUrl {
        &self.bucket.cloud.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let bucket = &self.bucket;
        let absent = || bucket.cloud.error(MailboxErrorKind::NotFound, key, "");
        // The content's own answer doesn't tell when the object was made.
        let object = &bucket.object(key).await?.ok_or_else(absent)?;
        let meta = bucket.meta(key, object)?;
        let answer = bucket
            .cloud
            .retry
            .run(|_| async move {
                let answer = bucket.get(key, None, Some(&object.generation)).await;
                answer.map_err(|fault| bucket.error(fault, key))
            })
            .await?;
        let crc32c = object.crc32c.as_deref().and_then(wire::crc32c_value);
        let check = Check::new(meta.sha256.clone(), crc32c.map(as_crc));
        let reading = Reading {
            bucket: Arc::clone(bucket),
            key: key.clone(),
            generation: object.generation.clone(),
        };
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

    async fn read(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, MailboxError> {
        let bucket = &self.bucket;
        let error = |kind, detail| bucket.cloud.error(kind, key, detail);
        let error = &error;
        bucket
            .cloud
            .retry
            .run(|_| async move {
                let answer = match bucket.get(key, None, None).await {
                    Ok(answer) => answer,
                    Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
                        bucket.check_bucket().await?;
                        return Err(bucket.error(fault, key));
                    }
                    Err(fault) => return Err(bucket.error(fault, key)),
                };
                let (size, crc32c) = (announced(answer.headers()), crc32c_of(answer.headers()));
                if let Some(size) = size.filter(|size| *size > limit) {
                    let detail = format!("{size} bytes, where at most {limit} are expected");
                    return Err(error(MailboxErrorKind::TooLarge, detail));
                }
                let sha256 = answer.headers().get(format!("x-goog-meta-{SHA256}"));
                let mut check = Check::new(
                    sha256.and_then(|value| value.to_str().ok()).map(str::to_owned),
                    crc32c.map(as_crc),
                );
                let content = body::part(
                    content_of(bucket, key, answer),
                    size,
                    limit,
                    &bucket.cloud.retry.patience,
                    error,
                )
                .await?;
                check.whole(&content).map_or(Ok(content), |fault| {
                    Err(error(MailboxErrorKind::Corrupt, fault.to_owned()))
                })
            })
            .await
    }

    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        let bucket = &self.bucket;
        let error = |kind, detail| bucket.cloud.error(kind, key, detail);
        let Some(range) = &body::range(offset, length) else {
            let there = self.head(key).await?;
            return there
                .map(|_| Bytes::new())
                .ok_or_else(|| error(MailboxErrorKind::NotFound, String::new()));
        };
        let error = &error;
        bucket
            .cloud
            .retry
            .run(|_| async move {
                match bucket.get(key, Some(range), None).await {
                    Ok(answer) => {
                        let size = announced(answer.headers());
                        body::part(
                            content_of(bucket, key, answer),
                            size,
                            length,
                            &bucket.cloud.retry.patience,
                            error,
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
        let object = self.bucket.object(key).await?;
        object.map(|object| self.bucket.meta(key, &object)).transpose()
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.bucket.cloud.name(key)?;
        Ok(Box::new(GcsUpload::new(Arc::clone(&self.bucket), key.clone())))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        upload::put(&self.bucket, key, &content).await
    }

    async fn may_put(&self, key: &ObjectKey) -> Result<ProbeEnd, MailboxError> {
        rights::may_put(&self.bucket, key).await
    }

    async fn may_begin_upload(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        rights::may_begin_upload(&self.bucket, key).await
    }

    async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        self.bucket.expiry_rules().await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        listing::list(&*self.bucket, &self.bucket.cloud.root, request).await
    }

    async fn check_conditional_writes(&self, key: &ObjectKey, content: Bytes) -> Result<(), MailboxError> {
        let bucket = &self.bucket;
        let whole = || upload::put(bucket, key, &content);
        let pieces = async {
            let mut upload = GcsUpload::new(Arc::clone(bucket), key.clone());
            upload.begin().await?;
            upload.write(content.clone()).await?;
            Ok(Box::new(upload) as Box<dyn Upload>)
        };
        let (whole, pieces) = (
            ("uploadType=multipart, whole", whole),
            ("uploadType=multipart, in pieces", pieces),
        );
        bucket
            .cloud
            .check_conditional_writes(key, "ifGenerationMatch=0", whole, pieces)
            .await
    }
}

#[cfg(test)]
mod tests;
