//! What one worker does while it is stopped and its calls fail.

use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::sample::FaultKind;

use crate::cases::answered;
use crate::overrides;
use crate::stops::Scene;
use crate::work::{Task, in_parts, other_window, window};
use crate::world::{Build, Mounts, SHARES, Setup, TINY, World, listing};

/// A kind of scene.
#[derive(Clone, Copy, Debug)]
pub enum Plot {
    /// Two batches of which one has a packet to subtract and one that only one party opens; the peer has answered.
    Batches(ValidationFormat),
    /// As `Batches`, worked on as large batches are; one packet comes twice, so that a second pass is needed.
    Streamed(ValidationFormat),
    /// As `Batches`, the window summed in two parts.
    Parts,
    /// A batch for two keys, with one key mounted and then both, or the other way round.
    Keys([Mounts; 2]),
    /// An original and a replay of it.
    Replay,
    /// An original, a replay of it and another batch, each looked for and all claimed together.
    Group,
    /// An original and a replay of it, listed and claimed together.
    Listed,
    /// Claims are compacted between two batches that each replay an older one.
    Compaction,
    /// A batch without a packet that may be answered, and one with.
    Unusable,
    /// Fewer clients than the floor.
    BelowFloor,
    /// A window released again, with so many clients more.
    Override(usize),
    /// A new ledger, and a batch for two keys, all of rings: the marks of what needs a key come before it.
    Marked,
}

impl Plot {
    pub async fn scene(self, share: Share) -> Scene {
        self.of_build(share, Build::Right).await
    }

    pub async fn of_build(self, share: Share, build: Build) -> Scene {
        let world = World::new();
        let mut setup = Setup {
            build,
            marks: matches!(self, Self::Marked),
            ..Setup::of(share)
        };
        let intakes = |batches: &[BatchId]| batches.iter().cloned().map(Task::Intake).collect::<Vec<_>>();
        let (batches, clients) = match self {
            Self::Override(late) => return overrides::scene(share, late).await,
            Self::Batches(_) | Self::Parts | Self::BelowFloor => {
                let faults = [(1, FaultKind::InvalidProof), (2, FaultKind::WrongDimension)];
                (vec![world.batch(1, 3, &faults), world.batch(2, 1, &[])], 2)
            }
            Self::Streamed(_) => {
                let faults = [(1, FaultKind::InvalidProof), (3, FaultKind::DuplicatePayload)];
                (vec![world.batch(1, 4, &faults), world.batch(2, 1, &[])], 3)
            }
            Self::Keys([first, _]) => {
                let clients = if first == Mounts::Both { 4 } else { 2 };
                (vec![world.batch_of_two_keys(1, 2, &[])], clients)
            }
            Self::Marked => (vec![world.batch_of_two_keys(1, 1, &[])], 2),
            Self::Replay | Self::Group | Self::Listed => {
                let minutes = if matches!(self, Self::Group) { 1..4 } else { 1..3 };
                let batches: Vec<_> = minutes.map(|minute| world.batch(minute, 1, &[])).collect();
                world.replay(&batches[0], &batches[1]);
                let clients = batches.len() as u64;
                (batches, clients)
            }
            Self::Compaction => {
                let old: Vec<_> = (11..15).map(|minute| world.batch(minute, 1, &[])).collect();
                answered(&world, &SHARES, &old).await;
                let batches = [1, 2].map(|minute| world.batch(minute, 1, &[]));
                for (old, batch) in old.iter().zip(&batches) {
                    world.replay(old, batch);
                }
                (batches.to_vec(), 0)
            }
            Self::Unusable => {
                let refused = [0, 1].map(|packet| (packet, FaultKind::QueryPointRefused));
                (vec![world.batch(1, 2, &refused), world.batch(2, 1, &[])], 1)
            }
        };
        let peer = Setup {
            marks: setup.marks,
            ..Setup::of(share.peer())
        };
        world.run(&peer, &intakes(&batches)).await.unwrap();
        let aggregate = [Task::Aggregate(window())];
        let tasks = match self {
            Self::Parts => intakes(&batches).into_iter().chain(in_parts(&[2])).collect(),
            Self::Keys(_) => batches.into_iter().map(Task::IntakeAnyway).chain(aggregate).collect(),
            // The plan is of another window than the records are marked in: its mark isn't there yet.
            Self::Marked => [Task::Establish(1)]
                .into_iter()
                .chain(intakes(&batches))
                .chain([Task::Aggregate(other_window())])
                .collect(),
            Self::Group | Self::Listed => [Task::IntakeAll(batches)].into_iter().chain(aggregate).collect(),
            Self::Compaction => {
                let [one, two] = [0, 1].map(|n| Task::Intake(batches[n].clone()));
                vec![one, Task::Compact, two]
            }
            _ => intakes(&batches).into_iter().chain(aggregate).collect(),
        };
        match self {
            Self::Batches(format) => setup.format = format,
            Self::Streamed(format) => (setup.format, setup.in_memory) = (format, TINY),
            Self::Replay => setup.format = ValidationFormat::SingleObject,
            Self::Listed => setup.in_memory = listing(),
            Self::BelowFloor => setup.min_clients = 100,
            Self::Keys([first, _]) => setup.mounts = first,
            _ => {}
        }
        let clients = if matches!(self, Self::BelowFloor) { 0 } else { clients };
        let mut scene = Scene::new(world, setup, tasks, clients);
        if let Self::Keys([first, again]) = self {
            scene.again.mounts = again;
            // With other keys another record may come first.
            scene.has_one_end = first == again;
            scene.truth.lacks_a_key = [first, again].contains(&Mounts::One);
        }
        scene.truth.marked = setup.marks;
        // A worker that stops between its claims and its records finds them as another's when it comes back, and the
        // original loses what is in the replay as well: rule 1.
        scene.has_one_end &= !matches!(self, Self::Group | Self::Listed);
        scene
    }
}
