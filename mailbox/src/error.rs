//! What can go wrong with a mailbox, and what to do about it.

use snafu::Snafu;

use crate::{MailboxUrl, ObjectKey};

/// What went wrong; decides whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MailboxErrorKind {
    /// No object of that name.
    NotFound,
    /// The bucket or folder itself isn't there.
    NoSuchMailbox,
    /// The store refuses our identity, or a right to it: [`MailboxError::is_of_identity`].
    Denied,
    /// The store doesn't answer, is busy or full. The only kind that a retry can help.
    Unavailable,
    /// The object is longer than the reader's limit.
    TooLarge,
    /// The name can't be an object's name in this mailbox.
    InvalidKey,
    /// The URL can't be a mailbox's.
    InvalidUrl,
    /// How the mailbox is reached is set wrongly: endpoint, region, authorities, credentials or encryption.
    Configuration,
    /// The store, or this build, can't do what is asked.
    Unsupported,
    /// The store broke off: fewer bytes than it announced, or bytes that don't match its own digest.
    Corrupt,
    /// Any other fault of the storage.
    Io,
}

impl MailboxErrorKind {
    /// What to do about it, as the end of a message.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotFound => "check the name, and that its writer has finished",
            Self::NoSuchMailbox => "check the mailbox's URL, and create the folder or bucket if it is new",
            Self::Denied => "let this process's identity list, read or create objects there, as its task needs",
            Self::Unavailable => "try again later; if it stays, look at the store's free space and health",
            Self::TooLarge => "ask the object's writer what it is: no object of that name should be so long",
            Self::InvalidKey => "use relative names of 1 to 1024 bytes without empty, `.` or `..` segments",
            Self::InvalidUrl => "write it as file:///absolute/folder, s3://region/bucket/prefix or gs://bucket/prefix",
            Self::Configuration => "mend the mailbox's URL or its access settings",
            Self::Unsupported => "use a store that can do it, or a build that has it",
            Self::Corrupt => "read it again; if it stays, restore the object from its writer",
            Self::Io => "look at the storage below the mailbox",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::NoSuchMailbox => "the mailbox isn't there",
            Self::Denied => "access denied",
            Self::Unavailable => "the store is unavailable",
            Self::TooLarge => "too large",
            Self::InvalidKey => "not an object name",
            Self::InvalidUrl => "not a mailbox URL",
            Self::Configuration => "wrong settings",
            Self::Unsupported => "not supported",
            Self::Corrupt => "broken content",
            Self::Io => "storage fault",
        }
    }
}

/// A failed call on a mailbox: where, which object, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
#[snafu(display("{place}: {}{}; {}", kind.title(), Detail(detail), advice(*kind, *of_identity)))]
pub struct MailboxError {
    kind: MailboxErrorKind,
    /// [`MailboxErrorKind::Denied`]: it isn't known, or not believed, who we are.
    of_identity: bool,
    /// The mailbox's URL, and the object's name where one is concerned.
    place: String,
    detail: String,
}

/// What to do about a kind of error, as the end of a message.
fn advice(kind: MailboxErrorKind, of_identity: bool) -> &'static str {
    if of_identity {
        return "mend the credentials: the mounted Secret, or whom the store and its token service trust";
    }
    kind.advice()
}

struct Detail<'a>(&'a str);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.0)
        }
    }
}

impl MailboxError {
    /// An error of a whole mailbox. `detail` may be empty; it must hold no credentials.
    #[must_use]
    pub fn of_mailbox(kind: MailboxErrorKind, url: &MailboxUrl, detail: impl std::fmt::Display) -> Self {
        Self {
            kind,
            of_identity: false,
            place: format!("mailbox {url}"),
            detail: detail.to_string(),
        }
    }

    /// An error of one object.
    #[must_use]
    pub fn of_object(
        kind: MailboxErrorKind,
        url: &MailboxUrl,
        key: &ObjectKey,
        detail: impl std::fmt::Display,
    ) -> Self {
        Self {
            kind,
            of_identity: false,
            place: format!("mailbox {url}, object {key}"),
            detail: detail.to_string(),
        }
    }

    /// An error of a text that was to become a name or URL. `text` is quoted as given: pass no credentials.
    pub(crate) fn of_text(kind: MailboxErrorKind, text: &str, detail: &str) -> Self {
        let short: String = text.chars().take(200).collect();
        Self {
            kind,
            of_identity: false,
            place: format!("{short:?}"),
            detail: detail.to_owned(),
        }
    }

    /// The same where it is our identity that is refused (a key that isn't known, a token that has expired), and no right of it.
    #[must_use]
    pub fn of_identity(self, of_identity: bool) -> Self {
        Self {
            of_identity: of_identity && self.kind == MailboxErrorKind::Denied,
            ..self
        }
    }

    /// Whether our identity itself is refused: no right that anybody grants to it would help.
    #[must_use]
    pub fn is_of_identity(&self) -> bool {
        self.of_identity
    }

    /// What to do about it, as the message ends.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        advice(self.kind, self.of_identity)
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> MailboxErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == MailboxErrorKind::Unavailable
    }

    /// The kind that an operating system's error stands for, for a call on an object that is read.
    pub(crate) fn kind_of_io(error: &std::io::Error) -> MailboxErrorKind {
        use std::io::ErrorKind as E;
        match error.kind() {
            E::NotFound | E::NotADirectory => MailboxErrorKind::NotFound,
            E::PermissionDenied | E::ReadOnlyFilesystem => MailboxErrorKind::Denied,
            E::TimedOut
            | E::Interrupted
            | E::WouldBlock
            | E::ResourceBusy
            | E::StorageFull
            | E::QuotaExceeded
            | E::StaleNetworkFileHandle
            | E::OutOfMemory => MailboxErrorKind::Unavailable,
            E::InvalidFilename | E::InvalidInput => MailboxErrorKind::InvalidKey,
            E::CrossesDevices | E::TooManyLinks | E::Unsupported => MailboxErrorKind::Unsupported,
            E::UnexpectedEof => MailboxErrorKind::Corrupt,
            _ => MailboxErrorKind::Io,
        }
    }
}

/// An error and its causes on one line.
#[cfg(feature = "cloud")]
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut parts: Vec<String> = causes.map(|error| error.to_string().replace('\n', " ")).collect();
    // Some errors repeat their cause's text.
    parts.dedup_by(|cause, error| error.ends_with(cause.as_str()));
    parts.join(": ")
}
