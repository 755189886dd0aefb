//! One trait over the places where organisations leave objects for each other: folders, S3, GCS, and memory for tests.
//!
//! A mailbox is a bucket, or a prefix of one. Objects are put once and never changed: [`Mailbox::put_if_absent`] is the
//! only way to write. Names are listed in ascending byte order.

mod access;
#[cfg(feature = "cloud")]
mod body;
#[cfg(feature = "cloud")]
mod cloud;
#[cfg(feature = "cloud")]
mod credentials;
mod error;
mod expiry;
#[cfg(feature = "cloud")]
mod fault;
mod file;
#[cfg(feature = "cloud")]
mod gcs;
mod key;
#[cfg(feature = "cloud")]
mod listing;
mod memory;
#[cfg(feature = "cloud")]
mod retry;
#[cfg(feature = "cloud")]
mod s3;
#[cfg(feature = "cloud")]
mod transport;
mod url;
mod walk;

pub use access::{Access, CannedAcl, ConditionalWrites, Credentials, Encryption, Patience};
pub use error::{MailboxError, MailboxErrorKind};
pub use expiry::ExpiryRule;
pub use file::FileMailbox;
pub use key::ObjectKey;
pub use memory::MemoryMailbox;
pub use url::MailboxUrl;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;

/// What a store tells of an object without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's name inside the mailbox.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub size: u64,
    /// When the store made the object visible, by the store's own clock.
    pub modified: Timestamp,
    /// SHA-256 of the content, lower-case hex, where the store keeps it.
    pub sha256: Option<String>,
}

/// An object's content as it streams in.
pub type ByteStream = BoxStream<'static, Result<Bytes, MailboxError>>;

/// An opened object.
pub struct ObjectBody {
    /// Its metadata as of this read.
    pub meta: ObjectMeta,
    /// Its content.
    pub stream: ByteStream,
}

/// How a conditional put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there now, with our bytes.
    Created,
    /// An object of that name was there before; nothing was changed.
    Exists,
}

/// How a put ended that couldn't succeed, of who may put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeEnd {
    /// The store compares checksums and refused the content; of a folder: nothing was sent.
    ContentRefused,
    /// An object of that name is there. Whether the store compares checksums isn't known.
    NameTaken,
}

/// What to list: names `n` with `prefix` ≤ n, `start_after` < n and n < `end_before`.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Names must begin with it; may end in the middle of a segment.
    pub prefix: String,
    /// Names at or before it are left out.
    pub start_after: Option<String>,
    /// Names at or after it are left out.
    pub end_before: Option<String>,
    /// Names with a `/` after the prefix are folded into one entry of [`ListPage::folders`].
    pub folders: bool,
    /// At most so many entries a page; `None`: the store's own page.
    pub limit: Option<usize>,
}

impl ListRequest {
    /// The entry of [`ListPage::folders`] that `name` (which begins with the prefix) is folded into, if it is.
    fn folder_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let slash = name.get(self.prefix.len()..)?.find('/').filter(|_| self.folders)?;
        name.get(..=self.prefix.len() + slash)
    }

    /// A `start_after` that passes over every name in `folder`, which ends in `/`: no name holds U+10FFFF.
    fn after_folder(folder: &str) -> String {
        format!("{folder}{}", char::MAX)
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects, by name.
    pub objects: Vec<ObjectMeta>,
    /// Common prefixes up to and with the next `/`, when [`ListRequest::folders`] asked for them.
    pub folders: Vec<String>,
    /// Pass as `start_after` for the next page; `None`: this was the last.
    pub next: Option<String>,
    /// The store's clock as it answered first, in whole seconds; `None` where it doesn't tell.
    pub time: Option<Timestamp>,
}

/// An object on its way: nothing is visible before [`Upload::commit_if_absent`], and nothing is left where it is dropped.
#[async_trait]
pub trait Upload: Send {
    /// Appends to the content.
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError>;
    /// Makes the object visible, whole, if none of that name is there.
    async fn commit_if_absent(self: Box<Self>) -> Result<PutOutcome, MailboxError>;
    /// Gives up and removes what was stored.
    async fn abort(self: Box<Self>) -> Result<(), MailboxError>;
}

/// A place where objects are put once and read often.
#[async_trait]
pub trait Mailbox: Send + Sync + std::fmt::Debug {
    /// Where it is, without credentials; for messages.
    fn url(&self) -> &MailboxUrl;

    /// Opens an object. [`MailboxErrorKind::NotFound`] where there is none. At its end the content is compared with the SHA-256
    /// or CRC that the store keeps of the whole object ([`MailboxErrorKind::Corrupt`]); of one of which it keeps none (in S3 one
    /// that came in parts, with a checksum over those of the parts), with its length alone.
    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError>;

    /// The object's metadata, or `None` where there is none.
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError>;

    /// Starts an upload of any size in flat memory.
    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError>;

    /// Puts a small object by a single call, if none of that name is there.
    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError>;

