//! One item, retried while storage may come back, to its line of the report.

use facilitator_core::aggregate::{AggregateOutcome, Clock, aggregate, aggregate_again, partial_sum, plan_shard};
use facilitator_core::claims::{ClaimsFault, Compacted, compact};
use facilitator_core::formats::claims::{ClaimDay, PacketKeyName};
use facilitator_core::formats::ledger::{BlockedReason, Verdict, short_message};
use facilitator_core::formats::names::{AggregationId, BatchId, BatchRange, BatchTime, NameError, WindowId};
use facilitator_core::formats::work::{
    AggregateItem, Approval, BatchOutcome, BatchReport, CompactItem, IntakeItem, WindowOutcome, WindowPart,
    WindowReport,
};
use facilitator_core::intake::{IntakeOutcome, Wanted, take_in_all};
use facilitator_core::processor::{Processor, WorkError};
use jiff::Timestamp;

use crate::exit::{ExitClass, Failure};
use crate::worker::retry::Budget;

/// The batch of an item.
///
/// # Errors
/// [`ExitClass::Configuration`]: the work list is wrong.
pub fn batch_of(item: &IntakeItem) -> Result<BatchId, Failure> {
    let parse = || {
        let (aggregation, time) = (
            AggregationId::parse(&item.aggregation)?,
            BatchTime::parse_path(&item.time)?,
        );
        Ok(BatchId {
            aggregation,
            time,
            uuid: item.uuid,
        })
    };
    parse().map_err(|error: NameError| Failure::new(ExitClass::Configuration, error, "correct the work list"))
}

/// The window of an item.
///
/// # Errors
/// As [`batch_of`].
pub fn window_of(item: &AggregateItem) -> Result<WindowId, Failure> {
    let parse = || {
        let start = BatchTime::parse_compact(&item.start)?;
        WindowId::new(
            AggregationId::parse(&item.aggregation)?,
            start,
            BatchTime::parse_compact(&item.end)?,
        )
    };
    parse().map_err(|error: NameError| Failure::new(ExitClass::Configuration, error, "correct the work list"))
}

/// The class of an error that left an item without an outcome.
pub fn failure_of(error: &WorkError) -> Failure {
    if error.is_retryable() {
        return Failure::new(ExitClass::Unavailable, error, "run it again: what is done stays");
    }
    match error {
        WorkError::Mailbox { source } => source.clone().into(),
        WorkError::NoPlan { .. } => Failure::new(ExitClass::NoInput, error, ""),
        WorkError::Claims {
            source: ClaimsFault::Clock { .. },
        } => Failure::new(
            ExitClass::Configuration,
            error,
            "set the clock of the worker's node right",
        ),
        WorkError::Ledger { .. }
        | WorkError::Record { .. }
        | WorkError::Claims { .. }
        | WorkError::Foreign { .. }
        | WorkError::Internal { .. } => Failure::new(ExitClass::Internal, error, ""),
    }
}

const DENIED: &str = "let the worker's identity read and create objects there";

/// A batch's line of the report, and whether all of it was there before; or why there is none.
pub type Line = Result<(BatchReport, bool), Failure>;

/// Takes batches in, claimed together: a line for each.
///
/// # Errors
/// [`ExitClass::Unavailable`]: storage stayed away.
pub async fn intake(processor: &Processor, items: &[IntakeItem], budget: &mut Budget) -> Result<Vec<Line>, Failure> {
    let mut lines: Vec<Option<Line>> = Vec::new();
    let mut open = Vec::new();
    for (index, item) in items.iter().enumerate() {
        lines.push(match batch_of(item) {
            Ok(batch) => {
                let take_anyway = item.take_anyway;
                open.push((index, Wanted { batch, take_anyway }));
                None
            }
            Err(failure) => Some(Err(failure)),
        });
    }
    while !open.is_empty() {
        let wanted: Vec<Wanted> = open.iter().map(|(_, wanted)| wanted.clone()).collect();
        let mut results = take_in_all(processor, &wanted).await.into_iter();
        let mut failed = None;
        // What has no result, or none for want of storage, is tried again.
        open.retain(|(index, wanted)| match results.next() {
            Some(Err(error)) if error.is_retryable() => {
                tracing::warn!(batch = %wanted.batch.path(), %error, "storage failed; trying again");
                failed.get_or_insert(error);
                true
            }
            Some(result) => {
                lines[*index] = Some(line(&items[*index], &wanted.batch, result));
                budget.succeeded();
                false
            }
            None => true,
        });
        if let Some(error) = failed
            && !budget.wait().await
        {
            return Err(failure_of(&error));
        }
    }
    Ok(lines.into_iter().flatten().collect())
}

