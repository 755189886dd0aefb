//! What every mailbox must do, whatever is behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use mailbox::{ListPage, ListRequest, MailboxError, MailboxErrorKind, ObjectKey, PutOutcome};

use crate::proxy::{Fault, Seen};
use crate::servers::Protocol;
use crate::stage::{Backend, Shared, Shown, Stage, shown};

/// Bytes that no store is sent at once.
const IN_PIECES: usize = 9 << 20;

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

pub async fn put(mailbox: &Shared, name: &str) {
    assert_eq!(
        mailbox
            .put_if_absent(&key(name), Bytes::from(name.to_owned()))
            .await
            .unwrap(),
        PutOutcome::Created
    );
}

pub fn names(page: &ListPage) -> Vec<&str> {
    page.objects.iter().map(|object| object.key.as_str()).collect()
}

/// Bytes that differ from place to place.
pub fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// Uploads in pieces.
pub async fn upload(mailbox: &Shared, name: &str, whole: &Bytes) -> Result<PutOutcome, MailboxError> {
    let mut upload = mailbox.begin_upload(&key(name)).await?;
    for start in (0..whole.len()).step_by(700_000) {
        upload
            .write(whole.slice(start..whole.len().min(start + 700_000)))
            .await?;
    }
    upload.commit_if_absent().await
}

/// Reads as it streams in.
pub async fn read(mailbox: &Shared, name: &str) -> Result<Bytes, MailboxError> {
    let body = mailbox.open(&key(name)).await?;
    let chunks: Vec<Bytes> = body.stream.try_collect().await?;
    Ok(chunks.concat().into())
}

/// Every page of a listing, checked: no page above the limit, names ascending.
pub async fn pages(mailbox: &Shared, request: ListRequest) -> (Vec<String>, Vec<String>) {
    let (mut request, mut objects, mut folders) = (request, Vec::new(), Vec::new());
    loop {
        let page = mailbox.list(&request).await.unwrap();
        let count = page.objects.len() + page.folders.len();
        assert!(
            request.limit.is_none_or(|limit| count <= limit),
            "page of {count} for {request:?}"
        );
        objects.extend(names(&page).into_iter().map(String::from));
        folders.extend(page.folders);
        match page.next {
            Some(next) => request.start_after = Some(next),
            None => break,
        }
    }
    assert!(objects.is_sorted() && folders.is_sorted(), "{objects:?} {folders:?}");
    (objects, folders)
}

pub async fn what_is_put_is_read_back(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    let before = Timestamp::now();
    for (name, content) in [("a/b/c.batch", "hello"), ("empty", ""), ("Zähler/日本 語", "ü")] {
        let outcome = mailbox.put_if_absent(&key(name), Bytes::from(content)).await.unwrap();
        assert_eq!(outcome, PutOutcome::Created);
        assert_eq!(mailbox.read(&key(name), 100).await.unwrap(), content);
        let meta = mailbox.head(&key(name)).await.unwrap().unwrap();
        assert_eq!((meta.key.as_str(), meta.size), (name, content.len() as u64));
        // File systems keep time by a coarse clock.
        let age = meta.modified.duration_since(before).as_millis();
        assert!((-1000..60_000).contains(&age), "{age} ms");
        assert_eq!(mailbox.open(&key(name)).await.unwrap().meta, meta);
    }
    Shown::Yes
}

pub async fn an_object_never_changes(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    assert_eq!(
        mailbox.put_if_absent(&key("a/b"), Bytes::from("first")).await.unwrap(),
        PutOutcome::Created
    );
    let meta = mailbox.head(&key("a/b")).await.unwrap().unwrap();
    assert_eq!(
        mailbox.put_if_absent(&key("a/b"), Bytes::from("second")).await.unwrap(),
        PutOutcome::Exists
    );
    let mut upload = mailbox.begin_upload(&key("a/b")).await.unwrap();
    upload.write(Bytes::from("third")).await.unwrap();
    assert_eq!(upload.commit_if_absent().await.unwrap(), PutOutcome::Exists);
    assert_eq!(mailbox.read(&key("a/b"), 100).await.unwrap(), "first");
    assert_eq!(mailbox.head(&key("a/b")).await.unwrap().unwrap(), meta);
    Shown::Yes
}

