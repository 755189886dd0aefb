//! Mailboxes in S3 and in stores that speak its protocol.
//!
//! Small objects go by one PutObject with `If-None-Match: *`, larger ones by a multipart upload that ends with the same
//! condition. Each put carries a random mark in its metadata, so that a put whose answer was lost is told apart from
//! another writer's; and the content's SHA-256, where it is known when the put begins.

mod fault;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ChecksumMode, EncodingType, ObjectCannedAcl, ServerSideEncryption};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use self::fault::Fault;
use self::upload::S3Upload;
use crate::body::{self, Check, Source, hex};
use crate::error::chain;
use crate::listing::{self, Answer, Listed, Lister, Query};
use crate::retry::Retry;
use crate::{
    Access, ByteStream, CannedAcl, ConditionalWrites, ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind,
    MailboxUrl, ObjectBody, ObjectKey, ObjectMeta, Patience, PutOutcome, Upload, credentials, transport,
};

/// Metadata of our objects: the content's SHA-256, lower-case hex.
const SHA256: &str = "prio-operator-sha256";
/// Metadata of our objects: a random mark of the put.
const MARK: &str = "prio-operator-put";

/// A mailbox in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct S3Mailbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: MailboxUrl,
    region: String,
    bucket: String,
    /// Empty, or the prefix with a `/`.
    root: String,
    access: Access,
    client: Client,
    retry: Arc<Retry>,
    /// The bucket has been seen: a missing object is no missing bucket.
    seen: AtomicBool,
}

impl S3Mailbox {
    /// Opens no connection yet.
    pub fn new(
        url: &MailboxUrl,
        place: (&str, &str, &str),
        access: &Access,
        patience: Patience,
    ) -> Result<Self, MailboxError> {
        let (region, bucket, prefix) = place;
        let plain = access
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(transport::for_aws(url, access, plain)?)
            .timeout_config(TimeoutConfig::builder().connect_timeout(patience.connect).build())
            .force_path_style(access.path_style)
            // Ours, one for all stores: waits and budgets are the same everywhere, and we know that a put was tried before.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported);
        config.set_endpoint_url(access.endpoint.clone());
        config = match credentials::for_aws(url, region, access, &patience)? {
            Some(provider) => config.credentials_provider(provider),
            None => config.allow_no_auth(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                url: url.clone(),
                region: region.to_owned(),
                bucket: bucket.to_owned(),
                root: if prefix.is_empty() {
                    String::new()
                } else {
                    format!("{prefix}/")
                },
                access: access.clone(),
                client: Client::from_conf(config.build()),
                retry: Arc::new(Retry::new(patience)),
                seen: AtomicBool::new(false),
            }),
        })
    }
}

impl Inner {
    fn name(&self, key: &ObjectKey) -> Result<String, MailboxError> {
        let name = format!("{}{key}", self.root);
        if name.len() > ObjectKey::MAX_BYTES {
            let detail = "with the mailbox's prefix it is longer than 1024 bytes";
            return Err(MailboxError::of_object(
                MailboxErrorKind::InvalidKey,
                &self.url,
                key,
                detail,
            ));
        }
        Ok(name)
    }

    fn required(&self) -> bool {
        self.access.conditional_writes == ConditionalWrites::Required
    }

    fn acl(&self) -> Option<ObjectCannedAcl> {
        self.access.canned_acl.map(|acl| match acl {
            CannedAcl::BucketOwnerFullControl => ObjectCannedAcl::BucketOwnerFullControl,
        })
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let key = self
            .access
            .encryption
            .as_ref()
            .map(|encryption| encryption.kms_key.clone());
        (key.as_ref().map(|_| ServerSideEncryption::AwsKms), key)
    }

    /// How long the answer to an upload of `length` bytes may take.
    fn upload_time(&self, length: usize) -> Duration {
        self.retry.patience.answer + Duration::from_millis(length as u64 * 1000 / (256 << 10))
    }

