//! Mailboxes in local folders, shared with other processes and other parties.
//!
//! An object appears by a hard link from a finished temporary file, because a link, unlike a rename, fails where the
//! name is taken: two writers can't both win, and nothing is ever overwritten. Temporary files live in the hidden folder
//! [`UPLOADS`] of the mailbox's root, on the same file system. The store time is the file's modification time, set just
//! before the link. Symbolic links are not followed.

#[cfg(test)]
mod tests;
mod upload;

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use self::upload::FileUpload;
use crate::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload, walk,
};

/// The folder of unfinished uploads, in the mailbox's root; never listed, read or written as objects.
pub(crate) const UPLOADS: &str = ".uploads";
/// Unfinished uploads that nobody has written to for so long are a dead process's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes gathered before a write, and read at once.
const CHUNK: usize = 256 * 1024;

/// A mailbox in a local folder. The root must exist; folders below it are made as needed (mode 0755, files 0644), so
/// that another party's process may read them.
#[derive(Clone, Debug)]
pub struct FileMailbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: MailboxUrl,
    root: PathBuf,
    /// Whether this process has looked for abandoned uploads.
    swept: AtomicBool,
}

impl FileMailbox {
    pub(crate) fn new(url: MailboxUrl, root: PathBuf) -> Self {
        Self {
            inner: Arc::new(Inner {
                url,
                root,
                swept: AtomicBool::new(false),
            }),
        }
    }

    /// The mailbox in `folder`, which must exist before the first call on an object.
    ///
    /// # Errors
    /// [`MailboxErrorKind::InvalidUrl`] where the path can't be a URL.
    pub fn in_folder(folder: &Path) -> Result<Self, MailboxError> {
        let url = MailboxUrl::of_folder(folder)?;
        let root = url.folder().map_or_else(|| folder.to_path_buf(), Path::to_path_buf);
        Ok(Self::new(url, root))
    }

    /// Runs a blocking call on the file system.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> Result<T, MailboxError> + Send + 'static,
    ) -> Result<T, MailboxError> {
        let inner = Arc::clone(&self.inner);
        let joined = tokio::task::spawn_blocking(move || call(&inner)).await;
        joined.unwrap_or_else(|error| {
            Err(MailboxError::of_mailbox(
                MailboxErrorKind::Io,
                &self.inner.url,
                format_args!("interrupted: {error}"),
            ))
        })
    }
}

impl Inner {
    fn error(&self, key: &ObjectKey, doing: &str, error: &io::Error) -> MailboxError {
        let kind = MailboxError::kind_of_io(error);
        MailboxError::of_object(kind, &self.url, key, format_args!("{doing}: {error}"))
    }

    fn invalid(&self, key: &ObjectKey, detail: &str) -> MailboxError {
        MailboxError::of_object(MailboxErrorKind::InvalidKey, &self.url, key, detail)
    }

    /// The object's path; the folder of uploads is no object's.
    fn path(&self, key: &ObjectKey) -> Result<PathBuf, MailboxError> {
        if key.as_str().split('/').next() == Some(UPLOADS) {
            return Err(self.invalid(key, "the folder .uploads is reserved"));
        }
        Ok(self.root.join(key.as_str()))
    }

