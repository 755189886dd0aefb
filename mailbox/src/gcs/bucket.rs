//! Calls on a bucket.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, RANGE};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::wire::{self, LIST_FIELDS, OBJECT_FIELDS, Object, Page};
use crate::body::Source;
use crate::cloud::{Cloud, MARK, SHA256};
use crate::credentials::google::Tokens;
use crate::error::chain;
use crate::fault::Fault;
use crate::listing::{Answer, Listed, Lister, Query};
use crate::{
    Access, ByteStream, ExpiryRule, MailboxError, MailboxErrorKind, MailboxUrl, ObjectKey, ObjectMeta, Patience,
    PutOutcome, credentials, transport,
};

const ENDPOINT: &str = "https://storage.googleapis.com";
/// What a path's segment may hold as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A bucket, or a prefix of one.
#[derive(Debug)]
pub(super) struct Bucket {
    pub cloud: Cloud,
    bucket: String,
    endpoint: String,
    pub http: reqwest::Client,
    /// `None`: requests carry no token.
    pub tokens: Option<Tokens>,
}

impl Bucket {
    /// Opens no connection yet.
    pub fn new(
        url: &MailboxUrl,
        place: (&str, &str),
        access: &Access,
        patience: Patience,
    ) -> Result<Self, MailboxError> {
        let (bucket, prefix) = place;
        let endpoint = transport::endpoint(url, access)?.unwrap_or_else(|| ENDPOINT.to_owned());
        let plain = endpoint.starts_with("http://");
        let tokens = credentials::for_gcs(url, access, &patience)?;
        if plain && tokens.is_some() {
            let detail = "a token opens every bucket of its owner's and is sent by https:// alone: use such an endpoint, or \
                          no credentials (anonymous)";
            return Err(MailboxError::of_mailbox(MailboxErrorKind::Configuration, url, detail));
        }
        Ok(Self {
            http: transport::client(url, access, &patience, plain)?,
            tokens,
            cloud: Cloud::new(url, prefix, access, patience),
            bucket: bucket.to_owned(),
            endpoint,
        })
    }

    pub fn bucket_url(&self, upload: bool) -> String {
        let upload = if upload { "/upload" } else { "" };
        let bucket = utf8_percent_encode(&self.bucket, SEGMENT);
        format!("{}{upload}/storage/v1/b/{bucket}/o", self.endpoint)
    }

    pub fn object_url(&self, name: &str) -> String {
        format!("{}/{}", self.bucket_url(false), utf8_percent_encode(name, SEGMENT))
    }

    pub fn error(&self, fault: Fault, key: &ObjectKey) -> MailboxError {
        fault.into_error(&self.cloud.url, Some(key))
    }

