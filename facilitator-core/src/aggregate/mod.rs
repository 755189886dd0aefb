//! One window of an aggregation: the plan, the sum from records, the release. Each object is put once; running it again
//! goes on from what is there and changes nothing.
//!
//! A large window is worked on by several pods: [`plan_shard`] looks at a range of its batches, [`partial_sum`] counts and
//! sums a range of its plan, and [`aggregate`] goes on from what they left. What they didn't do it does itself, so that the
//! bytes are the same in how many parts and in whatever order they were done.

mod batch;
mod decide;
mod differences;
mod execute;
mod judge;
pub mod membership;
mod observe;
mod packets;
mod parts;
mod plan;
mod release;
mod verdict;

use jiff::Timestamp;

use self::batch::Batches;
use self::execute::Execution;
use self::parts::{Parts, make_partial};
use self::plan::{Frozen, Override, make_plan, make_shard, read_plan};
use self::verdict::{Verdicts, put_result};
use crate::formats::ledger::{BlockedReason, FailedReason, LedgerObject, PLANS, RESULTS, WindowResult, short_message};
use crate::formats::names::{BatchRange, WindowId};
use crate::formats::plan::ExclusionReason;
use crate::formats::work::Approval;
use crate::guards::floor;
use crate::processor::{InternalSnafu, NoPlanSnafu, Processor, WorkError};
use crate::put::read_if_there;

/// How the aggregation of a window ended.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateOutcome {
    /// `results/` has a verdict.
    Done {
        /// It.
        result: Box<WindowResult>,
        /// The cutoff of its plan, milliseconds since 1970; `None` where it failed before a plan.
        cutoff_millis: Option<i64>,
        /// It was there before: this run changed nothing.
        already: bool,
    },
    /// No batch was in time at any of the cutoffs. Nothing was put.
    NoMembers {
        /// How many batches of the window's time are not in it, with the reason that keeps each out at the last cutoff.
        excluded: Vec<(ExclusionReason, u64)>,
    },
    /// Not now: something that a person mends is missing.
    Blocked {
        /// Why.
        reason: BlockedReason,
        /// What a person should know, one sentence.
        message: String,
        /// The cutoff of the plan, milliseconds since 1970.
        cutoff_millis: Option<i64>,
    },
    /// A part of the work is done, by this run or one before it.
    Part,
    /// A part of the sum can't be made, for good: whoever sums the window will say so. Nothing was put.
    PartFailed {
        /// Why.
        reason: FailedReason,
        /// What a person should know, one sentence.
        message: String,
    },
}

/// What tells the time, where that decides something.
pub type Clock<'a> = &'a (dyn Fn() -> Timestamp + Sync);

/// What stops a planned window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// For good.
    Failed(FailedReason, String),
    /// Until something is mended.
    Blocked(BlockedReason, String),
}

/// Where a window stands before a run.
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment")]
enum Begun {
    /// It has a result, by now at the latest.
    Over(AggregateOutcome),
    /// It has none; it may have a plan.
    Open(Option<Frozen>),
}

/// Plans the window at the first of the due cutoffs that has a member, or goes on from its plan, and sums it.
///
/// # Errors
/// [`WorkError`]: no outcome is known yet; a rerun goes on from what is there.
pub async fn aggregate(
    processor: &Processor,
    window: &WindowId,
    cutoffs: &[Timestamp],
) -> Result<AggregateOutcome, WorkError> {
    let batches = &Batches::new(processor);
    let frozen = match begin(processor, window).await? {
        Begun::Over(outcome) => return Ok(outcome),
        Begun::Open(Some(frozen)) => frozen,
        Begun::Open(None) => match make_plan(batches, window, cutoffs, None).await? {
            Ok(frozen) => frozen,
            Err(unplanned) => return Ok(unplanned),
        },
    };
    execute_plan(batches, window, frozen).await
}