pub async fn one_of_racing_writers_wins(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    for round in 0..4 {
        let puts_and_uploads = (0..16_u8).map(|writer| (writer, writer % 2 == 0, 300_000)).collect();
        race(&mailbox, &format!("race/{round}/deep/object"), puts_and_uploads).await;
    }
    // Longer than a piece: none is put at once.
    let uploads = (0..4_u8).map(|writer| (writer, false, IN_PIECES)).collect();
    race(&mailbox, "race/in-pieces", uploads).await;
    Shown::Yes
}

/// Writers, whether each puts at once, and how many bytes.
async fn race(mailbox: &Shared, name: &str, writers: Vec<(u8, bool, usize)>) {
    let name = key(name);
    let tasks: Vec<_> = writers
        .iter()
        .map(|&(writer, at_once, length)| {
            let (mailbox, name) = (Arc::clone(mailbox), name.clone());
            tokio::spawn(async move {
                let content = Bytes::from(vec![writer; length]);
                if at_once {
                    return mailbox.put_if_absent(&name, content).await.unwrap();
                }
                let mut upload = mailbox.begin_upload(&name).await.unwrap();
                for part in content.chunks(length / 4) {
                    upload.write(Bytes::copy_from_slice(part)).await.unwrap();
                }
                upload.commit_if_absent().await.unwrap()
            })
        })
        .collect();
    let mut created = Vec::new();
    for ((writer, _, length), task) in writers.into_iter().zip(tasks) {
        if task.await.unwrap() == PutOutcome::Created {
            created.push((writer, length));
        }
    }
    let [(writer, length)] = created[..] else {
        panic!("{name}: {created:?}")
    };
    let content = mailbox.read(&name, 1 << 30).await.unwrap();
    assert_eq!(content.len(), length);
    assert!(content.iter().all(|byte| *byte == writer), "mixed content");
}

pub async fn an_unfinished_upload_leaves_nothing(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    for length in [600_000, IN_PIECES] {
        let mut dropped = mailbox.begin_upload(&key("x/dropped")).await.unwrap();
        dropped.write(Bytes::from(vec![1; length])).await.unwrap();
        assert!(
            mailbox.head(&key("x/dropped")).await.unwrap().is_none(),
            "visible before its commit"
        );
        assert!(pages(&mailbox, ListRequest::default()).await.0.is_empty());
        drop(dropped);
        let mut aborted = mailbox.begin_upload(&key("x/aborted")).await.unwrap();
        aborted.write(Bytes::from(vec![2; length])).await.unwrap();
        aborted.abort().await.unwrap();
        assert_eq!(pages(&mailbox, ListRequest::default()).await, (vec![], vec![]));
    }
    // The name is still free.
    put(&mailbox, "x/dropped").await;
    Shown::Yes
}

/// S3 keeps, and bills, the parts of an upload until it is told that nobody completes it.
pub async fn a_store_is_told_of_uploads_that_are_given_up(stage: Stage) -> Shown {
    if matches!(shown!(stage.server()).protocol, Protocol::Gcs) {
        return Shown::No("an upload is one request to GCS: given up, it is cut off, and nothing was stored");
    }
    let (mailbox, proxy) = shown!(stage.behind(|_| Fault::None).await);
    let begun = |seen: &Seen| seen.method == "POST" && seen.query.contains("uploads");
    let told = |seen: &Seen| seen.method == "DELETE" && seen.query.contains("uploadId=");
    let mut aborted = mailbox.begin_upload(&key("aborted")).await.unwrap();
    aborted.write(Bytes::from(vec![1; IN_PIECES])).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!((proxy.count(begun), proxy.count(told)), (1, 1), "{:?}", proxy.seen());
    let mut dropped = mailbox.begin_upload(&key("dropped")).await.unwrap();
    dropped.write(Bytes::from(vec![1; IN_PIECES])).await.unwrap();
    drop(dropped);
    let mut tries = 0;
    while proxy.count(told) < 2 && tries < 100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tries += 1;
    }
    assert_eq!((proxy.count(begun), proxy.count(told)), (2, 2), "{:?}", proxy.seen());
    Shown::Yes
}

