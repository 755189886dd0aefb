//! Workers that run at the same time.

use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::sample::FaultKind;

use crate::orders::Case;
use crate::work::{Task, other_window, window};
use crate::world::{Build, Mounts, SHARES, Setup, Signer, TINY, World, listing};

/// Has the batches taken in.
pub async fn answered(world: &World, shares: &[Share], batches: &[BatchId]) {
    for share in shares {
        answered_as(world, &Setup::of(*share), batches).await;
    }
}

/// Has the batches taken in by a worker that is set up so.
pub async fn answered_as(world: &World, setup: &Setup, batches: &[BatchId]) {
    let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
    world.run(setup, &intakes).await.unwrap();
}

/// Two workers that take the same batch in.
pub async fn same_intake(share: Share, format: ValidationFormat) -> Case {
    let world = World::new();
    // Of the other dimension for First alone: Second can't see it.
    let batch = world.batch(1, 2, &[(1, FaultKind::WrongDimension)]);
    let setup = Setup {
        format,
        ..Setup::of(share)
    };
    let worker = (setup, vec![Task::Intake(batch)]);
    Case::new(world, vec![worker.clone(), worker], true)
}

/// Two workers that take the same batch in as a large one, of which a packet comes twice.
pub async fn same_large_intake() -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::DuplicatePayload)]);
    let setup = Setup {
        in_memory: TINY,
        ..Setup::of(Share::First)
    };
    let worker = (setup, vec![Task::Intake(batch)]);
    Case::new(world, vec![worker.clone(), worker], true)
}

/// Two workers set up in two ways that take the same batch in.
async fn intakes(setups: [Setup; 2]) -> Case {
    let world = World::new();
    let batch = world.batch_of_two_keys(1, 1, &[]);
    let worker = |setup| (setup, vec![Task::IntakeAnyway(batch.clone())]);
    Case::new(world, setups.map(worker).into(), false)
}

/// Two workers with different keys that take the same batch in.
pub async fn intakes_with_other_keys(build: Build) -> Case {
    let setup = Setup {
        build,
        ..Setup::of(Share::First)
    };
    intakes([Mounts::One, Mounts::Both].map(|mounts| Setup { mounts, ..setup })).await
}

/// An upgrade half-way: two workers that would write the validation batch in different formats.
pub async fn intakes_in_other_formats(build: Build) -> Case {
    let setup = Setup {
        build,
        ..Setup::of(Share::First)
    };
    let formats = [ValidationFormat::ThreeObjects, ValidationFormat::SingleObject];
    intakes(formats.map(|format| Setup { format, ..setup })).await
}

/// A new signing key half-way: two workers that sign with different ones.
pub async fn intakes_with_other_signers(build: Build) -> Case {
    let setup = Setup {
        build,
        ..Setup::of(Share::First)
    };
    intakes([Signer::Own, Signer::New].map(|signer| Setup { signer, ..setup })).await
}

/// Batches that are claimed together, each looked for, with an original and its replay among them, and a worker that takes
/// the replay in.
pub async fn group_and_replay(build: Build) -> Case {
    let setup = Setup {
        build,
        ..Setup::of(Share::First)
    };
    grouped_beside_replay(setup, 3)
}

/// An original and its replay, both listed and claimed together, and a worker that takes the replay in: what it puts may
/// come after the listing.
pub async fn listed_group_and_replay() -> Case {
    let setup = Setup {
        in_memory: listing(),
        ..Setup::of(Share::First)
    };
    grouped_beside_replay(setup, 2)
}

fn grouped_beside_replay(setup: Setup, batches: u8) -> Case {
    let world = World::new();
    let batches: Vec<BatchId> = (1..=batches).map(|minute| world.batch(minute, 1, &[])).collect();
    world.replay(&batches[0], &batches[1]);
    let replay = vec![Task::Intake(batches[1].clone())];
    let workers = vec![(setup, vec![Task::IntakeAll(batches)]), (setup, replay)];
    Case::new(world, workers, false)
}

/// One worker takes a replay in while another compacts the claims that show it.
pub async fn intake_and_compaction() -> Case {
    let world = World::new();
    let old: Vec<BatchId> = (11..15).map(|minute| world.batch(minute, 1, &[])).collect();
    answered(&world, &[Share::First], &old).await;
    let replay = world.batch(1, 1, &[]);
    world.replay(&old[0], &replay);
    let of = Setup::of(Share::First);
    Case::new(
        world,
        vec![(of, vec![Task::Intake(replay)]), (of, vec![Task::Compact])],
        false,
    )
}

