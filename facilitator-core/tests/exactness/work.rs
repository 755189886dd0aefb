//! What workers do, and workers driven call by call.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use facilitator_core::aggregate::{AggregateOutcome, aggregate, aggregate_again, partial_sum, plan_shard};
use facilitator_core::claims::compact;
use facilitator_core::crypto::ClaimKey;
use facilitator_core::formats::claims::ClaimDay;
use facilitator_core::formats::names::{BatchId, BatchRange, BatchTime, Cut, WindowId};
use facilitator_core::formats::work::Approval;
use facilitator_core::identity::{ExpectedLedger, IdentityError, establish};
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in, take_in_all};
use facilitator_core::processor::{Processor, WorkError};
use jiff::SignedDuration;
use uuid::Uuid;

use crate::gate::{Fault, Gate, Op};
use crate::world::now;

pub fn window() -> WindowId {
    WindowId::parse("kittens-seen/202611200000-202611200100").unwrap()
}

/// A window that shares time with [`window`].
pub fn other_window() -> WindowId {
    WindowId::parse("kittens-seen/202611200000-202611200030").unwrap()
}

/// What a worker does.
#[derive(Clone, Debug)]
pub enum Task {
    Intake(BatchId),
    /// The last planning before the cutoff.
    IntakeAnyway(BatchId),
    /// Claimed together.
    IntakeAll(Vec<BatchId>),
    /// The claims of the day and of every mounted key.
    Compact,
    Aggregate(WindowId),
    PlanShard(WindowId, BatchRange),
    PartialSum(WindowId, BatchRange),
    /// Under an override that hasn't expired.
    Again(WindowId, u8),
    /// The same, by a worker that begins when it has.
    AgainTooLate(WindowId, u8),
    /// What every worker begins with: which ledger it is, this one where it is new.
    Establish(u128),
}

/// The ranges that a window's work is parted into by these cuts.
pub fn parted_at(cuts: impl Iterator<Item = Cut>) -> Vec<BatchRange> {
    let whole = BatchRange::whole(&window());
    let bounds: Vec<Cut> = [whole.begin()].into_iter().chain(cuts).chain([whole.end()]).collect();
    let range = |pair: &[Cut]| BatchRange::parse(&format!("{}-{}", pair[0], pair[1])).unwrap();
    bounds.windows(2).map(range).collect()
}

/// The same, by cuts before these minutes.
pub fn ranges(cuts: &[u8]) -> Vec<BatchRange> {
    let before = |minute: &u8| BatchTime::parse_compact(&format!("2026112000{minute:02}")).unwrap();
    parted_at(cuts.iter().map(before).map(Cut::before_minute))
}

/// The window summed in parts: every shard, every partial sum, then all together.
pub fn in_parts(cuts: &[u8]) -> Vec<Task> {
    let ranges = ranges(cuts);
    let shards = ranges.iter().map(|range| Task::PlanShard(window(), *range));
    let sums = ranges.iter().map(|range| Task::PartialSum(window(), *range));
    shards.chain(sums).chain([Task::Aggregate(window())]).collect()
}

/// How long the overrides of the tests are good for.
const OVERRIDE: SignedDuration = SignedDuration::from_secs(60);

fn approval(release: u8) -> Approval {
    Approval {
        release,
        expires_at_millis: (now() + OVERRIDE).as_millisecond(),
        approved_by: "somebody".into(),
        reason: "late batches".into(),
    }
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Intake(IntakeOutcome),
    Aggregate(AggregateOutcome),
    /// The ledger's id.
    Ledger(Uuid),
}

impl Outcome {
    /// Whether another run may end otherwise.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Intake(outcome) => !matches!(outcome, IntakeOutcome::Blocked { .. }),
            Self::Aggregate(outcome) => matches!(outcome, AggregateOutcome::Done { .. } | AggregateOutcome::Part),
            Self::Ledger(_) => true,
        }
    }
}