    /// Sends a request and waits for the head of a successful answer.
    pub async fn send(&self, request: RequestBuilder, patience: Duration, of_bucket: bool) -> Result<Response, Fault> {
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
            Ok(_) => self.cloud.saw_bucket(),
            Err(fault) if fault.unauthorized => self.tokens.iter().for_each(Tokens::forget),
            Err(_) => {}
        }
        answer
    }

    /// As [`Bucket::send`], once more with another token where the first was refused: it may have been revoked.
    pub async fn call(&self, request: RequestBuilder, patience: Duration, of_bucket: bool) -> Result<Response, Fault> {
        let again = request.try_clone();
        match (self.send(request, patience, of_bucket).await, again) {
            (Err(fault), Some(again)) if fault.unauthorized && self.tokens.is_some() => {
                self.send(again, patience, of_bucket).await
            }
            (answer, _) => answer,
        }
    }

    /// Makes sure that the store takes the token, where there is one; another takes the place of one that it refuses. What is
    /// sent in pieces is gone when the answer comes. Whether the object is there, and may be read, makes no difference.
    pub async fn show_token(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        if self.tokens.is_none() {
            return Ok(());
        }
        let request = self.http.get(self.object_url(&self.cloud.name(key)?));
        let request = request.query(&[("fields", "name")]);
        match self.call(request, self.cloud.answer_time(), false).await {
            Err(fault) if fault.of_identity => Err(self.error(fault, key)),
            _ => Ok(()),
        }
    }

    /// The answer's JSON.
    pub async fn json<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Fault> {
        let body = match tokio::time::timeout(self.cloud.retry.patience.idle, answer.bytes()).await {
            Ok(body) => body.map_err(of_no_answer)?,
            Err(_) => return Err(Fault::new(MailboxErrorKind::Unavailable, "its answer stalls")),
        };
        serde_json::from_slice(&body).map_err(|error| Fault::new(MailboxErrorKind::Io, format!("its answer: {error}")))
    }

    pub async fn object(&self, key: &ObjectKey) -> Result<Option<Object>, MailboxError> {
        let url = &self.object_url(&self.cloud.name(key)?);
        let found = self
            .cloud
            .retry
            .run(|_| async move {
                let request = self.http.get(url).query(&[("fields", OBJECT_FIELDS)]);
                let answer = self.call(request, self.cloud.answer_time(), false).await;
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
    pub async fn check_bucket(&self) -> Result<(), MailboxError> {
        if self.cloud.has_seen_bucket() {
            return Ok(());
        }
        let request = self
            .http
            .get(self.bucket_url(false))
            .query(&[("maxResults", "1"), ("fields", "nextPageToken")]);
        match self.call(request, self.cloud.answer_time(), true).await {
            Err(fault) if fault.kind == MailboxErrorKind::NoSuchMailbox => Err(fault.into_error(&self.cloud.url, None)),
            // Whoever may not ask can't be told more.
            _ => Ok(()),
        }
    }

    /// The rules of its lifecycle that delete objects of the mailbox.
    pub async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        let url = &self.bucket_url(false);
        let url = url.strip_suffix("/o").unwrap_or(url);
        let resource: wire::BucketResource = self
            .cloud
            .retry
            .run(|_| async move {
                let request = self.http.get(url).query(&[("fields", "lifecycle")]);
                let resource = match self.call(request, self.cloud.answer_time(), true).await {
                    Ok(answer) => self.json(answer).await,
                    Err(fault) => Err(fault),
                };
                resource.map_err(|fault| fault.into_error(&self.cloud.url, None))
            })
            .await?;
        Ok(resource.expiry_rules(&self.cloud.root))
    }

    pub fn meta(&self, key: &ObjectKey, object: &Object) -> Result<ObjectMeta, MailboxError> {
        let size = object.size.parse().map_err(|_| {
            let detail = format!("the store says its length is {:?}", object.size);
            self.cloud.error(MailboxErrorKind::Io, key, detail)
        })?;
        Ok(ObjectMeta {
            key: key.clone(),
            size,
            modified: object.time_created,
            sha256: object.metadata.get(SHA256).cloned(),
        })
    }

    /// One answer with content; with `generation`, of that version alone.
    pub async fn get(&self, key: &ObjectKey, range: Option<&str>, generation: Option<&str>) -> Result<Response, Fault> {
        let name = self.cloud.name(key).map_err(Fault::from)?;
        let mut request = self.http.get(self.object_url(&name)).query(&[("alt", "media")]);
        if let Some(generation) = generation {
            request = request.query(&[("generation", generation)]);
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        self.call(request, self.cloud.answer_time(), false).await
    }

    /// After a refusal of a name that an earlier try of ours may have taken: whose put was it?
    pub async fn whose(&self, key: &ObjectKey, mark: &str) -> Result<PutOutcome, MailboxError> {
        let found = self.object(key).await;
        let mark_of = |object: Object| object.metadata.get(MARK).cloned();
        self.cloud.whose(key, mark, found.map(|found| found.map(mark_of)))
    }
}

impl From<MailboxError> for Fault {
    fn from(error: MailboxError) -> Self {
        let mut fault = Self::new(error.kind(), error.to_string());
        // Of whoever gives tokens.
        fault.of_identity = error.kind() == MailboxErrorKind::Denied;
        fault
    }
}

/// What it means that no answer came.
fn of_no_answer(error: reqwest::Error) -> Fault {
    use MailboxErrorKind::{Configuration, Unavailable};
    let settings = error.is_builder();
    // The place is in the mailbox's error already.
    let detail = chain(&error.without_url());
    let settings = settings || detail.contains("certificate");
    Fault::new(if settings { Configuration } else { Unavailable }, detail)
}

/// The content of an answer.
pub(super) fn content_of(bucket: &Arc<Bucket>, key: &ObjectKey, answer: Response) -> ByteStream {
    let (bucket, key) = (Arc::clone(bucket), key.clone());
    let stream = answer.bytes_stream();
    stream
        .map_err(move |error| bucket.error(of_no_answer(error), &key))
        .boxed()
}

pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn crc32c_of(headers: &HeaderMap) -> Option<u32> {
    wire::crc32c_in(
        headers
            .get_all("x-goog-hash")
            .iter()
            .filter_map(|value| value.to_str().ok()),
    )
}

/// A content that is being read.
pub(super) struct Reading {
    pub bucket: Arc<Bucket>,
    pub key: ObjectKey,
    pub generation: String,
}

#[async_trait]
impl Source for Reading {
    async fn reopen(&self, offset: u64) -> Result<ByteStream, MailboxError> {
        let range = format!("bytes={offset}-");
        match self.bucket.get(&self.key, Some(&range), Some(&self.generation)).await {
            Ok(answer) => Ok(content_of(&self.bucket, &self.key, answer)),
            Err(fault) if fault.kind == MailboxErrorKind::NotFound => {
                Err(self.error(MailboxErrorKind::Corrupt, "it was replaced while it was read"))
            }
            Err(fault) => Err(self.bucket.error(fault, &self.key)),
        }
    }

    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        self.bucket.cloud.error(kind, &self.key, detail)
    }
}

#[async_trait]
impl Lister for Bucket {
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
            let (page, time): (Page, _) = self
                .cloud
                .retry
                .run(|_| async move {
                    let request = self.http.get(self.bucket_url(false)).query(wanted);
                    let request = request.query(&from.as_ref().map(|token| [("pageToken", token)]));
                    let answer = self.call(request, self.cloud.answer_time(), true).await;
                    let page = match answer {
                        Ok(answer) => {
                            let date = answer.headers().get(reqwest::header::DATE);
                            let time = transport::time_of(date.and_then(|date| date.to_str().ok()));
                            self.json(answer).await.map(|page| (page, time))
                        }
                        Err(fault) => Err(fault),
                    };
                    page.map_err(|fault| fault.into_error(&self.cloud.url, None))
                })
                .await?;
            answer.time = answer.time.or(time);
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
        MailboxError::of_mailbox(MailboxErrorKind::Io, &self.cloud.url, detail)
    }
}