    /// Waits for one answer.
    async fn call<T, E>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(value)) => {
                self.seen.store(true, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => Err(Fault::of(&error, &self.region)),
            Err(_) => {
                let detail = format!("no answer within {} s", patience.as_secs_f32());
                Err(Fault::new(MailboxErrorKind::Unavailable, detail))
            }
        }
    }

    fn error(&self, fault: Fault, key: &ObjectKey) -> MailboxError {
        fault.into_error(&self.url, Some(key))
    }

    /// The object's metadata and mark.
    async fn head(&self, key: &ObjectKey) -> Result<Option<(ObjectMeta, Option<String>)>, MailboxError> {
        let name = &self.name(key)?;
        self.retry
            .run(|_| async move {
                let answer = self.client.head_object().bucket(&self.bucket).key(name).send();
                let head = match self.call(self.retry.patience.answer, answer).await {
                    Ok(head) => head,
                    Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
                        self.check_bucket().await?;
                        return Ok(None);
                    }
                    Err(fault) => return Err(self.error(fault, key)),
                };
                let metadata = |name: &str| head.metadata().and_then(|all| all.get(name)).cloned();
                let meta = self.meta(key, head.content_length(), head.last_modified(), metadata(SHA256))?;
                Ok(Some((meta, metadata(MARK))))
            })
            .await
    }

    /// A bucket that isn't there must not look like an empty mailbox: an answer to HEAD doesn't tell which is missing.
    async fn check_bucket(&self) -> Result<(), MailboxError> {
        if self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let answer = self.client.head_bucket().bucket(&self.bucket).send();
        match self.call(self.retry.patience.answer, answer).await {
            Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
                Err(Fault::new(MailboxErrorKind::NoSuchMailbox, "").into_error(&self.url, None))
            }
            // Whoever may not ask can't be told more.
            _ => Ok(()),
        }
    }

    fn meta(
        &self,
        key: &ObjectKey,
        size: Option<i64>,
        modified: Option<&DateTime>,
        sha256: Option<String>,
    ) -> Result<ObjectMeta, MailboxError> {
        let size = size.and_then(|size| u64::try_from(size).ok());
        // Whole seconds, as HEAD shows them: a listing must not tell another time.
        let modified = modified.and_then(|time| Timestamp::from_second(time.secs()).ok());
        match (size, modified) {
            (Some(size), Some(modified)) => Ok(ObjectMeta {
                key: key.clone(),
                size,
                modified,
                sha256,
            }),
            _ => {
                let detail = "the store doesn't tell its length and time";
                Err(MailboxError::of_object(MailboxErrorKind::Io, &self.url, key, detail))
            }
        }
    }

    /// One answer with the bytes that `range` names; with `version`, of that version alone.
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<String>,
        version: Option<String>,
    ) -> Result<GetObjectOutput, Fault> {
        let name = self.name(key).map_err(|e| Fault::new(e.kind(), e.to_string()))?;
        let whole = range.is_none().then_some(ChecksumMode::Enabled);
        let request = self.client.get_object().bucket(&self.bucket).key(name);
        let request = request.set_range(range).set_if_match(version).set_checksum_mode(whole);
        self.call(self.retry.patience.answer, request.send()).await
    }

    /// After a refusal of a name that an earlier try of ours may have taken: whose put was it?
    async fn whose(&self, key: &ObjectKey, mark: &str) -> Result<PutOutcome, MailboxError> {
        match self.head(key).await {
            Ok(Some((_, Some(found)))) if found == mark => Ok(PutOutcome::Created),
            Ok(Some(_)) => Ok(PutOutcome::Exists),
            Ok(None) => {
                let detail = "the store refused the put of a name that isn't there";
                Err(MailboxError::of_object(
                    MailboxErrorKind::Unavailable,
                    &self.url,
                    key,
                    detail,
                ))
            }
            // Whoever may not read can't be told more.
            Err(error) if error.kind() == MailboxErrorKind::Denied => Ok(PutOutcome::Exists),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, key: &ObjectKey, content: &Bytes) -> Result<PutOutcome, MailboxError> {
        let name = self.name(key)?;
        if !self.required() && self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let (name, mark) = (&name, &uuid::Uuid::new_v4().to_string());
        let digest = &Sha256::digest(content);
        self.retry
            .run(|tried| async move {
                let (encryption, kms_key) = self.encryption();
                let request = self
                    .client
                    .put_object()
                    .bucket(&self.bucket)
                    .key(name)
                    .body(content.clone().into())
                    .checksum_sha256(BASE64_STANDARD.encode(digest))
                    .metadata(SHA256, hex(digest))
                    .metadata(MARK, mark)
                    .set_acl(self.acl())
                    .set_server_side_encryption(encryption)
                    .set_ssekms_key_id(kms_key)
                    .set_if_none_match(self.required().then(|| "*".to_owned()));
                match self.call(self.upload_time(content.len()), request.send()).await {
                    Ok(_) => Ok(PutOutcome::Created),
                    Err(fault) if fault.taken && tried > 0 => self.whose(key, mark).await,
                    Err(fault) if fault.taken => Ok(PutOutcome::Exists),
                    Err(fault) => Err(self.error(fault, key)),
                }
            })
            .await
    }
}

