//! What every mailbox must do when networks and stores fail. Each operation makes the fault itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use mailbox::{
    Access, CannedAcl, ConditionalWrites, Credentials, Encryption, ListRequest, MailboxErrorKind, PutOutcome,
    open_mailbox, open_mailbox_with,
};

use crate::operations::{key, names};
use crate::proxy::{Fault, Seen};
use crate::servers::Protocol;
use crate::stage::{Backend, Shared, Shown, Stage, short_patience};

/// Bytes that differ from place to place.
fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// The fault for the first `count` requests that are `such`.
fn for_first(count: usize, such: impl Fn(&Seen) -> bool, fault: Fault) -> impl Fn(&Seen) -> Fault {
    let made = AtomicUsize::new(0);
    move |seen| {
        if such(seen) && made.fetch_add(1, Ordering::Relaxed) < count {
            fault.clone()
        } else {
            Fault::None
        }
    }
}

macro_rules! shown {
    ($attempt:expr) => {
        match $attempt {
            Ok(value) => value,
            Err(not) => return not,
        }
    };
}

async fn upload(mailbox: &Shared, name: &str, whole: &Bytes) -> Result<PutOutcome, mailbox::MailboxError> {
    let mut upload = mailbox.begin_upload(&key(name)).await?;
    for start in (0..whole.len()).step_by(700_000) {
        upload
            .write(whole.slice(start..whole.len().min(start + 700_000)))
            .await?;
    }
    upload.commit_if_absent().await
}

/// An upload in pieces, by a caller that takes another try where the store was unavailable.
async fn upload_patiently(mailbox: &Shared, name: &str, whole: &Bytes) -> PutOutcome {
    match upload(mailbox, name, whole).await {
        Ok(outcome) => outcome,
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            assert_eq!(mailbox.head(&key(name)).await.unwrap(), None, "a part of it is visible");
            upload(mailbox, name, whole).await.unwrap()
        }
    }
}

async fn read(mailbox: &Shared, name: &str) -> Result<Bytes, mailbox::MailboxError> {
    let body = mailbox.open(&key(name)).await?;
    let chunks: Vec<Bytes> = body.stream.try_collect().await?;
    Ok(chunks.concat().into())
}

pub async fn a_put_survives_a_cut_connection(stage: Stage) -> Shown {
    let script = for_first(2, Seen::is_upload, Fault::CutRequest(100_000));
    let (mailbox, proxy) = shown!(stage.behind(script).await);
    let whole = content(300_000);
    assert_eq!(
        mailbox.put_if_absent(&key("cut"), whole.clone()).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(proxy.count(Seen::is_upload), 3);
    assert_eq!(read(&stage.mailbox(), "cut").await.unwrap(), whole);
    Shown::Yes
}

pub async fn an_upload_in_pieces_survives_a_cut_connection(stage: Stage) -> Shown {
    let script = for_first(1, Seen::is_upload, Fault::CutRequest(3_000_000));
    let (mailbox, _proxy) = shown!(stage.behind(script).await);
    let whole = content(20_000_000);
    assert_eq!(upload_patiently(&mailbox, "cut", &whole).await, PutOutcome::Created);
    assert_eq!(read(&stage.mailbox(), "cut").await.unwrap(), whole);
    Shown::Yes
}

pub async fn a_read_survives_a_cut_connection(stage: Stage) -> Shown {
    let script = for_first(3, Seen::is_content, Fault::CutAnswer(100_000));
    let (mailbox, proxy) = shown!(stage.behind(script).await);
    let whole = content(500_000);
    stage.mailbox().put_if_absent(&key("cut"), whole.clone()).await.unwrap();
    assert_eq!(read(&mailbox, "cut").await.unwrap(), whole);
    assert_eq!(proxy.count(Seen::is_content), 4);
    let script = for_first(2, Seen::is_content, Fault::CutAnswer(100));
    let (mailbox, _proxy) = shown!(stage.behind(script).await);
    assert_eq!(
        mailbox.read_range(&key("cut"), 1000, 5000).await.unwrap(),
        whole.slice(1000..6000)
    );
    Shown::Yes
}

pub async fn a_read_survives_a_body_that_stalls(stage: Stage) -> Shown {
    let script = for_first(1, Seen::is_content, Fault::StallAnswer(100_000));
    let (mailbox, proxy) = shown!(stage.behind(script).await);
    let whole = content(500_000);
    stage
        .mailbox()
        .put_if_absent(&key("slow"), whole.clone())
        .await
        .unwrap();
    assert_eq!(read(&mailbox, "slow").await.unwrap(), whole);
    assert_eq!(proxy.count(Seen::is_content), 2);
    let (mailbox, _proxy) = shown!(
        stage
            .behind(|seen| if seen.is_content() {
                Fault::StallAnswer(10)
            } else {
                Fault::None
            })
            .await
    );
    let started = Instant::now();
    let error = mailbox.read_range(&key("slow"), 0, 1000).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Unavailable);
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "it waited {:?}",
        started.elapsed()
    );
    Shown::Yes
}

