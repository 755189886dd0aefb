//! Several workers at once. Small cases: every order of their calls, but for orders that only swap calls which don't
//! concern each other (sleep sets, Godefroid 1996). Larger ones: orders, faults and crashes drawn from a seed.
//!
//! Sleep sets leave orders out, and no state of the stores: where two puts into different places may go in either order, each
//! is tried first, and what is in the stores is looked at; only then isn't the other put once more, because both together
//! were seen. A test compares the states with those that are seen when no two changes may be swapped.

use std::collections::HashSet;
use std::sync::Arc;

use facilitator_core::processor::Processor;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::difference;
use crate::gate::{Fault, Gate, Op};
use crate::marks::check_identity;
use crate::stops::Counts;
use crate::truth::{Truth, Violation};
use crate::work::{Task, Worker};
use crate::world::{Content, Mounts, Setup, World, digest_of};

/// Where a worker begins, and begins again after a crash.
struct Stand {
    gate: Arc<Gate>,
    processor: Processor,
}

impl Stand {
    async fn begin<'a>(&'a self, tasks: &'a [Task]) -> Worker<'a> {
        Worker::begin(self.gate.clone(), &self.processor, tasks).await
    }
}

/// Workers in a world.
pub struct Case {
    pub world: World,
    pub begin: Content,
    pub truth: Truth,
    pub workers: Vec<(Setup, Vec<Task>)>,
    /// Whether what is there at the end doesn't depend on the order.
    pub same_bytes: bool,
    /// No two changes are taken for independent of each other.
    pub swaps_no_changes: bool,
    /// The contents that were seen, where they are wanted.
    pub states: Option<HashSet<[u8; 32]>>,
    /// Contents from which reruns were seen to come to an end: workers that are gone leave nothing but them.
    pub settled: HashSet<[u8; 32]>,
}

impl Case {
    pub fn new(world: World, workers: Vec<(Setup, Vec<Task>)>, same_bytes: bool) -> Self {
        let mut truth = Truth::of(&world);
        truth.lacks_a_key = workers.iter().any(|(setup, _)| setup.mounts == Mounts::One);
        truth.marked = workers.iter().all(|(setup, _)| setup.marks);
        Self {
            begin: world.content(),
            truth,
            world,
            workers,
            same_bytes,
            swaps_no_changes: false,
            states: None,
            settled: HashSet::new(),
        }
    }

    fn restart(&mut self) {
        self.world.reset(&self.begin);
        self.truth.restart(&self.begin);
    }

    /// What one worker after another leaves, run until nothing changes any more.
    async fn expected(&mut self) -> Result<Option<Content>, Violation> {
        self.restart();
        self.settle(None).await?;
        self.settled.clear();
        Ok(self.same_bytes.then(|| self.world.content()))
    }

    /// Reruns every worker until nothing changes.
    async fn settle(&mut self, expected: Option<&Content>) -> Result<(), Violation> {
        let from = digest_of(&self.world.content());
        if self.settled.contains(&from) {
            return Ok(());
        }
        for _ in 0..4 {
            let before = self.world.content();
            for (setup, tasks) in &self.workers {
                let ended = self.world.run(setup, tasks).await;
                let outcomes = ended.map_err(|error| format!("a rerun ends in an error: {error}"))?;
                check_identity(setup.share, &self.world.content(), &outcomes)?;
                self.truth
                    .check(&self.world)
                    .map_err(|violation| violation.at("a rerun"))?;
            }
            if before == self.world.content() {
                if let Some(difference) = expected.and_then(|expected| difference(&before, expected)) {
                    return Err(difference.into());
                }
                self.settled.insert(from);
                return Ok(());
            }
        }
        Err("reruns go on changing things".to_owned().into())
    }

    async fn checked_step(&mut self, worker: &mut Worker<'_>, fault: Fault) -> Result<(), Violation> {
        let Some(op) = worker.next() else { return Ok(()) };
        worker.step(if fault.is_of(&op) { fault } else { Fault::None }).await;
        if op.changes() {
            if let Some(states) = &mut self.states {
                states.insert(digest_of(&self.world.content()));
            }
            let checked = self.truth.check(&self.world);
            checked.map_err(|violation| violation.at(format!("after {}", op.name)))?;
        }
        Ok(())
    }

    /// Every order of two or more workers' calls. At most `limit` runs.
    pub async fn every_order(&mut self, limit: usize) -> Counts {
        let expected = match self.expected().await {
            Ok(expected) => expected,
            Err(violation) => return Counts::of(violation.at("one after another")),
        };
        let mut counts = Counts::default();
        let mut path: Vec<Choice> = Vec::new();
        for runs in 0.. {
            if runs == limit {
                let tried = counts.interleavings;
                let violation = format!("more than {limit} runs, not every order tried ({tried})").into();
                counts.violations.push(violation);
                break;
            }
            match self.one_order(&mut path, expected.as_ref()).await {
                Ok(true) => counts.interleavings += 1,
                // Another order, tried before, differs only in calls that don't concern each other.
                Ok(false) => {}
                Err(violation) => {
                    let order: Vec<_> = path.iter().map(|choice| choice.chosen).collect();
                    counts.violations.push(violation.at(format!("order {order:?}")));
                    break;
                }
            }
            while path.last_mut().is_some_and(|choice| !choice.advance()) {
                path.pop();
            }
            if path.is_empty() {
                break;
            }
        }
        counts
    }

