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
use bytes::Bytes;

use self::bucket::{Bucket, Reading, content_of};
use self::upload::S3Upload;
use crate::body::{self, Check};
use crate::cloud::{Cloud, SHA256};
use crate::listing;
use crate::{
    Access, ExpiryRule, ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectBody,
    ObjectKey, ObjectMeta, Patience, PutOutcome, Upload,
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
        let first = content_of(bucket, key, answer);
        let check = Check::new(sha256, None);
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

    async fn may_put(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        self.bucket.may_put(key).await
    }

    async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        self.bucket.expiry_rules().await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        listing::list(&*self.bucket, &self.bucket.cloud.root, request).await
    }

    async fn check_conditional_writes(&self, key: &ObjectKey, content: Bytes) -> Result<(), MailboxError> {
        let bucket = &self.bucket;
        if !bucket.cloud.must_check() {
            return Ok(());
        }
        let replaces = |way| Err(bucket.cloud.replaces(key, "If-None-Match", way));
        if bucket.put(key, &content).await? == PutOutcome::Created
            && !Cloud::is_refusal(bucket.put(key, &content).await)?
        {
            return replaces("PutObject");
        }
        let mut upload = S3Upload::new(Arc::clone(bucket), key.clone());
        upload.begin().await?;
        upload.write(content).await?;
        if !Cloud::is_refusal(Box::new(upload).commit_if_absent().await)? {
            return replaces("CompleteMultipartUpload");
        }
        bucket.cloud.saw_refusals();
        Ok(())
    }
}
