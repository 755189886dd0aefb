//! Packets that come again in another batch: at most one of the batches is answered for each, whatever the order.

use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::Share;

use crate::cases::answered;
use crate::orders::Case;
use crate::work::{Task, window};
use crate::world::{Build, Setup, World, listing};

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
    Case::new(world, workers, false)
}

/// Replays, one of them by a worker that takes the original in as well and one by one that lists, while claims are compacted.
pub async fn replays_and_compaction() -> Case {
    let world = World::new();
    let old: Vec<BatchId> = (11..15).map(|minute| world.batch(minute, 1, &[])).collect();
    answered(&world, &[Share::First], &old).await;
    let [one, two, three] = [1, 2, 3].map(|minute| world.batch(minute, 1, &[]));
    world.replay(&one, &two);
    world.replay(&old[0], &three);
    world.replay(&two, &three);
    let of = Setup::of(Share::First);
    let lists = Setup {
        in_memory: listing(),
        ..of
    };
    let workers = vec![
        (of, vec![Task::Intake(one.clone()), Task::Intake(two.clone())]),
        (lists, vec![Task::IntakeAll(vec![two, three]), Task::Intake(one)]),
        (of, vec![Task::Compact, Task::Aggregate(window()), Task::Compact]),
    ];
    Case::new(world, workers, false)
}
