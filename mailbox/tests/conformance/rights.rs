//! What every mailbox must tell of our rights, and how it finds out.

use mailbox::{Access, Credentials, ListRequest, MailboxError, MailboxErrorKind, ProbeEnd, open_mailbox};

use crate::operations::{content, key, names, upload};
use crate::proxy::{Fault, Seen};
use crate::servers::{Protocol, Server};
use crate::stage::{Backend, Shared, Shown, Stage, shown};

/// What a row shows whose refusal is the server's own, or made up.
fn denied_by(stage: &Stage) -> Shown {
    match &stage.backend {
        Backend::Store(server) if server.protocol == Protocol::Gcs => {
            Shown::Asked("the refusal is made up: fake-gcs-server lets everybody do everything")
        }
        _ => Shown::Yes,
    }
}

/// The names that are there.
async fn there(mailbox: &Shared) -> String {
    names(&mailbox.list_all(&ListRequest::default()).await.unwrap()).join(" ")
}

/// The mailbox, as somebody else opens it.
fn as_user(stage: &Stage, server: &Server, credentials: Credentials) -> Shared {
    let access = Access {
        credentials,
        ..server.access()
    };
    open_mailbox(&stage.url(server), &access).unwrap()
}

pub async fn who_may_not_write_is_told_so(stage: Stage) -> Shown {
    let server = match &stage.backend {
        Backend::Memory(_) | Backend::File(_) => return Shown::No("whoever runs the suite may do all"),
        Backend::Store(server) if server.protocol == Protocol::Gcs => {
            return Shown::No("fake-gcs-server lets everybody do everything");
        }
        Backend::Store(server) => server,
    };
    stage.mailbox().put_if_absent(&key("a"), content(10)).await.unwrap();
    let reader = as_user(&stage, server, server.secret("reader"));
    assert_eq!(reader.read(&key("a"), 10).await.unwrap(), content(10));
    let denied = |error: MailboxError, operation: &str| {
        assert_eq!(error.kind(), MailboxErrorKind::Denied, "{error}");
        assert!(
            error.to_string().contains(operation),
            "it doesn't name {operation}: {error}"
        );
    };
    denied(
        reader.put_if_absent(&key("b"), content(10)).await.unwrap_err(),
        "PutObject",
    );
    denied(
        upload(&reader, "b", &content(9_000_000)).await.unwrap_err(),
        "CreateMultipartUpload",
    );
    denied(
        as_user(&stage, server, Credentials::Anonymous)
            .head(&key("a"))
            .await
            .unwrap_err(),
        "HeadObject",
    );
    Shown::Yes
}

