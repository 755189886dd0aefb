//! A packet counts once in its batch: the first occurrence in file order, by UUID and by ephemeral key (ledger rule 1).
//!
//! What happened to the first occurrence doesn't matter: the other side may have been able to open it, and both must pair
//! the same two shares.

use std::collections::HashSet;

use uuid::Uuid;

use crate::formats::record::PacketExclusion;

/// The length of an uncompressed P-256 point, the head of every encrypted payload.
const POINT_BYTES: usize = 65;

/// The packets of one batch that were seen so far.
#[derive(Debug, Default)]
pub struct Duplicates {
    uuids: HashSet<Uuid>,
    /// 16 bytes of the x-coordinate: to make two keys that share them takes 2^64 tries, and wins an exclusion.
    ephemeral_keys: HashSet<[u8; 16]>,
}

impl Duplicates {
    /// Takes note of the next packet in file order, and says whether it is a duplicate of an earlier one.
    ///
    /// A payload too short for an ephemeral key is judged by its UUID alone.
    pub fn check(&mut self, uuid: Uuid, encrypted_payload: &[u8]) -> Option<PacketExclusion> {
        let new_uuid = self.uuids.insert(uuid);
        let new_key = encrypted_payload
            .get(1..17)
            .filter(|_| encrypted_payload.len() >= POINT_BYTES)
            .and_then(|x| x.try_into().ok())
            .is_none_or(|x| self.ephemeral_keys.insert(x));
        match (new_uuid, new_key) {
            (true, true) => None,
            (false, _) => Some(PacketExclusion::DuplicateUuid),
            (true, false) => Some(PacketExclusion::DuplicateEphemeralKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(key: u8) -> Vec<u8> {
        [vec![4], vec![key; 64], vec![0; 32]].concat()
    }

    #[test]
    fn the_first_occurrence_counts() {
        let uuid = Uuid::from_u128;
        let mut seen = Duplicates::default();
        let table = [
            (uuid(1), payload(1), None),
            (uuid(2), payload(2), None),
            (uuid(1), payload(3), Some(PacketExclusion::DuplicateUuid)),
            (uuid(4), payload(1), Some(PacketExclusion::DuplicateEphemeralKey)),
            (uuid(1), payload(1), Some(PacketExclusion::DuplicateUuid)),
            // A duplicate's own names are taken as well.
            (uuid(5), payload(3), Some(PacketExclusion::DuplicateEphemeralKey)),
            (uuid(6), vec![4; 10], None),
            (uuid(7), vec![4; 10], None),
            (uuid(8), payload(8), None),
        ];
        for (index, (uuid, payload, expected)) in table.into_iter().enumerate() {
            assert_eq!(seen.check(uuid, &payload), expected, "packet {index}");
        }
    }
}