pub async fn a_store_that_never_answers_is_given_up(stage: Stage) -> Shown {
    let script = for_first(1, Seen::is_upload, Fault::Silence);
    let (mailbox, _proxy) = shown!(stage.behind(script).await);
    assert_eq!(
        mailbox.put_if_absent(&key("silent"), content(1000)).await.unwrap(),
        PutOutcome::Created
    );
    let patience = mailbox::Patience {
        answer: Duration::from_millis(300),
        attempts: 2,
        ..short_patience()
    };
    let (mailbox, proxy) = shown!(stage.behind_with(patience, |_| {}, |_| Fault::Silence).await);
    let started = Instant::now();
    for error in [
        mailbox.head(&key("silent")).await.err(),
        mailbox.read(&key("silent"), 1000).await.err(),
        mailbox.put_if_absent(&key("other"), content(10)).await.err(),
        mailbox.list(&ListRequest::default()).await.err(),
    ] {
        assert_eq!(error.unwrap().kind(), MailboxErrorKind::Unavailable);
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "it waited {:?}",
        started.elapsed()
    );
    assert_eq!(proxy.seen().len(), 8);
    Shown::Yes
}

const BUSY: Fault = Fault::Answer(503, Vec::new(), "");

pub async fn a_storm_of_503_passes_or_is_given_up(stage: Stage) -> Shown {
    let (mailbox, proxy) = shown!(stage.behind(for_first(3, |_| true, BUSY)).await);
    assert_eq!(
        mailbox.put_if_absent(&key("busy"), content(1000)).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(proxy.seen().len(), 4);
    // A storm that doesn't end: the first calls try four times, then the budget is spent.
    let (mailbox, proxy) = shown!(stage.behind(|_| BUSY).await);
    let calls = (0..60).map(|number| {
        let mailbox = Arc::clone(&mailbox);
        tokio::spawn(async move { mailbox.head(&key(&format!("busy-{number}"))).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), MailboxErrorKind::Unavailable);
    }
    let requests = proxy.seen().len();
    assert!(
        (60..=110).contains(&requests),
        "{requests} requests for 60 calls and a budget of 50 tries"
    );
    Shown::Yes
}

pub async fn a_put_whose_answer_is_lost_is_known_as_ours(stage: Stage) -> Shown {
    let (mailbox, _proxy) = shown!(stage.behind(for_first(1, Seen::is_upload, Fault::LoseAnswer)).await);
    assert_eq!(
        mailbox.put_if_absent(&key("small"), content(1000)).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(
        mailbox.put_if_absent(&key("small"), content(1000)).await.unwrap(),
        PutOutcome::Exists
    );
    let whole = content(9_000_000);
    let (mailbox, _proxy) = shown!(stage.behind(for_first(1, Seen::is_commit, Fault::LoseAnswer)).await);
    assert_eq!(upload(&mailbox, "large", &whole).await.unwrap(), PutOutcome::Created);
    assert_eq!(upload(&mailbox, "large", &whole).await.unwrap(), PutOutcome::Exists);
    assert_eq!(read(&mailbox, "large").await.unwrap(), whole);
    // Another writer's object isn't ours because an answer was lost.
    let (mailbox, _proxy) = shown!(stage.behind(for_first(1, Seen::is_upload, Fault::LoseAnswer)).await);
    assert_eq!(
        mailbox.put_if_absent(&key("small"), content(1000)).await.unwrap(),
        PutOutcome::Exists
    );
    Shown::Yes
}

pub async fn an_error_in_a_200_is_an_error(stage: Stage) -> Shown {
    if shown!(stage.server()).protocol == Protocol::Gcs {
        return Shown::No("GCS answers an upload with one status; only S3 begins a 200 before it has joined the parts");
    }
    let inside = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>try again</Message></Error>";
    let error = Fault::Answer(200, vec![("content-type", "application/xml")], inside);
    let whole = content(9_000_000);
    let (mailbox, proxy) = shown!(stage.behind(for_first(1, Seen::is_commit, error.clone())).await);
    assert_eq!(upload(&mailbox, "once", &whole).await.unwrap(), PutOutcome::Created);
    assert_eq!(proxy.count(Seen::is_commit), 2);
    assert_eq!(read(&mailbox, "once").await.unwrap(), whole);
    let (mailbox, _proxy) = shown!(stage.behind(for_first(99, Seen::is_commit, error)).await);
    assert_eq!(
        upload(&mailbox, "always", &whole).await.unwrap_err().kind(),
        MailboxErrorKind::Unavailable
    );
    assert_eq!(stage.mailbox().head(&key("always")).await.unwrap(), None);
    Shown::Yes
}

pub async fn bytes_changed_on_the_way_to_a_reader_are_found(stage: Stage) -> Shown {
    let whole = content(500_000);
    stage
        .mailbox()
        .put_if_absent(&key("changed"), whole.clone())
        .await
        .unwrap();
    let script = |seen: &Seen| {
        if seen.is_content() {
            Fault::FlipAnswer(400_000)
        } else {
            Fault::None
        }
    };
    let (mailbox, _proxy) = shown!(stage.behind(script).await);
    assert_eq!(
        read(&mailbox, "changed").await.unwrap_err().kind(),
        MailboxErrorKind::Corrupt
    );
    let error = mailbox.read(&key("changed"), 1_000_000).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Corrupt);
    Shown::Yes
}

pub async fn bytes_changed_on_the_way_to_the_store_are_found(stage: Stage) -> Shown {
    let (mailbox, proxy) = shown!(
        stage
            .behind(for_first(1, Seen::is_upload, Fault::FlipRequest(200_000)))
            .await
    );
    let whole = content(300_000);
    assert_eq!(
        mailbox.put_if_absent(&key("small"), whole.clone()).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(proxy.count(Seen::is_upload), 2, "the store took changed bytes");
    assert_eq!(read(&stage.mailbox(), "small").await.unwrap(), whole);
    let whole = content(9_000_000);
    let (mailbox, _proxy) = shown!(
        stage
            .behind(for_first(1, Seen::is_upload, Fault::FlipRequest(5_000_000)))
            .await
    );
    assert_eq!(upload_patiently(&mailbox, "large", &whole).await, PutOutcome::Created);
    assert_eq!(read(&stage.mailbox(), "large").await.unwrap(), whole);
    Shown::Yes
}

pub async fn conditional_writes_are_checked(stage: Stage) -> Shown {
    let (name, whole) = (key("probe"), content(1000));
    // Twice: with and without an object there before.
    for _ in 0..2 {
        stage
            .mailbox()
            .check_conditional_writes(&name, whole.clone())
            .await
            .unwrap();
    }
    assert_eq!(stage.mailbox().read(&name, 1000).await.unwrap(), whole);
    Shown::Yes
}

pub async fn a_store_that_ignores_conditions_is_refused(stage: Stage) -> Shown {
    let stage = stage.unsigned();
    let (name, whole) = (key("probe"), content(1000));
    for path in [Seen::is_upload as fn(&Seen) -> bool, Seen::is_commit] {
        let script = move |seen: &Seen| if path(seen) { Fault::HideCondition } else { Fault::None };
        let (mailbox, _proxy) = shown!(stage.behind(script).await);
        let error = mailbox
            .check_conditional_writes(&name, whole.clone())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), MailboxErrorKind::Unsupported);
        assert!(error.to_string().contains("conditionalWrites"), "{error}");
        assert_eq!(
            stage.mailbox().read(&name, 1000).await.unwrap(),
            whole,
            "the check changed the object"
        );
    }
    // The weaker mode asks for nothing that such a store can't do, and still replaces nothing that it sees.
    let weak = |access: &mut Access| access.conditional_writes = ConditionalWrites::Weak;
    let (mailbox, proxy) = shown!(stage.behind_with(short_patience(), weak, |_| Fault::None).await);
    mailbox.check_conditional_writes(&name, whole.clone()).await.unwrap();
    assert_eq!(
        mailbox.put_if_absent(&name, content(10)).await.unwrap(),
        PutOutcome::Exists
    );
    assert_eq!(
        mailbox.put_if_absent(&key("new"), content(10)).await.unwrap(),
        PutOutcome::Created
    );
    let large = content(9_000_000);
    assert_eq!(upload(&mailbox, "probe", &large).await.unwrap(), PutOutcome::Exists);
    assert_eq!(upload(&mailbox, "large", &large).await.unwrap(), PutOutcome::Created);
    let conditional = |seen: &Seen| seen.header("if-none-match").is_some() || seen.query.contains("ifGenerationMatch");
    assert_eq!(proxy.count(conditional), 0);
    Shown::Yes
}

pub async fn a_server_killed_in_an_upload_leaves_nothing(stage: Stage) -> Shown {
    let server = shown!(stage.server());
    let mailbox = open_mailbox_with(&stage.url(server), &server.access(), short_patience()).unwrap();
    mailbox.put_if_absent(&key("kept"), content(1000)).await.unwrap();
    let whole = content(30_000_000);
    let mut upload_it = mailbox.begin_upload(&key("killed")).await.unwrap();
    upload_it.write(whole.slice(..20_000_000)).await.unwrap();
    server.kill();
    let broken = match upload_it.write(whole.slice(20_000_000..)).await {
        Ok(()) => upload_it.commit_if_absent().await.err(),
        Err(error) => Some(error),
    };
    assert_eq!(broken.unwrap().kind(), MailboxErrorKind::Unavailable);
    server.revive().await;
    assert_eq!(mailbox.head(&key("killed")).await.unwrap(), None);
    let page = mailbox.list_all(&ListRequest::default()).await.unwrap();
    assert_eq!(names(&page), ["kept"]);
    assert_eq!(upload(&mailbox, "killed", &whole).await.unwrap(), PutOutcome::Created);
    assert_eq!(read(&mailbox, "killed").await.unwrap(), whole);
    Shown::Yes
}

pub async fn large_objects_take_little_memory(stage: Stage) -> Shown {
    const SIZE: usize = 200 << 20;
    if let Backend::Memory(_) = stage.backend {
        return Shown::No("its objects are in the process's own memory");
    }
    let mailbox = stage.mailbox();
    let before = memory_from_now();
    let piece = Bytes::from(vec![7; 1 << 20]);
    let mut upload = mailbox.begin_upload(&key("large")).await.unwrap();
    for _ in 0..SIZE / piece.len() {
        upload.write(piece.clone()).await.unwrap();
    }
    assert_eq!(upload.commit_if_absent().await.unwrap(), PutOutcome::Created);
    let mut stream = mailbox.open(&key("large")).await.unwrap().stream;
    let mut length = 0;
    while let Some(chunk) = stream.try_next().await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, SIZE);
    let taken = most_memory().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes of memory for an object of {SIZE}");
    Shown::Yes
}

