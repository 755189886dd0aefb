//! Where mailboxes are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::{Access, FileMailbox, Mailbox, MailboxError, MailboxErrorKind, Patience};
#[cfg(feature = "cloud")]
use crate::{gcs::GcsMailbox, s3::S3Mailbox};

/// Where a mailbox is. Holds no credentials: a URL with a user, password, query or fragment is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxUrl(Place);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    File {
        folder: PathBuf,
    },
    S3 {
        region: String,
        bucket: String,
        prefix: String,
    },
    Gcs {
        bucket: String,
        prefix: String,
    },
    Memory {
        name: String,
    },
}

impl MailboxUrl {
    /// Reads `file:///absolute/folder`, `s3://region/bucket[/prefix]` or `gs://bucket[/prefix]`. Nothing is
    /// percent-decoded.
    ///
    /// # Errors
    /// [`MailboxErrorKind::InvalidUrl`].
    pub fn parse(text: &str) -> Result<Self, MailboxError> {
        let fail = |detail: &str| MailboxError::of_text(MailboxErrorKind::InvalidUrl, &redacted(text), detail);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(fail("it has no scheme"));
        };
        if rest.contains(['?', '#', '%', '\\']) || rest.chars().any(char::is_control) {
            return Err(fail("it holds a query, a fragment, an escape or a control character"));
        }
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(fail("it holds a user name: credentials don't belong in a URL"));
        }
        match scheme {
            "file" => {
                let Some(path) = rest.strip_prefix("localhost").unwrap_or(rest).strip_prefix('/') else {
                    return Err(fail("the folder must be absolute, with three slashes after `file:`"));
                };
                let path = segments(path).ok_or_else(|| fail("it has an empty, `.` or `..` segment"))?;
                Ok(Self(Place::File {
                    folder: Path::new("/").join(path),
                }))
            }
            "s3" => {
                let mut parts = rest.splitn(3, '/');
                let (region, bucket) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                if !is_name(region) || !is_name(bucket) {
                    return Err(fail("region and bucket are missing or malformed"));
                }
                let prefix =
                    segments(parts.next().unwrap_or_default()).ok_or_else(|| fail("the prefix is malformed"))?;
                Ok(Self(Place::S3 {
                    region: region.to_owned(),
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_owned(),
                }))
            }
            "gs" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if !is_name(bucket) {
                    return Err(fail("the bucket is missing or malformed"));
                }
                let prefix = segments(prefix).ok_or_else(|| fail("the prefix is malformed"))?;
                Ok(Self(Place::Gcs {
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_owned(),
                }))
            }
            _ => Err(fail("its scheme is none of file, s3, gs")),
        }
    }

    /// The URL of a local folder; a relative one is taken from the process's current folder.
    ///
    /// # Errors
    /// [`MailboxErrorKind::InvalidUrl`] where the path isn't UTF-8, holds `..`, or the current folder is gone.
    pub fn of_folder(folder: &Path) -> Result<Self, MailboxError> {
        let fail =
            |detail: &str| MailboxError::of_text(MailboxErrorKind::InvalidUrl, &folder.to_string_lossy(), detail);
        let absolute = std::path::absolute(folder).map_err(|_| fail("it can't be made absolute"))?;
        let text = absolute.to_str().ok_or_else(|| fail("it isn't UTF-8"))?;
        Self::parse(&format!("file://{text}"))
    }

    pub(crate) fn memory(name: &str) -> Self {
        Self(Place::Memory { name: name.to_owned() })
    }

    /// `file`, `s3`, `gs`, or `memory` (tests).
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match &self.0 {
            Place::File { .. } => "file",
            Place::S3 { .. } => "s3",
            Place::Gcs { .. } => "gs",
            Place::Memory { .. } => "memory",
        }
    }

    /// The folder of a `file` URL.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Place::File { folder } => Some(folder),
            _ => None,
        }
    }

    /// Whether it is a part of a bucket: rights on the bucket may then be for its names alone.
    #[must_use]
    pub fn has_prefix(&self) -> bool {
        matches!(&self.0, Place::S3 { prefix, .. } | Place::Gcs { prefix, .. } if !prefix.is_empty())
    }

    pub(crate) fn open(&self, access: &Access, patience: Patience) -> Result<Arc<dyn Mailbox>, MailboxError> {
        Ok(match &self.0 {
            Place::File { folder } if *access == Access::default() => {
                Arc::new(FileMailbox::new(self.clone(), folder.clone()))
            }
            Place::File { .. } => {
                let detail = "a folder takes no access settings";
                return Err(MailboxError::of_mailbox(MailboxErrorKind::Configuration, self, detail));
            }
            #[cfg(feature = "cloud")]
            Place::S3 { region, bucket, prefix } => {
                Arc::new(S3Mailbox::new(self, (region, bucket, prefix), access, patience)?)
            }
            #[cfg(feature = "cloud")]
            Place::Gcs { bucket, prefix } => Arc::new(GcsMailbox::new(self, (bucket, prefix), access, patience)?),
            #[cfg(not(feature = "cloud"))]
            Place::S3 { .. } | Place::Gcs { .. } => {
                // Nothing waits for a folder.
                let _ = patience;
                let detail = "this build has no cloud mailboxes";
                return Err(MailboxError::of_mailbox(MailboxErrorKind::Unsupported, self, detail));
            }
            Place::Memory { .. } => {
                let detail = "a mailbox in memory is made, not opened";
                return Err(MailboxError::of_mailbox(MailboxErrorKind::Unsupported, self, detail));
            }
        })
    }
}

/// The path without slashes around it, if its segments are plain.
fn segments(path: &str) -> Option<&str> {
    let path = path.trim_end_matches('/');
    let plain = path.is_empty() || path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    plain.then_some(path)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The URL without what could be a secret, for messages.
fn redacted(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://…@{after}")
        }
        None => text.to_owned(),
    }
}

impl fmt::Display for MailboxUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, prefix) = match &self.0 {
            Place::File { folder } => return write!(f, "file://{}", folder.display()),
            Place::Memory { name } => return write!(f, "memory://{name}"),
            Place::S3 { region, bucket, prefix } => (format!("s3://{region}/{bucket}"), prefix),
            Place::Gcs { bucket, prefix } => (format!("gs://{bucket}"), prefix),
        };
        f.write_str(&head)?;
        if prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{prefix}")
        }
    }
}

impl FromStr for MailboxUrl {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_and_writes_each_form() {
        for (text, shown) in [
            ("file:///var/mail box", "file:///var/mail box"),
            ("file:///var/mail/", "file:///var/mail"),
            ("file://localhost/var", "file:///var"),
            ("s3://us-west-1/bucket", "s3://us-west-1/bucket"),
            ("s3://us-west-1/bucket/a/b/", "s3://us-west-1/bucket/a/b"),
            ("gs://bucket", "gs://bucket"),
            ("gs://bucket/a", "gs://bucket/a"),
        ] {
            assert_eq!(MailboxUrl::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refuses_other_urls_without_telling_secrets() {
        for text in [
            "",
            "/var/mail",
            "file://var/mail",
            "file:///a/../b",
            "file:///a//b",
            "http://example.com/a",
            "s3://us-west-1",
            "s3://us-west-1/",
            "gs://",
            "gs:///a",
            "s3://id:hush@us-west-1/bucket",
            "gs://bucket/a?token=hush",
            "file:///a%20b",
        ] {
            let error = MailboxUrl::parse(text).unwrap_err();
            assert_eq!(error.kind(), MailboxErrorKind::InvalidUrl, "{text}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