/// Releases a window once more, under an approved override: plans it at `cutoff`, or goes on from its plan. It is released
/// only if what all sums of that time tell together is of nobody or of as many clients as the floor asks for (ledger rule 6).
///
/// `clock` is looked at when the set is frozen: an override that has expired by then freezes none, and nothing is put.
///
/// # Errors
/// [`WorkError`], as [`aggregate`].
pub async fn aggregate_again(
    processor: &Processor,
    window: &WindowId,
    approval: &Approval,
    cutoff: Timestamp,
    clock: Clock<'_>,
) -> Result<AggregateOutcome, WorkError> {
    let again = window.again(approval.release).map_err(|error| {
        InternalSnafu {
            doing: "releasing a window again",
            detail: error.to_string(),
        }
        .build()
    })?;
    let frozen = read_plan(processor, &again).await?;
    if let Some(done) = done_already(processor, &again, frozen.as_ref()).await? {
        return Ok(done);
    }
    let batches = &Batches::new(processor);
    let frozen = match frozen {
        Some(frozen) => frozen,
        None => {
            let again_under = Override { approval, clock };
            if let Some(expired) = again_under.expired() {
                return Ok(expired);
            }
            match make_plan(batches, &again, &[cutoff], Some(again_under)).await? {
                Ok(frozen) => frozen,
                Err(unplanned) => return Ok(unplanned),
            }
        }
    };
    execute_plan(batches, &again, frozen).await
}

/// Looks at one range of a large window's batches, so that the last one who does makes the plan. The ranges of all that
/// take part must tile the window.
///
/// # Errors
/// As [`aggregate`].
pub async fn plan_shard(
    processor: &Processor,
    window: &WindowId,
    cutoffs: &[Timestamp],
    range: &BatchRange,
) -> Result<AggregateOutcome, WorkError> {
    match found(processor, window).await? {
        Begun::Over(outcome) => Ok(outcome),
        Begun::Open(Some(_)) => Ok(AggregateOutcome::Part),
        Begun::Open(None) => make_shard(processor, window, cutoffs, range).await,
    }
}

/// Counts and sums one range of a large window's plan, and leaves the sealed partial sum in the ledger.
///
/// # Errors
/// As [`aggregate`]; [`WorkError::NoPlan`] where the window has no plan yet.
pub async fn partial_sum(
    processor: &Processor,
    window: &WindowId,
    range: &BatchRange,
) -> Result<AggregateOutcome, WorkError> {
    let frozen = match found(processor, window).await? {
        Begun::Over(outcome) => return Ok(outcome),
        Begun::Open(Some(frozen)) => frozen,
        Begun::Open(None) => {
            let object = window.ledger_key(PLANS).into_string();
            return NoPlanSnafu { object }.fail();
        }
    };
    let batches = Batches::new(processor);
    let execution = Execution::new(&batches, window, &frozen.plan);
    Ok(match make_partial(&execution, &frozen, range).await? {
        Ok(()) => AggregateOutcome::Part,
        Err(Stop::Blocked(reason, message)) => blocked(&frozen, reason, &message),
        Err(Stop::Failed(reason, message)) => {
            let message = short_message(&message);
            AggregateOutcome::PartFailed { reason, message }
        }
    })
}

/// What there is of a window: a result, a plan or neither.
async fn found(processor: &Processor, window: &WindowId) -> Result<Begun, WorkError> {
    let frozen = read_plan(processor, window).await?;
    Ok(match done_already(processor, window, frozen.as_ref()).await? {
        Some(done) => Begun::Over(done),
        None => Begun::Open(frozen),
    })
}

/// What a first release begins with: a window that has a result is over, and one that another's release is in the way of gets
/// one. Those who do a part of the work leave that to whoever puts the parts together: it takes a listing of all releases.
async fn begin(processor: &Processor, window: &WindowId) -> Result<Begun, WorkError> {
    let frozen = match found(processor, window).await? {
        Begun::Open(frozen) => frozen,
        over @ Begun::Over(_) => return Ok(over),
    };
    if let Some(Stop::Failed(reason, message)) = decide::withdrawn_already(processor, window).await? {
        let failure = Verdicts::of(frozen.as_ref()).failed(reason, &message);
        let outcome = put_result(processor, window, failure, frozen.as_ref()).await?;
        return Ok(Begun::Over(outcome));
    }
    Ok(Begun::Open(frozen))
}

