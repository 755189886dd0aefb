//! Windows that are released again, and what else goes on at the same time.

use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;

use crate::check::Truth;
use crate::interleave::{Case, answered};
use crate::stops::Scene;
use crate::world::{Build, SHARES, Setup, Task, World, other_window, window};

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

fn truth(world: &World) -> Truth {
    let mut truth = Truth::of(world);
    truth.floor = FLOOR;
    truth
}

/// One worker under an override, to be stopped.
pub async fn scene(share: Share, late: usize) -> Scene {
    let world = released_then(share, late).await;
    let setup = with_floor(share, Build::Right);
    Scene {
        name: format!("an override at {share:?}, {late} late"),
        begin: world.content(),
        truth: truth(&world),
        world,
        setup,
        again: setup,
        tasks: vec![Task::Again(window(), 2)],
    }
}

fn case(name: &'static str, world: World, build: Build, tasks: Vec<Vec<Task>>, same_bytes: bool) -> Case {
    let setup = with_floor(Share::First, build);
    let workers = tasks.into_iter().map(|tasks| (setup, tasks)).collect();
    let truth = truth(&world);
    Case {
        truth,
        ..Case::new(name, world, workers, same_bytes)
    }
}

/// Two workers under the same override.
pub async fn same_override() -> Case {
    let world = released_then(Share::First, 2).await;
    let again = vec![Task::Again(window(), 2)];
    case(
        "one override twice",
        world,
        Build::Right,
        vec![again.clone(), again],
        true,
    )
}

/// A worker under an override, and one for whom it has expired.
pub async fn expiring_override() -> Case {
    let world = released_then(Share::First, 2).await;
    let workers = vec![vec![Task::Again(window(), 2)], vec![Task::AgainTooLate(window(), 2)]];
    case("an override that expires", world, Build::Right, workers, true)
}

/// An override and the first release of another window; what only the longer one counts is one client.
pub async fn override_and_window(build: Build) -> Case {
    let world = World::new();
    let batches = [world.batch(1, 2, &[]), world.batch(45, 1, &[])];
    answered(&world, &SHARES, &batches).await;
    let workers = vec![vec![Task::Again(window(), 2)], vec![Task::Aggregate(other_window())]];
    case("an override and another window", world, build, workers, false)
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
    case("two overrides", world, Build::Right, workers, false)
}
