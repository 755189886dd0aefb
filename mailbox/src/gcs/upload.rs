//! Uploads: one request with `uploadType=multipart`, whole or in pieces as they are written.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bucket::Bucket;
use super::wire::{OBJECT_FIELDS, Object, crc32c_text};

use crate::body::{crc32c_digest, hex};
use crate::cloud::{MARK, SHA256};
use crate::fault::Fault;
use crate::{MailboxError, MailboxErrorKind, ObjectKey, PutOutcome, Upload};

/// Objects up to so many bytes are put whole, and again where the put is cut.
const WHOLE: usize = 8 << 20;
/// The longest piece of a longer one.
const PIECE: usize = 1 << 20;
/// Pieces that wait to be sent.
const PIECES: usize = 4;

pub(super) fn crc32c_value(digest: &crc_fast::Digest) -> u32 {
    u32::try_from(digest.finalize()).unwrap_or_default()
}

/// What goes around the content.
pub(super) struct Envelope {
    /// Also the parts' boundary.
    mark: String,
    pub head: Bytes,
    pub tail: Bytes,
}

impl Envelope {
    pub fn new(name: &str, whole: Option<(&str, u32)>) -> Self {
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let mut resource = serde_json::json!({
            "name": name,
            "contentType": "application/octet-stream",
            "metadata": {MARK: mark},
        });
        if let Some((sha256, crc32c)) = whole {
            resource["metadata"][SHA256] = sha256.into();
            resource["crc32c"] = crc32c_text(crc32c).into();
        }
        let head = format!(
            "--{mark}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{resource}\r\n\
             --{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        Self {
            head: head.into(),
            tail: format!("\r\n--{mark}--\r\n").into(),
            mark,
        }
    }
}

impl Bucket {
    /// A request for an upload of this type.
    pub fn upload_of(&self, kind: &str) -> reqwest::RequestBuilder {
        let mut wanted = vec![("uploadType", kind)];
        wanted.extend(self.cloud.required().then_some(("ifGenerationMatch", "0")));
        wanted.extend(
            self.cloud
                .access
                .encryption
                .as_ref()
                .map(|key| ("kmsKeyName", key.kms_key.as_str())),
        );
        wanted.extend(
            self.cloud
                .access
                .canned_acl
                .map(|_| ("predefinedAcl", "bucketOwnerFullControl")),
        );
        self.http.post(self.bucket_url(true)).query(&wanted)
    }

    pub fn upload(&self, envelope: &Envelope, body: reqwest::Body) -> reqwest::RequestBuilder {
        let kind = format!("multipart/related; boundary={}", envelope.mark);
        let request = self.upload_of("multipart").query(&[("fields", OBJECT_FIELDS)]);
        request.header(CONTENT_TYPE, kind).body(body)
    }
}

/// Puts an object whole.
pub(super) async fn put(bucket: &Arc<Bucket>, key: &ObjectKey, content: &Bytes) -> Result<PutOutcome, MailboxError> {
    let name = bucket.cloud.name(key)?;
    if !bucket.cloud.required() && bucket.object(key).await?.is_some() {
        return Ok(PutOutcome::Exists);
    }
    let mut crc32c = crc32c_digest();
    crc32c.update(content);
    let sha256 = hex(&Sha256::digest(content));
    let envelope = &Envelope::new(&name, Some((&sha256, crc32c_value(&crc32c))));
    let body = &Bytes::from([&envelope.head, content, &envelope.tail].map(|part| &part[..]).concat());
    bucket
        .cloud
        .retry
        .run(|tried| async move {
            let request = bucket.upload(envelope, body.clone().into());
            match bucket
                .call(request, bucket.cloud.upload_time(body.len() as u64), true)
                .await
            {
                Ok(_) => Ok(PutOutcome::Created),
                Err(fault) if fault.taken && tried > 0 => bucket.whose(key, &envelope.mark).await,
                Err(fault) if fault.taken => Ok(PutOutcome::Exists),
                Err(fault) => Err(bucket.error(fault, key)),
            }
        })
        .await
}

/// An upload in pieces: the request runs while they are written.
pub(super) struct GcsUpload {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    gathered: BytesMut,
    state: State,
}

enum State {
    /// Short enough, so far, to be put whole.
    Gathering,
    Sending(Box<Sending>),
    /// The name is taken: what is written goes nowhere.
    Taken,
    /// A write failed, or was dropped half-way.
    Broken,
}

struct Sending {
    mark: String,
    tail: Bytes,
    /// `None`: all is handed over.
    pieces: Option<mpsc::Sender<Result<Bytes, io::Error>>>,
    answer: JoinHandle<Result<Object, Fault>>,
    crc32c: crc_fast::Digest,
    length: u64,
}

impl Drop for Sending {
    fn drop(&mut self) {
        // First: a body that merely ends would be a finished one.
        self.answer.abort();
    }
}

impl Sending {
    fn begin(bucket: &Arc<Bucket>, key: &ObjectKey) -> Result<Self, MailboxError> {
        let envelope = Envelope::new(&bucket.cloud.name(key)?, None);
        let (pieces, mut waiting) = mpsc::channel(PIECES);
        // There is room for it.
        let _ = pieces.try_send(Ok(envelope.head.clone()));
        let body = reqwest::Body::wrap_stream(futures::stream::poll_fn(move |context| waiting.poll_recv(context)));
        let request = bucket.upload(&envelope, body);
        let bucket = Arc::clone(bucket);
        let answer = tokio::spawn(async move {
            // Each piece has its time in `push`, the answer its own in `finish`.
            let answer = bucket.send(request, Duration::MAX, true).await?;
            bucket.json(answer).await
        });
        Ok(Self {
            mark: envelope.mark,
            tail: envelope.tail,
            pieces: Some(pieces),
            answer,
            crc32c: crc32c_digest(),
            length: 0,
        })
    }

