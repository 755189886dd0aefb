//! What GCS's JSON interface says.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

use crate::fault::Fault;
use crate::{ExpiryRule, MailboxErrorKind};

/// The parts of [`Object`], as a request names them.
pub(super) const OBJECT_FIELDS: &str = "name,size,timeCreated,generation,crc32c,metadata";
pub(super) const LIST_FIELDS: &str = "nextPageToken,prefixes,items(name,size,timeCreated,generation,crc32c,metadata)";

/// An object resource; 64-bit numbers are strings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    pub name: String,
    pub size: String,
    pub time_created: Timestamp,
    pub generation: String,
    #[serde(default)]
    pub crc32c: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Page {
    pub items: Vec<Object>,
    pub prefixes: Vec<String>,
    pub next_page_token: Option<String>,
}

/// A bucket, as far as its lifecycle goes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BucketResource {
    lifecycle: Lifecycle,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lifecycle {
    rule: Vec<LifecycleRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LifecycleRule {
    action: LifecycleAction,
    condition: LifecycleCondition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LifecycleAction {
    r#type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LifecycleCondition {
    age: Option<u64>,
    is_live: Option<bool>,
    num_newer_versions: Option<u64>,
    days_since_noncurrent_time: Option<u64>,
    noncurrent_time_before: Option<String>,
    matches_prefix: Vec<String>,
    matches_suffix: Vec<String>,
    matches_storage_class: Vec<String>,
    days_since_custom_time: Option<u64>,
    custom_time_before: Option<String>,
}

impl BucketResource {
    /// The rules that delete current objects of the mailbox `root`.
    pub fn expiry_rules(&self, root: &str) -> Vec<ExpiryRule> {
        let mut rules = Vec::new();
        for LifecycleRule { action, condition } in &self.lifecycle.rule {
            let of_old_versions = condition.is_live == Some(false)
                || condition.num_newer_versions.is_some_and(|number| number > 0)
                || condition.days_since_noncurrent_time.is_some()
                || condition.noncurrent_time_before.is_some();
            // Ours have no such time.
            let of_custom_time = condition.days_since_custom_time.is_some() || condition.custom_time_before.is_some();
            if action.r#type != "Delete" || of_old_versions || of_custom_time {
                continue;
            }
            let every = [String::new()];
            let prefixes = if condition.matches_prefix.is_empty() {
                &every[..]
            } else {
                &condition.matches_prefix
            };
            let partly = !condition.matches_suffix.is_empty() || !condition.matches_storage_class.is_empty();
            let inside = |prefix: &String| ExpiryRule::inside(root, prefix, condition.age);
            let rule = |rule| ExpiryRule { partly, ..rule };
            rules.extend(prefixes.iter().filter_map(inside).map(rule));
        }
        rules
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    error: FailureDetail,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FailureDetail {
    message: String,
    /// `[{"reason": "…"}]`; the message counts whatever else this is.
    errors: serde_json::Value,
}

/// Reasons of a 403 to whom is merely too fast for a quota: waiting helps, as after a 429. A daily limit isn't among them.
const TOO_FAST: [&str; 2] = ["rateLimitExceeded", "userRateLimitExceeded"];

/// A CRC32C as GCS writes it.
pub(super) fn crc32c_text(value: u32) -> String {
    BASE64_STANDARD.encode(value.to_be_bytes())
}

pub(super) fn crc32c_value(text: &str) -> Option<u32> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The CRC32C in a header `x-goog-hash: crc32c=…,md5=…`, one of perhaps several.
pub(super) fn crc32c_in<'a>(headers: impl Iterator<Item = &'a str>) -> Option<u32> {
    let mut hashes = headers.flat_map(|header| header.split(','));
    hashes.find_map(|hash| crc32c_value(hash.trim().strip_prefix("crc32c=")?))
}

/// What an answer that isn't a success means. An upload or a listing is asked of a bucket, everything else of an object.
pub(super) fn classify(status: u16, body: &[u8], of_bucket: bool) -> Fault {
    use MailboxErrorKind as Kind;
    let failure: Failure = serde_json::from_slice(body).unwrap_or_default();
    let message = failure.error.message.replace('\n', " ");
    let mut reasons = failure
        .error
        .errors
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|error| error["reason"].as_str());
    let too_fast = status == 403 && reasons.any(|reason| TOO_FAST.contains(&reason));
    let bad_content = status == 400 && message.contains("doesn't match calculated");
    let kind = match status {
        // What we sent was changed on the way.
        400 if bad_content => Kind::Unavailable,
        400 if message.contains("cryptoKey") || message.contains("KMS") => Kind::Configuration,
        403 if too_fast => Kind::Unavailable,
        401 | 403 => Kind::Denied,
        404 if of_bucket || message.contains("bucket does not exist") => Kind::NoSuchMailbox,
        404 => Kind::NotFound,
        501 => Kind::Unsupported,
        408 | 429 | 500..=599 => Kind::Unavailable,
        _ => Kind::Io,
    };
    let detail = if message.is_empty() {
        format!("HTTP {status}")
    } else {
        format!("HTTP {status}: {message}")
    };
    Fault {
        taken: status == 412,
        bad_content,
        out_of_range: status == 416,
        unauthorized: status == 401,
        of_identity: status == 401,
        ..Fault::new(kind, detail)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::MailboxUrl;
    use MailboxErrorKind as Kind;

    #[test]
    fn rules_that_delete_current_objects_are_told() {
        let text = r#"{"lifecycle":{"rule":[
            {"action":{"type":"Delete"},"condition":{"age":30,"matchesPrefix":["us-ct/claims/","other/"]}},
            {"action":{"type":"Delete"},"condition":{"createdBefore":"2026-01-01"}},
            {"action":{"type":"Delete"},"condition":{"age":1,"isLive":false}},
            {"action":{"type":"Delete"},"condition":{"numNewerVersions":3}},
            {"action":{"type":"Delete"},"condition":{"age":2,"daysSinceCustomTime":3}},
            {"action":{"type":"Delete"},"condition":{"customTimeBefore":"2026-01-01"}},
            {"action":{"type":"Delete"},"condition":{"age":4,"matchesSuffix":[".tmp"]}},
            {"action":{"type":"Delete"},"condition":{"age":5,"matchesStorageClass":["NEARLINE"]}},
            {"action":{"type":"SetStorageClass","storageClass":"NEARLINE"},"condition":{"age":1}},
            {"action":{"type":"AbortIncompleteMultipartUpload"},"condition":{"age":1}}]}}"#;
        let resource: BucketResource = serde_json::from_str(text).unwrap();
        let rule = |prefix: &str, days, partly| ExpiryRule {
            prefix: prefix.into(),
            days,
            partly,
        };
        assert_eq!(
            resource.expiry_rules("us-ct/"),
            [
                rule("claims/", Some(30), false),
                rule("", None, false),
                rule("", Some(4), true),
                rule("", Some(5), true)
            ]
        );
        let none: BucketResource = serde_json::from_str("{}").unwrap();
        assert_eq!(none.expiry_rules(""), []);
    }

    #[test]
    fn answers_mean_what_can_be_done_about_them() {
        for (status, message, of_bucket, kind) in [
            (404, "No such object: b/o", false, Kind::NotFound),
            (404, "", false, Kind::NotFound),
            (404, "", true, Kind::NoSuchMailbox),
            (404, "The specified bucket does not exist.", false, Kind::NoSuchMailbox),
            (403, "w@p does not have storage.objects.get access", false, Kind::Denied),
            (401, "Invalid Credentials", false, Kind::Denied),
            (
                400,
                "Provided CRC32C \\\"a\\\" doesn't match calculated CRC32C \\\"b\\\".",
                true,
                Kind::Unavailable,
            ),
            (400, "Cloud KMS key not found: cryptoKeys/k", true, Kind::Configuration),
            (400, "Invalid argument.", true, Kind::Io),
            (429, "rate", false, Kind::Unavailable),
            (503, "", false, Kind::Unavailable),
            (301, "", false, Kind::Io),
        ] {
            let body = format!(r#"{{"error":{{"code":{status},"message":"{message}"}}}}"#);
            assert_eq!(
                classify(status, body.as_bytes(), of_bucket).kind,
                kind,
                "{status} {message}"
            );
        }
        assert!(classify(412, b"", true).taken);
        for (status, of_identity) in [(401, true), (403, false)] {
            let error = classify(status, b"", true).into_error(&MailboxUrl::memory("a"), None);
            assert_eq!(error.is_of_identity(), of_identity, "{error}");
        }
        assert!(classify(503, b"<html>", true).detail.ends_with("503"));
    }

    #[test]
    fn who_is_too_fast_is_not_denied() {
        for (status, reason, kind) in [
            (403, "rateLimitExceeded", Kind::Unavailable),
            (403, "userRateLimitExceeded", Kind::Unavailable),
            (403, "dailyLimitExceeded", Kind::Denied),
            (403, "quotaExceeded", Kind::Denied),
            (403, "forbidden", Kind::Denied),
            (401, "rateLimitExceeded", Kind::Denied),
            (404, "rateLimitExceeded", Kind::NotFound),
            (429, "rateLimitExceeded", Kind::Unavailable),
        ] {
            let body = serde_json::json!({"error": {
                "code": status, "message": "told",
                "errors": [{"domain": "usageLimits", "reason": reason, "message": "told"}],
            }});
            let fault = classify(status, body.to_string().as_bytes(), false);
            assert_eq!(fault.kind, kind, "{status} {reason}");
            assert_eq!(fault.detail, format!("HTTP {status}: told"));
        }
        for errors in ["null", "7", r#"[null, {"reason": 7}]"#] {
            let body = format!(r#"{{"error":{{"message":"told","errors":{errors}}}}}"#);
            assert_eq!(
                classify(403, body.as_bytes(), true).detail,
                "HTTP 403: told",
                "{errors}"
            );
        }
        // One of several.
        let body = r#"{"error":{"errors":[{"reason":"other"},{"reason":"rateLimitExceeded"}]}}"#;
        assert_eq!(classify(403, body.as_bytes(), true).kind, Kind::Unavailable);
    }

    #[test]
    fn checksums_are_big_endian_base64() {
        assert_eq!(crc32c_text(0x280c_069e), "KAwGng==");
        assert_eq!(crc32c_in(["md5=abc==, crc32c=KAwGng=="].into_iter()), Some(0x280c_069e));
        assert_eq!(
            crc32c_in(["md5=abc==", "crc32c=KAwGng=="].into_iter()),
            Some(0x280c_069e)
        );
        for broken in ["", "crc32c=", "crc32c=KAwG", "crc32c=!"] {
            assert_eq!(crc32c_in([broken].into_iter()), None, "{broken}");
        }
    }
}
