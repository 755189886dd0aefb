//! Which packets of a member count: a pure function of the record and the peer's messages (ledger rule 5).
//!
//! Both are read once, packet by packet: partners get the packets of a batch in one order, so the messages usually come in
//! the record's. Where they don't, the record is held, 37 bytes a packet; the peer's objects never are.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::formats::record::{Message, PacketExclusion, PacketState, RecordPacket};
use crate::proof::proof_holds;

/// What became of a member's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// SHA-256 over what the peer says of each packet that is in, in file order: 1 ‖ f ‖ g ‖ h (u32 little-endian, reduced
    /// modulo p), or 0 where it has no message. Pins what it says, not its bytes or order (ledger rule 12).
    pub messages_digest: [u8; 32],
    /// SHA-256 over the UUIDs of the packets that count, in file order.
    pub counted_digest: [u8; 32],
    /// All packets.
    pub packets: u64,
    /// Those that intake excluded.
    pub excluded: u64,
    /// Those that count.
    pub clients: u64,
    /// Packets whose proof fails.
    pub invalid_proofs: u64,
    /// Packets that the peer has no message for.
    pub missing_peer_messages: u64,
    /// Those that are in the accumulator and don't count, in file order: to be subtracted.
    pub subtracted: Vec<Subtracted>,
    /// UUIDs that don't count, in file order, each once: for the invalid list.
    pub not_counted: Vec<Uuid>,
}

/// A packet to be subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subtracted {
    /// Its place in the batch: there are 2^24 at most.
    pub index: u32,
    /// The record's key that opens it.
    pub key: u8,
}

/// The peer's next message: the packet's UUID, and `None` where an element is outside u32, which is no message.
pub(super) type Heard = (Uuid, Option<Message>);

/// Judges a batch whose messages come in the record's order, some left out. `None`: they don't, or some packet has several.
pub(super) fn judge_in_order<E>(
    record: impl Iterator<Item = Result<RecordPacket, E>>,
    peer: impl Iterator<Item = Result<Heard, E>>,
) -> Result<Option<Judged>, E> {
    let mut judging = Judging::default();
    let mut peer = peer.fuse();
    let mut next = peer.next().transpose()?;
    for packet in record {
        let packet = packet?;
        let mut heard = None;
        if let Some((uuid, message)) = next
            && uuid == packet.uuid
        {
            // Of which occurrence it speaks can't be told here.
            if packet.state == PacketState::Excluded(PacketExclusion::DuplicateUuid) {
                return Ok(None);
            }
            heard = message;
            next = peer.next().transpose()?;
        }
        judging.packet(&packet, heard.map(|theirs| (theirs, holds(&packet, theirs))));
    }
    // Every message was of a packet of its own: the others have none.
    Ok(next.is_none().then(|| judging.finish()))
}

/// A record that is held while the peer's messages come, in any order: the first of each UUID counts.
pub(super) struct Held {
    packets: Vec<RecordPacket>,
    heard: Vec<Said>,
    /// The packets that are in, by UUID.
    order: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    /// An element is outside u32: no message, and a later one doesn't take its place.
    Nonsense,
    /// The message stands in place of our own; whether the two prove the packet.
    Message {
        holds: bool,
    },
}

impl Held {
    pub(super) fn read<E>(
        record: impl Iterator<Item = Result<RecordPacket, E>>,
        number_of_packets: usize,
    ) -> Result<Self, E> {
        // Room for all at once: what grows leaves its smaller room behind.
        let mut packets = Vec::with_capacity(number_of_packets);
        for packet in record {
            packets.push(packet?);
        }
        let mut order = Vec::with_capacity(packets.len());
        let all_in = (0_u32..)
            .zip(&packets)
            .filter(|(_, packet)| matches!(packet.state, PacketState::In { .. }));
        order.extend(all_in.map(|(index, _)| index));
        order.sort_unstable_by_key(|index| (packets[*index as usize].uuid, *index));
        Ok(Self {
            heard: vec![Said::Nothing; packets.len()],
            packets,
            order,
        })
    }

    pub(super) fn hear(&mut self, (uuid, message): Heard) {
        let packets = &mut self.packets;
        let place = self.order.partition_point(|index| packets[*index as usize].uuid < uuid);
        let Some(index) = self.order.get(place).map(|index| *index as usize) else {
            return;
        };
        if packets[index].uuid != uuid || self.heard[index] != Said::Nothing {
            return;
        }
        self.heard[index] = match (message, &mut packets[index].state) {
            (Some(theirs), PacketState::In { message, .. }) => {
                let holds = proof_holds(*message, theirs);
                *message = theirs;
                Said::Message { holds }
            }
            _ => Said::Nonsense,
        };
    }

