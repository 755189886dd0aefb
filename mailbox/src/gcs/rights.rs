//! What a bucket is asked of our rights.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use sha2::{Digest, Sha256};

use super::bucket::Bucket;
use super::upload::{Envelope, crc32c_value};
use crate::body::{crc32c_digest, hex};
use crate::cloud::PROBE;
use crate::{MailboxError, MailboxErrorKind, ObjectKey, ProbeEnd};

/// As [`put`](super::upload::put), but with the checksum of another content: the store refuses that, after it has looked at who
/// we are.
pub(super) async fn may_put(bucket: &Arc<Bucket>, key: &ObjectKey) -> Result<ProbeEnd, MailboxError> {
    let mut crc32c = crc32c_digest();
    crc32c.update(b"another content");
    let sha256 = hex(&Sha256::digest(PROBE));
    let envelope = &Envelope::new(&bucket.cloud.name(key)?, Some((&sha256, crc32c_value(&crc32c))));
    let body = &Bytes::from([&envelope.head[..], PROBE, &envelope.tail[..]].concat());
    bucket
        .cloud
        .retry
        .run(|_| async move {
            let request = bucket.upload(envelope, body.clone().into());
            let answer = bucket.call(request, bucket.cloud.answer_time(), true).await;
            bucket.cloud.probe_end(key, answer.map(drop))
        })
        .await
}

/// Begins a resumable session, for which the store looks at who we are, and gives it up: without content it becomes no object.
pub(super) async fn may_begin_upload(bucket: &Arc<Bucket>, key: &ObjectKey) -> Result<(), MailboxError> {
    let name = bucket.cloud.name(key)?;
    // Nowhere but in here: a store that takes it for an object's content has no name for that.
    let resource = &serde_json::json!({ "name": name }).to_string();
    let session = bucket
        .cloud
        .retry
        .run(|_| async move {
            let request = bucket
                .upload_of("resumable")
                .header(CONTENT_TYPE, "application/json; charset=UTF-8")
                .body(resource.clone());
            match bucket.call(request, bucket.cloud.answer_time(), true).await {
                Ok(answer) => session_in(answer.headers()).map(Some).ok_or_else(|| {
                    let detail = "the store named no upload";
                    bucket.cloud.error(MailboxErrorKind::Io, key, detail)
                }),
                // Whoever may not put isn't told what is there.
                Err(fault) if fault.taken => Ok(None),
                Err(fault) => Err(bucket.error(fault, key)),
            }
        })
        .await?;
    if let Some(session) = session {
        // By our own endpoint, whatever place the store names: it comes with a token. GCS answers 499 where it worked; a
        // session that stays ends by itself, after a week.
        let request = bucket.http.delete(bucket.bucket_url(true));
        let request = request.query(&[("uploadType", "resumable"), ("upload_id", &session)]);
        let _ = bucket.call(request, bucket.cloud.answer_time(), true).await;
    }
    Ok(())
}

/// The id of the session that an answer begins.
fn session_in(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let (_, query) = location.split_once('?')?;
    let id = query.split('&').find_map(|part| part.strip_prefix("upload_id="))?;
    let id = percent_decode_str(id).decode_utf8().ok()?;
    (!id.is_empty()).then(|| id.into_owned())
}
