//! An upload in parts: nothing is visible before it is completed, and parts that nobody completes are removed.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};

use super::bucket::Bucket;
use crate::body::crc32c_digest;
use crate::cloud::MARK;
use crate::{MailboxError, MailboxErrorKind, ObjectKey, PutOutcome, Upload};

/// Bytes of a part, the least that S3 takes. It takes 10,000 parts: each thousand of them is twice as long as the one before,
/// for any size.
const PART: usize = 5 << 20;

pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    gathered: BytesMut,
    /// The upload, once a part has been sent.
    started: Option<Started>,
    broken: bool,
}

#[derive(Clone)]
struct Started {
    name: String,
    id: String,
    mark: String,
    parts: Vec<CompletedPart>,
    whole: crc_fast::Digest,
    length: u64,
}

/// A CRC32C as S3 writes it.
fn crc32c_text(digest: &crc_fast::Digest) -> String {
    let value = u32::try_from(digest.finalize()).unwrap_or_default();
    BASE64_STANDARD.encode(value.to_be_bytes())
}

impl S3Upload {
    pub fn new(bucket: Arc<Bucket>, key: ObjectKey) -> Self {
        Self {
            bucket,
            key,
            gathered: BytesMut::new(),
            started: None,
            broken: false,
        }
    }

    fn part_size(&self) -> usize {
        let sent = self.started.as_ref().map_or(0, |started| started.parts.len());
        PART << (sent / 1000).min(16)
    }

    /// Starts the upload in parts, where it isn't yet.
    pub async fn begin(&mut self) -> Result<(), MailboxError> {
        if self.started.is_some() {
            return Ok(());
        }
        let (bucket, key) = (&self.bucket, &self.key);
        let (name, mark) = (bucket.cloud.name(key)?, uuid::Uuid::new_v4().to_string());
        let (named, marked) = (&name, &mark);
        let created = bucket
            .cloud
            .retry
            .run(|_| async move {
                let (encryption, kms_key) = bucket.encryption();
                let request = bucket
                    .client
                    .create_multipart_upload()
                    .bucket(&bucket.bucket)
                    .key(named)
                    .metadata(MARK, marked)
                    .checksum_algorithm(ChecksumAlgorithm::Crc32C)
                    .checksum_type(ChecksumType::FullObject)
                    .set_acl(bucket.acl())
                    .set_server_side_encryption(encryption)
                    .set_ssekms_key_id(kms_key);
                let answer = bucket
                    .call("CreateMultipartUpload", bucket.cloud.answer_time(), request.send())
                    .await;
                answer.map_err(|fault| bucket.error(fault, key))
            })
            .await?;
        let Some(id) = created.upload_id else {
            return Err(self.error(MailboxErrorKind::Io, "the store named no upload"));
        };
        self.started = Some(Started {
            name,
            id,
            mark,
            parts: Vec::new(),
            whole: crc32c_digest(),
            length: 0,
        });
        Ok(())
    }

    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        self.bucket.cloud.error(kind, &self.key, detail)
    }

    /// Sends what is gathered up to `length` bytes of it as the next part.
    async fn send(&mut self, length: usize) -> Result<(), MailboxError> {
        self.begin().await?;
        let content = self.gathered.split_to(length.min(self.gathered.len())).freeze();
        let Some(started) = &mut self.started else {
            return Ok(());
        };
        let mut digest = crc32c_digest();
        digest.update(&content);
        let (number, checksum) = (
            i32::try_from(started.parts.len() + 1).unwrap_or(i32::MAX),
            crc32c_text(&digest),
        );
        let (bucket, key) = (&self.bucket, &self.key);
        let (name, id, part, sum) = (&started.name, &started.id, &content, &checksum);
        let sent = bucket
            .cloud
            .retry
            .run(|_| async move {
                let request = bucket
                    .client
                    .upload_part()
                    .bucket(&bucket.bucket)
                    .key(name)
                    .upload_id(id)
                    .part_number(number)
                    .body(part.clone().into())
                    .checksum_crc32_c(sum);
                let answer = bucket
                    .call(
                        "UploadPart",
                        bucket.cloud.upload_time(part.len() as u64),
                        request.send(),
                    )
                    .await;
                answer.map_err(|fault| bucket.error(fault, key))
            })
            .await?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .checksum_crc32_c(checksum);
        started.parts.push(part.build());
        started.whole.update(&content);
        started.length += content.len() as u64;
        Ok(())
    }

    async fn complete(&self, started: &Started) -> Result<PutOutcome, MailboxError> {
        let bucket = &self.bucket;
        if !bucket.cloud.required() && bucket.head(&self.key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let parts = &CompletedMultipartUpload::builder()
            .set_parts(Some(started.parts.clone()))
            .build();
        // The store joins the parts before it answers.
        let patience = bucket.cloud.joining_time(started.length);
        bucket
            .cloud
            .retry
            .run(|tried| async move {
                let request = bucket
                    .client
                    .complete_multipart_upload()
                    .bucket(&bucket.bucket)
                    .key(&started.name)
                    .upload_id(&started.id)
                    .multipart_upload(parts.clone())
                    .checksum_crc32_c(crc32c_text(&started.whole))
                    .checksum_type(ChecksumType::FullObject)
                    .mpu_object_size(i64::try_from(started.length).unwrap_or(i64::MAX))
                    .set_if_none_match(bucket.cloud.required().then(|| "*".to_owned()));
                match bucket.call("CompleteMultipartUpload", patience, request.send()).await {
                    Ok(_) => Ok(PutOutcome::Created),
                    Err(fault) if tried > 0 && (fault.taken || fault.no_upload) => {
                        bucket.whose(&self.key, &started.mark).await
                    }
                    Err(fault) if fault.taken => Ok(PutOutcome::Exists),
                    Err(fault) => Err(bucket.error(fault, &self.key)),
                }
            })
            .await
    }
}