/// The process's memory now, in bytes; [`most_memory`] counts from here on.
fn memory_from_now() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

fn most_memory() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

pub async fn a_bucket_that_is_missing_is_named(stage: Stage) -> Shown {
    let mailbox = match &stage.backend {
        Backend::Memory(_) => return Shown::No("it is always there"),
        Backend::File(root) => mailbox::FileMailbox::in_folder(&root.join("mistyped"))
            .map(|m| Arc::new(m) as Shared)
            .unwrap(),
        Backend::Store(server) => open_mailbox(&server.url("mistyped", "a"), &server.access()).unwrap(),
    };
    for error in [
        mailbox.head(&key("ledger.json")).await.err(),
        mailbox.read(&key("ledger.json"), 10).await.err(),
        mailbox.list(&ListRequest::default()).await.err(),
        mailbox.put_if_absent(&key("ledger.json"), Bytes::new()).await.err(),
    ] {
        let error = error.unwrap();
        assert_eq!(error.kind(), MailboxErrorKind::NoSuchMailbox, "{error}");
        assert!(error.to_string().contains("mistyped"), "{error}");
    }
    Shown::Yes
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
    let as_user = |credentials: Credentials| {
        let access = Access {
            credentials,
            ..server.access()
        };
        open_mailbox(&stage.url(server), &access).unwrap()
    };
    let reader = as_user(server.secret("reader"));
    assert_eq!(reader.read(&key("a"), 10).await.unwrap(), content(10));
    let error = reader.put_if_absent(&key("b"), content(10)).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Denied, "{error}");
    let error = upload(&reader, "b", &content(9_000_000)).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Denied, "{error}");
    let error = as_user(Credentials::Anonymous).head(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Denied, "{error}");
    Shown::Yes
}

