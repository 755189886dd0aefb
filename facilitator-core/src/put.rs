//! Putting objects that may be there already: nothing is overwritten, and what is found is named (ledger rule 11).

use bytes::Bytes;
use futures::TryStreamExt;
use mailbox::{ListRequest, Mailbox, MailboxError, MailboxErrorKind, ObjectKey, ObjectMeta, PutOutcome};

use aws_lc_rs::digest::{Context, SHA256};

use crate::crypto::sha256;
use crate::formats::ledger::{DeliveredPut, hex};
use crate::outgoing::{Outgoing, PART_BYTES, SINGLE_PUT_BYTES};

/// An object that we want to be there.
pub struct OwnObject<'a> {
    key: ObjectKey,
    content: Content<'a>,
}

enum Content<'a> {
    Whole(Bytes),
    Outgoing(Outgoing<'a>, ContentDigest),
}

/// What tells an object's bytes from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentDigest {
    pub length: u64,
    pub sha256: [u8; 32],
}

impl ContentDigest {
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            sha256: sha256(bytes),
        }
    }
}

impl<'a> OwnObject<'a> {
    /// An object of bytes in memory.
    #[must_use]
    pub fn new(key: ObjectKey, bytes: Bytes) -> Self {
        let content = Content::Whole(bytes);
        Self { key, content }
    }

    /// An object on its way.
    pub(crate) fn outgoing(key: ObjectKey, outgoing: Outgoing<'a>, digest: ContentDigest) -> Self {
        let content = Content::Outgoing(outgoing, digest);
        Self { key, content }
    }

    /// Puts it if none is there; where one is, compares the two.
    async fn put(self, mailbox: &dyn Mailbox, single: bool) -> Result<Option<Found>, MailboxError> {
        let key = &self.key;
        match self.content {
            Content::Whole(bytes) => {
                let outcome = match single {
                    true => put_single(mailbox, key, &bytes).await?,
                    false => put(mailbox, key, &bytes).await?,
                };
                match outcome {
                    PutOutcome::Created => {
                        // The store shows that it replaces nothing by what was just put: a partner's mailbox takes no probes.
                        if bytes.len() <= SINGLE_PUT_BYTES {
                            mailbox.check_conditional_writes(key, bytes).await?;
                        }
                        Ok(None)
                    }
                    PutOutcome::Exists => compare(mailbox, key, &ContentDigest::of(&bytes)).await.map(Some),
                }
            }
            Content::Outgoing(outgoing, digest) => match outgoing.commit().await? {
                (PutOutcome::Created, _) => Ok(None),
                (PutOutcome::Exists, _) => compare(mailbox, key, &digest).await.map(Some),
            },
        }
    }
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

pub(crate) async fn exists_if_refused(
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
/// Those of the mailbox and of `meaning`.
pub async fn put_batch<E: From<MailboxError>>(
    mailbox: &dyn Mailbox,
    parts: Vec<OwnObject<'_>>,
    signature: OwnObject<'_>,
    meaning: impl AsyncFnOnce() -> Result<Meaning, E>,
) -> Result<BatchPut, E> {
    let (mut in_the_way, mut unread) = (None, false);
    for part in parts {
        let key = part.key.clone();
        match part.put(mailbox, false).await? {
            Some(Found::Differs | Found::Unread { differs: true }) => {
                in_the_way = Some(key);
                break;
            }
            Some(Found::Unread { differs: false }) => unread = true,
            Some(Found::Same) | None => {}
        }
    }
    let signature_key = signature.key.clone();
    if in_the_way.is_none() {
        // By a single put, however long: a multipart upload shows the time at which it began.
        match signature.put(mailbox, true).await? {
            None if !unread => return Ok(BatchPut::There(DeliveredPut::Created)),
            Some(Found::Same) if !unread => return Ok(BatchPut::There(DeliveredPut::SameBytes)),
            // A signature of ours, too, says nothing of what is below it and can't be read.
            None | Some(Found::Same | Found::Unread { .. }) => return Ok(BatchPut::There(DeliveredPut::Unverified)),
            Some(Found::Differs) => {}
        }
    }
    // Without a signature nobody has committed what is in the way: there is no meaning to compare.
    let committed = match look(mailbox, &signature_key).await {
        Ok(there) => there.is_some(),
        Err(error) if error.kind() == MailboxErrorKind::Denied => true,
        Err(error) => return Err(error.into()),
    };
    let object = in_the_way.unwrap_or(signature_key);
    if !committed {
        return Ok(BatchPut::Different(object));
    }
    Ok(match meaning().await? {
        Meaning::Same => BatchPut::There(DeliveredPut::SameMeaning),
        Meaning::Unread => BatchPut::There(DeliveredPut::Unverified),
        Meaning::Other => BatchPut::Different(object),
    })
}

/// Whether an object of these bytes is there, as far as can be read or as its hash shows.
///
/// # Errors
/// Those of the mailbox; that it isn't there is one.
pub(crate) async fn has_same_bytes(mailbox: &dyn Mailbox, key: &ObjectKey, ours: &[u8]) -> Result<bool, MailboxError> {
    Ok(compare(mailbox, key, &ContentDigest::of(ours)).await? == Found::Same)
}

async fn compare(mailbox: &dyn Mailbox, key: &ObjectKey, ours: &ContentDigest) -> Result<Found, MailboxError> {
    let body = match mailbox.open(key).await {
        Err(error) if error.kind() == MailboxErrorKind::Denied => return compare_by_listing(mailbox, key, ours).await,
        opened => opened?,
    };
    if body.meta.size != ours.length {
        return Ok(Found::Differs);
    }
    let (mut stream, mut digest, mut length) = (body.stream, Context::new(&SHA256), 0);
    while let Some(chunk) = stream.try_next().await? {
        length += chunk.len() as u64;
        if length > ours.length {
            return Ok(Found::Differs);
        }
        digest.update(&chunk);
    }
    let same = length == ours.length && digest.finish().as_ref() == ours.sha256;
    Ok(if same { Found::Same } else { Found::Differs })
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
async fn compare_by_listing(
    mailbox: &dyn Mailbox,
    key: &ObjectKey,
    ours: &ContentDigest,
) -> Result<Found, MailboxError> {
    let meta = match look(mailbox, key).await {
        Ok(meta) => meta,
        Err(error) if error.kind() == MailboxErrorKind::Denied => None,
        Err(error) => return Err(error),
    };
    let Some(meta) = meta else {
        return Ok(Found::Unread { differs: false });
    };
    Ok(match meta.sha256 {
        Some(there) if there == hex(&ours.sha256) => Found::Same,
        Some(_) => Found::Unread { differs: true },
        None => Found::Unread {
            differs: meta.size != ours.length,
        },
    })
}

#[cfg(test)]
mod tests;