/// The content of an answer.
fn content_of(inner: &Arc<Inner>, key: &ObjectKey, answer: GetObjectOutput) -> ByteStream {
    let state = (answer.body, Arc::clone(inner), key.clone());
    futures::stream::try_unfold(state, |(mut body, inner, key)| async move {
        match body.try_next().await {
            Ok(chunk) => Ok(chunk.map(|chunk| (chunk, (body, inner, key)))),
            Err(error) => {
                let detail = chain(&error);
                let kind = if detail.contains("checksum mismatch") {
                    MailboxErrorKind::Corrupt
                } else {
                    MailboxErrorKind::Unavailable
                };
                Err(MailboxError::of_object(kind, &inner.url, &key, detail))
            }
        }
    })
    .boxed()
}

/// A content that is being read.
struct Reading {
    inner: Arc<Inner>,
    key: ObjectKey,
    version: Option<String>,
}

#[async_trait]
impl Source for Reading {
    async fn reopen(&self, offset: u64) -> Result<ByteStream, MailboxError> {
        match self
            .inner
            .get(&self.key, Some(format!("bytes={offset}-")), self.version.clone())
            .await
        {
            Ok(answer) => Ok(content_of(&self.inner, &self.key, answer)),
            Err(fault) if fault.taken => {
                Err(self.error(MailboxErrorKind::Corrupt, "it was replaced while it was read"))
            }
            Err(fault) => Err(self.inner.error(fault, &self.key)),
        }
    }

    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        MailboxError::of_object(kind, &self.inner.url, &self.key, detail)
    }
}

#[async_trait]
impl Lister for Inner {
    async fn ask(&self, query: Query<'_>) -> Result<Answer, MailboxError> {
        let query = &query;
        let page = self
            .retry
            .run(|_| async move {
                let request = self
                    .client
                    .list_objects_v2()
                    .bucket(&self.bucket)
                    .prefix(query.prefix)
                    .set_start_after(query.after.map(str::to_owned))
                    .set_delimiter(query.folders.then(|| "/".to_owned()))
                    // Names may hold what XML can't.
                    .encoding_type(EncodingType::Url)
                    .max_keys(i32::try_from(query.limit).unwrap_or(1000));
                let answer = self.call(self.retry.patience.answer, request.send()).await;
                answer.map_err(|fault| fault.into_error(&self.url, None))
            })
            .await?;
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        let name = |name: Option<&str>| decode(name.unwrap_or_default(), encoded);
        let listed = |object: &aws_sdk_s3::types::Object| Listed {
            name: name(object.key()),
            size: object
                .size()
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or_default(),
            modified: object
                .last_modified()
                .and_then(|time| Timestamp::from_second(time.secs()).ok())
                .unwrap_or_default(),
            sha256: None,
        };
        Ok(Answer {
            objects: page.contents().iter().map(listed).collect(),
            folders: page
                .common_prefixes()
                .iter()
                .map(|folder| name(folder.prefix()))
                .collect(),
            more: page.is_truncated().unwrap_or_default(),
        })
    }

