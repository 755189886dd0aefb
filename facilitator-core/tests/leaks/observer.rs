//! Clients, and who sees both parties' messages: a peer or a portal that colludes, or whoever reads both mailboxes.

use std::sync::Arc;

use facilitator_core::crypto::sha256;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart, ValidationPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::ValidationPacket;
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{
    Message, PRIME, ShareSplitter, add, parse_first_share, parse_second_share, pow, proof_length, verification_message,
};
use mailbox::MemoryMailbox;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::support::Keys;
use crate::world::World;

pub const SHARES: [Share; 2] = [Share::First, Share::Second];

/// A client's values and what each party gets of them.
pub struct Client {
    pub values: Vec<u32>,
    bins: u32,
    shares: [Vec<u32>; 2],
}

impl Client {
    /// One whose values are `values`; bits, or the proof doesn't hold.
    pub fn with(values: Vec<u32>, seed: u64) -> Self {
        let bins = u32::try_from(values.len()).unwrap();
        let shares = ShareSplitter::new(bins).split(&values, &mut StdRng::seed_from_u64(seed));
        let first = parse_first_share(&shares.first, bins).unwrap();
        let second = parse_second_share(&*shares.second, bins).unwrap();
        Self {
            values,
            bins,
            shares: [first.to_vec(), second.to_vec()],
        }
    }

    /// One with secret bits.
    pub fn new(bins: u32, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self::with((0..bins).map(|_| rng.random_range(0..2)).collect(), seed)
    }

    /// What a party that asks nothing of the query point answers at `r`.
    pub fn message(&self, share: Share, r: u32) -> Message {
        verification_message(&self.shares[usize::from(share.index())], self.bins, r, share)
    }

    /// Both parties' messages at `r`.
    pub fn messages(&self, r: u32) -> [Message; 2] {
        SHARES.map(|share| self.message(share, r))
    }

    /// The share of the client's values that a party adds to its sum.
    pub fn addend(&self, share: Share) -> &[u32] {
        &self.shares[usize::from(share.index())][..self.values.len()]
    }
}

/// f at the point that both messages are of: what both parties together know of it.
pub fn f([first, second]: [Message; 2]) -> u32 {
    add(first.f, second.f)
}

/// A primitive root of unity of order n, as the protocol's libraries have it.
pub fn root(n: usize) -> u32 {
    pow(3_925_978_153, (1 << 20) / n as u64)
}

/// 1 / a.
pub fn inverse(a: u32) -> u32 {
    pow(a, u64::from(PRIME) - 2)
}

/// How much f(0), and then the value of each bin, weighs in f at `r`. No secret: the polynomial of each is known.
pub fn weights(bins: u32, r: u32) -> Vec<u32> {
    let weight = |place: usize| {
        let mut elements = vec![0; proof_length(bins)];
        elements[place] = 1;
        verification_message(&elements, bins, r, Share::Second).f
    };
    let bins = bins as usize;
    std::iter::once(bins).chain(0..bins).map(weight).collect()
}

/// The ingestor, or who has its key, changes a batch's packets, in both parties' mailboxes alike.
pub fn tamper(world: &World, batch: &BatchId, change: impl Fn(&mut Vec<DataSharePacket>)) {
    let ingestor = Keys::read().ingestor;
    for mailbox in &world.ingestion {
        let key = |part| batch.ingestion_key(part);
        let read = |part| mailbox.snapshot()[key(part).as_str()].clone();
        let mut packets = DataSharePacket::read_all(&read(IngestionPart::Packets)).unwrap();
        change(&mut packets);
        let packets = DataSharePacket::write_all(&packets);
        let mut header = IngestionHeader::read(&read(IngestionPart::Header)).unwrap();
        header.packet_file_digest = sha256(&packets).to_vec();
        let header = header.write();
        let signature = BatchSignature::sign(&ingestor, &header).unwrap().write();
        mailbox.replace(&key(IngestionPart::Packets), packets);
        mailbox.replace(&key(IngestionPart::Header), header);
        mailbox.replace(&key(IngestionPart::Signature), signature);
    }
}

/// The UUIDs of the packets that a party has answered of a batch: all that an observer has messages of.
pub fn answered(peer_validation: &[Arc<MemoryMailbox>; 2], batch: &BatchId, writer: Share) -> Vec<Uuid> {
    let there = peer_validation[usize::from(writer.peer().index())].snapshot();
    let packets = &there[batch.validation_key(writer, ValidationPart::Packets).as_str()];
    let packets = ValidationPacket::read_all(packets).unwrap();
    packets.iter().map(|packet| packet.uuid).collect()
}
