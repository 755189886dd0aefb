//! An upload into a folder: a temporary file, linked under its name at the end.

use std::io::Write;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tempfile::NamedTempFile;

use super::{CHUNK, FileMailbox};
use crate::{MailboxError, MailboxErrorKind, ObjectKey, PutOutcome, Upload};

pub(super) struct FileUpload {
    pub mailbox: FileMailbox,
    pub key: ObjectKey,
    /// `None` after a failed or cancelled write: the file is gone, and so is the upload.
    pub temporary: Option<NamedTempFile>,
    pub gathered: BytesMut,
}

impl FileUpload {
    async fn flush(&mut self) -> Result<NamedTempFile, MailboxError> {
        let Some(mut temporary) = self.temporary.take() else {
            let detail = "the upload was broken off by an earlier fault";
            return Err(MailboxError::of_object(
                MailboxErrorKind::Io,
                &self.mailbox.inner.url,
                &self.key,
                detail,
            ));
        };
        let (key, content) = (self.key.clone(), self.gathered.split().freeze());
        self.mailbox
            .blocking(move |inner| {
                temporary
                    .write_all(&content)
                    .map_err(|e| inner.error(&key, "writing it", &e))?;
                Ok(temporary)
            })
            .await
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError> {
        self.gathered.extend_from_slice(&chunk);
        if self.gathered.len() >= CHUNK {
            let temporary = self.flush().await?;
            self.temporary = Some(temporary);
        }
        Ok(())
    }

    async fn commit_if_absent(mut self: Box<Self>) -> Result<PutOutcome, MailboxError> {
        let temporary = self.flush().await?;
        let key = self.key.clone();
        self.mailbox.blocking(move |inner| inner.commit(&key, temporary)).await
    }

    async fn abort(self: Box<Self>) -> Result<(), MailboxError> {
        Ok(())
    }
}