async fn done_already(
    processor: &Processor,
    window: &WindowId,
    frozen: Option<&Frozen>,
) -> Result<Option<AggregateOutcome>, WorkError> {
    let key = window.ledger_key(RESULTS);
    let Some(bytes) = read_if_there(&*processor.mailboxes.ledger, &key, WindowResult::MAX_BYTES).await? else {
        return Ok(None);
    };
    Ok(Some(AggregateOutcome::Done {
        result: Box::new(WindowResult::from_bytes(&key, &bytes)?),
        cutoff_millis: frozen.map(|frozen| frozen.plan.cutoff_millis),
        already: true,
    }))
}

async fn execute_plan(batches: &Batches<'_>, window: &WindowId, frozen: Frozen) -> Result<AggregateOutcome, WorkError> {
    let processor = batches.processor();
    let mut verdicts = Verdicts::of(Some(&frozen));
    if processor.signer(&frozen.plan.signer).is_none() {
        let message = format!(
            "the plan is to be signed by {:?}, and {} is mounted: mount that key until the window is summed",
            frozen.plan.signer,
            processor.signer_ids().join(", ")
        );
        return Ok(blocked(&frozen, BlockedReason::SigningKeyNotMounted, &message));
    }
    let execution = Execution::new(batches, window, &frozen.plan);
    let mut parts = Parts::find(&execution, &frozen).await?;
    let (counted, total) = loop {
        let counted = match parts.count().await? {
            Ok(counted) => counted,
            Err(Stop::Blocked(reason, message)) => return Ok(blocked(&frozen, reason, &message)),
            Err(Stop::Failed(reason, message)) => {
                return put_result(processor, window, verdicts.failed(reason, &message), Some(&frozen)).await;
            }
        };
        verdicts.count(&counted);
        // What was announced passed the floor of its time: the partner may have it already.
        let announced = release::is_announced(processor, window, &frozen, &counted).await?;
        if !announced && !floor::may_release(counted.clients, processor.min_clients) {
            // Nothing proves what is said beside a seal until it is opened: where none is, our own count decides.
            if parts.distrust() {
                continue;
            }
            let message = format!(
                "{} valid clients, fewer than the floor of {}",
                counted.clients, processor.min_clients
            );
            return put_result(processor, window, verdicts.below_floor(&message), Some(&frozen)).await;
        }
        match parts.sum().await? {
            Ok(Some(total)) => break (counted, total),
            Ok(None) => {}
            Err(stop) => {
                // A run before this one may have released it, and stopped before it could say so.
                if let Some(part) = release::released_already(processor, window, &frozen, &counted).await? {
                    return put_result(processor, window, verdicts.summed(part), Some(&frozen)).await;
                }
                return match stop {
                    Stop::Blocked(reason, message) => Ok(blocked(&frozen, reason, &message)),
                    Stop::Failed(reason, message) => {
                        put_result(processor, window, verdicts.failed(reason, &message), Some(&frozen)).await
                    }
                };
            }
        }
    };
    let result = match release::release(processor, window, &frozen, &counted, &total).await? {
        Ok(part) => verdicts.summed(part),
        Err(Stop::Blocked(reason, message)) => return Ok(blocked(&frozen, reason, &message)),
        Err(Stop::Failed(reason, message)) => verdicts.failed(reason, &message),
    };
    put_result(processor, window, result, Some(&frozen)).await
}

fn blocked(frozen: &Frozen, reason: BlockedReason, message: &str) -> AggregateOutcome {
    AggregateOutcome::Blocked {
        reason,
        message: short_message(message),
        cutoff_millis: Some(frozen.plan.cutoff_millis),
    }
}
