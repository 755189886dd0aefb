//! Blocking work on objects as they stream, in flat memory: bytes in from a store, bytes out to one.

use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use mailbox::{ByteStream, Mailbox, MailboxError, MailboxErrorKind, ObjectKey};
use tokio::sync::mpsc;

use crate::crypto::sha256;
use crate::outgoing::{Outgoing, PART_BYTES};
use crate::put::ContentDigest;

/// Chunks on their way from the store to the reader.
const CHUNKS: usize = 8;

/// Where bytes come from.
pub(crate) enum Source<'a> {
    /// An object of at most `limit` bytes; one that isn't there counts as 0 bytes.
    Object {
        mailbox: &'a dyn Mailbox,
        key: &'a ObjectKey,
        limit: u64,
    },
    /// Bytes in memory; these are not hashed.
    Bytes(Bytes),
}

impl<'a> Source<'a> {
    /// Reads all of it at once.
    ///
    /// # Errors
    /// As [`transform`].
    pub(crate) async fn hold(self) -> Result<(Passed, Bytes), MailboxError> {
        let (mailbox, key, limit) = match self {
            Self::Object { mailbox, key, limit } => (mailbox, key, limit),
            Self::Bytes(bytes) => return Ok((Passed::default(), bytes)),
        };
        let (there, bytes) = match mailbox.read(key, limit).await {
            Ok(bytes) => (true, bytes),
            Err(error) if error.kind() == MailboxErrorKind::NotFound => (false, Bytes::new()),
            Err(error) => return Err(error),
        };
        let digest = sha256(&bytes);
        Ok((Passed { digest, there }, bytes))
    }

    /// Opens it: the end that is read, and what feeds it.
    async fn open(self) -> Result<(ChunkReader, Feed<'a>), MailboxError> {
        let (send, receive) = mpsc::channel(CHUNKS);
        let (stream, reader) = match self {
            Self::Bytes(bytes) => (None, ChunkReader::whole(bytes)),
            Self::Object { mailbox, key, limit } => {
                let stream = match mailbox.open(key).await {
                    Ok(body) if body.meta.size > limit => return Err(too_long(mailbox, key, body.meta.size, limit)),
                    Ok(body) => Some((body.stream, limit, mailbox, key)),
                    Err(error) if error.kind() == MailboxErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
                let left = Bytes::new();
                let receive = Some(receive);
                (stream, ChunkReader { receive, left })
            }
        };
        Ok((reader, Feed { stream, send }))
    }
}

/// Brings an object's bytes to their reader, and hashes them.
struct Feed<'a> {
    stream: Option<(ByteStream, u64, &'a dyn Mailbox, &'a ObjectKey)>,
    send: mpsc::Sender<io::Result<Bytes>>,
}

impl Feed<'_> {
    async fn run(self) -> Result<Passed, MailboxError> {
        let Self { stream, send } = self;
        let there = stream.is_some();
        let mut digest = Context::new(&SHA256);
        let (mut listening, mut length) = (true, 0);
        if let Some((mut stream, limit, mailbox, key)) = stream {
            loop {
                match stream.try_next().await {
                    Ok(Some(chunk)) => {
                        length += chunk.len() as u64;
                        if length > limit {
                            let error = too_long(mailbox, key, length, limit);
                            let _ = send.send(Err(io::Error::other(error.to_string()))).await;
                            return Err(error);
                        }
                        digest.update(&chunk);
                        listening = listening && send.send(Ok(chunk)).await.is_ok();
                    }
                    Ok(None) => break,
                    Err(error) => {
                        // The reader must not take a broken stream for the object's end.
                        let _ = send.send(Err(io::Error::other(error.to_string()))).await;
                        return Err(error);
                    }
                }
            }
        }
        drop(send);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(Passed { digest: bytes, there })
    }
}

/// What passed; nothing in particular of bytes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// SHA-256 of all bytes.
    pub digest: [u8; 32],
    /// Whether the object is there; one that isn't counts as 0 bytes.
    pub there: bool,
}

/// Runs `work` in a thread of its own on what streams in from two sources at once; with what passed of the second. `None`:
/// `work` panicked.
///
/// # Errors
/// Those of the mailboxes; what `work` made of a broken stream is dropped then.
pub(crate) async fn read_both<T: Send + 'static>(
    first: Source<'_>,
    second: Source<'_>,
    work: impl FnOnce(ChunkReader, ChunkReader) -> T + Send + 'static,
) -> Result<(Passed, Option<T>), MailboxError> {
    let (first, feed) = first.open().await?;
    let (second, feed_second) = second.open().await?;
    let worker = tokio::task::spawn_blocking(move || work(first, second));
    let (_, passed) = tokio::try_join!(feed.run(), feed_second.run())?;
    Ok((passed, worker.await.ok()))
}

