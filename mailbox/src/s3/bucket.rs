//! Calls on a bucket.

use std::sync::{Arc, OnceLock};
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
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::body::{Source, hex};
use crate::cloud::{Cloud, MARK, SHA256};
use crate::error::chain;
use crate::fault::Fault;
use crate::listing::{Answer, Listed, Lister, Query};
use crate::{
    Access, ByteStream, CannedAcl, MailboxError, MailboxErrorKind, MailboxUrl, ObjectKey, ObjectMeta, Patience,
    PutOutcome, credentials, transport,
};

/// A bucket, or a prefix of one.
#[derive(Debug)]
pub(super) struct Bucket {
    pub cloud: Cloud,
    pub region: String,
    pub bucket: String,
    pub client: Client,
}

impl Bucket {
    /// Opens no connection yet.
    pub fn new(
        url: &MailboxUrl,
        place: (&str, &str, &str),
        access: &Access,
        patience: Patience,
    ) -> Result<Self, MailboxError> {
        let (region, bucket, prefix) = place;
        let endpoint = transport::endpoint(url, access)?;
        let plain = endpoint
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
        config.set_endpoint_url(endpoint);
        config = match credentials::for_aws(url, region, access, &patience)? {
            Some(provider) => config.credentials_provider(provider),
            None => config.allow_no_auth(),
        };
        Ok(Self {
            cloud: Cloud::new(url, prefix, access, patience),
            region: region.to_owned(),
            bucket: bucket.to_owned(),
            client: Client::from_conf(config.build()),
        })
    }

    pub fn acl(&self) -> Option<ObjectCannedAcl> {
        self.cloud.access.canned_acl.map(|acl| match acl {
            CannedAcl::BucketOwnerFullControl => ObjectCannedAcl::BucketOwnerFullControl,
        })
    }

