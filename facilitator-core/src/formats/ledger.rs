//! The ledger's JSON objects but plans: `ledger.json`, delivered, rejected, released, results. `docs/formats.md` §3.

use mailbox::ObjectKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use snafu::{ResultExt, Snafu, ensure};
use uuid::Uuid;

pub use super::batch::hex;
use super::work::{Report, Share};

/// The revision of every JSON object of the ledger.
pub const REVISION: u32 = 1;
/// The folder of records.
pub const RECORDS: &str = "records";
/// The folder of what the peer has.
pub const DELIVERED: &str = "delivered";
/// The folder of final refusals.
pub const REJECTED: &str = "rejected";
/// The folder of workers' reports.
pub const REPORTS: &str = "reports";
/// The folder of frozen plans.
pub const PLANS: &str = "plans";
/// The folder of what was found of parts of large windows, before their plans.
pub const SHARDS: &str = "shards";
/// The folder of sealed sums of parts of large windows.
pub const PARTIALS: &str = "partials";
/// The folder of what was released.
pub const RELEASED: &str = "released";
/// The folder of what became of announced releases.
pub const DECISIONS: &str = "decisions";
/// The folder of windows' verdicts.
pub const RESULTS: &str = "results";
/// The folder of which windows have work under which key.
pub const USES: &str = "uses";
/// What a preflight puts, so that the store can show that it replaces nothing.
pub const PREFLIGHT_OBJECT: &str = "preflight.json";
/// Its content, always.
pub const PREFLIGHT_CONTENT: &[u8] = b"{\"revision\":1}\n";
/// The ledger's identity.
pub const LEDGER_OBJECT: &str = "ledger.json";
/// The longest message in an object, in characters, so that objects keep their bounds.
const MAX_MESSAGE_CHARS: usize = 500;

/// Why bytes are not the ledger's.
#[derive(Debug, Snafu)]
pub enum LedgerError {
    /// Not the JSON that is expected there.
    #[snafu(display(
        "{object} is not what this build writes there: {source}; restore it, or ask who else writes the ledger"
    ))]
    Malformed {
        /// Its name.
        object: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A later build wrote it.
    #[snafu(display("{object} has revision {revision}, this build knows {REVISION}; use the build that wrote it"))]
    Revision {
        /// Its name.
        object: String,
        /// Its revision.
        revision: u32,
    },
}

/// A JSON object of the ledger: one line, deterministic, with a revision.
pub trait LedgerObject: Serialize + DeserializeOwned {
    /// The bound on its length, in bytes.
    const MAX_BYTES: u64;

    /// Its revision.
    fn revision(&self) -> u32;

    /// The object's bytes.
    ///
    /// # Errors
    /// [`LedgerError::Malformed`] for values that JSON can't hold (none of ours).
    fn to_bytes(&self) -> Result<Vec<u8>, LedgerError> {
        let mut bytes = serde_json::to_vec(self).context(MalformedSnafu {
            object: "a ledger object",
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads an object's bytes; `object` is its name, for the error.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn from_bytes(object: &ObjectKey, bytes: &[u8]) -> Result<Self, LedgerError> {
        let value: Self = serde_json::from_slice(bytes).context(MalformedSnafu {
            object: object.as_str(),
        })?;
        let revision = value.revision();
        ensure!(
            revision == REVISION,
            RevisionSnafu {
                object: object.as_str(),
                revision
            }
        );
        Ok(value)
    }
}

/// Implements [`LedgerObject`] for types with a `revision` field.
macro_rules! ledger_object {
    ($type:ty, $bytes:expr) => {
        impl LedgerObject for $type {
            const MAX_BYTES: u64 = $bytes;

            fn revision(&self) -> u32 {
                self.revision
            }
        }
    };
}
pub(crate) use ledger_object;

/// Shortens a message so that the object that carries it keeps its bound; one line.
#[must_use]
pub fn short_message(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE_CHARS)
        .collect()
}

/// `ledger.json`: which ledger this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerIdentity {
    /// [`REVISION`].
    pub revision: u32,
    /// Random, made once.
    pub id: Uuid,
    /// The processor's name in sum-part paths.
    pub instance: String,
    /// The share that it holds.
    pub share: Share,
    /// The first window that is ours, RFC 3339.
    pub start_at: String,
}
ledger_object!(LedgerIdentity, 4 << 10);

