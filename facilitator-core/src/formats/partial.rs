//! Partial sums: what a range of a plan's members comes to. `docs/formats.md` §3.11, ledger rules 7 and 9.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::ledger::{LedgerError, LedgerObject, ledger_object};
use crate::crypto::sha256;

/// The part of a partial sum that isn't sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartialPlain {
    /// SHA-256 of the plan's bytes.
    pub plan_digest: String,
    /// Which of its members.
    pub range: String,
    /// Packets in those batches.
    pub packets: u64,
    /// Valid clients.
    pub clients: u64,
    /// Packets whose proof failed.
    pub invalid_proofs: u64,
    /// Packets that the peer has no message for.
    pub missing_peer_messages: u64,
    /// Packets that intake excluded.
    pub excluded_packets: u64,
    /// Valid clients of each member.
    pub members: Vec<u64>,
    /// Of each member SHA-256 over the UUIDs of its counted packets, one after another.
    pub counted: Base64,
    /// The UUIDs of packets that aren't counted, one after another, in order of (object name, packet index).
    pub invalid: Base64,
    /// The public points of the packet keys that the sum is sealed under: those of the members' records, in order of first use.
    /// None where there is no member.
    pub packet_keys: Vec<Base64>,
}

/// `partials/…`: a partial sum, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partial {
    /// The revision, 1.
    pub revision: u32,
    /// What can be read by whoever may read the ledger.
    pub plain: PartialPlain,
    /// The sum of our shares of the counted packets, sealed; nothing where there are no `packetKeys`.
    pub sealed: Base64,
}
// A range's packets that don't count take 22 bytes each.
ledger_object!(Partial, 1 << 30);

impl PartialPlain {
    /// SHA-256 of its JSON: the additional data of the seal.
    ///
    /// # Errors
    /// [`LedgerError::Malformed`] for values that JSON can't hold (none of ours).
    pub fn digest(&self) -> Result<[u8; 32], LedgerError> {
        let bytes = serde_json::to_vec(self).map_err(|source| LedgerError::Malformed {
            object: "a partial sum".to_owned(),
            source,
        })?;
        Ok(sha256(&bytes))
    }

    /// The digests of [`PartialPlain::counted`], one a member.
    pub fn counted_digests(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.counted.0.as_chunks::<32>().0.iter().copied()
    }

    /// The UUIDs of [`PartialPlain::invalid`].
    pub fn invalid_uuids(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.invalid.0.as_chunks::<16>().0.iter().copied().map(Uuid::from_bytes)
    }

    /// Whether its lists are whole, of so many members.
    #[must_use]
    pub fn is_of(&self, members: usize) -> bool {
        self.members.len() == members && self.counted.0.len() == 32 * members && self.invalid.0.len().is_multiple_of(16)
    }
}

/// Bytes that JSON holds as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}