pub async fn run(processor: &Processor, tasks: &[Task]) -> Result<Vec<Outcome>, WorkError> {
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(match task {
            Task::Intake(batch) => Outcome::Intake(take_in(processor, batch, false).await?),
            Task::IntakeAnyway(batch) => Outcome::Intake(take_in(processor, batch, true).await?),
            Task::IntakeAll(batches) => {
                let wanted = |batch: &BatchId| Wanted {
                    batch: batch.clone(),
                    take_anyway: false,
                };
                let wanted: Vec<_> = batches.iter().map(wanted).collect();
                for result in take_in_all(processor, &wanted).await {
                    outcomes.push(Outcome::Intake(result?));
                }
                continue;
            }
            Task::Compact => {
                for mounted in processor.packet_keys.iter() {
                    let day = ClaimDay::of(window().start.timestamp());
                    compact(&*processor.mailboxes.ledger, ClaimKey::of(&mounted.key).name(), day).await?;
                }
                continue;
            }
            Task::Aggregate(window) => Outcome::Aggregate(aggregate(processor, window, &[now()]).await?),
            Task::PlanShard(window, range) => Outcome::Aggregate(plan_shard(processor, window, &[now()], range).await?),
            Task::PartialSum(window, range) => Outcome::Aggregate(partial_sum(processor, window, range).await?),
            Task::Again(window, release) => {
                let approval = approval(*release);
                Outcome::Aggregate(aggregate_again(processor, window, &approval, now(), &now).await?)
            }
            Task::AgainTooLate(window, release) => {
                let approval = approval(*release);
                Outcome::Aggregate(aggregate_again(processor, window, &approval, now(), &|| now() + OVERRIDE).await?)
            }
            Task::Establish(id) => Outcome::Ledger(identity(processor, Uuid::from_u128(*id)).await?),
        });
    }
    Ok(outcomes)
}

async fn identity(processor: &Processor, new_id: Uuid) -> Result<Uuid, WorkError> {
    let expected = ExpectedLedger {
        id: None,
        instance: &processor.instance,
        share: processor.share,
        start_at: "2026-11-20T00:00:00Z",
    };
    match establish(&*processor.mailboxes.ledger, &expected, new_id).await {
        Ok(identity) => Ok(identity.id),
        Err(IdentityError::Mailbox { source }) => Err(source.into()),
        Err(error) => Err(WorkError::Internal {
            doing: "establishing the ledger",
            detail: error.to_string(),
        }),
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Vec<Outcome>, WorkError>> + 'a>>;

/// A worker on its way, stopped before its next call. Dropping it is a crash.
pub struct Worker<'a> {
    gate: Arc<Gate>,
    running: Running<'a>,
    pub ended: Option<Result<Vec<Outcome>, WorkError>>,
}

impl<'a> Worker<'a> {
    /// Begins, up to before the first call.
    pub async fn begin(gate: Arc<Gate>, processor: &'a Processor, tasks: &'a [Task]) -> Self {
        let mut worker = Self {
            gate,
            running: Box::pin(run(processor, tasks)),
            ended: None,
        };
        worker.settle().await;
        worker
    }

    /// The call before which it stands; `None`: it ended.
    pub fn next(&self) -> Option<Op> {
        if self.ended.is_some() { None } else { self.gate.front() }
    }

    /// Lets that call pass and goes on up to before the next.
    pub async fn step(&mut self, fault: Fault) {
        self.gate.grant(fault);
        self.settle().await;
    }

    async fn settle(&mut self) {
        let Self { gate, running, ended } = self;
        poll_fn(|context| {
            if ended.is_some() {
                return Poll::Ready(());
            }
            match running.as_mut().poll(context) {
                Poll::Ready(result) => {
                    *ended = Some(result);
                    Poll::Ready(())
                }
                Poll::Pending if gate.front().is_some() => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }
}