    /// Shows that the store refuses to replace the object `key`, on every way by which this backend uploads. Its content is
    /// `content`, so that a store that replaces it all the same changes nothing. Once shown, it isn't asked again.
    ///
    /// Folders and memory can't replace an object, and show nothing.
    ///
    /// # Errors
    /// [`MailboxErrorKind::Unsupported`] where it replaces objects.
    async fn check_conditional_writes(&self, key: &ObjectKey, content: Bytes) -> Result<(), MailboxError> {
        let _ = (key, content);
        Ok(())
    }

    /// Shows that we may put the object `key`, and puts nothing: the store looks at our rights, and then refuses the content.
    /// Nothing becomes visible, and an object that is there stays as it is.
    ///
    /// # Errors
    /// [`MailboxErrorKind::Denied`] where we may not; [`MailboxErrorKind::Unsupported`] where the store took the content: a
    /// store that isn't known to compare checksums is asked in a mailbox of our own first.
    async fn may_put(&self, key: &ObjectKey) -> Result<ProbeEnd, MailboxError> {
        self.begin_upload(key).await?.abort().await?;
        Ok(ProbeEnd::ContentRefused)
    }

    /// As [`Mailbox::may_put`], where the store isn't known to compare checksums: begins an upload of the object `key`, which
    /// takes the same right, and gives it up before it has any content. No store makes an object of that, also where it may
    /// not be given up. The usual answer is for places where [`Mailbox::may_put`] sends nothing.
    ///
    /// # Errors
    /// [`MailboxErrorKind::Denied`] where we may not; [`MailboxErrorKind::Unsupported`] or [`MailboxErrorKind::Io`] where the
    /// store begins no such upload.
    async fn may_begin_upload(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        self.may_put(key).await.map(drop)
    }

    /// The rules by which the store deletes objects of this mailbox by itself.
    ///
    /// # Errors
    /// [`MailboxErrorKind::Denied`] where we may not look; [`MailboxErrorKind::Unsupported`] where there is nobody to ask.
    async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        let detail = "whatever deletes old files of a folder isn't known to it";
        Err(MailboxError::of_mailbox(
            MailboxErrorKind::Unsupported,
            self.url(),
            detail,
        ))
    }

    /// One page of names.
    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError>;

    /// Reads an object of at most `limit` bytes; [`MailboxErrorKind::TooLarge`] beyond.
    async fn read(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, MailboxError> {
        collect(self.url(), self.open(key).await?, limit).await
    }

    /// Reads the bytes from `offset` on, at most `length` of them: fewer where the object ends before, none where `offset` is
    /// at or beyond its end. They are compared with nothing: what stores keep are checksums of whole objects. This one reads all that comes before as well; backends do better.
    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        let mut stream = self.open(key).await?.stream;
        let (mut skip, mut content) = (offset, BytesMut::new());
        while let Some(mut chunk) = stream.try_next().await? {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(skipped);
            skip -= skipped as u64;
            let left = length - content.len() as u64;
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            content.extend_from_slice(&chunk);
            if content.len() as u64 == length {
                break;
            }
        }
        Ok(content.freeze())
    }

    /// All pages of a listing.
    async fn list_all(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        let mut request = request.clone();
        let mut all = ListPage::default();
        loop {
            let page = self.list(&request).await?;
            all.objects.extend(page.objects);
            all.folders.extend(page.folders);
            all.time = all.time.or(page.time);
            match page.next {
                Some(next) => request.start_after = Some(next),
                None => return Ok(all),
            }
        }
    }
}

/// Opens the mailbox that a URL names: `file:///absolute/folder`, `s3://region/bucket[/prefix]`,
/// `gs://bucket[/prefix]`. No connection is made yet.
///
/// # Errors
/// [`MailboxErrorKind::Configuration`] for settings that can't be used.
pub fn open_mailbox(url: &MailboxUrl, access: &Access) -> Result<Arc<dyn Mailbox>, MailboxError> {
    open_mailbox_with(url, access, Patience::default())
}

/// [`open_mailbox`] with other waits than the usual.
///
/// # Errors
/// As there.
pub fn open_mailbox_with(
    url: &MailboxUrl,
    access: &Access,
    patience: Patience,
) -> Result<Arc<dyn Mailbox>, MailboxError> {
    url.open(access, patience)
}

/// Memory taken for an object before any of its bytes came, in bytes.
const FIRST_BYTES: u64 = 1 << 20;

/// Reads a body of at most `limit` bytes to its end.
async fn collect(url: &MailboxUrl, body: ObjectBody, limit: u64) -> Result<Bytes, MailboxError> {
    let ObjectBody { meta, mut stream } = body;
    let too_large = |size: u64| {
        let detail = format!("{size} bytes or more, where at most {limit} are expected");
        MailboxError::of_object(MailboxErrorKind::TooLarge, url, &meta.key, detail)
    };
    if meta.size > limit {
        return Err(too_large(meta.size));
    }
    // What a store announces is believed up to here; beyond, memory is taken as bytes come.
    let announced = meta.size.min(FIRST_BYTES);
    let mut content = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(chunk) = stream.try_next().await? {
        content.extend_from_slice(&chunk);
        if content.len() as u64 > limit {
            return Err(too_large(content.len() as u64));
        }
    }
    Ok(content.freeze())
}
