//! An object's bytes for a blocking reader: hashed whole as they pass, in flat memory.

use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use mailbox::{Mailbox, MailboxError, MailboxErrorKind, ObjectKey};
use tokio::sync::mpsc;

/// Chunks on their way from the store to the reader.
const CHUNKS: usize = 8;

/// What passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// SHA-256 of all bytes.
    pub digest: [u8; 32],
    /// Whether the object is there; one that isn't counts as 0 bytes.
    pub there: bool,
}

/// Runs `consume` on an object's bytes in a thread of its own, and hashes them whole even where `consume` stops early.
///
/// # Errors
/// Those of the mailbox, but `NotFound`.
pub async fn read_through<T: Send + 'static>(
    mailbox: &dyn Mailbox,
    key: &ObjectKey,
    consume: impl FnOnce(ChunkReader) -> T + Send + 'static,
) -> Result<(Passed, Option<T>), MailboxError> {
    let body = match mailbox.open(key).await {
        Ok(body) => Some(body),
        Err(error) if error.kind() == MailboxErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (send, receive) = mpsc::channel(CHUNKS);
    let consumer = tokio::task::spawn_blocking(move || {
        consume(ChunkReader {
            receive,
            left: Bytes::new(),
        })
    });
    let mut digest = Context::new(&SHA256);
    let there = body.is_some();
    if let Some(body) = body {
        let mut stream = body.stream;
        let mut listening = true;
        loop {
            match stream.try_next().await {
                Ok(Some(chunk)) => {
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
    // A consumer that panicked has no result: a fault of ours, which the caller names.
    Ok((Passed { digest: bytes, there }, consumer.await.ok()))
}

/// The blocking end.
pub struct ChunkReader {
    receive: mpsc::Receiver<io::Result<Bytes>>,
    left: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.left = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.left.len());
        self.left.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
