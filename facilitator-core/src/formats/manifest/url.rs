//! URLs in manifests and of manifests.

use snafu::ensure;

use super::{BaseUrlSnafu, ManifestError, StorageUrlSnafu};

/// Where a partner's bucket is, as manifests write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageUrl {
    /// `gs://bucket[/prefix]`
    Gcs {
        /// The bucket.
        bucket: String,
        /// The prefix, perhaps empty.
        prefix: String,
    },
    /// `s3://region/bucket[/prefix]`
    S3 {
        /// The region.
        region: String,
        /// The bucket.
        bucket: String,
        /// The prefix, perhaps empty.
        prefix: String,
    },
    /// Anything else is a path on the original's own disk: for tests.
    Local {
        /// The path.
        path: String,
    },
}

impl StorageUrl {
    /// Parses a bucket's URL.
    ///
    /// # Errors
    /// [`ManifestError::StorageUrl`] where bucket or region is missing, or the text is empty.
    pub fn parse(url: &str) -> Result<Self, ManifestError> {
        let split = |text: &str| {
            let (name, rest) = text.split_once('/').unwrap_or((text, ""));
            (name.to_owned(), rest.to_owned())
        };
        let parsed = if let Some(rest) = url.strip_prefix("gs://") {
            let (bucket, prefix) = split(rest);
            (!bucket.is_empty()).then_some(Self::Gcs { bucket, prefix })
        } else if let Some(rest) = url.strip_prefix("s3://") {
            let (region, rest) = split(rest);
            let (bucket, prefix) = split(&rest);
            (!region.is_empty() && !bucket.is_empty()).then_some(Self::S3 { region, bucket, prefix })
        } else {
            (!url.is_empty()).then(|| Self::Local { path: url.to_owned() })
        };
        parsed.ok_or_else(|| StorageUrlSnafu { url }.build())
    }
}

/// Checks the base URL of a partner's manifests: `https://` alone, so that nobody on the way can swap keys.
///
/// # Errors
/// [`ManifestError::BaseUrl`].
pub fn check_base_url(url: &str) -> Result<(), ManifestError> {
    let rest = url.strip_prefix("https://").unwrap_or("");
    let host = rest.split('/').next().unwrap_or("");
    let plain = !rest.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@' | '\\'));
    ensure!(
        !host.is_empty() && !host.starts_with(':') && plain,
        BaseUrlSnafu { url }
    );
    Ok(())
}
