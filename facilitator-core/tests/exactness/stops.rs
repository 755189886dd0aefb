//! One worker, stopped before and after every call, once and twice; each call failing in every way in which it can.

use std::collections::{BTreeSet, HashSet};

use facilitator_core::formats::ledger::{Verdict, WindowResult};

use crate::check::{difference, in_folder};
use crate::gate::{Fault, Gate, Kind, Op};
use crate::marks::check_identity;
use crate::truth::{Truth, Violation};
use crate::work::{Outcome, Task, Worker};
use crate::world::{Content, Place, Setup, World, digest_of, place};

/// What was tried and what was found.
#[derive(Debug, Default)]
pub struct Counts {
    pub points: usize,
    pub pairs: usize,
    pub interleavings: usize,
    pub violations: Vec<Violation>,
    /// Kinds of calls, with the ledger's folder for a change of the ledger, before which a worker stopped.
    pub stopped_before: BTreeSet<(Kind, Option<String>)>,
}

impl Counts {
    pub fn tried(&self) -> usize {
        self.points + self.pairs + self.interleavings
    }

    /// Of a search that ends with a violation before it began.
    pub fn of(violation: Violation) -> Self {
        Self {
            violations: vec![violation],
            ..Self::default()
        }
    }

    pub fn add(&mut self, more: Self) {
        self.points += more.points;
        self.pairs += more.pairs;
        self.interleavings += more.interleavings;
        self.violations.extend(more.violations);
        self.stopped_before.extend(more.stopped_before);
    }
}

/// A world, where it begins, and what a worker does in it.
pub struct Scene {
    pub world: World,
    pub begin: Content,
    pub truth: Truth,
    pub setup: Setup,
    /// How the rerun is set up.
    pub again: Setup,
    pub tasks: Vec<Task>,
    /// Clients in what is summed where nothing goes wrong.
    pub clients: u64,
    /// Whether all that is there at the end is the same wherever a worker was stopped.
    pub has_one_end: bool,
    /// Contents from which a rerun was seen to come to the right end, with whether the end was asked for: a worker that is
    /// gone leaves nothing but them.
    completed: HashSet<([u8; 32], bool)>,
}

impl Scene {
    /// Reruns are set up as the first run.
    pub fn new(world: World, setup: Setup, tasks: Vec<Task>, clients: u64) -> Self {
        Self {
            begin: world.content(),
            truth: Truth::of(&world),
            world,
            setup,
            again: setup,
            tasks,
            clients,
            has_one_end: true,
            completed: HashSet::new(),
        }
    }

    fn set_back(&mut self, content: &Content) {
        self.world.reset(content);
        self.truth.restart(content);
    }

    fn restart(&mut self) {
        self.world.reset(&self.begin);
        self.truth.restart(&self.begin);
    }

    /// Runs up to before call `stop` (or to the end), with a fault at one call, and checks after every change. The calls
    /// that passed. As long as no fault was met they must be those that are `known` of an earlier run.
    async fn run_to(
        &mut self,
        setup: &Setup,
        stop: Option<usize>,
        fault: Option<(usize, Fault)>,
        known: &[Op],
    ) -> Result<Vec<Op>, Violation> {
        let gate = Gate::closed();
        let processor = self.world.processor(setup, &gate);
        let mut worker = Worker::begin(gate.clone(), &processor, &self.tasks).await;
        let mut passed = Vec::new();
        while let Some(op) = worker.next() {
            let at = passed.len();
            if stop.is_some_and(|stop| at >= stop) {
                break;
            }
            let is_before_fault = fault.is_none_or(|(fault, _)| at <= fault);
            if is_before_fault && known.get(at).is_some_and(|known| *known != op) {
                return Err(format!("not deterministic: call {at} is {op:?} and was {:?}", known[at]).into());
            }
            let fault = fault
                .filter(|(fault, _)| *fault == at)
                .map_or(Fault::None, |(_, fault)| fault);
            worker.step(fault).await;
            if op.changes() {
                self.truth
                    .check(&self.world)
                    .map_err(|violation| violation.at(format!("after call {at} ({})", op.name)))?;
            }
            passed.push(op);
        }
        if worker.ended.is_some() && gate.abandoned() > 0 {
            let left = gate.abandoned();
            return Err(format!("{left} uploads were neither committed nor aborted").into());
        }
        match (&worker.ended, fault) {
            (Some(Err(error)), None) => Err(format!("an error without a fault: {error}").into()),
            (Some(Err(error)), Some((_, fault))) if !fault.may_fail() => {
                Err(format!("an error where none need be: {error}").into())
            }
            (Some(Err(error)), Some(_)) if !error.is_retryable() => {
                Err(format!("an error that isn't retryable: {error}").into())
            }
            _ => Ok(passed),
        }
    }

    async fn rerun(&self) -> Result<Vec<Outcome>, Violation> {
        let outcomes = self.world.run(&self.again, &self.tasks).await;
        outcomes.map_err(|error| format!("a rerun ends in an error: {error}").into())
    }

