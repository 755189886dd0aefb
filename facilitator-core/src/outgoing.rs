//! Objects on their way to a mailbox: in memory as long as they are short, else in an upload that waits for its commit.

use bytes::Bytes;
use mailbox::{Mailbox, MailboxError, MailboxErrorKind, ObjectKey, PutOutcome, Upload};

use crate::put::{exists_if_refused, put};

/// Objects up to this length, in bytes, are put by a single call; longer ones are uploaded in parts.
pub const SINGLE_PUT_BYTES: usize = 8 << 20;
/// The length of an uploaded part, in bytes.
pub const PART_BYTES: usize = 1 << 20;

/// An object on its way. Nothing is there before [`Outgoing::commit`].
pub(crate) struct Outgoing<'a> {
    mailbox: &'a dyn Mailbox,
    key: ObjectKey,
    limit: usize,
    upload: Option<Box<dyn Upload>>,
    /// The store refused a write: whether that is because the object exists is seen at the end.
    refused: Option<MailboxError>,
    held: Vec<u8>,
}

impl<'a> Outgoing<'a> {
    /// An object without bytes so far. `limit`: up to so many bytes it stays in memory.
    pub fn new(mailbox: &'a dyn Mailbox, key: ObjectKey, limit: usize) -> Self {
        Self {
            mailbox,
            key,
            limit,
            upload: None,
            refused: None,
            held: Vec::new(),
        }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Sends a part that comes before [`Outgoing::tail`].
    ///
    /// # Errors
    /// Those of the mailbox, but a refusal, which counts at the commit.
    pub async fn write(&mut self, part: Bytes) -> Result<(), MailboxError> {
        if self.refused.is_some() {
            return Ok(());
        }
        match self.send(part).await {
            Err(error) if error.kind() == MailboxErrorKind::Denied => {
                self.abort().await;
                self.refused = Some(error);
                Ok(())
            }
            sent => sent,
        }
    }

    async fn send(&mut self, part: Bytes) -> Result<(), MailboxError> {
        if self.upload.is_none() {
            self.upload = Some(self.mailbox.begin_upload(&self.key).await?);
        }
        match &mut self.upload {
            Some(upload) => upload.write(part).await,
            None => Ok(()),
        }
    }

    /// What wasn't sent yet: more may be appended.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.held
    }

    /// How many bytes of memory wait for the commit.
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Makes the object visible, if none is there; with its bytes, where they are all in memory. A refusal of an object that
    /// exists counts as existing: see [`put`].
    ///
    /// # Errors
    /// Those of the mailbox.
    pub async fn commit(mut self) -> Result<(PutOutcome, Option<Bytes>), MailboxError> {
        let held = Bytes::from(std::mem::take(&mut self.held));
        if let Some(error) = self.refused {
            let outcome = exists_if_refused(self.mailbox, &self.key, Err(error)).await?;
            return Ok((outcome, None));
        }
        let Some(mut upload) = self.upload.take() else {
            let outcome = put(self.mailbox, &self.key, &held).await?;
            return Ok((outcome, Some(held)));
        };
        if !held.is_empty()
            && let Err(error) = upload.write(held).await
        {
            // The first error says more than a second one while tidying up.
            let _ = upload.abort().await;
            return exists_if_refused(self.mailbox, &self.key, Err(error))
                .await
                .map(|outcome| (outcome, None));
        }
        let outcome = exists_if_refused(self.mailbox, &self.key, upload.commit_if_absent().await).await?;
        Ok((outcome, None))
    }

    /// Removes what was stored, as far as that works: a store removes what is left of uploads after a while, too.
    pub async fn abort(&mut self) {
        if let Some(upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::info!(object = %self.key, %error, "an upload that was given up may be left for the store to remove");
        }
    }

    /// All bytes, of an object that was held in memory.
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }
}
