//! Several workers at once. Small cases: every order of their calls, but for orders that only swap calls which don't
//! concern each other (sleep sets, Godefroid 1996). Larger ones: orders, faults and crashes drawn from a seed.

use std::sync::atomic::Ordering;

use facilitator_core::formats::work::Share;
use facilitator_core::sample::FaultKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::{Truth, difference};
use crate::gate::{Fault, Gate, Op};
use crate::stops::Counts;
use crate::world::{Build, Content, Mounts, SHARES, Setup, TINY, Task, Worker, World, other_window, window};

/// Workers in a world.
pub struct Case {
    pub name: &'static str,
    pub world: World,
    pub begin: Content,
    pub truth: Truth,
    pub workers: Vec<(Setup, Vec<Task>)>,
    /// Whether what is there at the end doesn't depend on the order.
    pub same_bytes: bool,
}

impl Case {
    pub fn new(name: &'static str, world: World, workers: Vec<(Setup, Vec<Task>)>, same_bytes: bool) -> Self {
        Self {
            name,
            begin: world.content(),
            truth: Truth::of(&world),
            world,
            workers,
            same_bytes,
        }
    }

    fn restart(&mut self) {
        self.world.reset(&self.begin);
        self.truth.restart(&self.begin);
    }

    /// What one worker after another leaves, run until nothing changes any more.
    async fn expected(&mut self) -> Result<Option<Content>, String> {
        if !self.same_bytes {
            return Ok(None);
        }
        self.restart();
        self.settle(None).await?;
        Ok(Some(self.world.content()))
    }

    /// Reruns every worker until nothing changes.
    async fn settle(&mut self, expected: Option<&Content>) -> Result<(), String> {
        for _ in 0..4 {
            let before = self.world.content();
            for (setup, tasks) in &self.workers {
                self.world.run(setup, tasks).await.map_err(|error| error.to_string())?;
                self.truth.check(&self.world)?;
            }
            if before == self.world.content() {
                return match expected.and_then(|expected| difference(&before, expected)) {
                    Some(difference) => Err(difference),
                    None => Ok(()),
                };
            }
        }
        Err("reruns go on changing things".into())
    }

    async fn checked_step(&mut self, worker: &mut Worker<'_>, fault: Fault) -> Result<(), String> {
        let Some(op) = worker.next() else { return Ok(()) };
        worker.step(fault).await;
        if op.changes() {
            self.truth
                .check(&self.world)
                .map_err(|detail| format!("after {}: {detail}", op.name))?;
        }
        Ok(())
    }

    /// Every order of two or more workers' calls. At most `limit` runs.
    pub async fn every_order(&mut self, limit: usize, counts: &Counts) {
        let expected = match self.expected().await {
            Ok(expected) => expected,
            Err(detail) => return counts.violation(format!("{}, one after another: {detail}", self.name)),
        };
        let mut path: Vec<Choice> = Vec::new();
        for runs in 0.. {
            if runs == limit {
                return counts.violation(format!("{}: more than {limit} orders, not all tried", self.name));
            }
            match self.one_order(&mut path, expected.as_ref()).await {
                Ok(true) => {
                    counts.interleavings.fetch_add(1, Ordering::Relaxed);
                }
                // Another order, tried before, differs only in calls that don't concern each other.
                Ok(false) => {}
                Err(detail) => {
                    let order: Vec<_> = path.iter().map(|choice| choice.chosen).collect();
                    return counts.violation(format!("{}, order {order:?}: {detail}", self.name));
                }
            }
            while path.last_mut().is_some_and(|choice| !choice.advance()) {
                path.pop();
            }
            if path.is_empty() {
                return;
            }
        }
    }

