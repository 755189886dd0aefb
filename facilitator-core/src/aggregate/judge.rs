//! Which packets of a member count: a pure function of the record and the peer's messages (ledger rule 5).

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::formats::record::{Message, RecordPlain};
use crate::proof::proof_holds;

/// What became of a member's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// UUIDs of those that count, in file order.
    pub counted: Vec<Uuid>,
    /// Index and key of those that are in the accumulator and don't count: to be subtracted.
    pub subtracted: Vec<(usize, u8)>,
    /// UUIDs that don't count, in file order, each once: for the invalid list.
    pub not_counted: Vec<Uuid>,
    /// Packets whose proof fails.
    pub invalid_proofs: u64,
    /// Packets that the peer has no message for.
    pub missing_peer_messages: u64,
}

/// Judges every packet of a record by the peer's messages, of which there is one for each UUID at most.
pub(super) fn judge(record: &RecordPlain, peer: impl IntoIterator<Item = (Uuid, Message)>) -> Judged {
    let peer: HashMap<Uuid, Message> = peer.into_iter().collect();
    let mut judged = Judged::default();
    for (index, uuid, key, own) in record.included() {
        match peer.get(&uuid) {
            Some(theirs) if proof_holds(own, *theirs) => {
                judged.counted.push(uuid);
                continue;
            }
            Some(_) => judged.invalid_proofs += 1,
            None => judged.missing_peer_messages += 1,
        }
        judged.subtracted.push((index, key));
    }
    // A duplicate of a packet that counts is no invalid client: its UUID is in the sum, once.
    let mut named: HashSet<Uuid> = judged.counted.iter().copied().collect();
    judged.not_counted = record
        .packets
        .iter()
        .map(|packet| packet.uuid)
        .filter(|uuid| named.insert(*uuid))
        .collect();
    judged
}
