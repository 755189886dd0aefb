//! One window of an aggregation: the plan, the sum from records, the release. Each object is put once; running it again
//! goes on from what is there and changes nothing.

mod decide;
mod differences;
mod execute;
mod judge;
pub mod membership;
mod observe;
mod release;

use jiff::Timestamp;

use self::execute::{Counted, Execution};
use self::membership::first_set;
use crate::crypto::sha256;
use crate::formats::ledger::{
    BlockedReason, FailedReason, LedgerObject, PLANS, RESULTS, REVISION, Verdict, WindowResult, hex, short_message,
};
use crate::formats::names::WindowId;
use crate::formats::plan::{ExclusionReason, Plan};
use crate::formats::work::Approval;
use crate::guards::floor;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::put::{put_or_read, read_if_there};
use crate::uses::mark_plan;

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
}

/// What stops a planned window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// For good.
    Failed(FailedReason, String),
    /// Until something is mended.
    Blocked(BlockedReason, String),
}

/// A plan and what stands for its bytes.
struct Frozen {
    plan: Plan,
    digest: String,
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
    let frozen = read_plan(processor, window).await?;
    if let Some(done) = done_already(processor, window, frozen.as_ref()).await? {
        return Ok(done);
    }
    if let Some(Stop::Failed(reason, message)) = decide::withdrawn_already(processor, window).await? {
        let failure = Verdicts::of(frozen.as_ref()).failed(reason, &message);
        return put_result(processor, window, failure, frozen.as_ref()).await;
    }
    plan_and_execute(processor, window, frozen, cutoffs, None).await
}

/// Releases a window once more, under an approved override: plans it at `cutoff`, or goes on from its plan. It is released
/// only if what all sums of that time tell together is of nobody or of as many clients as the floor asks for (ledger rule 6).
///
/// `now` is compared when the set is frozen: an override that has expired by then freezes none, and nothing is put.
///
/// # Errors
/// [`WorkError`], as [`aggregate`].
pub async fn aggregate_again(
    processor: &Processor,
    window: &WindowId,
    approval: &Approval,
    cutoff: Timestamp,
    now: Timestamp,
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
    if frozen.is_none() && now.as_millisecond() >= approval.expires_at_millis {
        let expired = Timestamp::from_millisecond(approval.expires_at_millis).unwrap_or(Timestamp::MIN);
        return Ok(AggregateOutcome::Blocked {
            reason: BlockedReason::OverrideExpired,
            message: format!("the override for release {} expired at {expired}", approval.release),
            cutoff_millis: None,
        });
    }
    plan_and_execute(processor, &again, frozen, &[cutoff], Some(approval)).await
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

async fn plan_and_execute(
    processor: &Processor,
    window: &WindowId,
    frozen: Option<Frozen>,
    cutoffs: &[Timestamp],
    approval: Option<&Approval>,
) -> Result<AggregateOutcome, WorkError> {
    let frozen = match frozen {
        Some(frozen) => frozen,
        None => match make_plan(processor, window, cutoffs, approval).await? {
            Ok(frozen) => frozen,
            Err(unplanned) => return Ok(unplanned),
        },
    };
    execute_plan(processor, window, frozen).await
}

async fn execute_plan(processor: &Processor, window: &WindowId, frozen: Frozen) -> Result<AggregateOutcome, WorkError> {
    let mut verdicts = Verdicts::of(Some(&frozen));
    let blocked = |reason, message: &str| AggregateOutcome::Blocked {
        reason,
        message: short_message(message),
        cutoff_millis: Some(frozen.plan.cutoff_millis),
    };
    if processor.signer(&frozen.plan.signer).is_none() {
        let message = format!(
            "the plan is to be signed by {:?}, and {} is mounted: mount that key until the window is summed",
            frozen.plan.signer,
            processor.signer_ids()
        );
        return Ok(blocked(BlockedReason::SigningKeyNotMounted, &message));
    }
    let execution = Execution {
        processor,
        window,
        plan: &frozen.plan,
    };
    let counted = match execution.count().await? {
        Ok(counted) => counted,
        Err(Stop::Blocked(reason, message)) => return Ok(blocked(reason, &message)),
        Err(Stop::Failed(reason, message)) => {
            return put_result(processor, window, verdicts.failed(reason, &message), Some(&frozen)).await;
        }
    };
    verdicts.count(&counted);
    // What was announced passed the floor of its time: the partner may have it already.
    let announced = release::is_announced(processor, window, &frozen, &counted).await?;
    if !announced && !floor::may_release(counted.clients, processor.min_clients) {
        let message = format!(
            "{} valid clients, fewer than the floor of {}",
            counted.clients, processor.min_clients
        );
        return put_result(processor, window, verdicts.below_floor(&message), Some(&frozen)).await;
    }
    let total = match execution.sum(&counted).await? {
        Ok(total) => total,
        Err(stop) => {
            // A run before this one may have released it, and stopped before it could say so.
            if let Some(part) = release::released_already(processor, window, &frozen, &counted).await? {
                return put_result(processor, window, verdicts.summed(part), Some(&frozen)).await;
            }
            return match stop {
                Stop::Blocked(reason, message) => Ok(blocked(reason, &message)),
                Stop::Failed(reason, message) => {
                    put_result(processor, window, verdicts.failed(reason, &message), Some(&frozen)).await
                }
            };
        }
    };
    let result = match release::release(processor, window, &frozen, &counted, &total).await? {
        Ok(part) => verdicts.summed(part),
        Err(Stop::Blocked(reason, message)) => return Ok(blocked(reason, &message)),
        Err(Stop::Failed(reason, message)) => verdicts.failed(reason, &message),
    };
    put_result(processor, window, result, Some(&frozen)).await
}

async fn read_plan(processor: &Processor, window: &WindowId) -> Result<Option<Frozen>, WorkError> {
    let key = window.ledger_key(PLANS);
    let Some(bytes) = read_if_there(&*processor.mailboxes.ledger, &key, Plan::MAX_BYTES).await? else {
        return Ok(None);
    };
    Ok(Some(Frozen {
        plan: Plan::from_bytes(&key, &bytes)?,
        digest: hex(&sha256(&bytes)),
    }))
}

/// Freezes the set; where another worker froze one first, that one counts. `Err`: there is none now.
async fn make_plan(
    processor: &Processor,
    window: &WindowId,
    cutoffs: &[Timestamp],
    approval: Option<&Approval>,
) -> Result<Result<Frozen, AggregateOutcome>, WorkError> {
    let mut cutoffs = cutoffs.to_vec();
    cutoffs.sort_unstable();
    let candidates = match observe::candidates(processor, window, cutoffs.last().copied()).await? {
        Ok(candidates) => candidates,
        Err((reason, message)) => {
            let message = short_message(&message);
            return Ok(Err(AggregateOutcome::Blocked {
                reason,
                message,
                cutoff_millis: None,
            }));
        }
    };
    let Some(set) = first_set(&candidates, &cutoffs, processor.legacy_peer) else {
        let last = cutoffs.last().copied().unwrap_or(Timestamp::MIN);
        let excluded = membership::tally(&candidates, last, processor.legacy_peer);
        return Ok(Err(AggregateOutcome::NoMembers { excluded }));
    };
    let plan = Plan {
        revision: REVISION,
        aggregation: window.aggregation.as_str().to_owned(),
        start: window.start.to_compact(),
        end: window.end.to_compact(),
        cutoff_millis: set.cutoff.as_millisecond(),
        share: processor.share,
        instance: processor.instance.as_str().to_owned(),
        signer: processor.signing_key.id().to_owned(),
        shape: set.shape,
        members: set.members,
        exclusions: set.exclusions,
        approval: approval.cloned(),
    };
    mark_plan(processor, window, &plan.signer).await?;
    let key = window.ledger_key(PLANS);
    let bytes = plan.to_bytes()?.into();
    let (bytes, _) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Plan::MAX_BYTES).await?;
    Ok(Ok(Frozen {
        plan: Plan::from_bytes(&key, &bytes)?,
        digest: hex(&sha256(&bytes)),
    }))
}

