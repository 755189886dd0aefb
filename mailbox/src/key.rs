//! Names of objects.

use std::fmt;
use std::str::FromStr;

use crate::{MailboxError, MailboxErrorKind};

/// An object's name inside its mailbox: relative, `/` between segments, 1 to 1024 bytes of UTF-8, no empty, `.` or `..`
/// segment, no control character. Ordered by bytes, as S3 and GCS list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The longest name that S3 and GCS take, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Checks a name.
    ///
    /// # Errors
    /// [`MailboxErrorKind::InvalidKey`], saying which rule it breaks.
    pub fn parse(name: impl Into<String>) -> Result<Self, MailboxError> {
        let name = name.into();
        match Self::fault(&name) {
            Some(fault) => Err(MailboxError::of_text(MailboxErrorKind::InvalidKey, &name, fault)),
            None => Ok(Self(name)),
        }
    }

    fn fault(name: &str) -> Option<&'static str> {
        if name.is_empty() {
            return Some("it is empty");
        }
        if name.len() > Self::MAX_BYTES {
            return Some("it is longer than 1024 bytes");
        }
        // U+10FFFF is no character; listings use it as "after every name of this folder".
        if name.chars().any(|c| c.is_control() || c == char::MAX) {
            return Some("it holds a control character");
        }
        if name.starts_with('/') {
            return Some("it begins with a slash");
        }
        if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Some("it has an empty, `.` or `..` segment");
        }
        None
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectKey {
    type Err = MailboxError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name)
    }
}

impl TryFrom<&str> for ObjectKey {
    type Error = MailboxError;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::parse(name)
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = MailboxError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn takes_names_that_every_store_takes() {
        for name in [
            "a",
            "a/b.c/d",
            "kittens-seen/2026/11/20/00/00/u.batch.sig",
            "Zähler/日本",
            "...",
            "a b",
            "a/.b",
        ] {
            assert_eq!(ObjectKey::parse(name).unwrap().as_str(), name);
        }
        assert!(ObjectKey::parse("a".repeat(1024)).is_ok());
    }

    #[test]
    fn refuses_names_that_leave_the_mailbox_or_confuse_a_store() {
        let long = "a".repeat(1025);
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            "a\0b",
            "a\nb",
            "a\u{10FFFF}",
            &long,
        ] {
            let error = ObjectKey::parse(name).unwrap_err();
            assert_eq!(error.kind(), MailboxErrorKind::InvalidKey, "{name:?}");
            assert!(!error.to_string().contains('\n'), "one line: {error}");
        }
    }

    #[test]
    fn orders_by_bytes() {
        let mut names: Vec<_> = ["a/b", "a.b", "a0", "B", "é"]
            .iter()
            .map(|n| ObjectKey::parse(*n).unwrap())
            .collect();
        names.sort();
        let names: Vec<_> = names.iter().map(ObjectKey::as_str).collect();
        assert_eq!(names, ["B", "a.b", "a/b", "a0", "é"]);
    }
}
