//! Putting objects that may be there already: nothing is overwritten, and what is found is named (ledger rule 11).

use bytes::Bytes;
use mailbox::{ListRequest, Mailbox, MailboxError, MailboxErrorKind, ObjectKey, ObjectMeta, PutOutcome};
use sha2::{Digest, Sha256};

use crate::formats::ledger::{DeliveredPut, hex};

/// Objects up to this length, in bytes, are put by a single call; longer ones are uploaded in parts.
const SINGLE_PUT_BYTES: usize = 8 << 20;
/// The length of an uploaded part, in bytes.
const PART_BYTES: usize = 4 << 20;

/// An object that we want to be there.
#[derive(Clone, Debug)]
pub struct OwnObject {
    /// Its name.
    pub key: ObjectKey,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Whether what is there under our names says what we say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Validly signed by us, with our values.
    Same,
    /// Anything else.
    Other,
    /// We may not read it.
    Unread,
}

/// How the put of a batch into a partner's mailbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchPut {
    /// It is there.
    There(DeliveredPut),
    /// An object of another content is in the way; final.
    Different(ObjectKey),
}

/// What a look at an existing object tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Same,
    Differs,
    /// Can't be read; `differs` where its length or hash tells.
    Unread {
        differs: bool,
    },
}

/// Puts one object if none is there. A refusal of an object that exists counts as existing: a store that grants creation
/// alone refuses the second try of a put whose answer was lost.
///
/// # Errors
/// Those of the mailbox.
pub async fn put(mailbox: &dyn Mailbox, key: &ObjectKey, bytes: &Bytes) -> Result<PutOutcome, MailboxError> {
    if bytes.len() <= SINGLE_PUT_BYTES {
        return put_single(mailbox, key, bytes).await;
    }
    exists_if_refused(mailbox, key, upload(mailbox, key, bytes).await).await
}

async fn put_single(mailbox: &dyn Mailbox, key: &ObjectKey, bytes: &Bytes) -> Result<PutOutcome, MailboxError> {
    exists_if_refused(mailbox, key, mailbox.put_if_absent(key, bytes.clone()).await).await
}

async fn exists_if_refused(
    mailbox: &dyn Mailbox,
    key: &ObjectKey,
    outcome: Result<PutOutcome, MailboxError>,
) -> Result<PutOutcome, MailboxError> {
    match outcome {
        Err(error) if error.kind() == MailboxErrorKind::Denied => match look(mailbox, key).await {
            Ok(Some(_)) => Ok(PutOutcome::Exists),
            _ => Err(error),
        },
        outcome => outcome,
    }
}

async fn upload(mailbox: &dyn Mailbox, key: &ObjectKey, bytes: &Bytes) -> Result<PutOutcome, MailboxError> {
    let mut upload = mailbox.begin_upload(key).await?;
    for start in (0..bytes.len()).step_by(PART_BYTES) {
        let part = bytes.slice(start..bytes.len().min(start + PART_BYTES));
        if let Err(error) = upload.write(part).await {
            // The first error says more than a second one while tidying up.
            let _ = upload.abort().await;
            return Err(error);
        }
    }
    upload.commit_if_absent().await
}

/// Puts an object of our own ledger; where one is there, reads the winner. `limit` bounds it, in bytes.
///
/// # Errors
/// Those of the mailbox.
pub async fn put_or_read(
    mailbox: &dyn Mailbox,
    key: &ObjectKey,
    bytes: Bytes,
    limit: u64,
) -> Result<(Bytes, PutOutcome), MailboxError> {
    match put(mailbox, key, &bytes).await? {
        PutOutcome::Created => Ok((bytes, PutOutcome::Created)),
        PutOutcome::Exists => Ok((mailbox.read(key, limit).await?, PutOutcome::Exists)),
    }
}

