#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::credentials::double::{Asked, Double};
use crate::credentials::google::tests::{TOKEN, granted, tokens_of};
use crate::{Credentials, open_mailbox};

const OBJECT: &str = "GET /storage/v1/b/bucket/o/a";
const UPLOAD: &str = "POST /upload/storage/v1/b/bucket/o";
/// How GCS refuses a token.
const REFUSED: &str = r#"{"error":{"code":401,"message":"Invalid Credentials"}}"#;

/// Whoever reads along would have the rights of its owner.
#[test]
fn no_token_goes_out_in_clear() {
    let url = MailboxUrl::parse("gs://bucket").unwrap();
    let open = |endpoint: &str, credentials| {
        let access = Access {
            endpoint: Some(endpoint.to_owned()),
            credentials,
            ..Access::default()
        };
        open_mailbox(&url, &access).map(|_| ())
    };
    let refused = open("http://store.example", Credentials::default()).unwrap_err();
    assert_eq!(refused.kind(), MailboxErrorKind::Configuration);
    assert!(refused.to_string().contains("https://"), "{refused}");
    open("http://store.example", Credentials::Anonymous).unwrap();
    open("https://store.example", Credentials::default()).unwrap();
}

/// A double of the store and of the metadata server, which grants `first`, then `second`.
async fn store(answers: &[(&'static str, u16, String)]) -> (Double, GcsMailbox) {
    store_naming(answers, None).await
}

/// As [`store`], where every answer names this place.
async fn store_naming(answers: &[(&'static str, u16, String)], location: Option<&'static str>) -> (Double, GcsMailbox) {
    let granting = [
        (TOKEN, 200, granted("first", 3600)),
        (TOKEN, 200, granted("second", 3600)),
    ];
    let location = location.map(|location| ("location", location));
    let double = Double::start_with([&granting, answers].concat(), location).await;
    let access = Access {
        endpoint: Some(double.url.clone()),
        credentials: Credentials::Anonymous,
        ..Access::default()
    };
    let url = MailboxUrl::parse("gs://bucket").unwrap();
    let mut bucket = Bucket::new(&url, ("bucket", ""), &access, Patience::default()).unwrap();
    // Loopback alone sees them.
    bucket.tokens = Some(tokens_of(&double, Credentials::Ambient));
    let bucket = Arc::new(bucket);
    (double, GcsMailbox { bucket })
}

/// The resource of an object of these bytes.
fn object(content: &[u8]) -> String {
    let crc32c = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content);
    json!({
        "name": "a", "size": content.len().to_string(), "timeCreated": "2026-11-27T00:00:00Z", "generation": "1",
        "crc32c": wire::crc32c_text(u32::try_from(crc32c).unwrap()),
    })
    .to_string()
}

fn key() -> ObjectKey {
    ObjectKey::parse("a").unwrap()
}

/// What was asked, up to its query, and with which token.
fn asked(double: &Double) -> Vec<(String, Option<String>)> {
    let of = |asked: &Asked| {
        let what = asked.what.split('?').next().unwrap().to_owned();
        (what, asked.header("authorization").map(str::to_owned))
    };
    double.asked().iter().map(of).collect()
}

fn expect(double: &Double, requests: &[(&str, Option<&str>)]) {
    let of = |(what, token): &(&str, Option<&str>)| ((*what).to_owned(), token.map(|token| format!("Bearer {token}")));
    assert_eq!(asked(double), requests.iter().map(of).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_request_carries_the_token() {
    let (double, mailbox) = store(&[
        (OBJECT, 200, object(b"hello")),
        (UPLOAD, 200, object(b"hello")),
        ("GET /storage/v1/b/bucket/o?", 200, "{}".to_owned()),
    ])
    .await;
    mailbox.head(&key()).await.unwrap();
    let put = mailbox.put_if_absent(&key(), Bytes::from_static(b"hello")).await;
    assert_eq!(put.unwrap(), PutOutcome::Created);
    mailbox.list(&ListRequest::default()).await.unwrap();
    let first = Some("first");
    expect(
        &double,
        &[
            (TOKEN, None),
            (OBJECT, first),
            (UPLOAD, first),
            ("GET /storage/v1/b/bucket/o", first),
        ],
    );
}

/// What is asked where the first token is refused, and with which.
const REPLACED: [(&str, Option<&str>); 5] = [
    (TOKEN, None),
    (OBJECT, Some("first")),
    (TOKEN, None),
    (OBJECT, Some("second")),
    (UPLOAD, Some("second")),
];

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let (double, mailbox) = store(&[
        (OBJECT, 401, REFUSED.to_owned()),
        (OBJECT, 200, object(b"hello")),
        (UPLOAD, 200, object(b"hello")),
    ])
    .await;
    assert_eq!(mailbox.head(&key()).await.unwrap().unwrap().size, 5);
    mailbox
        .put_if_absent(&key(), Bytes::from_static(b"hello"))
        .await
        .unwrap();
    expect(&double, &REPLACED);

    let (double, mailbox) = store(&[(OBJECT, 401, REFUSED.to_owned())]).await;
    let error = mailbox.head(&key()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_of_identity()), (MailboxErrorKind::Denied, true));
    assert_eq!(asked(&double).len(), 4, "one more try, and no more");
}

/// Uploads nine million bytes in pieces.
async fn upload(mailbox: &GcsMailbox) -> Result<PutOutcome, MailboxError> {
    let mut upload = mailbox.begin_upload(&key()).await?;
    for _ in 0..9 {
        upload.write(vec![b'a'; 1_000_000].into()).await?;
    }
    upload.commit_if_absent().await
}

/// Its pieces are gone when the answer comes: they must go out with a token that is taken.
#[tokio::test]
async fn a_token_that_is_refused_is_replaced_before_an_upload_in_pieces() {
    let whole = object(&vec![b'a'; 9_000_000]);
    for (status, there) in [(200, whole.as_str()), (404, ""), (403, "")] {
        let (double, mailbox) = store(&[
            (OBJECT, 401, REFUSED.to_owned()),
            (OBJECT, status, there.to_owned()),
            (UPLOAD, 200, whole.clone()),
        ])
        .await;
        assert_eq!(upload(&mailbox).await.unwrap(), PutOutcome::Created, "{status}");
        expect(&double, &REPLACED);
    }

    let (double, mailbox) = store(&[(OBJECT, 401, REFUSED.to_owned()), (UPLOAD, 200, whole)]).await;
    let error = upload(&mailbox).await.unwrap_err();
    assert_eq!((error.kind(), error.is_of_identity()), (MailboxErrorKind::Denied, true));
    assert!(
        asked(&double).iter().all(|(what, _)| what != UPLOAD),
        "nothing is sent with a token that is refused"
    );
}

/// Whoever begins a session must have the right to put; without content it becomes no object.
#[tokio::test]
async fn the_right_to_put_shows_by_a_session_without_content() {
    use MailboxErrorKind::{Denied, Io, NoSuchMailbox, Unsupported};
    const BEGIN: &str = "POST /upload/storage/v1/b/bucket/o?uploadType=resumable&ifGenerationMatch=0";
    const GIVE_UP: &str = "DELETE /upload/storage/v1/b/bucket/o?uploadType=resumable&upload_id=";
    // GCS says 499 to whom it obeys; whether it does is no matter. The token goes to no other place that is named.
    for (location, status) in [
        (
            "https://elsewhere.example/o?uploadType=resumable&name=a&upload_id=the%2Dsession",
            499,
        ),
        ("/upload/storage/v1/b/bucket/o?upload_id=the-session&name=a", 403),
    ] {
        let answers = [(BEGIN, 200, String::new()), (GIVE_UP, status, String::new())];
        let (double, mailbox) = store_naming(&answers, Some(location)).await;
        mailbox.may_begin_upload(&key()).await.unwrap();
        let asked = double.asked();
        let [_, begun, given_up] = &asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!((&*begun.what, &*begun.body), (BEGIN, r#"{"name":"a"}"#));
        assert_eq!(begun.header("content-type"), Some("application/json; charset=UTF-8"));
        assert_eq!(
            (&*given_up.what, &*given_up.body),
            (&*format!("{GIVE_UP}the-session"), "")
        );
        for asked in [begun, given_up] {
            assert_eq!(asked.header("authorization"), Some("Bearer first"));
        }
    }
    for (status, location, expected) in [
        (403, None, Some(Denied)),
        (404, None, Some(NoSuchMailbox)),
        (501, None, Some(Unsupported)),
        (400, None, Some(Io)),
        (200, None, Some(Io)),
        (200, Some("/o?name=upload_id&upload_id="), Some(Io)),
        // The name is taken: rights are looked at before.
        (412, None, None),
    ] {
        let (double, mailbox) = store_naming(&[(BEGIN, status, String::new())], location).await;
        let ended = mailbox.may_begin_upload(&key()).await;
        assert_eq!(ended.map_err(|error| error.kind()).err(), expected, "{status}");
        expect(&double, &[(TOKEN, None), (UPLOAD, Some("first"))]);
    }
}