    pub(super) fn judged(self) -> Judged {
        let mut judging = Judging::default();
        for (packet, said) in self.packets.iter().zip(&self.heard) {
            let theirs = match (said, packet.state) {
                (Said::Message { holds }, PacketState::In { message, .. }) => Some((message, *holds)),
                _ => None,
            };
            judging.packet(packet, theirs);
        }
        judging.finish()
    }
}

fn holds(packet: &RecordPacket, theirs: Message) -> bool {
    match packet.state {
        PacketState::In { message, .. } => proof_holds(message, theirs),
        PacketState::Excluded(_) => false,
    }
}

/// A batch that is being judged, packet by packet.
#[derive(Default)]
struct Judging {
    judged: Judged,
    messages: Sha256,
    counted: Sha256,
}

impl Judging {
    /// `theirs`: the peer's message for it, and whether the two prove it.
    fn packet(&mut self, packet: &RecordPacket, theirs: Option<(Message, bool)>) {
        let judged = &mut self.judged;
        let index = u32::try_from(judged.packets).unwrap_or(u32::MAX);
        judged.packets += 1;
        match packet.state {
            PacketState::In { key, .. } => {
                match theirs {
                    Some((Message { f, g, h }, _)) => {
                        self.messages.update([1]);
                        for element in [f, g, h] {
                            self.messages.update(element.to_le_bytes());
                        }
                    }
                    None => self.messages.update([0]),
                }
                match theirs {
                    Some((_, true)) => {
                        judged.clients += 1;
                        self.counted.update(packet.uuid.as_bytes());
                        return;
                    }
                    Some((_, false)) => judged.invalid_proofs += 1,
                    None => judged.missing_peer_messages += 1,
                }
                judged.subtracted.push(Subtracted { index, key });
                judged.not_counted.push(packet.uuid);
            }
            PacketState::Excluded(reason) => {
                judged.excluded += 1;
                // The first of its UUID is in the sum, where it is no invalid client, or in the list already.
                if reason != PacketExclusion::DuplicateUuid {
                    judged.not_counted.push(packet.uuid);
                }
            }
        }
    }

