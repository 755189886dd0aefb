//! Contents of cloud objects as they stream in: what is cut is taken up where it broke off, and the whole is checked.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::retry::Retry;
use crate::{ByteStream, MailboxError, MailboxErrorKind, Patience};

/// What a store said of a content when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Check {
    sha256: Option<(Sha256, String)>,
    crc: Option<(CrcAlgorithm, crc_fast::Digest, u64)>,
}

impl Check {
    /// `sha256` as lower-case hex.
    pub fn new(sha256: Option<String>, crc: Option<(CrcAlgorithm, u64)>) -> Self {
        Self {
            sha256: sha256.map(|expected| (Sha256::new(), expected)),
            crc: crc.map(|(algorithm, expected)| (algorithm, crc_fast::Digest::new(algorithm), expected)),
        }
    }

    fn update(&mut self, chunk: &[u8]) {
        if let Some((digest, _)) = &mut self.sha256 {
            digest.update(chunk);
        }
        if let Some((_, digest, _)) = &mut self.crc {
            digest.update(chunk);
        }
    }

    /// What doesn't match of a content in one piece, if anything.
    pub fn whole(&mut self, content: &[u8]) -> Option<&'static str> {
        self.update(content);
        self.fault()
    }

    /// What doesn't match, if anything.
    fn fault(&mut self) -> Option<&'static str> {
        let sha256 = self
            .sha256
            .take()
            .is_some_and(|(digest, expected)| hex(&digest.finalize()) != expected);
        if sha256 {
            return Some("its bytes don't match the SHA-256 that is stored with it");
        }
        let (algorithm, digest, expected) = self.crc.take()?;
        (digest.finalize() != expected).then_some(match algorithm {
            CrcAlgorithm::Crc32Iscsi => "its bytes don't match the store's CRC32C",
            CrcAlgorithm::Crc64Nvme => "its bytes don't match the store's CRC64NVME",
            _ => "its bytes don't match the store's CRC",
        })
    }
}

pub(crate) fn crc32c_digest() -> crc_fast::Digest {
    crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The header for `length` bytes from `offset` on; `None` where that is no byte of any object.
pub(crate) fn range(offset: u64, length: u64) -> Option<String> {
    // No store has longer objects, and some read these numbers as signed.
    let longest = i64::MAX as u64;
    let last = offset.checked_add(length)?.checked_sub(1)?;
    (length > 0 && offset < longest).then(|| format!("bytes={offset}-{}", last.min(longest)))
}

/// Collects an answer of at most `length` bytes, of which the store announced `announced`.
pub(crate) async fn part(
    mut content: ByteStream,
    announced: Option<u64>,
    length: u64,
    patience: &Patience,
    error: impl Fn(MailboxErrorKind, String) -> MailboxError,
) -> Result<Bytes, MailboxError> {
    let mut gathered = BytesMut::new();
    loop {
        match tokio::time::timeout(patience.idle, content.next()).await {
            Ok(Some(chunk)) => gathered.extend_from_slice(&chunk?),
            Ok(None) => break,
            Err(_) => {
                let detail = format!("nothing came for {} s", patience.idle.as_secs_f32());
                return Err(error(MailboxErrorKind::Unavailable, detail));
            }
        }
        if gathered.len() as u64 > length {
            let detail = format!("the store sent more than {length} bytes");
            return Err(error(MailboxErrorKind::TooLarge, detail));
        }
    }
    let got = gathered.len() as u64;
    match announced {
        Some(announced) if got < announced => {
            let detail = format!("it broke off after {got} of {announced} bytes");
            Err(error(MailboxErrorKind::Unavailable, detail))
        }
        _ => Ok(gathered.freeze()),
    }
}

/// Where a content comes from.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// The content from `offset` on, of the version that was opened first.
    async fn reopen(&self, offset: u64) -> Result<ByteStream, MailboxError>;
    /// An error of this object.
    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError;
}

struct Reading {
    source: Box<dyn Source>,
    retry: Arc<Retry>,
    check: Check,
    part: ByteStream,
    offset: u64,
    size: u64,
    /// Tries since the last byte came.
    tried: u32,
    done: bool,
}