    /// Runs along `path` and on from its end. `false`: redundant.
    async fn one_order(&mut self, path: &mut Vec<Choice>, expected: Option<&Content>) -> Result<bool, String> {
        self.restart();
        let specs = self.workers.clone();
        let gates: Vec<_> = specs.iter().map(|_| Gate::closed()).collect();
        let processors: Vec<_> = specs
            .iter()
            .zip(&gates)
            .map(|((setup, _), gate)| self.world.processor(setup, gate))
            .collect();
        let mut workers = Vec::new();
        for ((processor, gate), (_, tasks)) in processors.iter().zip(&gates).zip(&specs) {
            workers.push(Worker::begin(gate.clone(), processor, tasks).await);
        }
        let mut depth = 0;
        loop {
            if depth == path.len() {
                let next: Vec<Option<Op>> = workers.iter().map(Worker::next).collect();
                if next.iter().all(Option::is_none) {
                    break;
                }
                let sleeping = path
                    .last()
                    .map_or_else(|| vec![false; next.len()], Choice::sleeping_after);
                match Choice::first(next, sleeping) {
                    Some(choice) => path.push(choice),
                    None => return Ok(false),
                }
            }
            let chosen = path[depth].chosen;
            self.checked_step(&mut workers[chosen], Fault::None).await?;
            depth += 1;
        }
        for worker in &workers {
            if let Some(Err(error)) = &worker.ended {
                return Err(format!("an error without a fault: {error}"));
            }
        }
        drop(workers);
        self.settle(expected).await?;
        Ok(true)
    }

    /// One order drawn from `seed`, with answers lost, puts done twice, and workers that crash and begin again.
    pub async fn random_order(&mut self, seed: u64, expected: Option<&Content>) -> Result<(), String> {
        let mut rng = StdRng::seed_from_u64(seed);
        self.restart();
        let specs = self.workers.clone();
        let gates: Vec<_> = specs.iter().map(|_| Gate::closed()).collect();
        let processors: Vec<_> = specs
            .iter()
            .zip(&gates)
            .map(|((setup, _), gate)| self.world.processor(setup, gate))
            .collect();
        let mut workers = Vec::new();
        for ((processor, gate), (_, tasks)) in processors.iter().zip(&gates).zip(&specs) {
            workers.push(Worker::begin(gate.clone(), processor, tasks).await);
        }
        // Runs of one worker, then another: even shares would hardly ever let one overtake the other by far.
        let mut lives = 2 * workers.len();
        loop {
            let alive: Vec<usize> = (0..workers.len()).filter(|n| workers[*n].next().is_some()).collect();
            let failed = (0..workers.len()).find(|n| matches!(workers[*n].ended, Some(Err(_))));
            let begin_again = match failed {
                Some(n) if lives > 0 => Some(n),
                _ if alive.is_empty() => break,
                _ if lives > 0 && rng.random_ratio(1, 40) => Some(alive[rng.random_range(0..alive.len())]),
                _ => None,
            };
            if let Some(n) = begin_again {
                lives -= 1;
                workers[n] = Worker::begin(gates[n].clone(), &processors[n], &specs[n].1).await;
                continue;
            }
            let chosen = alive[rng.random_range(0..alive.len())];
            for _ in 0..rng.random_range(1..8) {
                let fault = match rng.random_range(0..60) {
                    0 => Fault::LoseAnswer,
                    1 => Fault::Duplicate,
                    _ => Fault::None,
                };
                self.checked_step(&mut workers[chosen], fault).await?;
            }
        }
        drop(workers);
        self.settle(expected).await
    }

    /// Orders drawn from the seeds `from..to`.
    pub async fn random_orders(&mut self, from: u64, to: u64, counts: &Counts) {
        let expected = match self.expected().await {
            Ok(expected) => expected,
            Err(detail) => return counts.violation(format!("{}, one after another: {detail}", self.name)),
        };
        for seed in from..to {
            counts.interleavings.fetch_add(1, Ordering::Relaxed);
            if let Err(detail) = self.random_order(seed, expected.as_ref()).await {
                counts.violation(format!("{}, seed {seed}: {detail}", self.name));
            }
        }
    }
}

/// Which worker goes next, at one point of an order.
struct Choice {
    next: Vec<Option<Op>>,
    /// Workers whose turn here was tried already, or is the same as one tried before.
    done: Vec<bool>,
    chosen: usize,
}

impl Choice {
    fn first(next: Vec<Option<Op>>, sleeping: Vec<bool>) -> Option<Self> {
        let mut choice = Self {
            next,
            done: sleeping,
            chosen: 0,
        };
        choice.choose().then_some(choice)
    }

    fn choose(&mut self) -> bool {
        match (0..self.next.len()).find(|n| self.next[*n].is_some() && !self.done[*n]) {
            Some(chosen) => {
                self.chosen = chosen;
                true
            }
            None => false,
        }
    }

    fn advance(&mut self) -> bool {
        self.done[self.chosen] = true;
        self.choose()
    }

