//! `facilitator aggregate`: sums windows, by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use facilitator_core::aggregate::AggregateOutcome;
use facilitator_core::formats::ledger::{FailedReason, RECORDS, Verdict};
use facilitator_core::formats::names::{BatchId, BatchRange, BatchTime, WindowId};
use facilitator_core::formats::work::{AggregateItem, Parameters, WindowPart, WindowReport};
use facilitator_core::processor::Processor;
use facilitator_core::window::Window;
use jiff::Timestamp;
use mailbox::ListRequest;

use crate::commands::intake::keys_folder;
use crate::exit::{ExitClass, Failure};
use crate::output;
use crate::worker::retry::Budget;
use crate::worker::{items, setup};

/// Shown below the arguments.
pub const AFTER: &str = "\
Sums each window that has a batch of ours, as soon as both parties' validation
batches are there; a window that was summed before is left as it is. Both
parties must have taken their batches in first.

  facilitator aggregate --parameters demo/first.json";

/// Sums windows: checks every packet's proof with the peer's messages, and puts our sum parts into the portal's mailbox.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The processor: a parameters.json, as `facilitator sample` writes.
    #[arg(long, value_name = "FILE")]
    parameters: PathBuf,
    /// The folder with batch-signing/ and packet-decryption/0/ [default: beside FILE, its name with -keys for .json]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Only this aggregation.
    #[arg(long, value_name = "ID")]
    aggregation: Option<String>,
    /// Only the window that begins then.
    #[arg(long, value_name = "YYYYMMDDHHmm")]
    start: Option<String>,
    /// The cutoff: batches that either party delivered later are not in [default: now]
    #[arg(long, value_name = "TIME")]
    cutoff: Option<Timestamp>,
    /// Sum each window in parts of so many batches, as the operator has large windows summed [default: one part]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk_batches: Option<u32>,
}

/// Runs the command.
///
/// # Errors
/// Storage or configuration; [`ExitClass::Conflict`] where the portal has another sum part, [`ExitClass::Data`] for other
/// failed windows, [`ExitClass::NoInput`] where a window has no member yet.
pub async fn run(args: Args) -> Result<(), Failure> {
    let parameters = setup::parameters(&args.parameters)?;
    let processor = setup::processor(&parameters, &keys_folder(&args.parameters, args.keys))?;
    let mut budget = Budget::new();
    setup::ledger(&parameters, &*processor.mailboxes.ledger, &mut budget).await?;
    let start = args.start.as_deref().map(BatchTime::parse_compact).transpose();
    let start = start.map_err(|error| Failure::new(ExitClass::Usage, error, "write it as YYYYMMDDHHmm"))?;
    let mut windows = windows(&parameters, &processor).await?;
    windows.retain(|window, _| {
        args.aggregation
            .as_deref()
            .is_none_or(|only| window.aggregation.as_str() == only)
            && start.is_none_or(|start| window.start == start)
    });
    if windows.is_empty() {
        let message = format!("no record of a batch in {}", processor.mailboxes.ledger.url());
        return Err(Failure::new(
            ExitClass::NoInput,
            message,
            "run `facilitator intake` first",
        ));
    }
    let cutoff = args.cutoff.unwrap_or_else(Timestamp::now);
    let mut worst: Option<Failure> = None;
    for (window, batches) in windows {
        let item = AggregateItem {
            aggregation: window.aggregation.as_str().to_owned(),
            start: window.start.to_compact(),
            end: window.end.to_compact(),
            cutoffs: vec![cutoff.as_millisecond()],
            part: None,
            approval: None,
        };
        let parts = args.chunk_batches.map_or_else(Vec::new, |size| {
            let names = batches.iter().map(|batch| (batch.time, batch.uuid));
            BatchRange::whole(&window).parted(names, size as usize)
        });
        let (report, outcome) = sum(&processor, &item, &parts, &mut budget).await?;
        let before = if matches!(&outcome, AggregateOutcome::Done { already: true, .. }) {
            " (before)"
        } else {
            ""
        };
        let reason = if report.reason.is_empty() {
            String::new()
        } else {
            format!("{}: ", report.reason)
        };
        output::line(format_args!(
            "{} {:?}{before}: {reason}{}",
            window.path(),
            report.outcome,
            report.message
        ));
        if let Some(exit) = class_of(&outcome) {
            let failure = Failure::new(
                exit,
                format_args!("not every window was summed ({})", window.path()),
                "the lines above say why",
            );
            worst.get_or_insert(failure);
        }
    }
    worst.map_or(Ok(()), Err)
}

/// Sums a window, first in parts if there are any.
async fn sum(
    processor: &Processor,
    item: &AggregateItem,
    parts: &[BatchRange],
    budget: &mut Budget,
) -> Result<(WindowReport, AggregateOutcome), Failure> {
    for of in [WindowPart::PlanShard, WindowPart::PartialSum] {
        for range in parts {
            let part = AggregateItem {
                part: Some(of(range.to_string())),
                ..item.clone()
            };
            let (report, outcome) = items::window(processor, &part, &Timestamp::now, budget).await?;
            match outcome {
                AggregateOutcome::Part => {}
                // The whole says why, for good.
                AggregateOutcome::PartFailed { .. } => {
                    return items::window(processor, item, &Timestamp::now, budget).await;
                }
                outcome => return Ok((report, outcome)),
            }
        }
    }
    items::window(processor, item, &Timestamp::now, budget).await
}

fn class_of(outcome: &AggregateOutcome) -> Option<ExitClass> {
    match outcome {
        AggregateOutcome::Done { result, .. } => match (result.verdict, result.reason) {
            (Verdict::Summed | Verdict::BelowFloor, _) => None,
            (Verdict::Failed, Some(FailedReason::PortalHasOther | FailedReason::ReleasedDiffers)) => {
                Some(ExitClass::Conflict)
            }
            (Verdict::Failed, _) => Some(ExitClass::Data),
        },
        AggregateOutcome::NoMembers { .. } => Some(ExitClass::NoInput),
        AggregateOutcome::Blocked { .. } => Some(ExitClass::Configuration),
        // No window ends so.
        AggregateOutcome::Part | AggregateOutcome::PartFailed { .. } => Some(ExitClass::Internal),
    }
}

/// The windows of every batch that has a record, with those batches in order.
async fn windows(parameters: &Parameters, processor: &Processor) -> Result<BTreeMap<WindowId, Vec<BatchId>>, Failure> {
    let request = ListRequest {
        prefix: format!("{RECORDS}/"),
        ..ListRequest::default()
    };
    let page = processor.mailboxes.ledger.list_all(&request).await?;
    let wrong =
        |error: &dyn std::fmt::Display| Failure::new(ExitClass::Configuration, error, "correct windows.periodSeconds");
    let mut windows: BTreeMap<WindowId, Vec<BatchId>> = BTreeMap::new();
    for meta in &page.objects {
        let name = meta
            .key
            .as_str()
            .strip_prefix(RECORDS)
            .and_then(|name| name.strip_prefix('/'));
        let Some(batch) = name.and_then(|name| BatchId::parse(name).ok()) else {
            continue;
        };
        let window = Window::holding(batch.time.timestamp(), parameters.windows.period_seconds)
            .map_err(|error| wrong(&error))?;
        let bounds = BatchTime::from_timestamp(window.start()).zip(BatchTime::from_timestamp(window.end()));
        let Some((start, end)) = bounds else { continue };
        let window = WindowId::new(batch.aggregation.clone(), start, end).map_err(|error| wrong(&error))?;
        windows.entry(window).or_default().push(batch);
    }
    Ok(windows)
}
