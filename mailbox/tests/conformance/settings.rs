//! What every mailbox must do with its settings, and with stores that can't or won't.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use mailbox::{
    Access, CannedAcl, ConditionalWrites, Encryption, ExpiryRule, ListRequest, MailboxErrorKind, PutOutcome,
    open_mailbox, open_mailbox_with,
};

use crate::operations::{content, key, names, read, upload};
use crate::proxy::{Fault, Seen};
use crate::servers::Protocol;
use crate::stage::{Backend, Shared, Shown, Stage, short_patience, shown};

pub async fn conditional_writes_are_checked(stage: Stage) -> Shown {
    let (mailbox, proxy) = shown!(stage.behind(|_| Fault::None).await);
    let (name, whole) = (key("probe"), content(1000));
    mailbox.put_if_absent(&name, whole.clone()).await.unwrap();
    mailbox.check_conditional_writes(&name, whole.clone()).await.unwrap();
    let requests = proxy.seen().len();
    mailbox.check_conditional_writes(&name, whole.clone()).await.unwrap();
    assert_eq!(proxy.seen().len(), requests, "it was shown already");
    assert_eq!(mailbox.read(&name, 1000).await.unwrap(), whole);
    // Also where the object isn't there yet.
    stage
        .mailbox()
        .check_conditional_writes(&key("new"), whole.clone())
        .await
        .unwrap();
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

pub async fn expiry_rules_are_told(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    let rule = ExpiryRule {
        prefix: "claims/".into(),
        days: Some(30),
        partly: false,
    };
    match &stage.backend {
        Backend::Memory(memory) => memory.expire(vec![rule.clone()]),
        Backend::File(_) => {
            let error = mailbox.expiry_rules().await.unwrap_err();
            assert_eq!(error.kind(), MailboxErrorKind::Unsupported);
            return Shown::No("a folder has no rules of its own");
        }
        Backend::Store(server) if server.protocol == Protocol::Gcs => {
            assert_eq!(mailbox.expiry_rules().await.unwrap(), []);
            return Shown::No("fake-gcs-server keeps no lifecycle");
        }
        Backend::Store(server) => {
            assert_eq!(
                mailbox.expiry_rules().await.unwrap(),
                [],
                "no bucket has rules by itself"
            );
            server.expire(&format!("{}/claims/", stage.name), 30).await;
        }
    }
    assert_eq!(mailbox.expiry_rules().await.unwrap(), [rule]);
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
    Shown::Asked("it is asked for; what a store makes of it isn't shown: the servers here have no key service")
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
    Shown::Asked("the answer is made up; a store's own isn't shown: SeaweedFS has no regions")
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
