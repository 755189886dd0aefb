//! Windows that are released again, and what else goes on at the same time.

use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;

use crate::cases::answered;
use crate::orders::Case;
use crate::stops::Scene;
use crate::work::{Task, other_window, window};
use crate::world::{Build, SHARES, Setup, World};

/// All sums together tell of nobody or of so many clients.
const FLOOR: usize = 2;

fn with_floor(share: Share, build: Build) -> Setup {
    Setup {
        min_clients: FLOOR as u64,
        build,
        ..Setup::of(share)
    }
}

/// A window that `share` released with two clients, and a batch of `late` clients that came later.
async fn released_then(share: Share, late: usize) -> World {
    let world = World::new();
    let before = world.batch(1, 3, &[(1, FaultKind::InvalidProof)]);
    answered(&world, &SHARES, &[before]).await;
    let setup = with_floor(share, Build::Right);
    world.run(&setup, &[Task::Aggregate(window())]).await.unwrap();
    let late = world.batch(2, late, &[]);
    answered(&world, &SHARES, &[late]).await;
    world
}

/// One worker under an override, to be stopped.
pub async fn scene(share: Share, late: usize) -> Scene {
    let world = released_then(share, late).await;
    // What alone is told of those that came late must be of as many as the floor.
    let clients = if late < FLOOR { 0 } else { 2 + late as u64 };
    let setup = with_floor(share, Build::Right);
    let mut scene = Scene::new(world, setup, vec![Task::Again(window(), 2)], clients);
    scene.truth.floor = FLOOR;
    scene
}

fn case(world: World, build: Build, tasks: Vec<Vec<Task>>, same_bytes: bool) -> Case {
    let setup = with_floor(Share::First, build);
    let workers = tasks.into_iter().map(|tasks| (setup, tasks)).collect();
    let mut case = Case::new(world, workers, same_bytes);
    case.truth.floor = FLOOR;
    case
}

/// Two workers under the same override.
pub async fn same_override() -> Case {
    let world = released_then(Share::First, 2).await;
    let again = vec![Task::Again(window(), 2)];
    case(world, Build::Right, vec![again.clone(), again], true)
}

/// A worker under an override, and one for whom it has expired.
pub async fn expiring_override() -> Case {
    let world = released_then(Share::First, 2).await;
    let workers = vec![vec![Task::Again(window(), 2)], vec![Task::AgainTooLate(window(), 2)]];
    case(world, Build::Right, workers, true)
}

/// An override and the first release of another window; what only the longer one counts is one client.
pub async fn override_and_window(build: Build) -> Case {
    let world = World::new();
    let batches = [world.batch(1, 2, &[]), world.batch(45, 1, &[])];
    answered(&world, &SHARES, &batches).await;
    let workers = vec![vec![Task::Again(window(), 2)], vec![Task::Aggregate(other_window())]];
    case(world, build, workers, false)
}

/// Two overrides, of which the later sees one client more.
pub async fn two_overrides() -> Case {
    let world = released_then(Share::First, 2).await;
    let more = world.batch(3, 1, &[]);
    answered(&world, &[Share::Second], std::slice::from_ref(&more)).await;
    let workers = vec![
        vec![Task::Again(window(), 2)],
        vec![Task::Intake(more), Task::Again(window(), 3)],
    ];
    case(world, Build::Right, workers, false)
}