fn line(item: &IntakeItem, batch: &BatchId, result: Result<IntakeOutcome, WorkError>) -> Line {
    let (outcome, reason, message, packets, excluded, already) = match result {
        Ok(IntakeOutcome::Validated {
            put,
            packets,
            excluded,
            already,
        }) => {
            let message = format!("our messages are with the peer: {put}");
            (
                BatchOutcome::Validated,
                String::new(),
                message,
                packets,
                excluded,
                already,
            )
        }
        Ok(IntakeOutcome::Rejected {
            reason,
            message,
            already,
        }) => (BatchOutcome::Rejected, reason.to_string(), message, 0, 0, already),
        Ok(IntakeOutcome::Blocked {
            reason,
            message,
            packets,
            excluded,
        }) => (
            BatchOutcome::Blocked,
            reason.to_string(),
            message,
            packets,
            excluded,
            false,
        ),
        Err(error) if error.is_denied() => {
            let message = short_message(&format!("{error}; {DENIED}"));
            let reason = BlockedReason::AccessDenied.to_string();
            (BatchOutcome::Blocked, reason, message, 0, 0, false)
        }
        Err(error) => {
            tracing::error!(batch = %batch.path(), %error, "no outcome");
            return Err(failure_of(&error));
        }
    };
    tracing::info!(batch = %batch.path(), ?outcome, reason, packets, excluded, already, "batch");
    let report = BatchReport {
        aggregation: item.aggregation.clone(),
        time: item.time.clone(),
        uuid: item.uuid,
        outcome,
        reason,
        message,
        packets,
        excluded,
    };
    Ok((report, already))
}

/// What an item asks for.
enum Task<'a> {
    Whole,
    PlanShard(BatchRange),
    PartialSum(BatchRange),
    Again(&'a Approval, Timestamp),
}

impl<'a> Task<'a> {
    fn of(item: &'a AggregateItem, window: &WindowId, cutoffs: &[Timestamp]) -> Result<Self, Failure> {
        let wrong =
            |error: &dyn std::fmt::Display| Failure::new(ExitClass::Configuration, error, "correct the work list");
        let range = |text: &str| BatchRange::parse(text).map_err(|error| wrong(&error));
        match (&item.approval, &item.part, cutoffs) {
            (None, None, _) => Ok(Self::Whole),
            (None, Some(WindowPart::PlanShard(text)), _) => Ok(Self::PlanShard(range(text)?)),
            (None, Some(WindowPart::PartialSum(text)), _) => Ok(Self::PartialSum(range(text)?)),
            (Some(approval), None, [cutoff]) => {
                window.again(approval.release).map_err(|error| wrong(&error))?;
                Ok(Self::Again(approval, *cutoff))
            }
            (Some(_), ..) => Err(wrong(&"a window is released again at one cutoff, and in one piece")),
        }
    }
}