    pub fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let key = self
            .cloud
            .access
            .encryption
            .as_ref()
            .map(|encryption| encryption.kms_key.clone());
        (key.as_ref().map(|_| ServerSideEncryption::AwsKms), key)
    }

    /// Waits for the answer to one operation.
    pub async fn call<T, E>(
        &self,
        operation: &str,
        patience: Duration,
        answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(value)) => {
                self.cloud.saw_bucket();
                Ok(value)
            }
            Ok(Err(error)) => Err(Fault::of(&error, &self.region).of_operation(operation)),
            Err(_) => {
                let detail = format!("no answer within {} s", patience.as_secs_f32());
                Err(Fault::new(MailboxErrorKind::Unavailable, detail))
            }
        }
    }

    pub fn error(&self, fault: Fault, key: &ObjectKey) -> MailboxError {
        fault.into_error(&self.cloud.url, Some(key))
    }

    /// The object's metadata and mark.
    pub async fn head(&self, key: &ObjectKey) -> Result<Option<(ObjectMeta, Option<String>)>, MailboxError> {
        let name = &self.cloud.name(key)?;
        self.cloud
            .retry
            .run(|_| async move {
                let answer = self.client.head_object().bucket(&self.bucket).key(name).send();
                let head = match self.call("HeadObject", self.cloud.answer_time(), answer).await {
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
    pub async fn check_bucket(&self) -> Result<(), MailboxError> {
        if self.cloud.has_seen_bucket() {
            return Ok(());
        }
        let answer = self.client.head_bucket().bucket(&self.bucket).send();
        match self.call("HeadBucket", self.cloud.answer_time(), answer).await {
            Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
                Err(Fault::new(MailboxErrorKind::NoSuchMailbox, "").into_error(&self.cloud.url, None))
            }
            // Whoever may not ask can't be told more.
            _ => Ok(()),
        }
    }

    pub fn meta(
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
                Err(self.cloud.error(MailboxErrorKind::Io, key, detail))
            }
        }
    }

    /// One answer with the bytes that `range` names; with `version`, of that version alone.
    pub async fn get(
        &self,
        key: &ObjectKey,
        range: Option<String>,
        version: Option<String>,
    ) -> Result<GetObjectOutput, Fault> {
        let name = self.cloud.name(key).map_err(|e| Fault::new(e.kind(), e.to_string()))?;
        let whole = range.is_none().then_some(ChecksumMode::Enabled);
        let request = self.client.get_object().bucket(&self.bucket).key(name);
        let request = request.set_range(range).set_if_match(version).set_checksum_mode(whole);
        self.call("GetObject", self.cloud.answer_time(), request.send()).await
    }

    /// After a refusal of a name that an earlier try of ours may have taken: whose put was it?
    pub async fn whose(&self, key: &ObjectKey, mark: &str) -> Result<PutOutcome, MailboxError> {
        let found = self.head(key).await;
        self.cloud
            .whose(key, mark, found.map(|found| found.map(|(_, mark)| mark)))
    }

    pub async fn put(&self, key: &ObjectKey, content: &Bytes) -> Result<PutOutcome, MailboxError> {
        let name = self.cloud.name(key)?;
        if !self.cloud.required() && self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let (name, mark) = (&name, &uuid::Uuid::new_v4().to_string());
        let digest = &Sha256::digest(content);
        self.cloud
            .retry
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
                    .set_if_none_match(self.cloud.required().then(|| "*".to_owned()));
                match self
                    .call(
                        "PutObject",
                        self.cloud.upload_time(content.len() as u64),
                        request.send(),
                    )
                    .await
                {
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
pub(super) fn content_of(bucket: &Arc<Bucket>, key: &ObjectKey, answer: GetObjectOutput) -> ByteStream {
    let state = (answer.body, Arc::clone(bucket), key.clone());
    futures::stream::try_unfold(state, |(mut body, bucket, key)| async move {
        match body.try_next().await {
            Ok(chunk) => Ok(chunk.map(|chunk| (chunk, (body, bucket, key)))),
            Err(error) => {
                let detail = chain(&error);
                let kind = if detail.contains("checksum mismatch") {
                    MailboxErrorKind::Corrupt
                } else {
                    MailboxErrorKind::Unavailable
                };
                Err(bucket.cloud.error(kind, &key, detail))
            }
        }
    })
    .boxed()
}

/// A content that is being read.
pub(super) struct Reading {
    pub bucket: Arc<Bucket>,
    pub key: ObjectKey,
    pub version: Option<String>,
}

#[async_trait]
impl Source for Reading {
    async fn reopen(&self, offset: u64) -> Result<ByteStream, MailboxError> {
        match self
            .bucket
            .get(&self.key, Some(format!("bytes={offset}-")), self.version.clone())
            .await
        {
            Ok(answer) => Ok(content_of(&self.bucket, &self.key, answer)),
            Err(fault) if fault.taken => {
                Err(self.error(MailboxErrorKind::Corrupt, "it was replaced while it was read"))
            }
            Err(fault) => Err(self.bucket.error(fault, &self.key)),
        }
    }

    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        self.bucket.cloud.error(kind, &self.key, detail)
    }
}

/// Takes the clock from an answer: the SDK keeps its headers to itself.
#[derive(Clone, Debug, Default)]
struct StoreTime(Arc<OnceLock<Timestamp>>);

#[dyn_dispatch_hint]
impl Intercept for StoreTime {
    fn name(&self) -> &'static str {
        "StoreTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(time) = transport::time_of(context.response().headers().get("date")) {
            let _ = self.0.set(time);
        }
        Ok(())
    }
}

#[async_trait]
impl Lister for Bucket {
    async fn ask(&self, query: Query<'_>) -> Result<Answer, MailboxError> {
        let query = &query;
        let (page, time) = self
            .cloud
            .retry
            .run(|_| async move {
                let date = StoreTime::default();
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
                let answer = request.customize().interceptor(date.clone()).send();
                match self.call("ListObjectsV2", self.cloud.answer_time(), answer).await {
                    Ok(page) => Ok((page, date.0.get().copied())),
                    Err(fault) => Err(fault.into_error(&self.cloud.url, None)),
                }
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
            time,
        })
    }

    fn error(&self, detail: &str) -> MailboxError {
        MailboxError::of_mailbox(MailboxErrorKind::Io, &self.cloud.url, detail)
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
