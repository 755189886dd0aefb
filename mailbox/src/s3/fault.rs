//! What S3 says when it doesn't do what is asked.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::chain;
use crate::fault::Fault;
use crate::{MailboxError, MailboxErrorKind, credentials};

/// Codes of answers to a content that isn't the one whose checksum came along.
const BAD_CONTENT: [&str; 3] = ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"];

/// Codes of answers to whom it isn't known, or not believed, who they are.
const NO_IDENTITY: [&str; 6] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "InvalidClientTokenId",
    "TokenRefreshRequired",
];

impl Fault {
    /// Who is refused must be told what: of stores other than AWS's many don't say.
    pub fn of_operation(mut self, operation: &str) -> Self {
        if self.kind == MailboxErrorKind::Denied {
            self.detail = format!("{operation}: {}", self.detail);
        }
        self
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
        (_, "RequestTimeTooSkewed") => Kind::Denied,
        (_, code) if NO_IDENTITY.contains(&code) => Kind::Denied,
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
        of_identity: status == 401 || NO_IDENTITY.contains(&code),
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
        return of_credentials(own.kind(), own.to_string());
    }
    let kind = match find::<CredentialsError>(error) {
        Some(error) => return of_credentials(credentials::kind_of(error, &chain), chain),
        None if chain.contains("certificate") => Kind::Configuration,
        None if matches!(error, SdkError::ConstructionFailure(_)) => Kind::Configuration,
        None => Kind::Unavailable,
    };
    Fault::new(kind, chain)
}

/// Whoever can't get credentials has no identity to the store.
fn of_credentials(kind: MailboxErrorKind, detail: String) -> Fault {
    Fault {
        of_identity: kind == MailboxErrorKind::Denied,
        ..Fault::new(kind, detail)
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    error.downcast_ref::<T>().or_else(|| find(error.source()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MailboxUrl;
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
    fn a_refused_identity_is_told_from_a_refused_right() {
        for (status, code, of_identity) in [
            (403, "AccessDenied", false),
            (403, "", false),
            (403, "RequestTimeTooSkewed", false),
            (403, "InvalidAccessKeyId", true),
            (403, "SignatureDoesNotMatch", true),
            (400, "ExpiredToken", true),
            (401, "", true),
            (404, "", false),
        ] {
            let error = classify(status, code, "", None, "us-east-1").into_error(&MailboxUrl::memory("a"), None);
            assert_eq!(error.is_of_identity(), of_identity, "{status} {code}");
            assert_eq!(
                error.to_string().contains("mend the credentials"),
                of_identity,
                "{error}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_operation() {
        let told = |status, code| {
            classify(status, code, "", None, "us-east-1")
                .of_operation("PutObject")
                .detail
        };
        assert_eq!(told(403, "AccessDenied"), "PutObject: HTTP 403 AccessDenied");
        assert_eq!(told(503, "SlowDown"), "HTTP 503 SlowDown");
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
