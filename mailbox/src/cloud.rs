//! What mailboxes in both clouds have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fault::Fault;
use crate::retry::Retry;
use crate::{
    Access, ConditionalWrites, MailboxError, MailboxErrorKind, MailboxUrl, ObjectKey, Patience, ProbeEnd, PutOutcome,
    Upload,
};

/// Metadata of our objects: the content's SHA-256, lower-case hex.
pub(crate) const SHA256: &str = "prio-operator-sha256";
/// Metadata of our objects: a random mark of the put.
pub(crate) const MARK: &str = "prio-operator-put";

/// What a put that can't succeed sends: should a store take it all the same, whoever finds it knows what it is.
pub(crate) const PROBE: &[u8] = b"a preflight of prio-operator: this object may be removed\n";
/// An MD5 that isn't [`PROBE`]'s, nor any other content's that one could find.
pub(crate) const OTHER_MD5: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
/// Of a store that took [`PROBE`].
const TOOK_THE_PROBE: &str =
    "the store took an object whose checksum is wrong: remove it, and use a store that compares checksums";

/// A mailbox's place, settings and patience.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub url: MailboxUrl,
    /// Empty, or the prefix with a `/`.
    pub root: String,
    pub access: Access,
    pub retry: Arc<Retry>,
    /// The bucket has been seen: a missing object is no missing bucket.
    seen: AtomicBool,
    /// The store has been seen to refuse what it must.
    refuses: AtomicBool,
}

impl Cloud {
    pub fn new(url: &MailboxUrl, prefix: &str, access: &Access, patience: Patience) -> Self {
        let slash = if prefix.is_empty() { "" } else { "/" };
        Self {
            url: url.clone(),
            root: format!("{prefix}{slash}"),
            access: access.clone(),
            retry: Arc::new(Retry::new(patience)),
            seen: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
        }
    }

    pub fn error(&self, kind: MailboxErrorKind, key: &ObjectKey, detail: impl std::fmt::Display) -> MailboxError {
        MailboxError::of_object(kind, &self.url, key, detail)
    }

    /// The object's name in the bucket.
    pub fn name(&self, key: &ObjectKey) -> Result<String, MailboxError> {
        let name = format!("{}{key}", self.root);
        if name.len() > ObjectKey::MAX_BYTES {
            let detail = "with the mailbox's prefix it is longer than 1024 bytes";
            return Err(self.error(MailboxErrorKind::InvalidKey, key, detail));
        }
        Ok(name)
    }

    /// Whether the store itself must refuse the second put of a name.
    pub fn required(&self) -> bool {
        self.access.conditional_writes == ConditionalWrites::Required
    }

    /// How long an answer may take.
    pub fn answer_time(&self) -> Duration {
        self.retry.patience.answer
    }

    /// How long the answer to an upload of `length` bytes may take.
    pub fn upload_time(&self, length: u64) -> Duration {
        self.answer_time() + Duration::from_millis(length.saturating_mul(1000) / (256 << 10))
    }

    /// How long the answer may take that ends an upload of `length` bytes: they are there, but perhaps not in one piece.
    pub fn joining_time(&self, length: u64) -> Duration {
        self.upload_time(length / 64)
    }

    pub fn saw_bucket(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    pub fn has_seen_bucket(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whose put took the name, after a refusal where an earlier try of ours may have: `found` is the object's mark.
    pub fn whose(
        &self,
        key: &ObjectKey,
        mark: &str,
        found: Result<Option<Option<String>>, MailboxError>,
    ) -> Result<PutOutcome, MailboxError> {
        match found {
            Ok(Some(Some(found))) if found == mark => Ok(PutOutcome::Created),
            Ok(Some(_)) => Ok(PutOutcome::Exists),
            Ok(None) => {
                let detail = "the store refused the put of a name that isn't there";
                Err(self.error(MailboxErrorKind::Unavailable, key, detail))
            }
            // Whoever may not read can't be told more.
            Err(error) if error.kind() == MailboxErrorKind::Denied => Ok(PutOutcome::Exists),
            Err(error) => Err(error),
        }
    }

    /// [`Mailbox::check_conditional_writes`](crate::Mailbox::check_conditional_writes), once, where conditional writes are
    /// wanted: by `whole`, which puts the object, and by `pieces`, an upload of it up to its commit, each with how it is asked for.
    pub async fn check_conditional_writes<P, U>(
        &self,
        key: &ObjectKey,
        condition: &str,
        whole: (&str, impl Fn() -> P),
        pieces: (&str, U),
    ) -> Result<(), MailboxError>
    where
        P: Future<Output = Result<PutOutcome, MailboxError>>,
        U: Future<Output = Result<Box<dyn Upload>, MailboxError>>,
    {
        if !self.required() || self.refuses.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (way, put) = whole;
        if put().await? == PutOutcome::Created && !is_refusal(put().await)? {
            return Err(self.replaces(key, condition, way));
        }
        let (way, upload) = pieces;
        if !is_refusal(upload.await?.commit_if_absent().await)? {
            return Err(self.replaces(key, condition, way));
        }
        self.refuses.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What the answer to a put of [`PROBE`] shows.
    pub fn probe_end(&self, key: &ObjectKey, answer: Result<(), Fault>) -> Result<ProbeEnd, MailboxError> {
        match answer {
            Ok(()) => Err(self.error(MailboxErrorKind::Unsupported, key, TOOK_THE_PROBE)),
            Err(fault) if fault.bad_content => Ok(ProbeEnd::ContentRefused),
            Err(fault) if fault.taken => Ok(ProbeEnd::NameTaken),
            Err(fault) => Err(fault.into_error(&self.url, Some(key))),
        }
    }

    /// The error about a store that replaces objects whatever `condition` says. `way`: how it was asked to.
    fn replaces(&self, key: &ObjectKey, condition: &str, way: &str) -> MailboxError {
        let detail = format!(
            "it replaces an object that is there although {condition} forbids it ({way}): use a store that honours \
             conditional writes, or set conditionalWrites to Weak where writers can't race"
        );
        self.error(MailboxErrorKind::Unsupported, key, detail)
    }
}

/// Whether the put of a name that is there was refused. Whoever may create, but not replace, is told that they may not.
fn is_refusal(outcome: Result<PutOutcome, MailboxError>) -> Result<bool, MailboxError> {
    match outcome {
        Ok(outcome) => Ok(outcome == PutOutcome::Exists),
        Err(error) if error.kind() == MailboxErrorKind::Denied => Ok(true),
        Err(error) => Err(error),
    }
}
