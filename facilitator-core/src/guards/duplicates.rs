//! A packet counts once in its batch: the first occurrence in file order, by UUID and by ephemeral key (ledger rule 1).
//!
//! What happened to the first occurrence doesn't matter: the other side may have been able to open it, and both must pair
//! the same two shares.
//!
//! Memory is bounded for batches of millions. The names of the first packets are remembered whole; of a later one 8 bytes
//! are kept, a keyed fingerprint, and it is taken for new. After the last packet the fingerprints that came more than once
//! are known, and with these a second look at the same packets ends as if every name had been remembered. So a packet is
//! never excluded for its fingerprint, and what comes out doesn't depend on the key.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use uuid::Uuid;

use crate::crypto::ecies::ephemeral_name;
use crate::formats::record::PacketExclusion;

/// What packets are told apart by: a UUID, or 16 bytes of an ephemeral key.
pub type Name = [u8; 16];

/// Fingerprints that are sorted at a time.
const CHUNK: usize = 1 << 16;

/// The packets of one batch that were seen so far.
#[derive(Debug)]
pub struct Duplicates {
    uuids: Names,
    ephemeral_keys: Names,
}

/// Names that may come more than once in a batch, as a first look found. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    uuids: Arc<RepeatedNames>,
    ephemeral_keys: Arc<RepeatedNames>,
}

impl Repeats {
    /// Whether there are none: what the look said stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uuids.fingerprints.is_empty() && self.ephemeral_keys.fingerprints.is_empty()
    }
}

impl Duplicates {
    /// Nothing seen. `remembered`: so many names of each kind are remembered whole. `repeats`: what a look at the same
    /// packets found, empty for the first look.
    #[must_use]
    pub fn new(remembered: usize, repeats: &Repeats) -> Self {
        Self {
            uuids: Names::new(remembered, &repeats.uuids),
            ephemeral_keys: Names::new(remembered, &repeats.ephemeral_keys),
        }
    }

    /// Takes note of the next packet in file order, and says whether it is a duplicate of an earlier one.
    ///
    /// A payload too short for an ephemeral key is judged by its UUID alone.
    pub fn check(&mut self, uuid: Uuid, encrypted_payload: &[u8]) -> Option<PacketExclusion> {
        let new_uuid = self.uuids.is_new(uuid.into_bytes());
        let new_key = ephemeral_name(encrypted_payload).is_none_or(|name| self.ephemeral_keys.is_new(name));
        match (new_uuid, new_key) {
            (true, true) => None,
            (false, _) => Some(PacketExclusion::DuplicateUuid),
            (true, false) => Some(PacketExclusion::DuplicateEphemeralKey),
        }
    }

    /// After the last packet: what a second look must know. Empty: every answer stands. Always empty after a second look.
    #[must_use]
    pub fn repeats(self) -> Repeats {
        Repeats {
            uuids: Arc::new(self.uuids.repeats()),
            ephemeral_keys: Arc::new(self.ephemeral_keys.repeats()),
        }
    }
}

/// Names of one kind.
#[derive(Debug)]
pub(crate) struct Names {
    remembered: usize,
    first: HashSet<Name>,
    hasher: RandomState,
    rest: Rest,
}

/// What is kept of the names after the first.
enum Rest {
    /// Their fingerprints: a first look.
    Gathered(Fingerprints),
    /// Those that came more than once, as they come: a second look.
    Known(Known),
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gathered(_) => "Gathered",
            Self::Known(_) => "Known",
        })
    }
}

impl Names {
    /// As [`Duplicates::new`].
    pub(crate) fn new(remembered: usize, repeats: &Arc<RepeatedNames>) -> Self {
        let rest = if repeats.fingerprints.is_empty() {
            Rest::Gathered(Fingerprints::default())
        } else {
            Rest::Known(Known {
                taken: vec![None; repeats.fingerprints.len()],
                others: HashSet::new(),
                repeats: Arc::clone(repeats),
            })
        };
        Self {
            remembered,
            first: HashSet::new(),
            hasher: repeats.hasher.clone(),
            rest,
        }
    }

    /// Takes note of a name, and says whether it is new as far as is known.
    pub(crate) fn is_new(&mut self, name: Name) -> bool {
        if self.first.len() < self.remembered {
            return self.first.insert(name);
        }
        if self.first.contains(&name) {
            return false;
        }
        let fingerprint = self.hasher.hash_one(name);
        match &mut self.rest {
            Rest::Gathered(fingerprints) => {
                fingerprints.push(fingerprint);
                true
            }
            Rest::Known(known) => known.is_new(fingerprint, name),
        }
    }

    /// As [`Duplicates::repeats`].
    pub(crate) fn repeats(self) -> RepeatedNames {
        RepeatedNames {
            hasher: self.hasher,
            fingerprints: match self.rest {
                Rest::Gathered(fingerprints) => fingerprints.repeated(),
                Rest::Known(_) => Vec::new(),
            },
        }
    }
}

/// The fingerprints that came more than once, ascending, under the key that they were made with.
#[derive(Debug, Default)]
pub(crate) struct RepeatedNames {
    hasher: RandomState,
    fingerprints: Vec<u64>,
}

impl RepeatedNames {
    pub(crate) fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }
}

/// Fingerprints in chunks, each sorted once it is full: 8 bytes each, without growth by copying.
#[derive(Default)]
struct Fingerprints {
    sorted: Vec<Vec<u64>>,
    last: Vec<u64>,
}