pub async fn the_right_to_put_is_shown_without_a_put(stage: Stage) -> Shown {
    let (mailbox, shown) = (stage.mailbox(), denied_by(&stage));
    let probed = mailbox.may_put(&key("prio-operator/preflight")).await.unwrap();
    assert_eq!(probed, ProbeEnd::ContentRefused);
    assert_eq!(there(&mailbox).await, "", "something was put");
    mailbox.put_if_absent(&key("a"), content(10)).await.unwrap();
    mailbox.may_put(&key("a")).await.unwrap();
    assert_eq!(mailbox.read(&key("a"), 10).await.unwrap(), content(10));
    assert_eq!(there(&mailbox).await, "a");
    let denied = match &stage.backend {
        Backend::Memory(memory) => {
            memory.refuse_writes(true);
            mailbox.may_put(&key("b")).await
        }
        Backend::File(root) => {
            let missing = mailbox::FileMailbox::in_folder(&root.join("mistyped")).unwrap();
            let error = mailbox::Mailbox::may_put(&missing, &key("b")).await.unwrap_err();
            assert_eq!(error.kind(), MailboxErrorKind::NoSuchMailbox, "{error}");
            return Shown::Yes;
        }
        Backend::Store(server) => {
            // Also a store that ignores conditions gets nothing to keep.
            let (unconditional, _proxy) = shown!(stage.clone().unsigned().behind(|_| Fault::HideCondition).await);
            unconditional.may_put(&key("b")).await.unwrap();
            unconditional.may_put(&key("a")).await.unwrap();
            assert_eq!(there(&unconditional).await, "");
            if server.protocol == Protocol::Gcs {
                let forbidden = Fault::Answer(403, vec![], r#"{"error":{"message":"no storage.objects.create"}}"#);
                let (mailbox, _proxy) = shown!(stage.behind(move |_| forbidden.clone()).await);
                mailbox.may_put(&key("b")).await
            } else {
                as_user(&stage, server, server.secret("reader"))
                    .may_put(&key("b"))
                    .await
            }
        }
    };
    assert_eq!(denied.unwrap_err().kind(), MailboxErrorKind::Denied);
    shown
}

/// Of a store that isn't known to compare checksums: whatever it does, no object comes of it.
pub async fn the_right_to_put_is_shown_by_an_upload_without_content(stage: Stage) -> Shown {
    let (mailbox, shown) = (stage.mailbox(), denied_by(&stage));
    mailbox.may_begin_upload(&key("prio-operator/preflight")).await.unwrap();
    assert_eq!(there(&mailbox).await, "", "something was put");
    mailbox.put_if_absent(&key("a"), content(10)).await.unwrap();
    mailbox.may_begin_upload(&key("a")).await.unwrap();
    assert_eq!(mailbox.read(&key("a"), 10).await.unwrap(), content(10));
    let server = match &stage.backend {
        Backend::Memory(memory) => {
            assert_eq!(memory.open_uploads(), 0);
            memory.refuse_writes(true);
            let error = mailbox.may_begin_upload(&key("b")).await.unwrap_err();
            assert_eq!(error.kind(), MailboxErrorKind::Denied);
            return Shown::Yes;
        }
        Backend::File(_) => return Shown::Yes,
        Backend::Store(server) => server,
    };
    // Begun and given up, and nothing else; also where giving up is refused.
    let begins = |seen: &Seen| {
        seen.method == "POST"
            && ["uploads", "uploadType=resumable"]
                .iter()
                .any(|of| seen.query.contains(of))
    };
    let gives_up =
        |seen: &Seen| seen.method == "DELETE" && ["uploadId=", "upload_id="].iter().any(|of| seen.query.contains(of));
    for refused in [false, true] {
        let script = move |seen: &Seen| match refused && gives_up(seen) {
            true => Fault::Answer(403, vec![], ""),
            false => Fault::None,
        };
        let (behind, proxy) = shown!(stage.behind(script).await);
        behind.may_begin_upload(&key("b")).await.unwrap();
        let seen = proxy.seen();
        assert!(
            matches!(&seen[..], [first, second] if begins(first) && gives_up(second)),
            "{seen:?}"
        );
    }
    assert_eq!(there(&mailbox).await, "a", "something was put");
    let denied = match server.protocol {
        Protocol::S3 => {
            as_user(&stage, server, server.secret("reader"))
                .may_begin_upload(&key("b"))
                .await
        }
        Protocol::Gcs => {
            let forbidden = Fault::Answer(403, vec![], r#"{"error":{"message":"no storage.objects.create"}}"#);
            let (mailbox, _proxy) = shown!(stage.behind(move |_| forbidden.clone()).await);
            mailbox.may_begin_upload(&key("b")).await
        }
    };
    assert_eq!(denied.unwrap_err().kind(), MailboxErrorKind::Denied);
    shown
}

pub async fn a_store_that_compares_no_checksums_is_told(stage: Stage) -> Shown {
    let stage = stage.unsigned();
    let protocol = shown!(stage.server()).protocol;
    // A store's first object may take it seconds, and what is tried again finds the name taken.
    stage.mailbox().put_if_absent(&key("a"), content(10)).await.unwrap();
    let (older, _proxy) = shown!(stage.behind(|_| Fault::HideLaterChecksum).await);
    assert_eq!(older.may_put(&key("b")).await.unwrap(), ProbeEnd::ContentRefused);
    if protocol == Protocol::S3 {
        let (usual, proxy) = shown!(stage.behind(|_| Fault::None).await);
        usual.may_put(&key("b")).await.unwrap();
        let both = |seen: &Seen| seen.header("content-md5").is_some() && seen.header("x-amz-checksum-sha256").is_some();
        assert_eq!(proxy.count(both), 1, "{:?}", proxy.seen());
    }
    assert_eq!(there(&stage.mailbox()).await, "a", "something was put");

    let (mailbox, _proxy) = shown!(stage.behind(|_| Fault::HideChecksums).await);
    let error = mailbox.may_put(&key("b")).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("object b: ") && error.to_string().contains("remove it"),
        "{error}"
    );
    // It stays what it is: a second probe doesn't take the name for a sign that contents are compared.
    assert_eq!(mailbox.may_put(&key("b")).await.unwrap(), ProbeEnd::NameTaken);
    assert_eq!(there(&stage.mailbox()).await, "a b");
    Shown::Yes
}