    fn stands(&self, specs: &[(Setup, Vec<Task>)]) -> Vec<Stand> {
        let stand = |(setup, _): &(Setup, Vec<Task>)| {
            let gate = Gate::closed();
            let processor = self.world.processor(setup, &gate);
            Stand { gate, processor }
        };
        specs.iter().map(stand).collect()
    }

    /// Runs along `path`, where workers must stand before the calls that they stood before, and on from its end. `false`:
    /// redundant.
    async fn one_order(&mut self, path: &mut Vec<Choice>, expected: Option<&Content>) -> Result<bool, Violation> {
        self.restart();
        let specs = self.workers.clone();
        let stands = self.stands(&specs);
        let mut workers = Vec::new();
        for (stand, (_, tasks)) in stands.iter().zip(&specs) {
            workers.push(stand.begin(tasks).await);
        }
        let mut depth = 0;
        loop {
            let next: Vec<Option<Op>> = workers.iter().map(Worker::next).collect();
            if let Some(choice) = path.get(depth)
                && choice.next != next
            {
                let was = &choice.next;
                return Err(format!("not deterministic: after {depth} calls {next:?}, and was {was:?}").into());
            }
            if depth == path.len() {
                if next.iter().all(Option::is_none) {
                    break;
                }
                let sleeping = path.last().map_or_else(
                    || vec![false; next.len()],
                    |last| last.sleeping_after(self.swaps_no_changes),
                );
                match Choice::first(next, sleeping) {
                    Some(choice) => path.push(choice),
                    None => return Ok(false),
                }
            }
            let chosen = path[depth].chosen;
            self.checked_step(&mut workers[chosen], Fault::None).await?;
            depth += 1;
        }
        for (worker, (setup, _)) in workers.iter().zip(&specs) {
            match &worker.ended {
                Some(Ok(outcomes)) => check_identity(setup.share, &self.world.content(), outcomes)?,
                Some(Err(error)) => return Err(format!("an error without a fault: {error}").into()),
                None => {}
            }
        }
        drop(workers);
        self.settle(expected).await?;
        Ok(true)
    }

    /// One order drawn from `seed`, with answers lost, puts done twice, and workers that crash and begin again.
    pub async fn random_order(&mut self, seed: u64, expected: Option<&Content>) -> Result<(), Violation> {
        let mut rng = StdRng::seed_from_u64(seed);
        self.restart();
        let specs = self.workers.clone();
        let stands = self.stands(&specs);
        let mut workers = Vec::new();
        for (stand, (_, tasks)) in stands.iter().zip(&specs) {
            workers.push(stand.begin(tasks).await);
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
                workers[n] = stands[n].begin(&specs[n].1).await;
                continue;
            }
            let chosen = alive[rng.random_range(0..alive.len())];
            for _ in 0..rng.random_range(1..8) {
                let fault = rng.random_range(0..30 * Fault::ALL.len());
                let fault = Fault::ALL.get(fault).copied().unwrap_or_default();
                self.checked_step(&mut workers[chosen], fault).await?;
            }
        }
        drop(workers);
        self.settle(expected).await
    }

    /// Orders drawn from so many seeds.
    pub async fn random_orders(&mut self, seeds: u64) -> Counts {
        let expected = match self.expected().await {
            Ok(expected) => expected,
            Err(violation) => return Counts::of(violation.at("one after another")),
        };
        let mut counts = Counts::default();
        for seed in 0..seeds {
            counts.interleavings += 1;
            if let Err(violation) = self.random_order(seed, expected.as_ref()).await {
                counts.violations.push(violation.at(format!("seed {seed}")));
            }
        }
        counts
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
    fn sleeping_after(&self, swaps_no_changes: bool) -> Vec<bool> {
        let chosen = self.next[self.chosen].as_ref();
        let same = |op: &Option<Op>| {
            op.as_ref().zip(chosen).is_some_and(|(op, chosen)| {
                op.is_independent_of(chosen) && !(swaps_no_changes && op.changes() && chosen.changes())
            })
        };
        (0..self.next.len())
            .map(|n| n != self.chosen && self.done[n] && same(&self.next[n]))
            .collect()
    }
}

#[tokio::test]
async fn fewer_orders_show_every_state_of_the_stores() {
    use crate::cases;
    use crate::world::Build;

    for of_windows in [false, true] {
        let mut seen = Vec::new();
        for swaps_no_changes in [false, true] {
            let mut case = match of_windows {
                false => cases::intakes_with_other_signers(Build::Right).await,
                true => cases::overlapping_windows().await,
            };
            case.swaps_no_changes = swaps_no_changes;
            case.states = Some(HashSet::new());
            let counts = case.every_order(20_000).await;
            assert!(counts.violations.is_empty(), "{:?}", counts.violations);
            seen.push((counts.interleavings, case.states.unwrap_or_default()));
        }
        let [(fewer, some), (more, all)] = &seen[..] else {
            unreachable!()
        };
        assert!(
            fewer < more && all.len() > 5,
            "{fewer} orders, {more} orders, {} states",
            all.len()
        );
        assert_eq!(some, all);
        eprintln!("{fewer} orders show the {} states of {more} orders", all.len());
    }
}