    /// Hands over what is gathered.
    async fn flush(&mut self, gathered: &mut BytesMut, patience: Duration) -> Result<(), Fault> {
        while !gathered.is_empty() {
            let piece = gathered.split_to(PIECE.min(gathered.len())).freeze();
            self.crc32c.update(&piece);
            self.length += piece.len() as u64;
            self.push(piece, patience).await?;
        }
        Ok(())
    }

    /// A store that has answered already takes no more: [`GcsUpload::finish`] tells what it said.
    async fn push(&self, piece: Bytes, patience: Duration) -> Result<(), Fault> {
        let Some(pieces) = &self.pieces else {
            return Ok(());
        };
        match tokio::time::timeout(patience, pieces.send(Ok(piece))).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let detail = format!("the store took nothing for {} s", patience.as_secs_f32());
                Err(Fault::new(MailboxErrorKind::Unavailable, detail))
            }
        }
    }
}

impl GcsUpload {
    pub fn new(bucket: Arc<Bucket>, key: ObjectKey) -> Self {
        Self {
            bucket,
            key,
            gathered: BytesMut::new(),
            state: State::Gathering,
        }
    }

    /// Starts the request, whatever is gathered.
    pub async fn begin(&mut self) -> Result<(), MailboxError> {
        let taken = if self.bucket.cloud.required() {
            self.bucket.show_token(&self.key).await?;
            false
        } else {
            self.bucket.object(&self.key).await?.is_some()
        };
        self.state = if taken {
            State::Taken
        } else {
            State::Sending(Box::new(Sending::begin(&self.bucket, &self.key)?))
        };
        Ok(())
    }

    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        self.bucket.cloud.error(kind, &self.key, detail)
    }

    fn broken(&self) -> MailboxError {
        self.error(MailboxErrorKind::Io, "the upload was broken off by an earlier fault")
    }

    /// Hands over what is gathered. Unless it works, the upload is broken.
    async fn flush(&mut self) -> Result<(), MailboxError> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Sending(mut sending) => {
                let flushed = sending
                    .flush(&mut self.gathered, self.bucket.cloud.retry.patience.idle)
                    .await;
                flushed.map_err(|fault| self.bucket.error(fault, &self.key))?;
                self.state = State::Sending(sending);
            }
            State::Taken => {
                self.gathered.clear();
                self.state = State::Taken;
            }
            State::Gathering => self.state = State::Gathering,
            State::Broken => return Err(self.broken()),
        }
        Ok(())
    }

    /// Ends the request and waits for its answer.
    async fn finish(&self, mut sending: Sending) -> Result<PutOutcome, MailboxError> {
        let bucket = &self.bucket;
        let pushed = sending
            .push(sending.tail.clone(), bucket.cloud.retry.patience.idle)
            .await;
        pushed.map_err(|fault| bucket.error(fault, &self.key))?;
        sending.pieces = None;
        let patience = bucket.cloud.joining_time(sending.length);
        let answer = match tokio::time::timeout(patience, &mut sending.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(Fault::new(
                MailboxErrorKind::Unavailable,
                format!("interrupted: {error}"),
            )),
            Err(_) => {
                let detail = format!("no answer within {} s", patience.as_secs_f32());
                Err(Fault::new(MailboxErrorKind::Unavailable, detail))
            }
        };
        match answer {
            Ok(object) => {
                let ours = crc32c_text(crc32c_value(&sending.crc32c));
                let right = object.crc32c.as_ref().is_none_or(|theirs| *theirs == ours);
                if right && object.size == sending.length.to_string() {
                    return Ok(PutOutcome::Created);
                }
                self.remove(&object).await;
                Err(self.error(
                    MailboxErrorKind::Unavailable,
                    "the store received other bytes than were sent",
                ))
            }
            Err(fault) if fault.taken => Ok(PutOutcome::Exists),
            // Perhaps only the answer was lost.
            Err(fault) if fault.kind == MailboxErrorKind::Unavailable => {
                match bucket.whose(&self.key, &sending.mark).await {
                    Ok(PutOutcome::Created) => Ok(PutOutcome::Created),
                    _ => Err(bucket.error(fault, &self.key)),
                }
            }
            Err(fault) => Err(bucket.error(fault, &self.key)),
        }
    }

    /// Removes the version that we made and that nobody must read: nothing else would ever replace it.
    async fn remove(&self, object: &Object) {
        let request = self.bucket.http.delete(self.bucket.object_url(&object.name));
        let request = request.query(&[("generation", &object.generation)]);
        if let Err(fault) = self.bucket.call(request, self.bucket.cloud.answer_time(), false).await {
            let error = self.bucket.error(fault, &self.key);
            tracing::error!(%error, "an object that was damaged on its way is left in the bucket");
        }
    }
}

#[async_trait]
impl Upload for GcsUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError> {
        self.gathered.extend_from_slice(&chunk);
        if matches!(self.state, State::Gathering) && self.gathered.len() > WHOLE {
            self.begin().await?;
        }
        self.flush().await
    }

    async fn commit_if_absent(mut self: Box<Self>) -> Result<PutOutcome, MailboxError> {
        self.flush().await?;
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Gathering => put(&self.bucket, &self.key, &self.gathered.split().freeze()).await,
            State::Sending(sending) => self.finish(*sending).await,
            State::Taken => Ok(PutOutcome::Exists),
            State::Broken => Err(self.broken()),
        }
    }

    async fn abort(self: Box<Self>) -> Result<(), MailboxError> {
        Ok(())
    }
}