    /// Who needn't go right after the chosen one: going before it was tried, and comes to the same.
    fn sleeping_after(&self) -> Vec<bool> {
        let chosen = self.next[self.chosen].as_ref();
        let same = |op: &Option<Op>| {
            op.as_ref()
                .zip(chosen)
                .is_some_and(|(op, chosen)| op.is_independent_of(chosen))
        };
        (0..self.next.len())
            .map(|n| n != self.chosen && self.done[n] && same(&self.next[n]))
            .collect()
    }
}

pub async fn answered(world: &World, shares: &[Share], batches: &[facilitator_core::formats::names::BatchId]) {
    let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
    for share in shares {
        world.run(&Setup::of(*share), &intakes).await.unwrap();
    }
}

/// Two workers that take the same batch in.
pub async fn same_intake(build: Build) -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::WrongDimension)]);
    let worker = (
        Setup {
            build,
            ..Setup::of(Share::First)
        },
        vec![Task::Intake(batch)],
    );
    Case::new("two intakes", world, vec![worker.clone(), worker], true)
}

/// Two workers that take the same batch in as a large one, of which a packet comes twice.
pub async fn same_large_intake() -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::DuplicatePayload)]);
    let worker = (
        Setup {
            in_memory: TINY,
            ..Setup::of(Share::First)
        },
        vec![Task::Intake(batch)],
    );
    Case::new("two large intakes", world, vec![worker.clone(), worker], true)
}

/// Two workers with different keys that take the same batch in.
pub async fn intakes_with_other_keys(build: Build) -> Case {
    let world = World::new();
    let batch = world.batch_of_two_keys(1, 1);
    let worker = |mounts| {
        (
            Setup {
                mounts,
                build,
                ..Setup::of(Share::First)
            },
            vec![Task::IntakeAnyway(batch.clone())],
        )
    };
    Case::new(
        "two intakes, other keys",
        world,
        vec![worker(Mounts::One), worker(Mounts::Both)],
        false,
    )
}

/// Two workers that sum the same window.
pub async fn same_window() -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::InvalidProof)]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = (Setup::of(Share::Second), vec![Task::Aggregate(window())]);
    Case::new("two aggregations", world, vec![worker.clone(), worker], true)
}

/// Two workers that sum windows which share time.
pub async fn overlapping_windows() -> Case {
    let world = World::new();
    let batch = world.batch(1, 1, &[]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = |window| (Setup::of(Share::First), vec![Task::Aggregate(window)]);
    Case::new(
        "overlapping windows",
        world,
        vec![worker(window()), worker(other_window())],
        false,
    )
}

/// One worker takes a batch in while another sums its window.
pub async fn intake_and_window() -> Case {
    let world = World::new();
    let (before, during) = (world.batch(1, 1, &[]), world.batch(2, 1, &[]));
    answered(&world, &SHARES, &[before]).await;
    answered(&world, &[Share::Second], std::slice::from_ref(&during)).await;
    let of = Setup::of(Share::First);
    Case::new(
        "an intake and an aggregation",
        world,
        vec![(of, vec![Task::Intake(during)]), (of, vec![Task::Aggregate(window())])],
        false,
    )
}

/// One party sums its window while the other answers late.
pub async fn late_peer() -> Case {
    let world = World::new();
    let (before, during) = (world.batch(1, 1, &[]), world.batch(2, 1, &[]));
    answered(&world, &SHARES, &[before]).await;
    answered(&world, &[Share::First], std::slice::from_ref(&during)).await;
    let workers = vec![
        (Setup::of(Share::First), vec![Task::Aggregate(window())]),
        (Setup::of(Share::Second), vec![Task::Intake(during)]),
    ];
    Case::new("an aggregation and the peer's intake", world, workers, false)
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
        world.batch_of_two_keys(3, 1),
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
    Case::new("everything at once", world, workers, false)
}

/// Both windows and both parties, three workers.
pub async fn windows_and_crashes() -> Case {
    let world = World::new();
    let batch = world.batch(1, 2, &[(1, FaultKind::InvalidProof)]);
    answered(&world, &SHARES, std::slice::from_ref(&batch)).await;
    let worker = |window| (Setup::of(Share::First), vec![Task::Aggregate(window)]);
    let workers = vec![worker(window()), worker(other_window()), worker(window())];
    Case::new("overlapping windows, three workers", world, workers, false)
}
