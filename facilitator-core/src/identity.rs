//! Which ledger this is: `ledger.json`, put once by the first worker. A ledger that was emptied, mistyped or is another
//! processor's must not make everything be summed again.

use bytes::Bytes;
use mailbox::{Mailbox, MailboxError, ObjectKey};
use snafu::{ResultExt, Snafu, ensure};
use uuid::Uuid;

use crate::formats::ledger::{LEDGER_OBJECT, LedgerError, LedgerIdentity, LedgerObject, REVISION};
use crate::formats::names::InstanceName;
use crate::formats::work::Share;
use crate::put::{put_or_read, read_if_there};

/// Why the ledger isn't the one that this processor may work with.
#[derive(Debug, Snafu)]
pub enum IdentityError {
    /// The store's fault.
    #[snafu(transparent)]
    Mailbox {
        /// What happened.
        source: MailboxError,
    },
    /// `ledger.json` can't be read.
    #[snafu(transparent)]
    Malformed {
        /// What is wrong.
        source: LedgerError,
    },
    /// The name can't be written (never for ours).
    #[snafu(display("{LEDGER_OBJECT} can't be named"))]
    Name {
        /// Why.
        source: MailboxError,
    },
    /// An id is known and no ledger is there.
    #[snafu(display(
        "the ledger {url} has no {LEDGER_OBJECT}, but this processor's ledger is {expected}: it was emptied or its URL \
         changed; restore it or correct the URL"
    ))]
    Gone {
        /// The ledger's URL.
        url: String,
        /// The id that the status remembers.
        expected: Uuid,
    },
    /// Another id than the known one is there.
    #[snafu(display(
        "the ledger {url} is {actual}, but this processor's is {expected}: restore it or correct the URL"
    ))]
    Different {
        /// The ledger's URL.
        url: String,
        /// The id that the status remembers.
        expected: Uuid,
        /// The id that is there.
        actual: Uuid,
    },
    /// It belongs to another processor.
    #[snafu(display(
        "the ledger {url} belongs to instance {instance:?}, share {share:?}: give every processor a ledger of its own"
    ))]
    NotOurs {
        /// The ledger's URL.
        url: String,
        /// The instance in it.
        instance: String,
        /// The share in it.
        share: Share,
    },
}

impl IdentityError {
    /// The store's fault behind it, if it is one.
    #[must_use]
    pub fn mailbox_error(&self) -> Option<&MailboxError> {
        match self {
            Self::Mailbox { source } => Some(source),
            _ => None,
        }
    }
}

/// What a processor expects of its ledger.
#[derive(Clone, Debug)]
pub struct ExpectedLedger<'a> {
    /// The id that the status remembers; `None` before the first worker ran.
    pub id: Option<Uuid>,
    /// The processor's name in sum-part paths.
    pub instance: &'a InstanceName,
    /// The share that it holds.
    pub share: Share,
    /// The first window that is ours, RFC 3339; goes into a new ledger.
    pub start_at: &'a str,
}

/// Checks the ledger's identity, or gives a new ledger one: `new_id` is used where none is expected and none is there.
///
/// # Errors
/// [`IdentityError`]; nothing may be done then.
pub async fn establish(
    ledger: &dyn Mailbox,
    expected: &ExpectedLedger<'_>,
    new_id: Uuid,
) -> Result<LedgerIdentity, IdentityError> {
    let key = ObjectKey::parse(LEDGER_OBJECT).context(NameSnafu)?;
    let there = match read(ledger, &key, expected).await? {
        Some(there) => there,
        None => {
            let identity = LedgerIdentity {
                revision: REVISION,
                id: new_id,
                instance: expected.instance.as_str().to_owned(),
                share: expected.share,
                start_at: expected.start_at.to_owned(),
            };
            put_or_read(ledger, &key, identity.to_bytes()?.into(), LedgerIdentity::MAX_BYTES)
                .await?
                .0
        }
    };
    let identity = check(ledger, &key, expected, &there)?;
    // A store that lets the second writer win would lose records: the ledger's own first object shows that it doesn't.
    ledger.check_conditional_writes(&key, there).await?;
    Ok(identity)
}

/// Checks the ledger's identity, and puts nothing; `None`: it is new.
///
/// # Errors
/// As [`establish`].
pub async fn look(
    ledger: &dyn Mailbox,
    expected: &ExpectedLedger<'_>,
) -> Result<Option<LedgerIdentity>, IdentityError> {
    let key = ObjectKey::parse(LEDGER_OBJECT).context(NameSnafu)?;
    let there = read(ledger, &key, expected).await?;
    there.map(|there| check(ledger, &key, expected, &there)).transpose()
}

/// Reads `ledger.json`; `None`: there is none, and none is expected.
async fn read(
    ledger: &dyn Mailbox,
    key: &ObjectKey,
    expected: &ExpectedLedger<'_>,
) -> Result<Option<Bytes>, IdentityError> {
    let there = read_if_there(ledger, key, LedgerIdentity::MAX_BYTES).await?;
    match (there, expected.id) {
        (None, Some(expected)) => {
            let url = ledger.url().to_string();
            GoneSnafu { url, expected }.fail()
        }
        (there, _) => Ok(there),
    }
}

fn check(
    ledger: &dyn Mailbox,
    key: &ObjectKey,
    expected: &ExpectedLedger<'_>,
    there: &[u8],
) -> Result<LedgerIdentity, IdentityError> {
    let url = || ledger.url().to_string();
    let identity = LedgerIdentity::from_bytes(key, there)?;
    if let Some(id) = expected.id {
        ensure!(
            identity.id == id,
            DifferentSnafu {
                url: url(),
                expected: id,
                actual: identity.id
            }
        );
    }
    let ours = identity.instance == expected.instance.as_str() && identity.share == expected.share;
    ensure!(
        ours,
        NotOursSnafu {
            url: url(),
            instance: identity.instance,
            share: identity.share
        }
    );
    Ok(identity)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mailbox::MemoryMailbox;

    #[tokio::test]
    async fn a_ledger_is_named_once_and_checked_ever_after() {
        let ledger = MemoryMailbox::new("ledger");
        let instance = InstanceName::parse("us-ct").unwrap();
        let other = InstanceName::parse("us-ca").unwrap();
        let expect = |id, instance, share| ExpectedLedger {
            id,
            instance,
            share,
            start_at: "2026-11-20T00:00:00Z",
        };
        let (mine, late) = (Uuid::from_u128(1), Uuid::from_u128(2));

        let fresh = expect(None, &instance, Share::First);
        let gone = establish(&ledger, &expect(Some(mine), &instance, Share::First), late).await;
        assert!(matches!(gone, Err(IdentityError::Gone { .. })));
        assert!(
            ledger.snapshot().is_empty(),
            "nothing is put into a ledger that should be another"
        );

        assert_eq!(establish(&ledger, &fresh, mine).await.unwrap().id, mine);
        assert_eq!(
            establish(&ledger, &fresh, late).await.unwrap().id,
            mine,
            "the winner counts"
        );
        assert_eq!(
            establish(&ledger, &expect(Some(mine), &instance, Share::First), late)
                .await
                .unwrap()
                .id,
            mine
        );
        let different = establish(&ledger, &expect(Some(late), &instance, Share::First), late).await;
        assert!(matches!(different, Err(IdentityError::Different { .. })));
        for (instance, share) in [(&other, Share::First), (&instance, Share::Second)] {
            let refused = establish(&ledger, &expect(None, instance, share), late).await;
            assert!(matches!(refused, Err(IdentityError::NotOurs { .. })));
        }
    }
}