/// How our validation batch, or sum part, came to be where it is: ledger rule 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeliveredPut {
    /// We put it.
    Created,
    /// It was there, with our bytes.
    SameBytes,
    /// It was there, validly signed by us, with our values in other bytes.
    SameMeaning,
    /// Something was there, all of it or a part, that we may not read.
    Unverified,
}

/// `delivered/…`: our validation batch is with the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delivered {
    /// [`REVISION`].
    pub revision: u32,
    /// SHA-256 of the record's plain part.
    pub record_digest: String,
    /// The name of our signature object.
    pub signature_object: String,
    /// When the peer's store made it visible, milliseconds since 1970; `None` where that can't be read.
    pub store_time_millis: Option<i64>,
    /// How it came there.
    pub put: DeliveredPut,
}
ledger_object!(Delivered, 4 << 10);

/// Why a batch is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RejectedReason {
    /// It holds no packet.
    Empty,
    /// The header isn't an ingestion header.
    HeaderMalformed,
    /// The header names another batch or aggregation than its path.
    HeaderMismatch,
    /// Bins, prime or number of servers can't be worked with.
    ParametersUnsupported,
    /// The packet object isn't packets.
    PacketsMalformed,
    /// The packet object isn't what the header's digest names.
    DigestMismatch,
    /// Every packet is excluded.
    NoUsablePackets,
    /// The peer's mailbox holds other messages under our name.
    PeerHasOther,
}

/// `rejected/…`: a final refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rejected {
    /// [`REVISION`].
    pub revision: u32,
    /// Why.
    pub reason: RejectedReason,
    /// What a person should know, one sentence.
    pub message: String,
    /// SHA-256 of the header's bytes; `None` where not read.
    pub header_digest: Option<String>,
    /// SHA-256 of the packet object's bytes; `None` where not read.
    pub packet_digest: Option<String>,
}
ledger_object!(Rejected, 4 << 10);

/// `released/…`: what a window's sum part sums; announces the release before anything of the sum part is put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Released {
    /// [`REVISION`].
    pub revision: u32,
    /// SHA-256 of the plan's bytes.
    pub plan_digest: String,
    /// SHA-256 over a digest of each member, in the plan's order: SHA-256 over the UUIDs of its counted packets, in file order.
    pub packet_set_digest: String,
    /// How many clients the sum has.
    pub clients: u64,
}
ledger_object!(Released, 4 << 10);

/// What became of a window's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReleaseDecision {
    /// Its sum part is put.
    Release,
    /// It never is: another window was in the way, or what was released before is too much like it.
    Withdraw,
}

/// `decisions/…`: put once, before the sum part, by whoever finds out first; all others follow it. A worker that finds no
/// window in the way and one that later finds a window in the way would go apart without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decided {
    /// [`REVISION`].
    pub revision: u32,
    /// What became of it.
    pub decision: ReleaseDecision,
    /// The window in the way, `<agg>/<start>-<end>`; `None` for a release, and for a further release of a window.
    pub in_the_way: Option<String>,
    /// Why a further release isn't; `None` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}
ledger_object!(Decided, 4 << 10);

/// Why a further release of a window is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusal {
    /// Why.
    pub reason: FailedReason,
    /// What a person should know, one sentence.
    pub message: String,
}

/// How a planned window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The sum part is in the portal.
    Summed,
    /// Fewer valid clients than the floor.
    BelowFloor,
    /// Final; the reason says why.
    Failed,
}

/// Why a window failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailedReason {
    /// The peer's messages are gone, or not the ones that the plan pinned.
    PeerMessagesLost,
    /// A record of the plan is gone or isn't the one pinned.
    RecordLost,
    /// An ingestion batch that had to be opened isn't the one of its record.
    IngestionChanged,
    /// The window shares time with one that was released.
    WindowOverlaps,
    /// Another set was released for this window.
    ReleasedDiffers,
    /// The portal holds another sum part under our name.
    PortalHasOther,
    /// A packet key that opened a packet at intake doesn't open it any more.
    KeyGone,
    /// A further release would tell, beside those before it, of fewer clients than the floor.
    SetsTooClose,
    /// Which packets an earlier release counts can't be told any more: nothing can be compared with it.
    EarlierSetLost,
}

