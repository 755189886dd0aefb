//! One worker, stopped before and after every call, once and twice; every answer lost; every put done twice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::sample::FaultKind;

use crate::check::{Truth, difference};
use crate::gate::{Fault, Gate};
use crate::overrides;
use crate::world::{Build, Content, Mounts, SHARES, Setup, TINY, Task, Worker, World, in_parts, window};

/// What was tried and what was found.
#[derive(Default)]
pub struct Counts {
    pub points: AtomicUsize,
    pub pairs: AtomicUsize,
    pub interleavings: AtomicUsize,
    pub violations: Mutex<Vec<String>>,
}

impl Counts {
    pub fn violation(&self, detail: String) {
        self.violations.lock().unwrap().push(detail);
    }
}

/// A world, where it begins, and what a worker does in it.
pub struct Scene {
    pub name: String,
    pub world: World,
    pub begin: Content,
    pub truth: Truth,
    pub setup: Setup,
    /// How the rerun is set up.
    pub again: Setup,
    pub tasks: Vec<Task>,
}

impl Scene {
    /// Two batches of which one has a packet to subtract and one that only one party opens; the peer has answered.
    pub async fn of(share: Share, format: ValidationFormat, build: Build) -> Self {
        let world = World::new();
        let faults = [(1, FaultKind::InvalidProof), (2, FaultKind::WrongDimension)];
        let batches = [world.batch(1, 3, &faults), world.batch(2, 1, &[])];
        let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
        world.run(&Setup::of(share.peer()), &intakes).await.unwrap();
        let tasks = intakes.into_iter().chain([Task::Aggregate(window())]).collect();
        let setup = Setup {
            format,
            build,
            ..Setup::of(share)
        };
        Self::new(format!("{share:?} {format:?} {build:?}"), world, setup, tasks)
    }

    /// Reruns are set up as the first run.
    pub fn new(name: String, world: World, setup: Setup, tasks: Vec<Task>) -> Self {
        Self {
            name,
            begin: world.content(),
            truth: Truth::of(&world),
            world,
            setup,
            again: setup,
            tasks,
        }
    }

    /// As [`Scene::of`], worked on as large batches are; one packet comes twice, so that a second pass is needed.
    pub async fn streamed(share: Share, format: ValidationFormat, build: Build) -> Self {
        let world = World::new();
        let faults = [(1, FaultKind::InvalidProof), (3, FaultKind::DuplicatePayload)];
        let batches = [world.batch(1, 4, &faults), world.batch(2, 1, &[])];
        let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
        world.run(&Setup::of(share.peer()), &intakes).await.unwrap();
        let tasks = intakes.into_iter().chain([Task::Aggregate(window())]).collect();
        let setup = Setup {
            format,
            build,
            in_memory: TINY,
            ..Setup::of(share)
        };
        Self {
            name: format!("{share:?} {format:?} {build:?}, streamed"),
            begin: world.content(),
            truth: Truth::of(&world),
            world,
            setup,
            again: setup,
            tasks,
        }
    }

    /// The same, the window summed in two parts.
    pub async fn in_parts(share: Share) -> Self {
        let mut scene = Self::of(share, ValidationFormat::ThreeObjects, Build::Right).await;
        scene.tasks.pop();
        scene.tasks.extend(in_parts(&[2]));
        scene.name = format!("{share:?} in parts");
        scene
    }

    /// A batch for two keys, with one key mounted and then both, or the other way round.
    pub async fn of_mounts(share: Share, mounts: [Mounts; 2]) -> Self {
        let world = World::new();
        let batch = world.batch_of_two_keys(1, 2);
        world
            .run(&Setup::of(share.peer()), &[Task::Intake(batch.clone())])
            .await
            .unwrap();
        let [setup, again] = mounts.map(|mounts| Setup {
            mounts,
            ..Setup::of(share)
        });
        let tasks = vec![Task::IntakeAnyway(batch), Task::Aggregate(window())];
        let name = format!("{share:?} {mounts:?}");
        Self {
            name,
            begin: world.content(),
            truth: Truth::of(&world),
            world,
            setup,
            again,
            tasks,
        }
    }

    fn restart(&mut self) {
        self.world.reset(&self.begin);
        self.truth.restart(&self.begin);
    }

    /// Runs up to before call `stop` (or to the end), with a fault at one call, and checks after every change. The calls
    /// that passed, and which of them were puts.
    async fn run_to(
        &mut self,
        setup: &Setup,
        stop: Option<usize>,
        fault: Option<(usize, Fault)>,
    ) -> Result<Vec<bool>, String> {
        let gate = Gate::closed();
        let processor = self.world.processor(setup, &gate);
        let mut worker = Worker::begin(gate.clone(), &processor, &self.tasks).await;
        let mut passed = Vec::new();
        while let Some(op) = worker.next() {
            if stop.is_some_and(|stop| passed.len() >= stop) {
                break;
            }
            let fault = fault
                .filter(|(at, _)| *at == passed.len())
                .map_or(Fault::None, |(_, fault)| fault);
            worker.step(fault).await;
            passed.push(op.changes());
            if op.changes() {
                self.truth
                    .check(&self.world)
                    .map_err(|detail| format!("after call {} ({}): {detail}", passed.len(), op.name))?;
            }
        }
        if worker.ended.is_some() && gate.abandoned() > 0 {
            return Err(format!(
                "{} uploads were neither committed nor aborted",
                gate.abandoned()
            ));
        }
        match (&worker.ended, fault) {
            (Some(Err(error)), None) => Err(format!("an error without a fault: {error}")),
            (Some(Err(error)), Some(_)) if !error.is_retryable() => {
                Err(format!("an error that isn't retryable: {error}"))
            }
            _ => Ok(passed),
        }
    }