    fn finish(self) -> Judged {
        Judged {
            messages_digest: self.messages.finalize().into(),
            counted_digest: self.counted.finalize().into(),
            ..self.judged
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{HashMap, HashSet};
    use std::convert::Infallible;

    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::proof::{PRIME, add, mul, subtract};

    /// The rules as they are written, by sets and maps.
    fn expected(record: &[RecordPacket], peer: &[Heard]) -> Judged {
        let mut said: HashMap<Uuid, Option<Message>> = HashMap::new();
        for (uuid, message) in peer {
            said.entry(*uuid).or_insert(*message);
        }
        let (mut judged, mut messages) = (Judged::default(), Vec::new());
        let mut counted = Vec::new();
        for (index, packet) in record.iter().enumerate() {
            judged.packets += 1;
            let PacketState::In { key, message } = packet.state else {
                judged.excluded += 1;
                continue;
            };
            let theirs = said.get(&packet.uuid).copied().flatten();
            match theirs {
                Some(Message { f, g, h }) => {
                    messages.push(1);
                    messages.extend([f, g, h].map(u32::to_le_bytes).concat());
                }
                None => messages.push(0),
            }
            match theirs {
                Some(theirs) if proof_holds(message, theirs) => counted.push(packet.uuid),
                theirs => {
                    judged.invalid_proofs += u64::from(theirs.is_some());
                    judged.missing_peer_messages += u64::from(theirs.is_none());
                    let index = u32::try_from(index).unwrap();
                    judged.subtracted.push(Subtracted { index, key });
                }
            }
        }
        let mut named: HashSet<Uuid> = counted.iter().copied().collect();
        let uuids = record.iter().map(|packet| packet.uuid);
        judged.not_counted = uuids.filter(|uuid| named.insert(*uuid)).collect();
        judged.clients = counted.len() as u64;
        judged.messages_digest = Sha256::digest(messages).into();
        judged.counted_digest =
            Sha256::digest(counted.iter().flat_map(|uuid| *uuid.as_bytes()).collect::<Vec<_>>()).into();
        judged
    }

    fn message(rng: &mut StdRng) -> Message {
        let [f, g, h] = [(); 3].map(|()| rng.random_range(0..PRIME));
        Message { f, g, h }
    }

    /// What the other side says where the proof holds.
    fn proving(own: Message, rng: &mut StdRng) -> Message {
        let Message { f, g, .. } = message(rng);
        let h = subtract(mul(add(own.f, f), add(own.g, g)), own.h);
        Message { f, g, h }
    }

    /// A record, with duplicates as intake marks them, and what the peer says of it: in order, or however it comes.
    fn batch(rng: &mut StdRng) -> (Vec<RecordPacket>, Vec<Heard>) {
        let (mut record, mut peer, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let tidy = rng.random_bool(0.5);
        for n in 0..rng.random_range(0..20) {
            let n = if tidy { n } else { rng.random_range(0..12) };
            let uuid = Uuid::from_u128(n);
            let own = message(rng);
            let state = match rng.random_range(0..6) {
                _ if !seen.insert(uuid) => PacketState::Excluded(PacketExclusion::DuplicateUuid),
                0 => PacketState::Excluded(PacketExclusion::Undecryptable),
                1 => PacketState::Excluded(PacketExclusion::DuplicateEphemeralKey),
                key => PacketState::In { key, message: own },
            };
            record.push(RecordPacket { uuid, state });
            match rng.random_range(0..8) {
                0 => {}
                1 => peer.push((uuid, None)),
                2 => peer.push((uuid, Some(message(rng)))),
                _ => peer.push((uuid, Some(proving(own, rng)))),
            }
        }
        if !tidy {
            for _ in 0..rng.random_range(0..3) {
                peer.push((Uuid::from_u128(rng.random_range(0..15)), Some(message(rng))));
            }
            if rng.random_bool(0.5) {
                peer.shuffle(rng);
            }
        }
        (record, peer)
    }

    fn all<T: Copy>(of: &[T]) -> impl Iterator<Item = Result<T, Infallible>> {
        of.iter().copied().map(Ok)
    }

    #[test]
    fn both_ways_of_judging_come_to_what_the_rules_say() {
        let mut rng = StdRng::seed_from_u64(11);
        let (mut in_order, mut held_only) = (0, 0);
        for case in 0..20_000 {
            let (record, peer) = batch(&mut rng);
            let expected = expected(&record, &peer);
            match judge_in_order(all(&record), all(&peer)).unwrap() {
                Some(judged) => {
                    assert_eq!(judged, expected, "case {case}: {record:?} {peer:?}");
                    in_order += 1;
                }
                None => held_only += 1,
            }
            let mut held = Held::read(all(&record), record.len()).unwrap();
            peer.iter().for_each(|heard| held.hear(*heard));
            assert_eq!(held.judged(), expected, "case {case}, held: {record:?} {peer:?}");
        }
        assert!(in_order > 8_000 && held_only > 5_000, "{in_order} {held_only}");
    }

    #[test]
    fn the_peers_order_and_what_it_says_of_others_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(12);
        let own = message(&mut rng);
        let packet = |n| RecordPacket {
            uuid: Uuid::from_u128(n),
            state: PacketState::In { key: 0, message: own },
        };
        let record = [packet(1), packet(2)];
        let [one, two] = [1, 2].map(|n| (Uuid::from_u128(n), Some(message(&mut rng))));
        let judged = |peer: &[Heard]| {
            let mut held = Held::read(all(&record), record.len()).unwrap();
            peer.iter().for_each(|heard| held.hear(*heard));
            held.judged().messages_digest
        };
        let digest = judged(&[one, two]);
        assert_eq!(
            judge_in_order(all(&record), all(&[one, two]))
                .unwrap()
                .unwrap()
                .messages_digest,
            digest
        );
        let stranger = (Uuid::from_u128(3), Some(own));
        for same in [
            &[two, one][..],
            &[one, two, one],
            &[stranger, one, two, (one.0, Some(own))],
        ] {
            assert_eq!(judged(same), digest, "{same:?}");
        }
        for other in [
            &[one][..],
            &[one, (two.0, None)],
            &[(one.0, Some(own)), two],
            &[(one.0, two.1), (two.0, one.1)],
        ] {
            assert_ne!(judged(other), digest, "{other:?}");
        }
    }

    #[test]
    fn what_is_held_of_a_packet_is_small() {
        assert_eq!(
            (size_of::<RecordPacket>(), size_of::<Said>(), size_of::<Subtracted>()),
            (32, 1, 8)
        );
    }
}