    fn error(&self, detail: &str) -> MailboxError {
        MailboxError::of_mailbox(MailboxErrorKind::Io, &self.url, detail)
    }
}

/// A name as a listing shows it; S3 writes a space as `+`.
fn decode(name: &str, encoded: bool) -> String {
    if !encoded {
        return name.to_owned();
    }
    let spaced = name.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
}

#[async_trait]
impl Mailbox for S3Mailbox {
    fn url(&self) -> &MailboxUrl {
        &self.inner.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let inner = &self.inner;
        let answer = inner
            .retry
            .run(|_| async move {
                inner
                    .get(key, None, None)
                    .await
                    .map_err(|fault| inner.error(fault, key))
            })
            .await?;
        let sha256 = answer.metadata().and_then(|all| all.get(SHA256)).cloned();
        let meta = inner.meta(key, answer.content_length(), answer.last_modified(), sha256.clone())?;
        let reading = Reading {
            inner: Arc::clone(inner),
            key: key.clone(),
            version: answer.e_tag().map(str::to_owned),
        };
        let first = content_of(inner, key, answer);
        let check = Check::new(sha256, None);
        let stream = body::stream(Box::new(reading), first, meta.size, check, Arc::clone(&inner.retry));
        Ok(ObjectBody { meta, stream })
    }

    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        let inner = &self.inner;
        let Some(range) = &body::range(offset, length) else {
            let there = self.head(key).await?;
            let absent = || MailboxError::of_object(MailboxErrorKind::NotFound, &inner.url, key, "");
            return there.map(|_| Bytes::new()).ok_or_else(absent);
        };
        inner
            .retry
            .run(|_| async move {
                match inner.get(key, Some(range.clone()), None).await {
                    Ok(answer) => {
                        let announced = answer.content_length().and_then(|length| u64::try_from(length).ok());
                        let content = content_of(inner, key, answer);
                        body::part(content, announced, length, &inner.retry.patience, |kind, detail| {
                            MailboxError::of_object(kind, &inner.url, key, detail)
                        })
                        .await
                    }
                    Err(fault) if fault.out_of_range => Ok(Bytes::new()),
                    Err(fault) => Err(inner.error(fault, key)),
                }
            })
            .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        Ok(self.inner.head(key).await?.map(|(meta, _)| meta))
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.name(key)?;
        Ok(Box::new(S3Upload::new(Arc::clone(&self.inner), key.clone())))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.inner.put(key, &content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        listing::list(&*self.inner, &self.inner.root, request).await
    }

    async fn check_conditional_writes(&self, key: &ObjectKey, content: Bytes) -> Result<(), MailboxError> {
        if !self.inner.required() {
            return Ok(());
        }
        let inner = &self.inner;
        let refused = |path: &str| {
            let detail = format!(
                "it replaces an object that is there although If-None-Match forbids it ({path}): use a store that honours \
                 conditional writes, or set conditionalWrites to Weak where writers can't race"
            );
            MailboxError::of_object(MailboxErrorKind::Unsupported, &inner.url, key, detail)
        };
        if inner.put(key, &content).await? == PutOutcome::Created
            && inner.put(key, &content).await? == PutOutcome::Created
        {
            return Err(refused("PutObject"));
        }
        let mut upload = S3Upload::new(Arc::clone(inner), key.clone());
        upload.begin().await?;
        upload.write(content).await?;
        match Box::new(upload).commit_if_absent().await? {
            PutOutcome::Created => Err(refused("CompleteMultipartUpload")),
            PutOutcome::Exists => Ok(()),
        }
    }
}
