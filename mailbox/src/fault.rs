//! What failed calls on clouds have in common. What an answer means is its cloud's.

use crate::{MailboxError, MailboxErrorKind, MailboxUrl, ObjectKey};

/// A failed call.
#[derive(Debug)]
pub(crate) struct Fault {
    pub kind: MailboxErrorKind,
    /// The name is taken: a conditional put was refused.
    pub taken: bool,
    /// The content isn't the one whose checksum came along.
    pub bad_content: bool,
    /// The object ends before the bytes that were asked for.
    pub out_of_range: bool,
    /// It is our identity that is refused, by the store or before it by who gives tokens.
    pub of_identity: bool,
    /// GCS: the token wasn't accepted.
    pub unauthorized: bool,
    /// S3: the upload isn't known (any more).
    pub no_upload: bool,
    /// S3: the bucket has no lifecycle.
    pub no_rules: bool,
    pub detail: String,
}

impl Fault {
    pub fn new(kind: MailboxErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            taken: false,
            bad_content: false,
            out_of_range: false,
            of_identity: false,
            unauthorized: false,
            no_upload: false,
            no_rules: false,
            detail: detail.into(),
        }
    }

    pub fn into_error(self, url: &MailboxUrl, key: Option<&ObjectKey>) -> MailboxError {
        let error = match key {
            Some(key) => MailboxError::of_object(self.kind, url, key, self.detail),
            None => MailboxError::of_mailbox(self.kind, url, self.detail),
        };
        error.of_identity(self.of_identity)
    }
}
