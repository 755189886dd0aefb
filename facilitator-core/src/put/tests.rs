#![allow(clippy::unwrap_used)]
use super::*;
use async_trait::async_trait;
use mailbox::{ListPage, MailboxUrl, MemoryMailbox, ObjectBody, Upload};

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn object(name: &str, content: &'static str) -> OwnObject<'static> {
    OwnObject::new(key(name), Bytes::from_static(content.as_bytes()))
}

/// The same, in an upload that waits for its commit where `uploaded`.
async fn outgoing<'a>(mailbox: &'a MemoryMailbox, name: &str, content: &str, uploaded: bool) -> OwnObject<'a> {
    let mut outgoing = Outgoing::new(mailbox, key(name), 0);
    let (head, tail) = content.as_bytes().split_at(if uploaded { 3 } else { 0 });
    if uploaded {
        outgoing.write(Bytes::copy_from_slice(head)).await.unwrap();
    }
    outgoing.tail().extend_from_slice(tail);
    OwnObject::outgoing(key(name), outgoing, ContentDigest::of(content.as_bytes()))
}

struct Case {
    name: &'static str,
    there: &'static [(&'static str, &'static str)],
    unreadable: bool,
    meaning: Meaning,
    expected: &'static str,
    signed_after: bool,
}

/// The memory mailbox keeps no hashes: a length alone doesn't prove our bytes.
const UNREAD_OF_OURS: &str = "Unverified";

#[tokio::test]
async fn what_is_there_is_named_and_never_mixed() {
    use Meaning::{Other, Same, Unread};
    let case = |name, there, unreadable, meaning, expected, signed_after| Case {
        name,
        there,
        unreadable,
        meaning,
        expected,
        signed_after,
    };
    let whole: &[_] = &[("p", "packets"), ("h", "header"), ("s", "signature")];
    let table = [
        case("nothing", &[][..], false, Other, "Created", true),
        case("stopped half-way", &[("p", "packets")], false, Other, "Created", true),
        case("all of ours", whole, false, Other, "SameBytes", true),
        case(
            "others' packets",
            &[("p", "strange")],
            false,
            Same,
            "Different p",
            false,
        ),
        case(
            "others' header",
            &[("p", "packets"), ("h", "strange")],
            false,
            Same,
            "Different h",
            false,
        ),
        case(
            "predecessor",
            &[("p", "x"), ("h", "y"), ("s", "z")],
            false,
            Same,
            "SameMeaning",
            true,
        ),
        case(
            "stranger",
            &[("p", "x"), ("h", "y"), ("s", "z")],
            false,
            Other,
            "Different p",
            true,
        ),
        case(
            "other signature",
            &[("p", "packets"), ("h", "header"), ("s", "z")],
            false,
            Same,
            "SameMeaning",
            true,
        ),
        case(
            "unreadable, same length or hash",
            whole,
            true,
            Unread,
            UNREAD_OF_OURS,
            true,
        ),
        case(
            "unreadable, stopped half-way",
            &[("p", "packets")],
            true,
            Unread,
            UNREAD_OF_OURS,
            true,
        ),
        case(
            "unreadable, torn",
            &[("p", "strange!")],
            true,
            Unread,
            "Different p",
            false,
        ),
        case(
            "unreadable, whole",
            &[("p", "x"), ("h", "y"), ("s", "z")],
            true,
            Unread,
            "Unverified",
            true,
        ),
    ];
    for Case {
        name,
        there,
        unreadable,
        meaning,
        expected,
        signed_after,
    } in table
    {
        for uploaded in [None, Some(false), Some(true)] {
            let mailbox = MemoryMailbox::new("peer");
            for (name, content) in there {
                let content = Bytes::from_static(content.as_bytes());
                mailbox.put_if_absent(&key(name), content).await.unwrap();
            }
            mailbox.refuse_reads(unreadable);
            let packets = match uploaded {
                None => object("p", "packets"),
                Some(uploaded) => outgoing(&mailbox, "p", "packets", uploaded).await,
            };
            let parts = vec![packets, object("h", "header")];
            let put = put_batch(&mailbox, parts, object("s", "signature"), async || {
                Ok::<_, MailboxError>(meaning)
            })
            .await
            .unwrap();
            let put = match put {
                BatchPut::There(put) => format!("{put:?}"),
                BatchPut::Different(key) => format!("Different {key}"),
            };
            assert_eq!(put, expected, "{name}");
            let signed = mailbox.snapshot().contains_key("s");
            assert_eq!(signed, signed_after, "{name}");
            for (key, content) in there {
                assert_eq!(
                    &mailbox.snapshot()[*key][..],
                    content.as_bytes(),
                    "{name}: nothing is overwritten"
                );
            }
            assert_eq!(mailbox.open_uploads(), 0, "{name}");
        }
    }
}

#[tokio::test]
async fn the_loser_goes_on_from_the_winner() {
    let mailbox = MemoryMailbox::new("ledger");
    let first = put_or_read(&mailbox, &key("k"), "mine".into(), 100).await.unwrap();
    let second = put_or_read(&mailbox, &key("k"), "theirs".into(), 100).await.unwrap();
    assert_eq!((first.1, second.1), (PutOutcome::Created, PutOutcome::Exists));
    assert_eq!(&second.0[..], b"mine");
}

/// A mailbox where nothing can be uploaded in parts.
#[derive(Debug)]
struct AtOnce(MemoryMailbox);

#[async_trait]
impl Mailbox for AtOnce {
    fn url(&self) -> &MailboxUrl {
        self.0.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        self.0.open(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.0.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        let kind = MailboxErrorKind::Unsupported;
        Err(MailboxError::of_object(kind, self.url(), key, "an upload in parts"))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.0.put_if_absent(key, content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        self.0.list(request).await
    }
}

/// Its time decides whether a batch is in a window, and an upload in parts shows when it began.
#[tokio::test]
async fn a_signature_of_any_length_is_put_at_once() {
    let mailbox = AtOnce(MemoryMailbox::new("peer"));
    let long = Bytes::from(vec![b's'; SINGLE_PUT_BYTES + 1]);
    let signature = OwnObject::new(key("s"), long.clone());
    let meaning = async || Ok::<_, MailboxError>(Meaning::Other);
    let put = put_batch(&mailbox, vec![object("p", "packets")], signature, meaning).await;
    assert_eq!(put.unwrap(), BatchPut::There(DeliveredPut::Created));
    let there = mailbox.read(&key("s"), u64::MAX).await.unwrap();
    assert_eq!(there, long);
    // Other objects of this length aren't.
    let error = super::put(&mailbox, &key("p2"), &long).await.unwrap_err();
    assert_eq!(error.kind(), MailboxErrorKind::Unsupported);
}
