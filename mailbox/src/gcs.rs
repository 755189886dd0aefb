//! Mailboxes in Google Cloud Storage and in stores that speak its JSON interface.
//!
//! Every upload is one request with `uploadType=multipart` and `ifGenerationMatch=0`, small ones whole, larger ones as they
//! are written: of GCS's ways to upload it alone takes metadata, honours the condition on every server that we know, and
//! leaves nothing behind where it is cut. Each put carries a random mark in its metadata, so that a put whose answer was
//! lost is told apart from another writer's; and the content's SHA-256, where it is known when the put begins.

mod upload;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, RANGE};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use self::upload::GcsUpload;
use self::wire::{Fault, LIST_FIELDS, OBJECT_FIELDS, Object, Page};
use crate::body::{self, Check, Source};
use crate::credentials::google::Tokens;
use crate::error::chain;
use crate::listing::{self, Answer, Listed, Lister, Query};
use crate::retry::Retry;
use crate::{
    Access, ByteStream, ConditionalWrites, ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl,
    ObjectBody, ObjectKey, ObjectMeta, Patience, PutOutcome, Upload, credentials, transport,
};

/// Metadata of our objects: the content's SHA-256, lower-case hex.
const SHA256: &str = "prio-operator-sha256";
/// Metadata of our objects: a random mark of the put.
const MARK: &str = "prio-operator-put";
const ENDPOINT: &str = "https://storage.googleapis.com";
/// What a path's segment may hold as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A mailbox in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct GcsMailbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: MailboxUrl,
    bucket: String,
    /// Empty, or the prefix with a `/`.
    root: String,
    access: Access,
    endpoint: String,
    http: reqwest::Client,
    /// `None`: requests carry no token.
    tokens: Option<Tokens>,
    retry: Arc<Retry>,
    /// The bucket has been seen: a missing object is no missing bucket.
    seen: AtomicBool,
}