async fn put_result(
    processor: &Processor,
    window: &WindowId,
    result: WindowResult,
    frozen: Option<&Frozen>,
) -> Result<AggregateOutcome, WorkError> {
    let key = window.ledger_key(RESULTS);
    let bytes = result.to_bytes()?.into();
    let (bytes, _) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, WindowResult::MAX_BYTES).await?;
    let result = Box::new(WindowResult::from_bytes(&key, &bytes)?);
    let cutoff_millis = frozen.map(|frozen| frozen.plan.cutoff_millis);
    Ok(AggregateOutcome::Done {
        result,
        cutoff_millis,
        already: false,
    })
}

/// Fills verdicts in, from what is known so far.
struct Verdicts(WindowResult);

impl Verdicts {
    fn of(frozen: Option<&Frozen>) -> Self {
        let late = |exclusion: &&crate::formats::plan::Exclusion| {
            matches!(exclusion.reason, ExclusionReason::Late | ExclusionReason::PeerLate)
        };
        Self(WindowResult {
            revision: REVISION,
            verdict: Verdict::Failed,
            reason: None,
            message: String::new(),
            plan_digest: frozen.map(|frozen| frozen.digest.clone()),
            batches: frozen.map_or(0, |frozen| frozen.plan.members.len() as u64),
            packets: 0,
            clients: 0,
            invalid_proofs: 0,
            missing_peer_messages: 0,
            excluded_packets: 0,
            late_batches: frozen.map_or(0, |frozen| frozen.plan.exclusions.iter().filter(late).count() as u64),
            unread_times: frozen.map_or(0, |frozen| {
                frozen
                    .plan
                    .members
                    .iter()
                    .filter(|member| member.our_time_unread)
                    .count() as u64
            }),
            sum_part: None,
            sum_part_digest: None,
            put: None,
        })
    }

    fn count(&mut self, counted: &Counted) {
        self.0.packets = counted.packets;
        self.0.clients = counted.clients;
        self.0.invalid_proofs = counted.invalid_proofs;
        self.0.missing_peer_messages = counted.missing_peer_messages;
        self.0.excluded_packets = counted.excluded_packets;
    }

    fn failed(self, reason: FailedReason, message: &str) -> WindowResult {
        WindowResult {
            verdict: Verdict::Failed,
            reason: Some(reason),
            message: short_message(message),
            ..self.0
        }
    }

    fn below_floor(self, message: &str) -> WindowResult {
        WindowResult {
            verdict: Verdict::BelowFloor,
            message: short_message(message),
            ..self.0
        }
    }

    fn summed(self, part: release::ReleasedPart) -> WindowResult {
        WindowResult {
            verdict: Verdict::Summed,
            sum_part: Some(part.header.as_str().to_owned()),
            sum_part_digest: Some(hex(&part.digest)),
            put: Some(part.put),
            ..self.0
        }
    }
}
