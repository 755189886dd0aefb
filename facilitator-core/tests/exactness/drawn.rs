//! Worlds drawn from a seed.

use facilitator_core::formats::names::{BatchId, ValidationPart};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::sample::FaultKind;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use uuid::Uuid;

use crate::work::Task;
use crate::world::{Place, SHARES, Setup, World, place};

/// All that can befall a packet.
const FAULTS: [FaultKind; 8] = [
    FaultKind::Undecryptable,
    FaultKind::UndecryptableFor(Share::First),
    FaultKind::UndecryptableFor(Share::Second),
    FaultKind::WrongDimension,
    FaultKind::InvalidProof,
    FaultKind::DuplicatePayload,
    FaultKind::QueryPointOutOfRange,
    FaultKind::DuplicateUuid,
];

/// Three batches are of one minute: UUIDs that differ in their second digit, and in their last alone.
fn crowded(number: u8) -> (u8, Uuid) {
    const UUIDS: [u128; 3] = [0x8e << 120, 0x8f12 << 112, 0x8f12 << 112 | 1];
    match number {
        2..=4 => (2, Uuid::from_u128(UUIDS[usize::from(number) - 2])),
        _ => (number, Uuid::from_u128(number.into())),
    }
}

/// Some batches with all that can befall them, sorted by name, taken in by both parties. The seed's bits say whether packets
/// are of more values than are worked on at once, and in which format answers are.
pub async fn random_world(seed: u64, rng: &mut StdRng, batches: u8) -> (World, Vec<BatchId>) {
    let mut world = World::new();
    world.name = crowded;
    if seed & 2 > 0 {
        world.bins = 37;
    }
    let format = match seed & 4 {
        0 => ValidationFormat::ThreeObjects,
        _ => ValidationFormat::SingleObject,
    };
    let mut ids = Vec::new();
    for number in 1..=batches {
        let packets = rng.random_range(2..6);
        let keys = if rng.random_ratio(1, 3) { 2 } else { 1 };
        let mut spoilt = Vec::new();
        for packet in (0..keys * packets).filter(|packet| packet % packets > 0) {
            if rng.random_bool(0.4) {
                // Where there are two keys, under both there shall be packets to take out.
                let is_invalid = keys == 2 && rng.random_bool(0.5);
                let any = *FAULTS.choose(rng).unwrap();
                spoilt.push((packet, if is_invalid { FaultKind::InvalidProof } else { any }));
            }
        }
        ids.push(match keys {
            2 => world.batch_of_two_keys(number, packets, &spoilt),
            _ => world.batch(number, packets, &spoilt),
        });
    }
    for share in SHARES {
        let taken: Vec<_> = ids
            .iter()
            .filter(|_| !rng.random_ratio(1, 10))
            .cloned()
            .map(Task::IntakeAnyway)
            .collect();
        let setup = Setup {
            format,
            ..Setup::of(share)
        };
        world.run(&setup, &taken).await.unwrap();
    }
    (world, ids)
}

/// Of the batches that were taken in, the ingestion may have changed since, or the peer's answer be bad.
pub fn spoil(world: &World, ids: &[BatchId], answers: bool, rng: &mut StdRng) {
    for id in ids {
        match rng.random_range(0..12) {
            0 => world.overwrite(Share::First, id),
            1 if answers => {
                let mailbox = &world.places[place(Share::First, Place::PeerValidation)];
                let key = |part| id.validation_key(Share::Second, part);
                let signature = key(ValidationPart::Signature);
                // A single object has its packets in the signature.
                if !mailbox.remove(&key(ValidationPart::Packets)) && mailbox.remove(&signature) {
                    mailbox.replace(&signature, "strange");
                }
            }
            _ => {}
        }
    }
}