/// The content of `size` bytes that `first` begins.
pub(crate) fn stream(
    source: Box<dyn Source>,
    first: ByteStream,
    size: u64,
    check: Check,
    retry: Arc<Retry>,
) -> ByteStream {
    let reading = Reading {
        source,
        retry,
        check,
        part: first,
        offset: 0,
        size,
        tried: 0,
        done: false,
    };
    futures::stream::try_unfold(reading, |mut reading| async move {
        let chunk = reading.next().await?;
        Ok(chunk.map(|chunk| (chunk, reading)))
    })
    .boxed()
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, MailboxError> {
        while !self.done {
            let idle = self.retry.patience.idle;
            let error = match tokio::time::timeout(idle, self.part.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                Ok(Some(Ok(chunk))) => return self.take(chunk).map(Some),
                Ok(Some(Err(error))) if !error.is_retryable() => return Err(error),
                // A connection that is cut after the last byte has cut nothing.
                _ if self.offset == self.size => {
                    self.done = true;
                    continue;
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => self.broken("it broke off"),
                Err(_) => self.broken(&format!("nothing came for {} s", idle.as_secs_f32())),
            };
            self.resume(error).await?;
        }
        match self.check.fault() {
            Some(fault) => Err(self.source.error(MailboxErrorKind::Corrupt, fault)),
            None => Ok(None),
        }
    }

    fn take(&mut self, chunk: Bytes) -> Result<Bytes, MailboxError> {
        self.tried = 0;
        self.offset += chunk.len() as u64;
        if self.offset > self.size {
            let detail = format!("more than the {} bytes that the store announced", self.size);
            return Err(self.source.error(MailboxErrorKind::Corrupt, &detail));
        }
        self.check.update(&chunk);
        Ok(chunk)
    }

    fn broken(&self, what: &str) -> MailboxError {
        let detail = format!("{what} after {} of {} bytes", self.offset, self.size);
        self.source.error(MailboxErrorKind::Unavailable, &detail)
    }

    async fn resume(&mut self, mut error: MailboxError) -> Result<(), MailboxError> {
        loop {
            self.tried += 1;
            self.retry.wait(self.tried, error).await?;
            match self.source.reopen(self.offset).await {
                Ok(part) => {
                    self.part = part;
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;
    use std::time::Duration;

    use futures::TryStreamExt;

    use super::*;
    use crate::{MailboxUrl, Patience};

    const CONTENT: &[u8] = b"0123456789";

    fn fail(kind: MailboxErrorKind, detail: &str) -> MailboxError {
        MailboxError::of_mailbox(kind, &MailboxUrl::memory("test"), detail)
    }

    /// What one answer does: gives bytes up to a position, then ends, fails or stalls.
    #[derive(Clone, Copy)]
    enum Then {
        Ends,
        Fails(MailboxErrorKind),
        Stalls,
    }

    struct Script(Arc<Mutex<Vec<(usize, Then)>>>);

    fn answer((until, then): (usize, Then), offset: u64) -> ByteStream {
        let bytes = Bytes::from_static(&CONTENT[usize::try_from(offset).unwrap()..until]);
        let chunks = bytes
            .chunks(3)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect::<Vec<_>>();
        let chunks = futures::stream::iter(chunks);
        match then {
            Then::Ends => chunks.boxed(),
            Then::Fails(kind) => chunks.chain(futures::stream::iter([Err(fail(kind, "cut"))])).boxed(),
            Then::Stalls => chunks.chain(futures::stream::pending()).boxed(),
        }
    }

    #[async_trait]
    impl Source for Script {
        async fn reopen(&self, offset: u64) -> Result<ByteStream, MailboxError> {
            match self.0.lock().unwrap().pop() {
                Some(next) => Ok(answer(next, offset)),
                None => Err(fail(MailboxErrorKind::Unavailable, "down")),
            }
        }

        fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
            fail(kind, detail)
        }
    }

    async fn read(first: (usize, Then), more: &[(usize, Then)], check: Check) -> Result<Vec<u8>, MailboxErrorKind> {
        let patience = Patience {
            idle: Duration::from_millis(20),
            attempts: 3,
            first_wait: Duration::from_micros(10),
            ..Patience::default()
        };
        let script = Script(Arc::new(Mutex::new(more.iter().rev().copied().collect())));
        let stream = stream(
            Box::new(script),
            answer(first, 0),
            10,
            check,
            Arc::new(Retry::new(patience)),
        );
        let chunks: Vec<Bytes> = stream.try_collect().await.map_err(|error| error.kind())?;
        Ok(chunks.concat())
    }

    #[tokio::test]
    async fn what_is_cut_is_taken_up_where_it_broke_off() {
        use MailboxErrorKind::{Corrupt, Denied, Unavailable};
        let cut = Then::Fails(Unavailable);
        let whole: Result<Vec<u8>, MailboxErrorKind> = Ok(CONTENT.to_vec());
        for (name, first, more, expected) in [
            ("at once", (10, Then::Ends), vec![], whole.clone()),
            ("cut after the last byte", (10, cut), vec![], whole.clone()),
            ("ended early", (4, Then::Ends), vec![(10, Then::Ends)], whole.clone()),
            ("cut twice", (4, cut), vec![(7, cut), (10, Then::Ends)], whole.clone()),
            ("stalled", (4, Then::Stalls), vec![(10, Then::Ends)], whole.clone()),
            (
                "cut before each byte",
                (0, cut),
                vec![(0, cut), (10, Then::Ends)],
                whole,
            ),
            ("no way on", (4, cut), vec![], Err(Unavailable)),
            (
                "never a byte",
                (4, cut),
                vec![(4, cut), (4, cut), (10, Then::Ends)],
                Err(Unavailable),
            ),
            (
                "denied half-way",
                (4, Then::Fails(Denied)),
                vec![(10, Then::Ends)],
                Err(Denied),
            ),
            (
                "known broken",
                (10, Then::Fails(Corrupt)),
                vec![(10, Then::Ends)],
                Err(Corrupt),
            ),
        ] {
            assert_eq!(read(first, &more, Check::default()).await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn the_whole_is_checked_also_across_a_cut() {
        let sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
        let crc32c = 0x280c_069e;
        let whole = (10, Then::Ends);
        let cut = (4, Then::Ends);
        for (sha256, crc32c, right) in [
            (Some(sha256), Some(crc32c), true),
            (Some(&sha256.replace('8', "9")), Some(crc32c), false),
            (Some(sha256), Some(crc32c + 1), false),
            (None, Some(crc32c + 1), false),
        ] {
            let crc = crc32c.map(|value| (CrcAlgorithm::Crc32Iscsi, value));
            let check = || Check::new(sha256.map(str::to_owned), crc);
            let expected = if right {
                Ok(CONTENT.to_vec())
            } else {
                Err(MailboxErrorKind::Corrupt)
            };
            assert_eq!(read(whole, &[], check()).await, expected);
            assert_eq!(read(cut, &[whole], check()).await, expected);
        }
    }
}
