//! How a command ends: exit codes by class of error (`docs/formats.md` §4.3), and one message with what to do.

use std::fmt::Display;
use std::process::ExitCode;

use facilitator_core::preflight::Trouble;
use mailbox::{MailboxError, MailboxErrorKind};

/// The class of an end; its number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitClass {
    /// All that was asked for is done.
    Done = 0,
    /// Wrong flag or argument.
    Usage = 64,
    /// The input is bad, for good.
    Data = 65,
    /// A named file or object isn't there.
    NoInput = 66,
    /// Storage doesn't answer; a retry may help.
    Unavailable = 69,
    /// A fault of ours.
    Internal = 70,
    /// An object of another content is in the way.
    Conflict = 73,
    /// Asked to stop: what is done is done, the rest is for the next run.
    Stopped = 75,
    /// Storage refuses our identity.
    Denied = 77,
    /// Keys, parameters or the ledger are wrong.
    Configuration = 78,
}

impl From<ExitClass> for ExitCode {
    fn from(class: ExitClass) -> Self {
        ExitCode::from(class as u8)
    }
}

/// Why a command gave up, and what to do about it. Never holds secrets.
#[derive(Debug)]
pub struct Failure {
    /// The exit code's class.
    pub exit: ExitClass,
    /// What happened, naming the object; one line.
    pub message: String,
    /// What to do; may be empty where the message says it.
    pub advice: String,
}

impl Failure {
    /// A failure of that class.
    pub fn new(exit: ExitClass, message: impl Display, advice: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            advice: advice.to_string(),
        }
    }

    /// As a preflight tells it.
    pub fn into_trouble(self) -> Trouble {
        Trouble {
            detail: self.message,
            remedy: self.advice,
        }
    }

    /// A file that couldn't be read or written; `doing` names the act and the file.
    pub fn of_file(doing: impl Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let (exit, advice) = match error.kind() {
            E::NotFound | E::NotADirectory => (ExitClass::NoInput, "check the path"),
            E::PermissionDenied | E::ReadOnlyFilesystem => (ExitClass::Denied, "check who may read and write it"),
            E::AlreadyExists => (ExitClass::Conflict, "name another place, or remove what is there"),
            _ => (ExitClass::Unavailable, "look at the file system, then run it again"),
        };
        Self::new(exit, format_args!("{doing}: {error}"), advice)
    }
}

impl From<MailboxError> for Failure {
    fn from(error: MailboxError) -> Self {
        let exit = match error.kind() {
            MailboxErrorKind::NotFound => ExitClass::NoInput,
            MailboxErrorKind::Denied => ExitClass::Denied,
            MailboxErrorKind::TooLarge | MailboxErrorKind::InvalidKey => ExitClass::Data,
            MailboxErrorKind::NoSuchMailbox
            | MailboxErrorKind::InvalidUrl
            | MailboxErrorKind::Configuration
            | MailboxErrorKind::Unsupported => ExitClass::Configuration,
            _ => ExitClass::Unavailable,
        };
        Self::new(exit, error, "")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn codes_are_those_of_the_table() {
        let codes = [
            (ExitClass::Done, 0),
            (ExitClass::Usage, 64),
            (ExitClass::Data, 65),
            (ExitClass::NoInput, 66),
            (ExitClass::Unavailable, 69),
            (ExitClass::Internal, 70),
            (ExitClass::Conflict, 73),
            (ExitClass::Stopped, 75),
            (ExitClass::Denied, 77),
            (ExitClass::Configuration, 78),
        ];
        for (class, code) in codes {
            assert_eq!(class as u8, code);
        }
    }

    #[test]
    fn only_an_unavailable_store_invites_a_retry() {
        let url = mailbox::MailboxUrl::parse("file:///var/mail").unwrap();
        for (kind, exit) in [
            (MailboxErrorKind::Unavailable, ExitClass::Unavailable),
            (MailboxErrorKind::Denied, ExitClass::Denied),
            (MailboxErrorKind::NotFound, ExitClass::NoInput),
            (MailboxErrorKind::NoSuchMailbox, ExitClass::Configuration),
            (MailboxErrorKind::Configuration, ExitClass::Configuration),
            (MailboxErrorKind::TooLarge, ExitClass::Data),
        ] {
            assert_eq!(Failure::from(MailboxError::of_mailbox(kind, &url, "")).exit, exit);
        }
    }
}
