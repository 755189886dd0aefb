//! Packets that come again in another batch: at most one of the batches is answered for each, whatever the order.

use facilitator_core::crypto::sha256;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::{Share, ValidationFormat};
use uuid::Uuid;

use crate::interleave::{Case, answered};
use crate::stops::Scene;
use crate::world::{Build, Place, SHARES, Setup, Task, World, place, window};

impl World {
    /// Adds the packets of one batch to another that is there, under other UUIDs and query points, for both parties.
    pub fn replay(&self, of: &BatchId, into: &BatchId) {
        for share in SHARES {
            let there = self.places[place(share, Place::Ingestion)].snapshot();
            let read = |id: &BatchId, part| there[id.ingestion_key(part).as_str()].clone();
            let packets = |id| DataSharePacket::read_all(&read(id, IngestionPart::Packets)).unwrap();
            let mut all = packets(into);
            for packet in packets(of) {
                let n = all.len() as u64;
                all.push(DataSharePacket {
                    uuid: Uuid::from_u64_pair(into.time.as_millis().unsigned_abs(), n),
                    r_pit: packet.r_pit + 1,
                    ..packet
                });
            }
            let packets = DataSharePacket::write_all(&all);
            let mut header = IngestionHeader::read(&read(into, IngestionPart::Header)).unwrap();
            header.packet_file_digest = sha256(&packets).to_vec();
            let header = header.write();
            let signature = BatchSignature::sign(&self.keys.ingestor, &header).unwrap().write();
            self.put_ingestion(share, into, &header, &signature, &packets);
        }
    }
}

/// Two workers, each with one of two batches that have a packet in common.
pub async fn original_and_replay(build: Build) -> Case {
    let world = World::new();
    let (original, replay) = (world.batch(1, 1, &[]), world.batch(2, 1, &[]));
    world.replay(&original, &replay);
    let worker = |batch| {
        let setup = Setup {
            build,
            ..Setup::of(Share::First)
        };
        (setup, vec![Task::Intake(batch)])
    };
    let workers = vec![worker(original), worker(replay)];
    Case::new("an original and its replay", world, workers, false)
}

/// Replays, one of them by a worker that takes the original in as well, while claims are compacted.
pub async fn replays_and_compaction() -> Case {
    let world = World::new();
    let old: Vec<BatchId> = (11..15).map(|minute| world.batch(minute, 1, &[])).collect();
    answered(&world, &[Share::First], &old).await;
    let [one, two, three] = [1, 2, 3].map(|minute| world.batch(minute, 1, &[]));
    world.replay(&one, &two);
    world.replay(&old[0], &three);
    world.replay(&two, &three);
    let worker = |tasks| (Setup::of(Share::First), tasks);
    let workers = vec![
        worker(vec![Task::Intake(one.clone()), Task::Intake(two.clone())]),
        worker(vec![Task::IntakeAll(vec![two, three]), Task::Intake(one)]),
        worker(vec![Task::Compact, Task::Aggregate(window()), Task::Compact]),
    ];
    Case::new("replays and a compaction", world, workers, false)
}

/// One worker takes in an original and a replay of it, and sums them.
pub async fn scene(share: Share) -> Scene {
    let world = World::new();
    let batches = [world.batch(1, 1, &[]), world.batch(2, 1, &[])];
    world.replay(&batches[0], &batches[1]);
    let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
    world.run(&Setup::of(share.peer()), &intakes).await.unwrap();
    let tasks = intakes.into_iter().chain([Task::Aggregate(window())]).collect();
    let setup = Setup {
        format: ValidationFormat::SingleObject,
        ..Setup::of(share)
    };
    Scene::new(format!("{share:?} with a replay"), world, setup, tasks)
}