/// An object's bytes, or `None` where there is none.
///
/// # Errors
/// Those of the mailbox.
pub async fn read_if_there(mailbox: &dyn Mailbox, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>, MailboxError> {
    match mailbox.read(key, limit).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == MailboxErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the objects of one batch in order; the last is the signature, which commits. `meaning` reads what is there under
/// our names, whole, where bytes differ.
///
/// Nothing is put after an object that is certainly not ours: a signature over a mixture would break it for its reader.
///
/// # Errors
/// Those of the mailbox.
pub async fn put_batch(
    mailbox: &dyn Mailbox,
    parts: &[OwnObject],
    signature: &OwnObject,
    meaning: impl AsyncFnOnce() -> Result<Meaning, MailboxError>,
) -> Result<BatchPut, MailboxError> {
    let mut in_the_way = None;
    for part in parts {
        if put(mailbox, &part.key, &part.bytes).await? == PutOutcome::Created {
            check(mailbox, part).await?;
            continue;
        }
        if matches!(
            compare(mailbox, part).await?,
            Found::Differs | Found::Unread { differs: true }
        ) {
            in_the_way = Some(part.key.clone());
            break;
        }
    }
    if in_the_way.is_none() {
        // By a single put, however long: a multipart upload shows the time at which it began.
        if put_single(mailbox, &signature.key, &signature.bytes).await? == PutOutcome::Created {
            check(mailbox, signature).await?;
            return Ok(BatchPut::There(DeliveredPut::Created));
        }
        match compare(mailbox, signature).await? {
            Found::Same => return Ok(BatchPut::There(DeliveredPut::SameBytes)),
            Found::Unread { .. } => return Ok(BatchPut::There(DeliveredPut::Unverified)),
            Found::Differs => {}
        }
    }
    let object = in_the_way.unwrap_or_else(|| signature.key.clone());
    // Without a signature nobody has committed what is in the way: there is no meaning to compare.
    let committed = match look(mailbox, &signature.key).await {
        Ok(there) => there.is_some(),
        Err(error) if error.kind() == MailboxErrorKind::Denied => true,
        Err(error) => return Err(error),
    };
    if !committed {
        return Ok(BatchPut::Different(object));
    }
    Ok(match meaning().await? {
        Meaning::Same => BatchPut::There(DeliveredPut::SameMeaning),
        Meaning::Unread => BatchPut::There(DeliveredPut::Unverified),
        Meaning::Other => BatchPut::Different(object),
    })
}

/// Lets the store show that it replaces nothing, by an object that we have just put: a partner's mailbox takes no probes.
async fn check(mailbox: &dyn Mailbox, object: &OwnObject) -> Result<(), MailboxError> {
    if object.bytes.len() > SINGLE_PUT_BYTES {
        return Ok(());
    }
    mailbox
        .check_conditional_writes(&object.key, object.bytes.clone())
        .await
}

/// Whether an object of ours is there, byte for byte as far as can be read or as its hash shows.
///
/// # Errors
/// Those of the mailbox; that it isn't there is one.
pub(crate) async fn has_same_bytes(mailbox: &dyn Mailbox, ours: &OwnObject) -> Result<bool, MailboxError> {
    Ok(compare(mailbox, ours).await? == Found::Same)
}

async fn compare(mailbox: &dyn Mailbox, ours: &OwnObject) -> Result<Found, MailboxError> {
    match mailbox.read(&ours.key, ours.bytes.len() as u64).await {
        Ok(there) if there == ours.bytes => Ok(Found::Same),
        Ok(_) => Ok(Found::Differs),
        Err(error) => match error.kind() {
            MailboxErrorKind::TooLarge => Ok(Found::Differs),
            MailboxErrorKind::Denied => compare_by_listing(mailbox, ours).await,
            _ => Err(error),
        },
    }
}

/// What the store shows of an object: by name, or where that is refused by a listing (a partner may grant create and list
/// alone). `Err(Denied)` where neither is allowed.
///
/// # Errors
/// Those of the mailbox.
pub async fn look(mailbox: &dyn Mailbox, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
    match mailbox.head(key).await {
        Err(error) if error.kind() == MailboxErrorKind::Denied => {
            let request = ListRequest {
                prefix: key.as_str().to_owned(),
                limit: Some(1),
                ..ListRequest::default()
            };
            // The name itself comes first of all names that begin with it.
            let page = mailbox.list(&request).await?;
            Ok(page.objects.into_iter().find(|meta| meta.key == *key))
        }
        seen => seen,
    }
}

/// What a store shows of an object that can't be read: its hash decides, its length alone can only tell a difference.
async fn compare_by_listing(mailbox: &dyn Mailbox, ours: &OwnObject) -> Result<Found, MailboxError> {
    let meta = match look(mailbox, &ours.key).await {
        Ok(meta) => meta,
        Err(error) if error.kind() == MailboxErrorKind::Denied => None,
        Err(error) => return Err(error),
    };
    let Some(meta) = meta else {
        return Ok(Found::Unread { differs: false });
    };
    Ok(match meta.sha256 {
        Some(there) if there == hex(&Sha256::digest(&ours.bytes)) => Found::Same,
        Some(_) => Found::Unread { differs: true },
        None => Found::Unread {
            differs: meta.size != ours.bytes.len() as u64,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mailbox::MemoryMailbox;

    fn object(name: &str, content: &'static str) -> OwnObject {
        OwnObject {
            key: ObjectKey::parse(name).unwrap(),
            bytes: Bytes::from_static(content.as_bytes()),
        }
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
            let mailbox = MemoryMailbox::new("peer");
            for (key, content) in there {
                let object = object(key, content);
                mailbox.put_if_absent(&object.key, object.bytes).await.unwrap();
            }
            mailbox.refuse_reads(unreadable);
            let parts = [object("p", "packets"), object("h", "header")];
            let put = put_batch(&mailbox, &parts, &object("s", "signature"), async || Ok(meaning))
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
        }
    }

    #[tokio::test]
    async fn the_loser_goes_on_from_the_winner() {
        let mailbox = MemoryMailbox::new("ledger");
        let (mine, theirs) = (object("k", "mine"), object("k", "theirs"));
        let first = put_or_read(&mailbox, &mine.key, mine.bytes, 100).await.unwrap();
        let second = put_or_read(&mailbox, &theirs.key, theirs.bytes, 100).await.unwrap();
        assert_eq!((first.1, second.1), (PutOutcome::Created, PutOutcome::Exists));
        assert_eq!(&second.0[..], b"mine");
    }
}