    async fn complete(&mut self, expected: Option<&Content>) -> Result<(), String> {
        let again = self.again;
        let outcomes = self
            .world
            .run(&again, &self.tasks)
            .await
            .map_err(|error| error.to_string())?;
        self.truth.check(&self.world)?;
        if let Some(expected) = expected {
            if !outcomes.iter().all(crate::world::Outcome::is_final) {
                return Err(format!("the rerun isn't final: {outcomes:?}"));
            }
            if let Some(difference) = difference(&self.world.content(), expected) {
                return Err(difference);
            }
        }
        let before = self.world.content();
        self.world
            .run(&again, &self.tasks)
            .await
            .map_err(|error| error.to_string())?;
        let left = self
            .world
            .places
            .iter()
            .map(|mailbox| mailbox.open_uploads())
            .sum::<usize>();
        if before != self.world.content() || left > 0 {
            return Err(format!("another rerun changes things, or {left} uploads are left"));
        }
        Ok(())
    }

    /// The calls of an undisturbed run, which of them are puts, and what it leaves.
    async fn undisturbed(&mut self) -> Result<(Vec<bool>, Content), String> {
        self.restart();
        let setup = self.setup;
        let calls = self.run_to(&setup, None, None).await?;
        Ok((calls, self.world.content()))
    }

    /// Every single fault: a stop before each call, an answer lost of each call, a put done twice of each put.
    pub async fn singles(&mut self, counts: &Counts) {
        let (calls, expected) = match self.undisturbed().await {
            Ok(found) => found,
            Err(detail) => return counts.violation(format!("{}, undisturbed: {detail}", self.name)),
        };
        // With other keys mounted another record may come first: then only what always holds is asked for.
        let same = self.setup.mounts == self.again.mounts;
        let expected = Some(expected).filter(|_| same);
        let lost = (0..calls.len()).map(|at| (None, Some((at, Fault::LoseAnswer))));
        let twice = calls
            .iter()
            .enumerate()
            .filter(|(_, put)| **put)
            .map(|(at, _)| (None, Some((at, Fault::Duplicate))));
        let stops = (0..=calls.len()).map(|stop| (Some(stop), None));
        let setup = self.setup;
        for (stop, fault) in stops.chain(lost).chain(twice) {
            counts.points.fetch_add(1, Ordering::Relaxed);
            self.restart();
            let result = match self.run_to(&setup, stop, fault).await {
                Ok(_) => self.complete(expected.as_ref()).await,
                Err(detail) => Err(detail),
            };
            if let Err(detail) = result {
                counts.violation(format!("{}, stop {stop:?}, fault {fault:?}: {detail}", self.name));
            }
        }
    }

    /// Every pair of stops: of the worker, and of its rerun. `part` of `parts` takes its share of the first stops.
    pub async fn pairs(&mut self, part: usize, parts: usize, counts: &Counts) {
        let (calls, expected) = match self.undisturbed().await {
            Ok(found) => found,
            Err(detail) => return counts.violation(format!("{}, undisturbed: {detail}", self.name)),
        };
        let same = self.setup.mounts == self.again.mounts;
        let (setup, again) = (self.setup, self.again);
        for first in (0..=calls.len()).filter(|first| first % parts == part) {
            let mut second = 0;
            loop {
                counts.pairs.fetch_add(1, Ordering::Relaxed);
                self.restart();
                let result = self
                    .pair(&setup, &again, first, second, Some(&expected).filter(|_| same))
                    .await;
                match result {
                    Ok(true) => second += 1,
                    Ok(false) => break,
                    Err(detail) => {
                        counts.violation(format!("{}, stops {first} and {second}: {detail}", self.name));
                        break;
                    }
                }
            }
        }
    }

    /// Whether there is a later second stop.
    async fn pair(
        &mut self,
        setup: &Setup,
        again: &Setup,
        first: usize,
        second: usize,
        expected: Option<&Content>,
    ) -> Result<bool, String> {
        self.run_to(setup, Some(first), None).await?;
        let passed = self.run_to(again, Some(second), None).await?.len();
        self.complete(expected).await?;
        Ok(passed == second)
    }
}

/// All scenes whose single faults are tried.
pub async fn single_scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for share in SHARES {
        for format in [ValidationFormat::ThreeObjects, ValidationFormat::SingleObject] {
            scenes.push(Scene::of(share, format, Build::Right).await);
            scenes.push(Scene::streamed(share, format, Build::Right).await);
        }
        scenes.push(Scene::in_parts(share).await);
        for mounts in [
            [Mounts::One, Mounts::Both],
            [Mounts::Both, Mounts::One],
            [Mounts::One, Mounts::One],
        ] {
            scenes.push(Scene::of_mounts(share, mounts).await);
        }
        scenes.push(crate::replays::scene(share).await);
    }
    scenes.push(overrides::scene(Share::First, 2).await);
    scenes.push(overrides::scene(Share::Second, 1).await);
    let mut below = Scene::of(Share::First, ValidationFormat::ThreeObjects, Build::Right).await;
    below.setup.min_clients = 100;
    below.again = below.setup;
    below.name = "below the floor".into();
    scenes.push(below);
    scenes
}