pub async fn large_objects_stream(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    let mut upload = mailbox.begin_upload(&key("large")).await.unwrap();
    for part in 0..200_u8 {
        upload.write(Bytes::from(vec![part; 100_001])).await.unwrap();
    }
    assert_eq!(upload.commit_if_absent().await.unwrap(), PutOutcome::Created);
    let mut body = mailbox.open(&key("large")).await.unwrap();
    assert_eq!(body.meta.size, 20_000_200);
    let (mut offset, mut chunks) = (0_usize, 0);
    while let Some(chunk) = body.stream.try_next().await.unwrap() {
        assert!(
            chunk
                .iter()
                .enumerate()
                .all(|(at, byte)| usize::from(*byte) == (offset + at) / 100_001)
        );
        offset += chunk.len();
        chunks += 1;
    }
    assert_eq!(offset, 20_000_200);
    assert!(chunks > 10, "in one piece");
    Shown::Yes
}

/// An upload in parts shows the time at which it began: a signature, however long, must show when it was complete.
pub async fn what_is_put_at_once_goes_by_one_request(stage: Stage) -> Shown {
    let (mailbox, proxy) = shown!(stage.behind(|_| Fault::None).await);
    let (name, whole) = (key("signature"), content(20_000_000));
    assert_eq!(
        mailbox.put_if_absent(&name, whole.clone()).await.unwrap(),
        PutOutcome::Created
    );
    let seen = proxy.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let put = &seen[0];
    match shown!(stage.server()).protocol {
        Protocol::S3 => {
            assert!(put.method == "PUT" && !put.query.contains("uploadId"), "{put:?}");
            assert_eq!(put.header("if-none-match"), Some("*"));
        }
        Protocol::Gcs => assert!(
            put.query.contains("uploadType=multipart") && put.query.contains("ifGenerationMatch=0"),
            "{put:?}"
        ),
    }
    assert_eq!(
        mailbox.put_if_absent(&name, content(10)).await.unwrap(),
        PutOutcome::Exists
    );
    assert_eq!(read(&stage.mailbox(), "signature").await.unwrap(), whole);
    Shown::Yes
}

pub async fn what_is_absent_is_named(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    put(&mailbox, "a/b").await;
    for name in ["a/c", "b", "a/b/c", "a"] {
        assert_eq!(mailbox.head(&key(name)).await.unwrap(), None, "{name}");
        let error = mailbox.open(&key(name)).await.err().unwrap();
        assert_eq!(error.kind(), MailboxErrorKind::NotFound);
        assert!(!error.is_retryable());
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains(&mailbox.url().to_string()),
            "{text}"
        );
    }
    Shown::Yes
}

pub async fn reads_are_bounded(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    put(&mailbox, "12345").await;
    assert_eq!(mailbox.read(&key("12345"), 5).await.unwrap(), "12345");
    let error = mailbox.read(&key("12345"), 4).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::TooLarge);
    Shown::Yes
}

pub async fn ranges_are_parts_of_an_object(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    mailbox
        .put_if_absent(&key("a/b"), Bytes::from(content.clone()))
        .await
        .unwrap();
    for (offset, length) in [
        (0, 0),
        (0, 1),
        (0, 300_000),
        (0, u64::MAX),
        (299_999, 5),
        (65_530, 131_072),
        (300_000, 1),
        (u64::MAX, 1),
    ] {
        let within = |position: u64| usize::try_from(position.min(300_000)).unwrap();
        let expected = &content[within(offset)..within(offset.saturating_add(length))];
        let read = mailbox.read_range(&key("a/b"), offset, length).await.unwrap();
        assert!(read == expected, "{length} from {offset}");
    }
    let error = mailbox.read_range(&key("a/c"), 0, 1).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::NotFound);
    Shown::Yes
}

const TREE: [&str; 12] = [
    "A/x",
    "a.b/x",
    "a/2026/11/19/u",
    "a/2026/11/20/00/u",
    "a/2026/11/20/00/v",
    "a/2026/11/20/01/u",
    "a/2026/12/01/u",
    "a/z",
    "a0",
    "b/c/d",
    "b/ce",
    "é/x",
];