/// Two workers that sum the same window.
pub async fn same_window(share: Share) -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::InvalidProof)]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = (Setup::of(share), vec![Task::Aggregate(window())]);
    Case::new(world, vec![worker.clone(), worker], true)
}

/// Two workers that sum the same window, one of them without a key that its records need.
pub async fn windows_with_other_keys() -> Case {
    let world = World::new();
    let batch = world.batch_of_two_keys(1, 1, &[]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = |mounts| {
        let setup = Setup {
            mounts,
            ..Setup::of(Share::First)
        };
        (setup, vec![Task::Aggregate(window())])
    };
    // The one without can't sum; where it sees the other's sum part in the portal it says that its meaning is the same.
    let mut case = Case::new(world, [Mounts::One, Mounts::Both].map(worker).into(), false);
    // What it has it took in with both.
    case.truth.lacks_a_key = false;
    case
}

/// Two workers that would sign the same window's sum with different keys.
pub async fn windows_with_other_signers(build: Build) -> Case {
    let world = World::new();
    let batch = world.batch(1, 1, &[]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = |signer| {
        let setup = Setup {
            signer,
            build,
            ..Setup::of(Share::First)
        };
        (setup, vec![Task::Aggregate(window())])
    };
    Case::new(world, [Signer::Own, Signer::New].map(worker).into(), false)
}

/// Two workers that sum windows which share time.
pub async fn overlapping_windows() -> Case {
    let world = World::new();
    let batch = world.batch(1, 1, &[]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = |window| (Setup::of(Share::First), vec![Task::Aggregate(window)]);
    Case::new(world, vec![worker(window()), worker(other_window())], false)
}

/// One worker takes a batch in while another sums its window.
pub async fn intake_and_window() -> Case {
    let world = World::new();
    let (before, during) = (world.batch(1, 1, &[]), world.batch(2, 1, &[]));
    answered(&world, &SHARES, &[before]).await;
    answered(&world, &[Share::Second], std::slice::from_ref(&during)).await;
    let of = Setup::of(Share::First);
    let workers = vec![(of, vec![Task::Intake(during)]), (of, vec![Task::Aggregate(window())])];
    Case::new(world, workers, false)
}

/// One party sums its window while the other answers late; as a legacy peer's its time doesn't count.
pub async fn late_peer(legacy_peer: bool) -> Case {
    let world = World::new();
    let (before, during) = (world.batch(1, 1, &[]), world.batch(2, 1, &[]));
    answered(&world, &SHARES, &[before]).await;
    answered(&world, &[Share::First], std::slice::from_ref(&during)).await;
    let sums = Setup {
        legacy_peer,
        ..Setup::of(Share::First)
    };
    let workers = vec![
        (sums, vec![Task::Aggregate(window())]),
        (Setup::of(Share::Second), vec![Task::Intake(during)]),
    ];
    Case::new(world, workers, false)
}

/// Both parties with two workers each, everything at once.
pub async fn everything() -> Case {
    let world = World::new();
    let faults = [
        (1, FaultKind::InvalidProof),
        (2, FaultKind::UndecryptableFor(Share::Second)),
    ];
    let batches = [
        world.batch(1, 3, &faults),
        world.batch(2, 1, &[]),
        world.batch_of_two_keys(3, 1, &[]),
    ];
    let tasks: Vec<Task> = batches
        .iter()
        .cloned()
        .map(Task::IntakeAnyway)
        .chain([Task::Aggregate(window())])
        .collect();
    let mut workers = Vec::new();
    for share in SHARES {
        for mounts in [Mounts::One, Mounts::Both] {
            workers.push((
                Setup {
                    mounts,
                    ..Setup::of(share)
                },
                tasks.clone(),
            ));
        }
    }
    Case::new(world, workers, false)
}

/// Both windows and both parties, three workers.
pub async fn windows_and_crashes(build: Build) -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::InvalidProof)]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let setup = Setup {
        build,
        ..Setup::of(Share::First)
    };
    let worker = |window| (setup, vec![Task::Aggregate(window)]);
    let workers = vec![worker(window()), worker(other_window()), worker(window())];
    Case::new(world, workers, false)
}
