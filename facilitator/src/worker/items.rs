//! One item, retried while storage may come back, to its line of the report.

use facilitator_core::aggregate::{AggregateOutcome, aggregate, aggregate_again};
use facilitator_core::formats::ledger::{BlockedReason, Verdict, short_message};
use facilitator_core::formats::names::{AggregationId, BatchId, BatchTime, NameError, WindowId};
use facilitator_core::formats::work::{
    AggregateItem, BatchOutcome, BatchReport, IntakeItem, WindowOutcome, WindowReport,
};
use facilitator_core::intake::{IntakeOutcome, take_in};
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
        WorkError::Ledger { .. }
        | WorkError::Record { .. }
        | WorkError::Foreign { .. }
        | WorkError::Internal { .. } => Failure::new(ExitClass::Internal, error, ""),
    }
}

const DENIED: &str = "let the worker's identity read and create objects there";

/// Takes one batch in.
///
/// # Errors
/// No outcome: storage stayed away, or the ledger is damaged.
pub async fn intake(
    processor: &Processor,
    item: &IntakeItem,
    budget: &mut Budget,
) -> Result<(BatchReport, bool), Failure> {
    let batch = batch_of(item)?;
    let result = loop {
        match take_in(processor, &batch, item.take_anyway).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(batch = %batch.path(), %error, "storage failed; trying again");
                if !budget.wait().await {
                    break Err(error);
                }
            }
            result => break result,
        }
    };
    let report = |outcome, reason: String, message: String, packets, excluded| BatchReport {
        aggregation: item.aggregation.clone(),
        time: item.time.clone(),
        uuid: item.uuid,
        outcome,
        reason,
        message,
        packets,
        excluded,
    };
    let (report, already) = match result {
        Ok(IntakeOutcome::Validated {
            put,
            packets,
            excluded,
            already,
        }) => (
            report(
                BatchOutcome::Validated,
                String::new(),
                format!("our messages are with the peer: {put}"),
                packets,
                excluded,
            ),
            already,
        ),
        Ok(IntakeOutcome::Rejected {
            reason,
            message,
            already,
        }) => (
            report(BatchOutcome::Rejected, reason.to_string(), message, 0, 0),
            already,
        ),
        Ok(IntakeOutcome::Blocked {
            reason,
            message,
            packets,
            excluded,
        }) => (
            report(BatchOutcome::Blocked, reason.to_string(), message, packets, excluded),
            false,
        ),
        Err(error) if error.is_denied() => {
            let message = short_message(&format!("{error}; {DENIED}"));
            (
                report(
                    BatchOutcome::Blocked,
                    BlockedReason::AccessDenied.to_string(),
                    message,
                    0,
                    0,
                ),
                false,
            )
        }
        Err(error) => {
            tracing::error!(batch = %batch.path(), %error, "no outcome");
            return Err(failure_of(&error));
        }
    };
    budget.succeeded();
    tracing::info!(
        batch = %batch.path(), outcome = ?report.outcome, reason = report.reason, packets = report.packets,
        excluded = report.excluded, already, "batch"
    );
    Ok((report, already))
}

/// Plans and sums one window; under an override that hasn't expired at `now`, once more.
///
/// # Errors
/// As [`intake`].
pub async fn window(
    processor: &Processor,
    item: &AggregateItem,
    now: Timestamp,
    budget: &mut Budget,
) -> Result<(WindowReport, AggregateOutcome), Failure> {
    let window = window_of(item)?;
    let cutoffs: Result<Vec<_>, _> = item
        .cutoffs
        .iter()
        .map(|millis| Timestamp::from_millisecond(*millis))
        .collect();
    let cutoffs = cutoffs.map_err(|error| Failure::new(ExitClass::Configuration, error, "correct the work list"))?;
    let wrong = |error: &dyn std::fmt::Display| Failure::new(ExitClass::Configuration, error, "correct the work list");
    let again = match (&item.approval, &cutoffs[..]) {
        (None, _) => None,
        (Some(approval), [cutoff]) => {
            window.again(approval.release).map_err(|error| wrong(&error))?;
            Some((approval, *cutoff))
        }
        (Some(_), _) => return Err(wrong(&"a window is released again at one cutoff")),
    };
    let result = loop {
        let result = match again {
            None => aggregate(processor, &window, &cutoffs).await,
            Some((approval, cutoff)) => aggregate_again(processor, &window, approval, cutoff, now).await,
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