pub async fn listings_are_ranges_in_byte_order(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    for name in TREE.iter().rev() {
        put(&mailbox, name).await;
    }
    // Every range over these edges, against the definition.
    let edges = [
        "",
        "A",
        "a",
        "a.",
        "a/",
        "a/2026",
        "a/2026/11/2",
        "a/2026/11/20/00/u",
        "a/2026/11/20/00/u0",
        "a/2026/11/20/",
        "a/2026/11/20/0",
        "a0",
        "b/c",
        "b/c/",
        "b/cd",
        "zzz",
        "é/",
        "\u{ffff}",
    ];
    for prefix in ["", "a", "a/", "a/2026/11/", "a/2026/11/20/00/u", "b/c", "none"] {
        for start in edges {
            for end in edges {
                for (limit, folders) in [(None, false), (Some(2), false), (Some(1), true), (None, true)] {
                    let request = ListRequest {
                        prefix: prefix.to_owned(),
                        start_after: (!start.is_empty()).then(|| start.to_owned()),
                        end_before: (!end.is_empty()).then(|| end.to_owned()),
                        folders,
                        limit,
                    };
                    let asked = TREE.iter().filter(|name| {
                        name.starts_with(prefix)
                            && (start.is_empty() || **name > start)
                            && (end.is_empty() || **name < end)
                    });
                    let (mut objects, mut tops) = (Vec::new(), Vec::new());
                    for name in asked {
                        match name[prefix.len()..].find('/').filter(|_| folders) {
                            Some(slash) => tops.push(name[..=prefix.len() + slash].to_owned()),
                            None => objects.push((*name).to_owned()),
                        }
                    }
                    tops.dedup();
                    assert_eq!(pages(&mailbox, request.clone()).await, (objects, tops), "{request:?}");
                }
            }
        }
    }
    Shown::Yes
}

pub async fn listings_tell_what_head_tells(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    put(&mailbox, "a/b").await;
    let page = mailbox.list_all(&ListRequest::default()).await.unwrap();
    let (listed, mut head) = (&page.objects[0], mailbox.head(&key("a/b")).await.unwrap().unwrap());
    // S3 lists no metadata.
    if listed.sha256.is_none() {
        head.sha256 = None;
    }
    assert_eq!(*listed, head);
    Shown::Yes
}

pub async fn listings_tell_the_stores_clock(stage: Stage) -> Shown {
    if matches!(stage.backend, Backend::Memory(_)) {
        return Shown::No("memory tells a time only where a test sets it");
    }
    let mailbox = stage.mailbox();
    for number in 0..3 {
        put(&mailbox, &format!("n/{number}")).await;
    }
    let before = Timestamp::now().as_second();
    let page = mailbox
        .list_all(&ListRequest {
            prefix: "n/".into(),
            limit: Some(1),
            ..ListRequest::default()
        })
        .await
        .unwrap();
    let time = page.time.unwrap();
    // The server is on this machine.
    assert!(
        (before..=Timestamp::now().as_second()).contains(&time.as_second()),
        "{time}"
    );
    assert_eq!(time.subsec_nanosecond(), 0);
    assert!(
        page.objects
            .iter()
            .all(|object| object.modified.as_second() <= time.as_second())
    );
    Shown::Yes
}

pub async fn many_objects_come_in_pages(stage: Stage) -> Shown {
    let mailbox = stage.mailbox();
    for number in 0..1500 {
        mailbox
            .put_if_absent(&key(&format!("n/{:02}/{number:05}", number / 100)), Bytes::new())
            .await
            .unwrap();
    }
    let page = mailbox
        .list_all(&ListRequest {
            prefix: "n/".into(),
            ..ListRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(page.objects.len(), 1500);
    assert!(names(&page).is_sorted());
    let (objects, _) = pages(
        &mailbox,
        ListRequest {
            limit: Some(97),
            ..ListRequest::default()
        },
    )
    .await;
    assert_eq!(objects.len(), 1500);
    Shown::Yes
}