/// Plans and sums one window, or does the part of it that the item names; under an override that hasn't expired by the
/// clock, once more.
///
/// # Errors
/// As [`intake`].
pub async fn window(
    processor: &Processor,
    item: &AggregateItem,
    clock: Clock<'_>,
    budget: &mut Budget,
) -> Result<(WindowReport, AggregateOutcome), Failure> {
    let window = window_of(item)?;
    let cutoffs: Result<Vec<_>, _> = item
        .cutoffs
        .iter()
        .map(|millis| Timestamp::from_millisecond(*millis))
        .collect();
    let cutoffs = cutoffs.map_err(|error| Failure::new(ExitClass::Configuration, error, "correct the work list"))?;
    let task = Task::of(item, &window, &cutoffs)?;
    let result = loop {
        let result = match &task {
            Task::Whole => aggregate(processor, &window, &cutoffs).await,
            Task::PlanShard(range) => plan_shard(processor, &window, &cutoffs, range).await,
            Task::PartialSum(range) => partial_sum(processor, &window, range).await,
            Task::Again(approval, cutoff) => aggregate_again(processor, &window, approval, *cutoff, clock).await,
        };
        match result {
            Err(error) if error.is_retryable() => {
                tracing::warn!(window = %window.path(), %error, "storage failed; trying again");
                if !budget.wait().await {
                    break Err(error);
                }
            }
            result => break result,
        }
    };
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) if error.is_denied() => AggregateOutcome::Blocked {
            reason: BlockedReason::AccessDenied,
            message: short_message(&format!("{error}; {DENIED}")),
            cutoff_millis: None,
        },
        Err(error) => {
            tracing::error!(window = %window.path(), %error, "no outcome");
            return Err(failure_of(&error));
        }
    };
    budget.succeeded();
    let report = window_report(item, &outcome);
    tracing::info!(
        window = %window.path(), outcome = ?report.outcome, reason = report.reason, message = report.message, "window"
    );
    Ok((report, outcome))
}

/// Compacts one day of claims.
///
/// # Errors
/// As [`intake`].
pub async fn compaction(processor: &Processor, item: &CompactItem, budget: &mut Budget) -> Result<(), Failure> {
    let (Some(key), Some(day)) = (PacketKeyName::parse(&item.packet_key), ClaimDay::parse(&item.day)) else {
        let message = format_args!("{item:?} names no claims");
        return Err(Failure::new(ExitClass::Configuration, message, "correct the work list"));
    };
    let compacted = loop {
        let compacted = compact(&*processor.mailboxes.ledger, key, day).await;
        match compacted.map_err(WorkError::from) {
            Err(error) if error.is_retryable() && budget.wait().await => {
                tracing::warn!(%key, %day, %error, "storage failed; trying again");
            }
            result => break result.map_err(|error| failure_of(&error))?,
        }
    };
    budget.succeeded();
    let Compacted { runs, chunks, claims } = compacted;
    tracing::info!(%key, %day, runs, chunks, claims, "claims compacted");
    Ok(())
}

fn window_report(item: &AggregateItem, outcome: &AggregateOutcome) -> WindowReport {
    let (outcome, reason, message, cutoff_millis) = match outcome {
        AggregateOutcome::Done {
            result, cutoff_millis, ..
        } => {
            let outcome = match result.verdict {
                Verdict::Summed => WindowOutcome::Summed,
                Verdict::BelowFloor => WindowOutcome::BelowFloor,
                Verdict::Failed => WindowOutcome::Failed,
            };
            let reason = result.reason.map(|reason| reason.to_string()).unwrap_or_default();
            let message = match result.verdict {
                Verdict::Summed => {
                    format!("{} clients of {} batches", result.clients, result.batches)
                }
                Verdict::BelowFloor | Verdict::Failed => result.message.clone(),
            };
            (outcome, reason, message, *cutoff_millis)
        }
        AggregateOutcome::NoMembers { excluded } => {
            let reasons: Vec<_> = excluded
                .iter()
                .map(|(reason, count)| format!("{count} {reason:?}"))
                .collect();
            let message = if reasons.is_empty() {
                "no batches".to_owned()
            } else {
                reasons.join(", ")
            };
            (WindowOutcome::NoMembers, String::new(), message, None)
        }
        AggregateOutcome::Blocked {
            reason,
            message,
            cutoff_millis,
        } => (
            WindowOutcome::Blocked,
            reason.to_string(),
            message.clone(),
            *cutoff_millis,
        ),
        AggregateOutcome::Part => (
            WindowOutcome::Part,
            String::new(),
            "a part of it is done".to_owned(),
            None,
        ),
        AggregateOutcome::PartFailed { reason, message } => {
            (WindowOutcome::PartFailed, reason.to_string(), message.clone(), None)
        }
    };
    WindowReport {
        aggregation: item.aggregation.clone(),
        start: item.start.clone(),
        end: item.end.clone(),
        release: item.approval.as_ref().map(|approval| approval.release),
        outcome,
        reason,
        message,
        cutoff_millis,
    }
}