/// Runs `work` in a thread of its own on what streams in; what it writes streams out to `target`, or nowhere. The bytes that
/// come in are hashed whole even where `work` stops early. `None`: `work` panicked.
///
/// # Errors
/// Those of the mailboxes; what `work` made of a broken stream is dropped then.
pub(crate) async fn transform<T: Send + 'static>(
    source: Source<'_>,
    target: Option<&mut Outgoing<'_>>,
    work: impl FnOnce(ChunkReader, &mut ChunkWriter) -> T + Send + 'static,
) -> Result<(Passed, Option<T>), MailboxError> {
    let (reader, feed) = source.open().await?;
    let (send_out, mut receive_out) = mpsc::channel(1);
    let out = match &target {
        Some(target) => Out::Sent {
            send: send_out,
            limit: target.limit(),
        },
        None => Out::Dropped,
    };
    let worker = tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter { held: Vec::new(), out };
        let result = work(reader, &mut writer);
        (result, writer.held)
    });
    // A consumer that panicked has no result: a fault of ours, which the caller names.
    match target {
        None => {
            let passed = feed.run().await?;
            Ok((passed, worker.await.ok().map(|(result, _)| result)))
        }
        Some(target) => {
            let drain = async {
                while let Some(bytes) = receive_out.recv().await {
                    target.write(bytes).await?;
                }
                Ok(())
            };
            let (passed, ()) = tokio::try_join!(feed.run(), drain)?;
            Ok((
                passed,
                worker.await.ok().map(|(result, rest)| {
                    *target.tail() = rest;
                    result
                }),
            ))
        }
    }
}

/// As [`Mailbox::read`] says it.
fn too_long(mailbox: &dyn Mailbox, key: &ObjectKey, size: u64, limit: u64) -> MailboxError {
    let detail = format!("{size} bytes or more, where at most {limit} are expected");
    MailboxError::of_object(MailboxErrorKind::TooLarge, mailbox.url(), key, detail)
}

/// The blocking end of what comes in.
pub struct ChunkReader {
    receive: Option<mpsc::Receiver<io::Result<Bytes>>>,
    left: Bytes,
}

impl ChunkReader {
    /// Reads bytes in memory.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            receive: None,
            left: bytes,
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.receive.as_mut().and_then(mpsc::Receiver::blocking_recv) {
                Some(chunk) => self.left = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.left.len());
        self.left.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// The blocking end of what goes out: held as long as it is short, then sent in parts.
pub struct ChunkWriter {
    held: Vec<u8>,
    out: Out,
}

enum Out {
    Sent { send: mpsc::Sender<Bytes>, limit: usize },
    Held,
    Dropped,
}

impl ChunkWriter {
    /// Holds everything.
    pub(crate) fn holding() -> Self {
        Self {
            held: Vec::new(),
            out: Out::Held,
        }
    }

    /// From now on holds everything that goes anywhere: for an object that must be put by a single call.
    pub(crate) fn hold(&mut self) {
        if !matches!(self.out, Out::Dropped) {
            self.out = Out::Held;
        }
    }

    /// What is held.
    pub(crate) fn into_held(self) -> Vec<u8> {
        self.held
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::Dropped => return Ok(bytes.len()),
            Out::Sent { send, limit } if !self.held.is_empty() && self.held.len() + bytes.len() > *limit => {
                *limit = PART_BYTES.min(*limit);
                let full = std::mem::replace(&mut self.held, Vec::with_capacity(*limit));
                send.blocking_send(full.into())
                    .map_err(|_| io::Error::other("the upload broke off"))?;
            }
            _ => {}
        }
        self.held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes and counts what passes on to a target.
pub(crate) struct Hashed<W> {
    target: W,
    digest: Context,
    length: u64,
}

impl<W> Hashed<W> {
    /// Passes on to `target`.
    pub(crate) fn new(target: W) -> Self {
        Self {
            target,
            digest: Context::new(&SHA256),
            length: 0,
        }
    }

    /// The target, and what passed.
    pub(crate) fn finish(self) -> (W, ContentDigest) {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        let length = self.length;
        (self.target, ContentDigest { length, sha256 })
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.target.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}