impl Fingerprints {
    fn push(&mut self, fingerprint: u64) {
        if self.last.len() == CHUNK {
            self.end_chunk();
            self.last.reserve_exact(CHUNK);
        }
        self.last.push(fingerprint);
    }

    fn end_chunk(&mut self) {
        let mut chunk = std::mem::take(&mut self.last);
        chunk.sort_unstable();
        self.sorted.push(chunk);
    }

    /// Those that came more than once, each once, ascending.
    fn repeated(mut self) -> Vec<u64> {
        self.end_chunk();
        let mut repeated = Vec::new();
        let mut chunks: Vec<_> = self.sorted.iter().map(|chunk| chunk.iter()).collect();
        let mut least: BinaryHeap<_> = chunks
            .iter_mut()
            .enumerate()
            .filter_map(|(number, chunk)| chunk.next().map(|first| Reverse((*first, number))))
            .collect();
        let mut before = None;
        while let Some(Reverse((fingerprint, number))) = least.pop() {
            if before == Some(fingerprint) && repeated.last() != Some(&fingerprint) {
                repeated.push(fingerprint);
            }
            before = Some(fingerprint);
            least.extend(chunks[number].next().map(|next| Reverse((*next, number))));
        }
        repeated
    }
}

/// Names of repeated fingerprints, in a second look.
struct Known {
    repeats: Arc<RepeatedNames>,
    /// The first name that came of each fingerprint.
    taken: Vec<Option<Name>>,
    /// Names whose fingerprint is another name's too: hardly ever one.
    others: HashSet<Name>,
}

impl Known {
    fn is_new(&mut self, fingerprint: u64, name: Name) -> bool {
        let Ok(place) = self.repeats.fingerprints.binary_search(&fingerprint) else {
            return true;
        };
        match self.taken[place] {
            None => {
                self.taken[place] = Some(name);
                true
            }
            Some(first) if first == name => false,
            Some(_) => self.others.insert(name),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn payload(key: u8) -> Vec<u8> {
        [vec![4], vec![key; 64], vec![0; 32]].concat()
    }

    fn uuid(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    /// Looks as intake does: again where the first look couldn't know.
    fn look(remembered: usize, packets: &[(Uuid, Vec<u8>)]) -> Vec<Option<PacketExclusion>> {
        let mut repeats = Repeats::default();
        for _ in 0..2 {
            let mut seen = Duplicates::new(remembered, &repeats);
            let said = packets
                .iter()
                .map(|(uuid, payload)| seen.check(*uuid, payload))
                .collect();
            repeats = seen.repeats();
            if repeats.is_empty() {
                return said;
            }
        }
        panic!("a second look must be the last");
    }

    #[test]
    fn the_first_occurrence_counts() {
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
        let packets = table.clone().map(|(uuid, payload, _)| (uuid, payload));
        let expected = table.map(|(_, _, expected)| expected);
        for remembered in 0..=packets.len() {
            assert_eq!(look(remembered, &packets), expected, "{remembered} remembered");
        }
    }

    #[test]
    fn a_batch_without_repeats_needs_one_look_and_a_small_one_never_two() {
        let different: Vec<_> = (0..100).map(|n| (uuid(n), payload(n as u8))).collect();
        let mut seen = Duplicates::new(10, &Repeats::default());
        assert!(
            different
                .iter()
                .all(|(uuid, payload)| seen.check(*uuid, payload).is_none())
        );
        assert!(seen.repeats().is_empty());
        let mut seen = Duplicates::new(10, &Repeats::default());
        let said: Vec<_> = (0..20).map(|n| seen.check(uuid(n % 5), &payload(n as u8))).collect();
        assert_eq!(said.iter().filter(|said| said.is_none()).count(), 5);
        assert!(seen.repeats().is_empty(), "names that are remembered are known at once");
    }

    #[test]
    fn what_is_remembered_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(3);
        for round in 0..200 {
            let names = rng.random_range(1..60);
            let packets: Vec<_> = (0..rng.random_range(0..80))
                .map(|_| {
                    (
                        uuid(rng.random_range(0..names)),
                        payload(rng.random_range(0..names) as u8),
                    )
                })
                .collect();
            let all = look(usize::MAX, &packets);
            for remembered in [0, 1, 7, 30] {
                assert_eq!(
                    look(remembered, &packets),
                    all,
                    "round {round}, {remembered} remembered"
                );
            }
        }
    }

    #[test]
    fn repeats_are_found_over_all_chunks() {
        let mut fingerprints = Fingerprints::default();
        let count = 3 * CHUNK as u64 + 5;
        for n in 0..count {
            fingerprints.push(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        let again = [0, 1, CHUNK as u64, count - 1].map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for fingerprint in again.into_iter().chain(again) {
            fingerprints.push(fingerprint);
        }
        let mut expected = again.to_vec();
        expected.sort_unstable();
        assert_eq!(fingerprints.repeated(), expected);
    }

    #[test]
    fn names_that_share_a_fingerprint_are_told_apart() {
        let repeats = RepeatedNames {
            hasher: RandomState::new(),
            fingerprints: vec![7],
        };
        let mut known = Known {
            repeats: Arc::new(repeats),
            taken: vec![None],
            others: HashSet::new(),
        };
        let said = [[1; 16], [2; 16], [2; 16], [1; 16], [3; 16]].map(|name| known.is_new(7, name));
        assert_eq!(said, [true, true, false, false, true]);
        assert!(known.is_new(8, [1; 16]), "another fingerprint isn't a repeated one");
    }
}
