//! What intake and aggregation work with: who we are, whom we trust, the mailboxes and the keys.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailbox::{Mailbox, MailboxError, MailboxErrorKind};
use snafu::Snafu;

use crate::claims::{ClaimsFault, ReplayGuard};
use crate::crypto::{BatchSigningKey, PacketDecryptionKey, TrustedKeys};
use crate::formats::ledger::LedgerError;
use crate::formats::names::InstanceName;
use crate::formats::record::RecordError;
use crate::formats::work::{Share, ValidationFormat};
use crate::outgoing::SINGLE_PUT_BYTES;
use crate::uses::UseMarks;

/// Long enough for a writer to put three objects, short beside a window.
pub const REREAD_PAUSE: Duration = Duration::from_secs(2);

/// Up to what size the work on a batch is all in memory. Beyond, memory doesn't grow with the batch: packets may be looked at
/// twice ([`crate::guards::duplicates`]), and objects are uploaded in parts as they are made. And from how many batches on
/// the ledger is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InMemory {
    /// Packets of a batch whose names are remembered whole.
    pub packets: usize,
    /// The length of an object, in bytes.
    pub object_bytes: usize,
    /// So many batches of one aggregation that are taken in together are worth two listings of the ledger, where each would
    /// be looked for twice: stores charge some ten reads for a listing.
    pub worth_listing: usize,
}

impl Default for InMemory {
    fn default() -> Self {
        Self {
            packets: 1 << 14,
            object_bytes: SINGLE_PUT_BYTES,
            worth_listing: 32,
        }
    }
}

/// The five mailboxes of a processor.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    /// Where the ingestor puts our share's batches.
    pub ingestion: Arc<dyn Mailbox>,
    /// Where the peer puts its validation batches for us.
    pub peer_validation: Arc<dyn Mailbox>,
    /// Our own ledger.
    pub ledger: Arc<dyn Mailbox>,
    /// The peer's mailbox for our validation batches.
    pub peer: Arc<dyn Mailbox>,
    /// Where sum parts go.
    pub portal: Arc<dyn Mailbox>,
}

/// A packet key with the id that packets may name it by.
#[derive(Debug)]
pub struct MountedPacketKey {
    /// The key's id.
    pub id: String,
    /// The key; its `Debug` shows the public point alone.
    pub key: PacketDecryptionKey,
}

/// One data share processor at work. Its `Debug` shows no key.
#[derive(Debug)]
pub struct Processor {
    /// The name in sum-part paths.
    pub instance: InstanceName,
    /// Which share we hold.
    pub share: Share,
    /// The peer runs the original (ledger rules 3 and 13).
    pub legacy_peer: bool,
    /// How validation batches are written.
    pub validation_format: ValidationFormat,
    /// No sum of fewer clients is released.
    pub min_clients: u64,
    /// The mailboxes.
    pub mailboxes: Mailboxes,
    /// Keys that may sign ingestion batches.
    pub ingestor_keys: TrustedKeys,
    /// Keys that may sign the peer's validation batches.
    pub peer_keys: TrustedKeys,
    /// The key that signs our batches.
    pub signing_key: BatchSigningKey,
    /// Keys that signed before it, or will after it: what they began is finished with them.
    pub other_signing_keys: Vec<BatchSigningKey>,
    /// The keys that open packets. Of one that is mounted again the first counts, under all of its ids.
    pub packet_keys: Arc<[MountedPacketKey]>,
    /// Marks of which windows have work under which key; `None`: nobody retires these keys.
    pub use_marks: Option<UseMarks>,
    /// How far a packet that another batch has is looked for; `None`: nowhere.
    pub replay_guard: Option<ReplayGuard>,
    /// The time by which claims are filed. Where the ledger's store tells its own, it must be within 12 hours of that.
    pub clock: fn() -> Timestamp,
    /// How long a partner's objects that look wrong are left before they are read once more: their writer may be replacing
    /// them. [`REREAD_PAUSE`] but in tests.
    pub reread_pause: Duration,
    /// Up to what size the work on a batch is all in memory. The default but in tests.
    pub in_memory: InMemory,
}

impl Processor {
    /// The index among the mounted packet keys of the first one with this public point.
    pub(crate) fn mounted(&self, point: &[u8]) -> Option<usize> {
        self.packet_keys
            .iter()
            .position(|key| key.key.public_point()[..] == *point)
    }

    /// Our own keys as the ones that are trusted: for what is there under our names.
    pub(crate) fn own_keys(&self) -> TrustedKeys {
        let own = |key: &BatchSigningKey| (key.id().to_owned(), key.verifying_key().clone());
        self.signing_keys().map(own).collect()
    }

    /// The mounted signing key of an id: a record or a plan says who signs.
    pub(crate) fn signer(&self, id: &str) -> Option<&BatchSigningKey> {
        self.signing_keys().find(|key| key.id() == id)
    }

    /// The ids of the mounted signing keys.
    pub(crate) fn signer_ids(&self) -> Vec<String> {
        self.signing_keys().map(|key| key.id().to_owned()).collect()
    }

    fn signing_keys(&self) -> impl Iterator<Item = &BatchSigningKey> {
        std::iter::once(&self.signing_key).chain(&self.other_signing_keys)
    }
}

/// Why a batch or a window has no outcome: nothing final is known, and what was put stays good.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum WorkError {
    /// A mailbox's fault.
    #[snafu(transparent)]
    Mailbox {
        /// What happened.
        source: MailboxError,
    },
    /// An object of our ledger isn't what we write.
    #[snafu(transparent)]
    Ledger {
        /// What is wrong.
        source: LedgerError,
    },
    /// A record isn't what we write.
    #[snafu(display("{object}: {source}"))]
    Record {
        /// The record's name.
        object: String,
        /// What is wrong.
        source: RecordError,
    },
    /// Claims couldn't be put or looked at: nothing that isn't recorded yet may be answered.
    #[snafu(transparent)]
    Claims {
        /// What is wrong.
        source: ClaimsFault,
    },
    /// A record of another batch, share or processor.
    #[snafu(display(
        "{object} is the record of another batch, share or processor; restore it, or ask who else writes the ledger"
    ))]
    Foreign {
        /// The record's name.
        object: String,
    },
    /// A part of a window is to be summed that has no plan.
    #[snafu(display("{object} isn't there: restore it; a window is planned before a part of it is summed"))]
    NoPlan {
        /// The plan's name.
        object: String,
    },
    /// A fault of ours.
    #[snafu(display("{doing} failed: {detail}; please report it"))]
    Internal {
        /// What we were about.
        doing: &'static str,
        /// What went wrong.
        detail: String,
    },
}

impl WorkError {
    /// Whether the same work may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        // A store that broke off in the middle is worth another read.
        self.mailbox_error()
            .is_some_and(|error| error.is_retryable() || error.kind() == MailboxErrorKind::Corrupt)
    }

    /// Whether storage refuses our identity.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.mailbox_error()
            .is_some_and(|error| error.kind() == MailboxErrorKind::Denied)
    }

    /// The mailbox's fault behind it, if it is one.
    #[must_use]
    pub fn mailbox_error(&self) -> Option<&MailboxError> {
        match self {
            Self::Mailbox { source }
            | Self::Claims {
                source: ClaimsFault::Mailbox { source },
            } => Some(source),
            _ => None,
        }
    }
}