impl GcsMailbox {
    /// Opens no connection yet.
    pub fn new(
        url: &MailboxUrl,
        place: (&str, &str),
        access: &Access,
        patience: Patience,
    ) -> Result<Self, MailboxError> {
        let (bucket, prefix) = place;
        let endpoint = access
            .endpoint
            .as_deref()
            .unwrap_or(ENDPOINT)
            .trim_end_matches('/')
            .to_owned();
        let plain = endpoint.starts_with("http://");
        Ok(Self {
            inner: Arc::new(Inner {
                url: url.clone(),
                bucket: bucket.to_owned(),
                root: if prefix.is_empty() {
                    String::new()
                } else {
                    format!("{prefix}/")
                },
                http: transport::client(url, access, &patience, plain)?,
                tokens: credentials::for_gcs(url, access, &patience)?,
                access: access.clone(),
                endpoint,
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

    fn bucket_url(&self, upload: bool) -> String {
        let upload = if upload { "/upload" } else { "" };
        let bucket = utf8_percent_encode(&self.bucket, SEGMENT);
        format!("{}{upload}/storage/v1/b/{bucket}/o", self.endpoint)
    }

    fn object_url(&self, name: &str) -> String {
        format!("{}/{}", self.bucket_url(false), utf8_percent_encode(name, SEGMENT))
    }

    fn error(&self, fault: Fault, key: &ObjectKey) -> MailboxError {
        fault.into_error(&self.url, Some(key))
    }

    /// How long the answer to an upload of `length` bytes may take.
    fn upload_time(&self, length: u64) -> Duration {
        self.retry.patience.answer + Duration::from_millis(length.saturating_mul(1000) / (256 << 10))
    }

    /// Sends a request and waits for the head of a successful answer.
    async fn send(&self, request: RequestBuilder, patience: Duration, of_bucket: bool) -> Result<Response, Fault> {
        let call = async {
            let request = match &self.tokens {
                Some(tokens) => request.header(AUTHORIZATION, tokens.bearer().await.map_err(Fault::from)?),
                None => request,
            };
            let response = request.send().await.map_err(of_no_answer)?;
            if response.status().is_success() {
                return Ok(response);
            }
            let status = response.status().as_u16();
            // A body that is cut or long says nothing more.
            let body = response.bytes().await.unwrap_or_default();
            Err(wire::classify(status, &body, of_bucket))
        };
        let answer = tokio::time::timeout(patience, call).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", patience.as_secs_f32());
            Err(Fault::new(MailboxErrorKind::Unavailable, detail))
        });
        match &answer {
            Ok(_) => self.seen.store(true, Ordering::Relaxed),
            Err(fault) if fault.unauthorized => self.tokens.iter().for_each(Tokens::forget),
            Err(_) => {}
        }
        answer
    }

    /// As [`Inner::send`], once more with another token where the first was refused: it may have been revoked.
    async fn call(&self, request: RequestBuilder, patience: Duration, of_bucket: bool) -> Result<Response, Fault> {
        let again = request.try_clone();
        match (self.send(request, patience, of_bucket).await, again) {
            (Err(fault), Some(again)) if fault.unauthorized && self.tokens.is_some() => {
                self.send(again, patience, of_bucket).await
            }
            (answer, _) => answer,
        }
    }

    /// The answer's JSON.
    async fn json<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Fault> {
        let body = match tokio::time::timeout(self.retry.patience.idle, answer.bytes()).await {
            Ok(body) => body.map_err(of_no_answer)?,
            Err(_) => return Err(Fault::new(MailboxErrorKind::Unavailable, "its answer stalls")),
        };
        serde_json::from_slice(&body).map_err(|error| Fault::new(MailboxErrorKind::Io, format!("its answer: {error}")))
    }

    async fn object(&self, key: &ObjectKey) -> Result<Option<Object>, MailboxError> {
        let url = &self.object_url(&self.name(key)?);
        let found = self
            .retry
            .run(|_| async move {
                let request = self.http.get(url).query(&[("fields", OBJECT_FIELDS)]);
                let answer = self.call(request, self.retry.patience.answer, false).await;
                match answer {
                    Ok(answer) => self
                        .json(answer)
                        .await
                        .map(Some)
                        .map_err(|fault| self.error(fault, key)),
                    Err(fault) if fault.kind == MailboxErrorKind::NotFound => Ok(None),
                    Err(fault) => Err(self.error(fault, key)),
                }
            })
            .await?;
        if found.is_none() {
            self.check_bucket().await?;
        }
        Ok(found)
    }

    /// A bucket that isn't there must not look like an empty mailbox: a 404 doesn't always tell which is missing.
    async fn check_bucket(&self) -> Result<(), MailboxError> {
        if self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = self
            .http
            .get(self.bucket_url(false))
            .query(&[("maxResults", "1"), ("fields", "nextPageToken")]);
        match self.call(request, self.retry.patience.answer, true).await {
            Err(fault) if fault.kind == MailboxErrorKind::NoSuchMailbox => Err(fault.into_error(&self.url, None)),
            // Whoever may not ask can't be told more.
            _ => Ok(()),
        }
    }

    fn meta(&self, key: &ObjectKey, object: &Object) -> Result<ObjectMeta, MailboxError> {
        let size = object.size.parse().map_err(|_| {
            let detail = format!("the store says its length is {:?}", object.size);
            MailboxError::of_object(MailboxErrorKind::Io, &self.url, key, detail)
        })?;
        Ok(ObjectMeta {
            key: key.clone(),
            size,
            modified: object.time_created,
            sha256: object.metadata.get(SHA256).cloned(),
        })
    }

    /// One answer with content; with `generation`, of that version alone.
    async fn get(&self, key: &ObjectKey, range: Option<&str>, generation: Option<&str>) -> Result<Response, Fault> {
        let name = self.name(key).map_err(Fault::from)?;
        let mut request = self.http.get(self.object_url(&name)).query(&[("alt", "media")]);
        if let Some(generation) = generation {
            request = request.query(&[("generation", generation)]);
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        self.call(request, self.retry.patience.answer, false).await
    }

    /// After a refusal of a name that an earlier try of ours may have taken: whose put was it?
    async fn whose(&self, key: &ObjectKey, mark: &str) -> Result<PutOutcome, MailboxError> {
        match self.object(key).await {
            Ok(Some(object)) if object.metadata.get(MARK).is_some_and(|found| found == mark) => Ok(PutOutcome::Created),
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
}

impl From<MailboxError> for Fault {
    fn from(error: MailboxError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// What it means that no answer came.
fn of_no_answer(error: reqwest::Error) -> Fault {
    // The place is in the mailbox's error already.
    let detail = chain(&error.without_url());
    let settings = detail.contains("certificate");
    Fault::new(
        if settings {
            MailboxErrorKind::Configuration
        } else {
            MailboxErrorKind::Unavailable
        },
        detail,
    )
}

/// The content of an answer.
fn content_of(inner: &Arc<Inner>, key: &ObjectKey, answer: Response) -> ByteStream {
    let (inner, key) = (Arc::clone(inner), key.clone());
    let stream = answer.bytes_stream();
    stream
        .map_err(move |error| inner.error(of_no_answer(error), &key))
        .boxed()
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn crc32c_of(headers: &HeaderMap) -> Option<u32> {
    wire::crc32c_in(
        headers
            .get_all("x-goog-hash")
            .iter()
            .filter_map(|value| value.to_str().ok()),
    )
}

/// A content that is being read.
struct Reading {
    inner: Arc<Inner>,
    key: ObjectKey,
    generation: String,
}

#[async_trait]
impl Source for Reading {
    async fn reopen(&self, offset: u64) -> Result<ByteStream, MailboxError> {
        let range = format!("bytes={offset}-");
        match self.inner.get(&self.key, Some(&range), Some(&self.generation)).await {
            Ok(answer) => Ok(content_of(&self.inner, &self.key, answer)),
            Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
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
        // The start is inclusive: one more, and it is left out below.
        let limit = (query.limit + usize::from(query.after.is_some())).min(1000).to_string();
        let mut wanted = vec![
            ("prefix", query.prefix),
            ("maxResults", &limit),
            ("fields", LIST_FIELDS),
        ];
        wanted.extend(query.after.map(|after| ("startOffset", after)));
        wanted.extend(query.folders.then_some(("delimiter", "/")));
        let mut answer = Answer::default();
        let mut token: Option<String> = None;
        loop {
            let (wanted, from) = (&wanted, &token);
            let page: Page = self
                .retry
                .run(|_| async move {
                    let request = self.http.get(self.bucket_url(false)).query(wanted);
                    let request = request.query(&from.as_ref().map(|token| [("pageToken", token)]));
                    let answer = self.call(request, self.retry.patience.answer, true).await;
                    let page = match answer {
                        Ok(answer) => self.json(answer).await,
                        Err(fault) => Err(fault),
                    };
                    page.map_err(|fault| fault.into_error(&self.url, None))
                })
                .await?;
            for object in page.items {
                if query.after.is_none_or(|after| object.name.as_str() > after) {
                    answer.objects.push(Listed {
                        size: object.size.parse().unwrap_or_default(),
                        modified: object.time_created,
                        sha256: object.metadata.get(SHA256).cloned(),
                        name: object.name,
                    });
                }
            }
            answer.folders.extend(page.prefixes);
            answer.more = page.next_page_token.is_some();
            // A page may be empty, and not the last.
            if !answer.more || !answer.objects.is_empty() || !answer.folders.is_empty() {
                return Ok(answer);
            }
            token = page.next_page_token;
        }
    }

    fn error(&self, detail: &str) -> MailboxError {
        MailboxError::of_mailbox(MailboxErrorKind::Io, &self.url, detail)
    }
}

#[async_trait]
impl Mailbox for GcsMailbox {
    fn url(&self) -> &MailboxUrl {
        &self.inner.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let inner = &self.inner;
        let absent = || MailboxError::of_object(MailboxErrorKind::NotFound, &inner.url, key, "");
        // The content's own answer doesn't tell when the object was made.
        let object = &inner.object(key).await?.ok_or_else(absent)?;
        let meta = inner.meta(key, object)?;
        let answer = inner
            .retry
            .run(|_| async move {
                let answer = inner.get(key, None, Some(&object.generation)).await;
                answer.map_err(|fault| inner.error(fault, key))
            })
            .await?;
        let crc32c = object.crc32c.as_deref().and_then(wire::crc32c_value);
        let check = Check::new(meta.sha256.clone(), crc32c);
        let reading = Reading {
            inner: Arc::clone(inner),
            key: key.clone(),
            generation: object.generation.clone(),
        };
        let first = content_of(inner, key, answer);
        let stream = body::stream(Box::new(reading), first, meta.size, check, Arc::clone(&inner.retry));
        Ok(ObjectBody { meta, stream })
    }

    async fn read(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, MailboxError> {
        let inner = &self.inner;
        let error = |kind, detail| MailboxError::of_object(kind, &inner.url, key, detail);
        let error = &error;
        inner
            .retry
            .run(|_| async move {
                let answer = match inner.get(key, None, None).await {
                    Ok(answer) => answer,
                    Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
                        inner.check_bucket().await?;
                        return Err(inner.error(fault, key));
                    }
                    Err(fault) => return Err(inner.error(fault, key)),
                };
                let (size, crc32c) = (announced(answer.headers()), crc32c_of(answer.headers()));
                if let Some(size) = size.filter(|size| *size > limit) {
                    let detail = format!("{size} bytes, where at most {limit} are expected");
                    return Err(error(MailboxErrorKind::TooLarge, detail));
                }
                let sha256 = answer.headers().get(format!("x-goog-meta-{SHA256}"));
                let mut check = Check::new(sha256.and_then(|value| value.to_str().ok()).map(str::to_owned), crc32c);
                let content = body::part(
                    content_of(inner, key, answer),
                    size,
                    limit,
                    &inner.retry.patience,
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
        let inner = &self.inner;
        let error = |kind, detail| MailboxError::of_object(kind, &inner.url, key, detail);
        let Some(range) = &body::range(offset, length) else {
            let there = self.head(key).await?;
            return there
                .map(|_| Bytes::new())
                .ok_or_else(|| error(MailboxErrorKind::NotFound, String::new()));
        };
        let error = &error;
        inner
            .retry
            .run(|_| async move {
                match inner.get(key, Some(range), None).await {
                    Ok(answer) => {
                        let size = announced(answer.headers());
                        body::part(
                            content_of(inner, key, answer),
                            size,
                            length,
                            &inner.retry.patience,
                            error,
                        )
                        .await
                    }
                    Err(fault) if fault.out_of_range => Ok(Bytes::new()),
                    Err(fault) => Err(inner.error(fault, key)),
                }
            })
            .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        let object = self.inner.object(key).await?;
        object.map(|object| self.inner.meta(key, &object)).transpose()
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.name(key)?;
        Ok(Box::new(GcsUpload::new(Arc::clone(&self.inner), key.clone())))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        upload::put(&self.inner, key, &content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        listing::list(&*self.inner, &self.inner.root, request).await
    }

    async fn check_conditional_writes(&self, key: &ObjectKey, content: Bytes) -> Result<(), MailboxError> {
        let inner = &self.inner;
        if !inner.required() {
            return Ok(());
        }
        let mut outcome = upload::put(inner, key, &content).await?;
        if outcome == PutOutcome::Created {
            outcome = upload::put(inner, key, &content).await?;
        }
        if outcome == PutOutcome::Exists {
            // The same kind of upload, but in pieces and of a length that isn't announced.
            let mut upload = GcsUpload::new(Arc::clone(inner), key.clone());
            upload.begin().await?;
            upload.write(content).await?;
            outcome = Box::new(upload).commit_if_absent().await?;
        }
        match outcome {
            PutOutcome::Exists => Ok(()),
            PutOutcome::Created => {
                let detail = "it replaces an object that is there although ifGenerationMatch=0 forbids it (uploadType=multipart): \
                              use a store that honours preconditions, or set conditionalWrites to Weak where writers can't race";
                Err(MailboxError::of_object(
                    MailboxErrorKind::Unsupported,
                    &inner.url,
                    key,
                    detail,
                ))
            }
        }
    }
}