    fn check_root(&self) -> Result<(), MailboxError> {
        match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(MailboxError::of_mailbox(
                MailboxErrorKind::NoSuchMailbox,
                &self.url,
                "it is no folder",
            )),
            Err(error) => {
                let kind = match MailboxError::kind_of_io(&error) {
                    MailboxErrorKind::NotFound => MailboxErrorKind::NoSuchMailbox,
                    kind => kind,
                };
                Err(MailboxError::of_mailbox(kind, &self.url, error))
            }
        }
    }

    /// The file's metadata, `None` where no regular file of that name is reached without symbolic links.
    fn stat(&self, key: &ObjectKey) -> Result<Option<fs::Metadata>, MailboxError> {
        self.path(key)?;
        let mut path = self.root.clone();
        let mut found = None;
        for segment in key.as_str().split('/') {
            if found.as_ref().is_some_and(|meta: &fs::Metadata| !meta.is_dir()) {
                return Ok(None);
            }
            path.push(segment);
            match fs::symlink_metadata(&path) {
                Ok(meta) => found = Some(meta),
                Err(error) if MailboxError::kind_of_io(&error) == MailboxErrorKind::NotFound => {
                    // A root that is gone must not look like an empty mailbox.
                    self.check_root()?;
                    return Ok(None);
                }
                Err(error) => return Err(self.error(key, "looking it up", &error)),
            }
        }
        Ok(found.filter(fs::Metadata::is_file))
    }

    fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        match self.stat(key)? {
            Some(meta) => meta_of(key, &meta)
                .map(Some)
                .map_err(|e| self.error(key, "reading its time", &e)),
            None => Ok(None),
        }
    }

    fn open(&self, key: &ObjectKey) -> Result<(ObjectMeta, fs::File), MailboxError> {
        let absent = || MailboxError::of_object(MailboxErrorKind::NotFound, &self.url, key, "");
        self.stat(key)?.ok_or_else(absent)?;
        let file = fs::File::open(self.path(key)?).map_err(|e| self.error(key, "opening it", &e))?;
        let meta = file.metadata().and_then(|meta| meta_of(key, &meta));
        Ok((meta.map_err(|e| self.error(key, "reading its size", &e))?, file))
    }

    /// An empty temporary file, removed when dropped.
    fn begin(&self, key: &ObjectKey) -> Result<NamedTempFile, MailboxError> {
        self.path(key)?;
        self.check_root()?;
        let uploads = self.root.join(UPLOADS);
        make_folder(&uploads).map_err(|e| self.error(key, "making the folder of uploads", &e))?;
        if !self.swept.swap(true, Ordering::Relaxed) {
            sweep(&uploads, SystemTime::now());
        }
        let created = tempfile::Builder::new().prefix("upload-").tempfile_in(&uploads);
        let created = created.and_then(|temporary| {
            temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            Ok(temporary)
        });
        created.map_err(|e| self.error(key, "starting an upload", &e))
    }

    /// Makes the temporary file the object, if none is there.
    fn commit(&self, key: &ObjectKey, temporary: NamedTempFile) -> Result<PutOutcome, MailboxError> {
        let path = self.path(key)?;
        let file = temporary.as_file();
        file.sync_all().map_err(|e| self.error(key, "writing it to disk", &e))?;
        let folder = self.make_parents(key)?;
        let linked = file
            .set_modified(SystemTime::now())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(temporary.path(), &path));
        match linked {
            Ok(()) => {
                fs::File::open(&folder)
                    .and_then(|folder| folder.sync_all())
                    .map_err(|e| self.error(key, "writing its folder to disk", &e))?;
                Ok(PutOutcome::Created)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(&path) {
                Ok(meta) if !meta.is_file() => Err(self.invalid(key, "a folder or link has this name")),
                _ => Ok(PutOutcome::Exists),
            },
            Err(error) => Err(self.error(key, "making it visible", &error)),
        }
    }

    /// The lowest folder above an object that is there already.
    fn lowest_folder(&self, key: &ObjectKey) -> PathBuf {
        let mut folder = self.root.clone();
        for segment in key.as_str().split('/') {
            let next = folder.join(segment);
            if !next.is_dir() {
                break;
            }
            folder = next;
        }
        folder
    }

    /// Makes the folders above an object and returns the last.
    fn make_parents(&self, key: &ObjectKey) -> Result<PathBuf, MailboxError> {
        let mut folder = self.root.clone();
        let segments: Vec<&str> = key.as_str().split('/').collect();
        for segment in segments.iter().take(segments.len().saturating_sub(1)) {
            folder.push(segment);
            make_folder(&folder).map_err(|error| match error.kind() {
                io::ErrorKind::NotADirectory => self.invalid(key, "an object or link has the name of a folder of it"),
                _ => self.error(key, "making its folder", &error),
            })?;
        }
        Ok(folder)
    }
}

/// Makes one folder, mode 0755 whatever the umask. `NotADirectory` where something else is there.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            match folder.parent() {
                Some(parent) => fs::File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        }
        Err(error) => match fs::symlink_metadata(folder) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
            Err(_) => Err(error),
        },
    }
}

