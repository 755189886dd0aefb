//! What every mailbox must do when networks and stores fail. Each operation makes the fault itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mailbox::{ListRequest, MailboxErrorKind, PutOutcome, open_mailbox_with};

use crate::operations::{content, key, names, read, upload};
use crate::proxy::{Fault, Seen};
use crate::servers::Protocol;
use crate::stage::{Shared, Shown, Stage, short_patience, shown};

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

/// The outcome of a call that must not wait for ever.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(30), call).await;
    outcome.expect("it waits on and on")
}

/// Whoever waits for an answer waits longer the more was sent: of S3's parts the last one stalls, which is short.
pub async fn an_upload_that_stalls_is_sent_again(stage: Stage) -> Shown {
    let stall = Fault::StallRequest(100_000);
    let (mailbox, proxy) = shown!(stage.behind(for_first(1, Seen::is_upload, stall.clone())).await);
    let (name, whole) = (key("small"), content(300_000));
    let put = in_time(mailbox.put_if_absent(&name, whole.clone())).await;
    assert_eq!(put.unwrap(), PutOutcome::Created);
    assert_eq!(proxy.count(Seen::is_upload), 2);
    assert_eq!(read(&stage.mailbox(), "small").await.unwrap(), whole);

    let last = |seen: &Seen| seen.query.contains("partNumber=6") || seen.query.contains("uploadType=");
    let (mailbox, proxy) = shown!(stage.behind(for_first(1, last, stall)).await);
    let whole = content(26_500_000);
    let uploaded = in_time(upload_patiently(&mailbox, "large", &whole)).await;
    assert_eq!(uploaded, PutOutcome::Created);
    assert_eq!(proxy.count(last), 2);
    assert_eq!(read(&stage.mailbox(), "large").await.unwrap(), whole);
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

/// A client's own check of an answer ends where that is cut.
pub async fn bytes_changed_after_a_cut_are_found(stage: Stage) -> Shown {
    let cut = || for_first(1, Seen::is_content, Fault::CutAnswer(5_000_000));
    let (mailbox, proxy) = shown!(stage.behind(cut()).await);
    let whole = content(20_000_000);
    assert_eq!(
        upload(&stage.mailbox(), "changed", &whole).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(read(&mailbox, "changed").await.unwrap(), whole);
    assert_eq!(proxy.count(Seen::is_content), 2);
    let cut = cut();
    let script = move |seen: &Seen| match cut(seen) {
        Fault::None if seen.is_content() => Fault::FlipAnswer(1_000_000),
        fault => fault,
    };
    let (mailbox, proxy) = shown!(stage.behind(script).await);
    let read = read(&mailbox, "changed").await.map(|whole| whole.len());
    let error = read.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Corrupt, "{error}");
    assert!(
        error.to_string().contains("object changed: ") && error.to_string().contains("CRC32C"),
        "{error}"
    );
    assert_eq!(proxy.count(Seen::is_content), 2);
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
