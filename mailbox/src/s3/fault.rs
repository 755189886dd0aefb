//! What S3 says when it doesn't do what is asked.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::chain;
use crate::{MailboxError, MailboxErrorKind, MailboxUrl, ObjectKey, credentials};

/// Codes of answers to a content that isn't the one whose checksum came along.
const BAD_CONTENT: [&str; 3] = ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"];

/// A failed call.
#[derive(Debug)]
pub(super) struct Fault {
    pub kind: MailboxErrorKind,
    /// The name is taken: a conditional put was refused.
    pub taken: bool,
    /// The content isn't the one whose checksum came along.
    pub bad_content: bool,
    /// The upload isn't known (any more).
    pub no_upload: bool,
    /// The bucket has no lifecycle.
    pub no_rules: bool,
    /// The object ends before the bytes that were asked for.
    pub out_of_range: bool,
    detail: String,
}

impl Fault {
    pub fn new(kind: MailboxErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            taken: false,
            bad_content: false,
            no_upload: false,
            no_rules: false,
            out_of_range: false,
            detail: detail.into(),
        }
    }

    pub fn into_error(self, url: &MailboxUrl, key: Option<&ObjectKey>) -> MailboxError {
        match key {
            Some(key) => MailboxError::of_object(self.kind, url, key, self.detail),
            None => MailboxError::of_mailbox(self.kind, url, self.detail),
        }
    }

    /// What a failed call of the SDK means for a mailbox in `region`.
    pub fn of<E>(error: &SdkError<E, HttpResponse>, region: &str) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Some(response) = error.raw_response() else {
            return of_no_answer(error);
        };
        let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
        let bucket_region = response.headers().get("x-amz-bucket-region");
        classify(response.status().as_u16(), code, message, bucket_region, region)
    }
}

/// What an answer means. `bucket_region` is the header of that name.
fn classify(status: u16, code: &str, message: &str, bucket_region: Option<&str>, region: &str) -> Fault {
    use MailboxErrorKind as Kind;
    // 400 AuthorizationHeaderMalformed says: the region 'us-east-1' is wrong; expecting 'eu-west-1'.
    let expected = message
        .split_once("expecting '")
        .and_then(|(_, rest)| rest.split_once('\''));
    let elsewhere = bucket_region
        .or(expected.map(|(region, _)| region))
        .filter(|right| *right != region);
    if let (300..=499, Some(right)) = (status, elsewhere) {
        let detail = format!("the bucket is in {right}, not in {region}: write s3://{right}/… in its URL");
        return Fault::new(Kind::Configuration, detail);
    }
    let kind = match (status, code) {
        (_, "NoSuchBucket" | "InvalidBucketName") => Kind::NoSuchMailbox,
        (_, "NoSuchKey") => Kind::NotFound,
        // The upload vanished under us: a new one may work.
        (_, "NoSuchUpload") => Kind::Unavailable,
        // What we sent was changed on the way.
        (_, code) if BAD_CONTENT.contains(&code) => Kind::Unavailable,
        (
            _,
            "RequestTimeout"
            | "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "InternalError"
            | "ServiceUnavailable",
        ) => Kind::Unavailable,
        (
            _,
            "InvalidAccessKeyId" | "ExpiredToken" | "InvalidToken" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed",
        ) => Kind::Denied,
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            Kind::Configuration
        }
        (_, "KMS.NotFoundException" | "KMS.DisabledException" | "KMS.KMSInvalidStateException") => Kind::Configuration,
        (_, "NotImplemented") | (501, _) => Kind::Unsupported,
        (401 | 403, _) => Kind::Denied,
        (404, _) => Kind::NotFound,
        // 409 is a conflict with another call that is just under way; an error in a 200 is one of the store's inside.
        (200..=299 | 408 | 409 | 429 | 500..=599, _) => Kind::Unavailable,
        _ => Kind::Io,
    };
    let detail = match (code, message) {
        ("", _) => format!("HTTP {status}"),
        (code, "") => format!("HTTP {status} {code}"),
        (code, message) => format!("HTTP {status} {code}: {message}"),
    };
    Fault {
        taken: status == 412,
        bad_content: BAD_CONTENT.contains(&code),
        no_upload: code == "NoSuchUpload",
        no_rules: code == "NoSuchLifecycleConfiguration",
        out_of_range: status == 416,
        ..Fault::new(kind, detail)
    }
}

/// What it means that no answer came.
fn of_no_answer<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> Fault {
    use MailboxErrorKind as Kind;
    let chain = chain(error);
    // Our own providers say themselves what is wrong.
    if let Some(own) = find::<MailboxError>(error) {
        return Fault::new(own.kind(), own.to_string());
    }
    let kind = match find::<CredentialsError>(error) {
        Some(error) => credentials::kind_of(error, &chain),
        None if chain.contains("certificate") => Kind::Configuration,
        None if matches!(error, SdkError::ConstructionFailure(_)) => Kind::Configuration,
        None => Kind::Unavailable,
    };
    Fault::new(kind, chain)
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    error.downcast_ref::<T>().or_else(|| find(error.source()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use MailboxErrorKind as Kind;

    #[test]
    fn answers_mean_what_can_be_done_about_them() {
        for (status, code, kind) in [
            (404, "NoSuchKey", Kind::NotFound),
            (404, "", Kind::NotFound),
            (404, "NoSuchBucket", Kind::NoSuchMailbox),
            (403, "AccessDenied", Kind::Denied),
            (403, "RequestTimeTooSkewed", Kind::Denied),
            (400, "ExpiredToken", Kind::Denied),
            (401, "", Kind::Denied),
            (400, "BadDigest", Kind::Unavailable),
            (400, "RequestTimeout", Kind::Unavailable),
            (400, "InvalidRequest", Kind::Io),
            (409, "ConditionalRequestConflict", Kind::Unavailable),
            (429, "", Kind::Unavailable),
            (503, "SlowDown", Kind::Unavailable),
            (500, "", Kind::Unavailable),
            (501, "NotImplemented", Kind::Unsupported),
            (200, "InternalError", Kind::Unavailable),
            (200, "Surprise", Kind::Unavailable),
        ] {
            let fault = classify(status, code, "", None, "us-east-1");
            assert_eq!((fault.kind, fault.taken), (kind, false), "{status} {code}");
        }
        assert!(classify(412, "PreconditionFailed", "", None, "us-east-1").taken);
        assert!(classify(404, "NoSuchUpload", "", None, "us-east-1").no_upload);
    }

    #[test]
    fn a_wrong_region_is_named_with_the_right_one() {
        let malformed = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'";
        for (status, code, message, header) in [
            (301, "PermanentRedirect", "", Some("eu-west-1")),
            (301, "", "", Some("eu-west-1")),
            (400, "", "", Some("eu-west-1")),
            (400, "AuthorizationHeaderMalformed", malformed, None),
        ] {
            let fault = classify(status, code, message, header, "us-east-1");
            assert_eq!(fault.kind, Kind::Configuration);
            assert!(fault.detail.contains("s3://eu-west-1/"), "{}", fault.detail);
        }
        let fault = classify(404, "NoSuchKey", "", Some("us-east-1"), "us-east-1");
        assert_eq!(fault.kind, Kind::NotFound, "the right region is no mistake");
    }
}