/// Removes abandoned uploads. Faults don't matter: the next process tries again.
fn sweep(uploads: &Path, now: SystemTime) {
    for entry in fs::read_dir(uploads).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let abandoned = modified.is_ok_and(|m| now.duration_since(m).is_ok_and(|age| age > ABANDONED));
        if abandoned && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(file = %entry.path().display(), "removed an abandoned upload");
        }
    }
}

pub(crate) fn meta_of(key: &ObjectKey, meta: &fs::Metadata) -> io::Result<ObjectMeta> {
    let modified = Timestamp::try_from(meta.modified()?).map_err(io::Error::other)?;
    Ok(ObjectMeta {
        key: key.clone(),
        size: meta.len(),
        modified,
        sha256: None,
    })
}

#[async_trait]
impl Mailbox for FileMailbox {
    fn url(&self) -> &MailboxUrl {
        &self.inner.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let wanted = key.clone();
        let (meta, file) = self.blocking(move |inner| inner.open(&wanted)).await?;
        let state = Some((self.clone(), file, meta.clone(), 0_u64));
        let stream = futures::stream::try_unfold(state, |state| async move {
            let Some((mailbox, mut file, meta, done)) = state else {
                return Ok(None);
            };
            let (chunk, file, meta) = mailbox
                .blocking(move |inner| {
                    let mut chunk = Vec::new();
                    (&mut file)
                        .take(CHUNK as u64)
                        .read_to_end(&mut chunk)
                        .map_err(|e| inner.error(&meta.key, "reading it", &e))?;
                    if chunk.is_empty() && done < meta.size {
                        let detail = format_args!("{done} of {} bytes", meta.size);
                        return Err(MailboxError::of_object(
                            MailboxErrorKind::Corrupt,
                            &inner.url,
                            &meta.key,
                            detail,
                        ));
                    }
                    Ok((Bytes::from(chunk), file, meta))
                })
                .await?;
            let done = done + chunk.len() as u64;
            Ok((!chunk.is_empty()).then(|| (chunk, Some((mailbox, file, meta, done)))))
        });
        Ok(ObjectBody {
            meta,
            stream: stream.boxed(),
        })
    }

    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        let key = key.clone();
        self.blocking(move |inner| {
            let (meta, mut file) = inner.open(&key)?;
            let mut content = Vec::new();
            if offset >= meta.size {
                return Ok(Bytes::new());
            }
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.take(length).read_to_end(&mut content))
                .map_err(|e| inner.error(&key, "reading a part of it", &e))?;
            Ok(Bytes::from(content))
        })
        .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        let key = key.clone();
        self.blocking(move |inner| inner.head(&key)).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        let wanted = key.clone();
        let temporary = self.blocking(move |inner| inner.begin(&wanted)).await?;
        Ok(Box::new(FileUpload {
            mailbox: self.clone(),
            key: key.clone(),
            temporary: Some(temporary),
            gathered: BytesMut::new(),
        }))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        let key = key.clone();
        self.blocking(move |inner| {
            // Most losers of a race come late: spare them the write.
            if inner.stat(&key)?.is_some() {
                return Ok(PutOutcome::Exists);
            }
            let mut temporary = inner.begin(&key)?;
            temporary
                .write_all(&content)
                .map_err(|e| inner.error(&key, "writing it", &e))?;
            inner.commit(&key, temporary)
        })
        .await
    }

    async fn may_put(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        let key = key.clone();
        self.blocking(move |inner| {
            drop(inner.begin(&key)?);
            let folder = inner.lowest_folder(&key);
            rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
                .map_err(|error| inner.error(&key, "writing to its folder", &error.into()))
        })
        .await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        let request = request.clone();
        self.blocking(move |inner| {
            inner.check_root()?;
            let time = Timestamp::from_second(Timestamp::now().as_second()).ok();
            let page = walk::list(&inner.root, &request).map_err(|(name, error)| {
                let kind = MailboxError::kind_of_io(&error);
                MailboxError::of_mailbox(kind, &inner.url, format_args!("listing {name:?}: {error}"))
            })?;
            Ok(ListPage { time, ..page })
        })
        .await
    }
}