/// Removes the parts of an upload that won't be completed. What can't be removed now is the bucket's lifecycle rule's.
async fn remove(bucket: Arc<Bucket>, started: Started) -> Result<(), MailboxError> {
    let request = bucket.client.abort_multipart_upload().bucket(&bucket.bucket);
    let request = request.key(&started.name).upload_id(&started.id);
    match bucket
        .call("AbortMultipartUpload", bucket.cloud.answer_time(), request.send())
        .await
    {
        Err(fault) if !fault.no_upload => {
            let error = fault.into_error(&bucket.cloud.url, None);
            tracing::warn!(%error, object = started.name, parts = started.parts.len(), "an upload that was given up is left in the bucket");
            Err(error)
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError> {
        if self.broken {
            return Err(self.error(MailboxErrorKind::Io, "the upload was broken off by an earlier fault"));
        }
        let mut left = chunk.as_ref();
        while !left.is_empty() {
            // Room for one part and no more: a buffer that grows is copied, and twice as long.
            let room = self.part_size().saturating_sub(self.gathered.len());
            if self.gathered.is_empty() {
                self.gathered.reserve(PART);
            }
            let (now, later) = left.split_at(room.min(left.len()));
            self.gathered.extend_from_slice(now);
            left = later;
            if self.gathered.len() >= self.part_size() {
                // Also where this call is dropped half-way: its bytes are gone.
                self.broken = true;
                self.send(self.part_size()).await?;
                self.broken = false;
            }
        }
        Ok(())
    }

    async fn commit_if_absent(mut self: Box<Self>) -> Result<PutOutcome, MailboxError> {
        if self.broken {
            return Err(self.error(MailboxErrorKind::Io, "the upload was broken off by an earlier fault"));
        }
        if self.started.is_none() {
            return self.bucket.put(&self.key, &self.gathered.split().freeze()).await;
        }
        if !self.gathered.is_empty() || self.started.as_ref().is_some_and(|started| started.parts.is_empty()) {
            self.send(usize::MAX).await?;
        }
        let Some(started) = self.started.clone() else {
            return Err(self.error(MailboxErrorKind::Io, "the upload was broken off by an earlier fault"));
        };
        let outcome = self.complete(&started).await?;
        if outcome == PutOutcome::Created {
            self.started = None;
        } else {
            // Dropping it would remove the parts as well, but nobody would wait for it.
            let _ = self.abort().await;
        }
        Ok(outcome)
    }

    async fn abort(mut self: Box<Self>) -> Result<(), MailboxError> {
        match self.started.take() {
            Some(started) => remove(Arc::clone(&self.bucket), started).await,
            None => Ok(()),
        }
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        let Some(started) = self.started.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(remove(Arc::clone(&self.bucket), started))),
            Err(_) => tracing::warn!(
                object = started.name,
                parts = started.parts.len(),
                "an upload that was given up is left in the bucket"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::credentials::double::Double;
    use crate::{Access, Credentials, MailboxUrl, open_mailbox};

    const BEGIN: &str = "POST /bucket/us-ct/a?uploads";
    const GIVE_UP: &str = "DELETE /bucket/us-ct/a?";
    const BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    const UNKNOWN: &str = "<Error><Code>NotImplemented</Code><Message>no</Message></Error>";

    /// Asks a double of S3 that gives these answers whether we may put; gives what it was asked, too.
    async fn may_begin(answers: &[(&'static str, u16, &str)]) -> (Result<(), MailboxError>, Vec<String>) {
        let answers = answers
            .iter()
            .map(|(what, status, text)| (*what, *status, (*text).to_owned()));
        let double = Double::start(answers.collect()).await;
        let access = Access {
            endpoint: Some(double.url.clone()),
            path_style: true,
            credentials: Credentials::Anonymous,
            ..Access::default()
        };
        let url = MailboxUrl::parse("s3://us-east-1/bucket/us-ct").unwrap();
        let mailbox = open_mailbox(&url, &access).unwrap();
        let answer = mailbox.may_begin_upload(&ObjectKey::parse("a").unwrap()).await;
        let asked = double.asked();
        assert!(asked.iter().all(|asked| asked.body.is_empty()), "{asked:?}");
        (answer, asked.into_iter().map(|asked| asked.what).collect())
    }

    #[tokio::test]
    async fn the_right_to_put_shows_by_an_upload_without_parts() {
        let given_up = "DELETE /bucket/us-ct/a?x-id=AbortMultipartUpload&uploadId=u";
        // Whether it may be given up is no matter.
        for (status, text) in [(204, ""), (403, DENIED)] {
            let (answer, asked) = may_begin(&[(BEGIN, 200, BEGUN), (GIVE_UP, status, text)]).await;
            answer.unwrap();
            assert_eq!(asked, [BEGIN, given_up], "{status}");
        }
        use MailboxErrorKind::{Denied, Io, NoSuchMailbox, Unsupported};
        let gone = "<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>";
        for (status, text, kind) in [
            (403, DENIED, Denied),
            (404, gone, NoSuchMailbox),
            (501, UNKNOWN, Unsupported),
            (405, "", Io),
            (200, "<InitiateMultipartUploadResult/>", Io),
        ] {
            let (answer, asked) = may_begin(&[(BEGIN, status, text)]).await;
            let error = answer.unwrap_err();
            assert_eq!(
                (error.kind(), asked),
                (kind, vec![BEGIN.to_owned()]),
                "{status}: {error}"
            );
            assert_eq!(
                error.to_string().contains("CreateMultipartUpload"),
                kind == Denied,
                "{error}"
            );
        }
    }
}
