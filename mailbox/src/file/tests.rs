//! What only a mailbox in a folder must do.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::{FileMailbox, ListRequest, Mailbox, MailboxErrorKind, ObjectKey, PutOutcome};
use bytes::Bytes;

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

async fn names(mailbox: &FileMailbox) -> Vec<String> {
    let page = mailbox.list_all(&ListRequest::default()).await.unwrap();
    page.objects
        .into_iter()
        .map(|object| object.key.into_string())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn uploads(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join(".uploads")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn others_may_read_what_is_put_and_no_temporary_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    mailbox.put_if_absent(&key("a/b/c"), Bytes::from("x")).await.unwrap();
    let mut upload = mailbox.begin_upload(&key("a/d")).await.unwrap();
    upload.write(Bytes::from("y")).await.unwrap();
    assert_eq!(uploads(folder.path()).len(), 1);
    assert_eq!(upload.commit_if_absent().await.unwrap(), PutOutcome::Created);
    drop(mailbox.begin_upload(&key("a/e")).await.unwrap());
    assert!(uploads(folder.path()).is_empty());
    for (path, wanted) in [("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o644), ("a/d", 0o644)] {
        assert_eq!(mode(&folder.path().join(path)), wanted, "{path}");
    }
}

#[tokio::test]
async fn store_time_is_the_commit_and_not_the_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    let mut upload = mailbox.begin_upload(&key("slow")).await.unwrap();
    upload.write(Bytes::from(vec![0; 300_000])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let before = jiff::Timestamp::now();
    upload.commit_if_absent().await.unwrap();
    assert!(mailbox.head(&key("slow")).await.unwrap().unwrap().modified >= before);
}

#[tokio::test]
async fn uploads_of_dead_writers_are_removed_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".uploads")).unwrap();
    for (name, hours) in [("upload-old", 25), ("upload-live", 23)] {
        let file = fs::File::create(folder.path().join(".uploads").join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600))
            .unwrap();
    }
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    mailbox.put_if_absent(&key("a"), Bytes::new()).await.unwrap();
    assert_eq!(uploads(folder.path()), ["upload-live"]);
    assert_eq!(names(&mailbox).await, ["a"]);
}

#[tokio::test]
async fn the_folder_of_uploads_is_no_place_for_objects() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    let error = mailbox
        .put_if_absent(&key(".uploads/a"), Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::InvalidKey);
    assert_eq!(
        mailbox.head(&key(".uploads/a")).await.unwrap_err().kind(),
        MailboxErrorKind::InvalidKey
    );
    // Deeper down the name is free.
    mailbox.put_if_absent(&key("a/.uploads"), Bytes::new()).await.unwrap();
    assert_eq!(names(&mailbox).await, ["a/.uploads"]);
}

#[tokio::test]
async fn symbolic_links_are_not_followed() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("file")).unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    assert!(names(&mailbox).await.is_empty());
    for name in ["link/secret", "file"] {
        assert_eq!(mailbox.head(&key(name)).await.unwrap(), None);
        assert_eq!(
            mailbox.open(&key(name)).await.err().unwrap().kind(),
            MailboxErrorKind::NotFound
        );
    }
    for name in ["link/new", "file"] {
        let error = mailbox.put_if_absent(&key(name), Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), MailboxErrorKind::InvalidKey, "{name}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_missing_root_is_not_an_empty_mailbox() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = FileMailbox::in_folder(&folder.path().join("mistyped")).unwrap();
    let errors = [
        mailbox.list(&ListRequest::default()).await.err(),
        mailbox.head(&key("ledger.json")).await.err(),
        mailbox.open(&key("ledger.json")).await.err(),
        mailbox.put_if_absent(&key("ledger.json"), Bytes::new()).await.err(),
    ];
    for error in errors {
        assert_eq!(error.unwrap().kind(), MailboxErrorKind::NoSuchMailbox);
    }
    assert!(!folder.path().join("mistyped").exists());
}

#[tokio::test]
async fn an_object_and_a_folder_cannot_share_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    mailbox.put_if_absent(&key("a"), Bytes::new()).await.unwrap();
    mailbox.put_if_absent(&key("b/c"), Bytes::new()).await.unwrap();
    for name in ["a/b", "b", &"x".repeat(300)] {
        let error = mailbox.put_if_absent(&key(name), Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), MailboxErrorKind::InvalidKey, "{name}");
    }
}

#[tokio::test]
async fn what_isn_t_an_object_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("empty/folder")).unwrap();
    fs::write(folder.path().join("line\nbreak"), "").unwrap();
    fs::write(folder.path().join("kept"), "").unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    let page = mailbox
        .list(&ListRequest {
            folders: true,
            ..ListRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(page.objects.len(), 1);
    assert!(
        page.folders.is_empty(),
        "an empty folder holds no object: {:?}",
        page.folders
    );
}

/// As root every folder is writable, so the read-only mailbox is tried only by other users.
#[tokio::test]
async fn a_read_only_mailbox_is_read_and_refuses_puts() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/b"), "x").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mailbox = FileMailbox::in_folder(folder.path()).unwrap();
    assert_eq!(names(&mailbox).await, ["a/b"]);
    assert_eq!(mailbox.read(&key("a/b"), 1).await.unwrap(), "x");
    if fs::write(folder.path().join("probe"), "").is_err() {
        let error = mailbox.put_if_absent(&key("c"), Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), MailboxErrorKind::Denied);
        fs::set_permissions(folder.path().join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(
            mailbox.open(&key("a/b")).await.err().unwrap().kind(),
            MailboxErrorKind::Denied
        );
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}
