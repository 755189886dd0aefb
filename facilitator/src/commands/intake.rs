//! `facilitator intake`: takes every ingestion batch in, by hand.

use std::path::PathBuf;

use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::work::{BatchOutcome, IntakeItem};
use facilitator_core::intake::complete_batches;
use mailbox::{ListRequest, Mailbox};

use crate::exit::{ExitClass, Failure};
use crate::output;
use crate::worker::retry::Budget;
use crate::worker::{items, setup};

/// Shown below the arguments.
pub const AFTER: &str = "\
Takes in each batch that is there, or those named; a batch that was taken in
before is left as it is. Each gives a line: its name, Validated, Rejected or
Blocked, and why.

  facilitator intake --parameters demo/first.json";

/// Takes ingestion batches in: checks them, records them, and brings our validation batches to the peer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The processor: a parameters.json, as `facilitator sample` writes.
    #[arg(long, value_name = "FILE")]
    parameters: PathBuf,
    /// The folder with batch-signing/ and packet-decryption/0/ [default: beside FILE, its name with -keys for .json]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Exclude packets that no key opens, where a pod would wait for a key.
    #[arg(long)]
    take_anyway: bool,
    /// Only this aggregation.
    #[arg(long, value_name = "ID")]
    aggregation: Option<String>,
    /// Batches, as AGGREGATION/YYYY/MM/DD/HH/mm/UUID [default: all that are there]
    #[arg(value_name = "BATCH")]
    batches: Vec<String>,
}

/// The folder of keys that belongs to a parameters file.
pub fn keys_folder(parameters: &std::path::Path, keys: Option<PathBuf>) -> PathBuf {
    keys.unwrap_or_else(|| {
        let stem = parameters.file_stem().unwrap_or_default().to_string_lossy();
        parameters.with_file_name(format!("{stem}-keys"))
    })
}

/// Runs the command.
///
/// # Errors
/// Storage or configuration; [`ExitClass::Data`] where a batch was rejected, [`ExitClass::Configuration`] where one is
/// blocked.
pub async fn run(args: Args) -> Result<(), Failure> {
    let parameters = setup::parameters(&args.parameters)?;
    let processor = setup::processor(&parameters, &keys_folder(&args.parameters, args.keys))?;
    let mut budget = Budget::new();
    setup::ledger(&parameters, &*processor.mailboxes.ledger, &mut budget).await?;
    let mut batches = if args.batches.is_empty() {
        all_batches(&*processor.mailboxes.ingestion).await?
    } else {
        let parse = |name: &String| {
            BatchId::parse(name).map_err(|error| {
                Failure::new(
                    ExitClass::Usage,
                    error,
                    "name it as ingestion objects are, without a suffix",
                )
            })
        };
        args.batches.iter().map(parse).collect::<Result<_, _>>()?
    };
    batches.retain(|batch| {
        args.aggregation
            .as_deref()
            .is_none_or(|only| batch.aggregation.as_str() == only)
    });
    if batches.is_empty() {
        let message = format!("no ingestion batch in {}", processor.mailboxes.ingestion.url());
        return Err(Failure::new(ExitClass::NoInput, message, "check the mailbox's URL"));
    }
    let (mut rejected, mut blocked) = (0, 0);
    let items: Vec<IntakeItem> = batches
        .iter()
        .map(|batch| IntakeItem {
            aggregation: batch.aggregation.as_str().to_owned(),
            time: batch.time.to_path(),
            uuid: batch.uuid,
            take_anyway: args.take_anyway,
        })
        .collect();
    // As many as a pod takes: what is done is told soon.
    for items in items.chunks(100) {
        for line in items::intake(&processor, items, &mut budget).await? {
            let (report, already) = line?;
            rejected += usize::from(report.outcome == BatchOutcome::Rejected);
            blocked += usize::from(report.outcome == BatchOutcome::Blocked);
            let before = if already { " (before)" } else { "" };
            let detail = match report.outcome {
                BatchOutcome::Validated => {
                    format!("{} packets, {} excluded", report.packets, report.excluded)
                }
                BatchOutcome::Rejected | BatchOutcome::Blocked => {
                    format!("{}: {}", report.reason, report.message)
                }
            };
            let path = format_args!("{}/{}/{}", report.aggregation, report.time, report.uuid);
            output::line(format_args!("{path} {:?}{before}: {detail}", report.outcome));
        }
    }
    match (blocked, rejected) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::new(
            ExitClass::Data,
            format_args!("{rejected} batches were rejected"),
            "the lines above say why",
        )),
        _ => Err(Failure::new(
            ExitClass::Configuration,
            format_args!("{blocked} batches are blocked"),
            "the lines above say what is missing",
        )),
    }
}

/// Every batch with signature and header, by name.
async fn all_batches(ingestion: &dyn Mailbox) -> Result<Vec<BatchId>, Failure> {
    let page = ingestion.list_all(&ListRequest::default()).await?;
    let names = page.objects.iter().map(|meta| &meta.key);
    Ok(complete_batches(names).into_iter().collect())
}