/// Why something can't be done now; tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockedReason {
    /// The signature names a key that isn't among the signer's.
    SignerUnknown,
    /// The signature isn't the named key's over the header.
    SignatureInvalid,
    /// A packet names a key that isn't mounted, and no mounted key opens it.
    PacketKeyNotMounted,
    /// Too many packets can't be opened by any mounted key.
    TooManyUndecryptable,
    /// The record or plan names another signing key than the one mounted.
    SigningKeyNotMounted,
    /// Storage refuses our identity.
    AccessDenied,
    /// An object of the batch isn't there.
    ObjectMissing,
    /// An object of claims is missing or damaged: whether another batch has the packets can't be told.
    ClaimsUnreadable,
    /// The override under which the window was to be released again has expired.
    OverrideExpired,
    /// A store's clock isn't past the cutoff: the clock that planned the window is ahead of it.
    ClockAhead,
}

/// `results/…`: a window's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowResult {
    /// [`REVISION`].
    pub revision: u32,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed; `None` unless it did.
    pub reason: Option<FailedReason>,
    /// What a person should know, one sentence.
    pub message: String,
    /// SHA-256 of the plan's bytes; `None` where it failed before a plan.
    pub plan_digest: Option<String>,
    /// Batches in the plan.
    pub batches: u64,
    /// Packets in those batches.
    pub packets: u64,
    /// Valid clients: what is in the sum, or would be.
    pub clients: u64,
    /// Packets whose proof failed.
    pub invalid_proofs: u64,
    /// Packets that the peer has no message for.
    pub missing_peer_messages: u64,
    /// Packets that intake excluded.
    pub excluded_packets: u64,
    /// Batches that either side had too late.
    pub late_batches: u64,
    /// Batches in the plan whose time in the peer's store nobody could read: the peer may see them otherwise.
    pub unread_times: u64,
    /// The sum part's header object, in the portal.
    pub sum_part: Option<String>,
    /// SHA-256 of its bytes as we make them.
    pub sum_part_digest: Option<String>,
    /// How it came there.
    pub put: Option<DeliveredPut>,
}
ledger_object!(WindowResult, 64 << 10);
ledger_object!(Report, 1 << 20);

/// Reasons are shown as they are written.
macro_rules! shown_as_written {
    ($($type:ty),*) => {$(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self, f)
            }
        }
    )*};
}
shown_as_written!(RejectedReason, FailedReason, BlockedReason, DeliveredPut, Verdict);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::parse(LEDGER_OBJECT).unwrap()
    }

    #[test]
    fn objects_are_one_line_with_keys_in_the_documented_order() {
        let identity = LedgerIdentity {
            revision: REVISION,
            id: Uuid::from_u128(5),
            instance: "us-ct-g-enpa".into(),
            share: Share::First,
            start_at: "2026-11-20T00:00:00Z".into(),
        };
        let bytes = identity.to_bytes().unwrap();
        let expected = concat!(
            r#"{"revision":1,"id":"00000000-0000-0000-0000-000000000005","instance":"us-ct-g-enpa","share":"First","#,
            r#""startAt":"2026-11-20T00:00:00Z"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
        assert_eq!(LedgerIdentity::from_bytes(&key(), &bytes).unwrap(), identity);

        let delivered = Delivered {
            revision: REVISION,
            record_digest: hex(&[1; 32]),
            signature_object: "a/b".into(),
            store_time_millis: None,
            put: DeliveredPut::SameMeaning,
        };
        let text = String::from_utf8(delivered.to_bytes().unwrap()).unwrap();
        assert!(
            text.ends_with("\"signatureObject\":\"a/b\",\"storeTimeMillis\":null,\"put\":\"SameMeaning\"}\n"),
            "{text}"
        );
    }

    #[test]
    fn unknown_fields_and_other_revisions_are_refused() {
        let read = |text: &str| Rejected::from_bytes(&key(), text.as_bytes()).unwrap_err();
        let good = r#"{"revision":1,"reason":"Empty","message":"","headerDigest":null,"packetDigest":null"#;
        assert!(Rejected::from_bytes(&key(), format!("{good}}}").as_bytes()).is_ok());
        assert!(matches!(
            read(&format!("{good},\"extra\":1}}")),
            LedgerError::Malformed { .. }
        ));
        let later = good.replace(":1,", ":2,") + "}";
        assert!(matches!(read(&later), LedgerError::Revision { revision: 2, .. }));
        assert!(read("{").to_string().contains("ledger.json"));
    }

    #[test]
    fn long_messages_are_cut_and_stay_on_one_line() {
        let message = short_message(&"é\n".repeat(4_000));
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS);
        assert!(!message.contains('\n'));
    }
}