pub async fn only_trusted_authorities_are_believed(stage: Stage) -> Shown {
    let server = shown!(stage.server());
    let secure = |ca_bundle| {
        let access = Access {
            endpoint: Some(server.tls_endpoint()),
            ca_bundle,
            ..server.access()
        };
        open_mailbox_with(&stage.url(server), &access, short_patience())
    };
    let mailbox = secure(Some(server.certificate())).unwrap();
    assert_eq!(
        mailbox.put_if_absent(&key("a"), content(10)).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(read(&mailbox, "a").await.unwrap(), content(10));
    let error = secure(None).unwrap().head(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    for (file, text) in [
        ("missing", None),
        ("empty", Some("")),
        (
            "other",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(file);
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error = secure(Some(file.clone())).err().unwrap();
        assert_eq!(error.kind(), MailboxErrorKind::Configuration);
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
    Shown::Yes
}

pub async fn encryption_and_rights_of_new_objects_are_asked_for(stage: Stage) -> Shown {
    let protocol = shown!(stage.server()).protocol;
    let settings = |access: &mut Access| {
        access.encryption = Some(Encryption {
            kms_key: "the-key".into(),
        });
        access.canned_acl = Some(CannedAcl::BucketOwnerFullControl);
    };
    // The stores here have no key service: what is asked of them is looked at, and they see none of it.
    let script = |seen: &Seen| match () {
        () if seen.query == "uploads" || seen.query.starts_with("uploads=") || seen.query.contains("uploads") => {
            let begun = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
            Fault::Answer(200, vec![], begun)
        }
        () if seen.method == "PUT" => Fault::Answer(200, vec![("etag", "\"e\"")], ""),
        () if seen.method == "POST" && seen.query.contains("uploadId") => {
            Fault::Answer(200, vec![], "<CompleteMultipartUploadResult/>")
        }
        () => Fault::Answer(400, vec![], ""),
    };
    let (mailbox, proxy) = shown!(stage.behind_with(short_patience(), settings, script).await);
    let _ = mailbox.put_if_absent(&key("a"), content(10)).await;
    let _ = upload(&mailbox, "b", &content(9_000_000)).await;
    let asks = |seen: &Seen| match protocol {
        Protocol::S3 => {
            seen.header("x-amz-server-side-encryption") == Some("aws:kms")
                && seen.header("x-amz-server-side-encryption-aws-kms-key-id") == Some("the-key")
                && seen.header("x-amz-acl") == Some("bucket-owner-full-control")
        }
        Protocol::Gcs => {
            seen.query.contains("kmsKeyName=the-key") && seen.query.contains("predefinedAcl=bucketOwnerFullControl")
        }
    };
    // Both ways to upload: S3 by PutObject and at the begin of the parts.
    assert_eq!(proxy.count(asks), 2, "{:?}", proxy.seen());
    Shown::Yes
}

pub async fn a_wrong_region_is_named(stage: Stage) -> Shown {
    if shown!(stage.server()).protocol == Protocol::Gcs {
        return Shown::No("gs:// URLs name no region");
    }
    let elsewhere = Fault::Answer(301, vec![("x-amz-bucket-region", "eu-west-1")], "");
    let (mailbox, proxy) = shown!(stage.behind(move |_| elsewhere.clone()).await);
    for error in [
        mailbox.head(&key("a")).await.err(),
        mailbox.read(&key("a"), 10).await.err(),
        mailbox.list(&ListRequest::default()).await.err(),
        mailbox.put_if_absent(&key("a"), content(10)).await.err(),
    ] {
        let error = error.unwrap();
        assert_eq!(error.kind(), MailboxErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("s3://eu-west-1/"), "{error}");
    }
    assert_eq!(proxy.seen().len(), 4, "a wrong region doesn't mend itself");
    Shown::Yes
}

pub async fn a_prefix_is_a_mailbox_of_its_own(stage: Stage) -> Shown {
    let server = shown!(stage.server());
    let open = |name: &str| {
        let stage = Stage {
            name: format!("{}{name}", stage.name),
            ..stage.clone()
        };
        open_mailbox(&stage.url(server), &server.access()).unwrap()
    };
    let (mailbox, sibling, inner) = (open(""), open("-more"), open("/inner"));
    for mailbox in [&mailbox, &sibling, &inner] {
        assert_eq!(
            mailbox.put_if_absent(&key("a/b"), content(10)).await.unwrap(),
            PutOutcome::Created
        );
    }
    let all = ListRequest::default();
    assert_eq!(names(&mailbox.list_all(&all).await.unwrap()), ["a/b", "inner/a/b"]);
    assert_eq!(names(&sibling.list_all(&all).await.unwrap()), ["a/b"]);
    assert_eq!(names(&inner.list_all(&all).await.unwrap()), ["a/b"]);
    let error = mailbox
        .put_if_absent(&key(&"x".repeat(1020)), Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::InvalidKey);
    Shown::Yes
}