    /// Reruns, to what is expected, and then changes nothing more.
    async fn complete(&mut self, expected: Option<&Content>) -> Result<(), Violation> {
        let from = (digest_of(&self.world.content()), expected.is_some());
        if self.completed.contains(&from) {
            return Ok(());
        }
        let outcomes = self.rerun().await?;
        check_identity(self.again.share, &self.world.content(), &outcomes)?;
        self.truth.check(&self.world)?;
        if let Some(expected) = expected {
            if !outcomes.iter().all(Outcome::is_final) {
                return Err(format!("the rerun isn't final: {outcomes:?}").into());
            }
            if let Some(difference) = difference(&self.world.content(), expected) {
                return Err(difference.into());
            }
        }
        let before = self.world.content();
        self.rerun().await?;
        let left: usize = self.world.places.iter().map(|mailbox| mailbox.open_uploads()).sum();
        if before != self.world.content() || left > 0 {
            return Err(format!("another rerun changes things, or {left} uploads are left").into());
        }
        self.completed.insert(from);
        Ok(())
    }

    /// The calls of an undisturbed run, and what it leaves; `None` where that isn't the only end: then only what always holds
    /// is asked for.
    async fn undisturbed(&mut self) -> Result<(Vec<Op>, Option<Content>), Violation> {
        self.restart();
        let setup = self.setup;
        let calls = self.run_to(&setup, None, None, &[]).await?;
        self.truth.check_nobody_is_lost(&self.world)?;
        let summed = self.summed()?;
        if summed != self.clients {
            let clients = self.clients;
            return Err(Violation::of_truth(format!(
                "{summed} clients are summed, and {clients} should be"
            )));
        }
        Ok((calls, self.has_one_end.then(|| self.world.content())))
    }

    /// Clients in the sums that weren't there at the beginning.
    fn summed(&self) -> Result<u64, String> {
        let ledger = place(self.setup.share, Place::Ledger);
        let mut clients = 0;
        for (name, bytes) in in_folder(&self.world.content()[ledger], "results") {
            let result: WindowResult = crate::check::parse(name, bytes)?;
            if result.verdict == Verdict::Summed && !self.begin[ledger].contains_key(name) {
                clients += result.clients;
            }
        }
        Ok(clients)
    }

    /// Every single fault: a stop before each call, and each way in which each call can fail.
    pub async fn singles(&mut self) -> Counts {
        let (calls, expected) = match self.undisturbed().await {
            Ok(found) => found,
            Err(violation) => return Counts::of(violation.at("undisturbed")),
        };
        let mut counts = Counts::default();
        counts.stopped_before.extend(calls.iter().map(|op| {
            let folder = op.ledger_folder().filter(|_| op.changes());
            (op.kind, folder.map(str::to_owned))
        }));
        let stops = (0..=calls.len()).map(|stop| (Some(stop), None));
        let faults = calls.iter().enumerate().flat_map(|(at, op)| {
            let faults = Fault::ALL.into_iter().filter(|fault| fault.is_of(op));
            faults.map(move |fault| (None, Some((at, fault))))
        });
        let setup = self.setup;
        for (stop, fault) in stops.chain(faults) {
            counts.points += 1;
            self.restart();
            // Who is told of less may plan less: that is for a person to see, and no sum is wrong.
            let is_stale = matches!(fault, Some((_, Fault::StaleList)));
            let expected = expected.as_ref().filter(|_| !is_stale);
            let result = match self.run_to(&setup, stop, fault, &calls).await {
                Ok(_) => self.complete(expected).await,
                Err(violation) => Err(violation),
            };
            if let Err(violation) = result {
                counts
                    .violations
                    .push(violation.at(format!("stop {stop:?}, fault {fault:?}")));
            }
        }
        counts
    }

    /// Every pair of stops: of the worker, and of its rerun.
    pub async fn pairs(&mut self) -> Counts {
        let (calls, expected) = match self.undisturbed().await {
            Ok(found) => found,
            Err(violation) => return Counts::of(violation.at("undisturbed")),
        };
        let mut counts = Counts::default();
        for first in 0..=calls.len() {
            if let Err(violation) = self.pairs_with(first, &calls, expected.as_ref(), &mut counts).await {
                counts.violations.push(violation.at(format!("first stop {first}")));
            }
        }
        counts
    }

    async fn pairs_with(
        &mut self,
        first: usize,
        calls: &[Op],
        expected: Option<&Content>,
        counts: &mut Counts,
    ) -> Result<(), Violation> {
        let (setup, again) = (self.setup, self.again);
        self.restart();
        self.run_to(&setup, Some(first), None, calls).await?;
        let between = self.world.content();
        let mut known = Vec::new();
        for second in 0.. {
            self.set_back(&between);
            let at = |violation: Violation| violation.at(format!("second stop {second}"));
            known = self.run_to(&again, Some(second), None, &known).await.map_err(at)?;
            if known.len() < second {
                break;
            }
            counts.pairs += 1;
            self.complete(expected).await.map_err(at)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_run_of_other_calls_than_the_one_before_is_told() {
    let format = facilitator_core::formats::work::ValidationFormat::ThreeObjects;
    let plot = crate::scenes::Plot::Batches(format);
    let mut scene = plot.scene(facilitator_core::formats::work::Share::First).await;
    let setup = scene.setup;
    let (mut calls, _) = scene.undisturbed().await.unwrap();
    scene.restart();
    scene.run_to(&setup, None, None, &calls).await.unwrap();
    calls[5].name.push('x');
    scene.restart();
    let told = scene.run_to(&setup, None, None, &calls).await.unwrap_err();
    assert!(told.detail.starts_with("not deterministic: call 5"), "{told}");
}
