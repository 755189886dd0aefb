//! `facilitator sample`: writes ingestion batches whose totals are known.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use facilitator_core::formats::names::{AggregationId, BatchTime};
use facilitator_core::formats::work::{Share, WindowParameters};
use facilitator_core::window::Window;
use jiff::SignedDuration;
use mailbox::Mailbox;

use crate::exit::{ExitClass, Failure};
use crate::sample_batch::{self, Ingestor, Wish};
use crate::truth::{BatchTruth, WindowTruth};
use crate::world::World;
use crate::{output, places, truth};

/// Examples for the help.
pub const AFTER: &str = "\
Examples:
  A complete local world, to run both parties by hand:
    facilitator sample --into demo
  More of it, for another aggregation and over two windows:
    facilitator sample --into demo --aggregation mobility-level \\
        --bins 256 --packets 1000 --batches 4 --spacing-minutes 90
  Only batches, into mailboxes of processors that run elsewhere:
    facilitator keys --into keys
    facilitator sample --keys keys --truth truth.json \\
        --first /mnt/first/ingestion --second /mnt/second/ingestion

The world: ingestion-, peer-validation-, ledger- and portal-first and -second
are the mailboxes; first.json and second.json are the parties' parameters;
ingestor-keys, first-keys and second-keys hold keys; truth.json has the totals.";

/// Write ingestion batches with known totals, for both processors.
///
/// The same arguments give the same batches: a second run changes nothing. Values are realistic: every simulated client
/// sets some of the bins, and its packet is split, encrypted and signed as a device and its maker would.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a local world in this folder, or add to it: keys, mailboxes, parameters of both parties, batches, truth.
    #[arg(long, value_name = "DIR", required_unless_present = "keys", conflicts_with_all = ["keys", "first", "second", "truth"])]
    pub into: Option<PathBuf>,
    /// Use the keys that `facilitator keys` made in this folder.
    #[arg(long, value_name = "DIR", requires_all = ["first", "second", "truth"])]
    pub keys: Option<PathBuf>,
    /// First's ingestion mailbox: a URL or a folder.
    #[arg(long, value_name = "MAILBOX", requires = "keys")]
    pub first: Option<String>,
    /// Second's ingestion mailbox: a URL or a folder.
    #[arg(long, value_name = "MAILBOX", requires = "keys")]
    pub second: Option<String>,
    /// Where the totals are written; what is in the file is kept.
    #[arg(long, value_name = "FILE", requires = "keys")]
    pub truth: Option<PathBuf>,
    /// The aggregation's name.
    #[arg(long, value_name = "NAME", default_value = "kittens-seen")]
    pub aggregation: String,
    /// Bins of the histogram.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub bins: u32,
    /// Packets in each batch: one per client.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub packets: u32,
    /// Batches to write.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub batches: u32,
    /// The time in the first batch's path, UTC.
    #[arg(long, value_name = "YYYYMMDDHHmm", default_value = "202611200000")]
    pub start: String,
    /// Minutes from each batch to the next.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub spacing_minutes: u32,
    /// The noise level that the batches state; values are not noised.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.23)]
    pub epsilon: f64,
    /// Other values and other batch UUIDs for another seed.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// A window's length, for the parameters and the truth.
    #[arg(long, value_name = "MINUTES", default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=527_040))]
    pub period_minutes: u32,
    /// No sum of fewer clients is released, for the parameters.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub min_clients: u64,
}

/// Where the batches go, and whose they are.
struct Destination {
    mailboxes: [Arc<dyn Mailbox>; 2],
    truth: PathBuf,
    ingestor: Ingestor,
}

/// Runs it.
///
/// # Errors
/// Arguments that name no time or aggregation, and the mailboxes' and file system's.
pub async fn run(args: Args) -> Result<(), Failure> {
    let usage = |flag: &str, error: &dyn std::fmt::Display| {
        Failure::new(
            ExitClass::Usage,
            format_args!("--{flag}: {error}"),
            "see `facilitator sample --help`",
        )
    };
    let aggregation = AggregationId::parse(&args.aggregation).map_err(|e| usage("aggregation", &e))?;
    let start = BatchTime::parse_compact(&args.start).map_err(|e| usage("start", &e))?;
    if !args.epsilon.is_finite() || args.epsilon < 0.0 {
        return Err(usage("epsilon", &"it must be 0 or more"));
    }
    let Destination {
        mailboxes,
        truth: file,
        ingestor,
    } = destination(&args)?;
    let mut known = if file.exists() { truth::read(&file)? } else { Vec::new() };
    let (mut written, mut unchanged) = (0, 0);
    for number in 0..args.batches {
        let offset = SignedDuration::from_mins(i64::from(args.spacing_minutes) * i64::from(number));
        let time = start
            .timestamp()
            .checked_add(offset)
            .ok()
            .and_then(BatchTime::from_timestamp);
        let time = time.ok_or_else(|| usage("start", &"the last batch would be after the calendar's end"))?;
        let window = Window::holding(time.timestamp(), args.period_minutes * 60).map_err(|e| usage("start", &e))?;
        let batch = sample_batch::make(
            &ingestor,
            &Wish {
                aggregation: &aggregation,
                time,
                bins: args.bins,
                packets: args.packets,
                epsilon: args.epsilon,
                seed: args.seed,
            },
        )?;
        if sample_batch::put(&batch, &mailboxes).await? {
            written += 1;
        } else {
            unchanged += 1;
        }
        let compact = |time| {
            BatchTime::from_timestamp(time)
                .map(|time| time.to_compact())
                .unwrap_or_default()
        };
        truth::add(
            &mut known,
            WindowTruth {
                aggregation: args.aggregation.clone(),
                bins: args.bins,
                epsilon: args.epsilon,
                start: compact(window.start()),
                end: compact(window.end()),
                batches: vec![BatchTruth {
                    id: batch.id.uuid,
                    time: time.to_path(),
                    packets: args.packets.into(),
                }],
                clients: batch.clients,
                totals: batch.totals.clone(),
            },
        );
        // After each batch, so that an interrupted run leaves the truth about what is there.
        truth::write(&file, &known)?;
    }
    output::line(format_args!(
        "{}: {} of {} and {} written to each party, {unchanged} there before; totals in {}",
        args.aggregation,
        output::count(written, "batch", "batches"),
        output::count(args.packets.into(), "packet", "packets"),
        output::count(args.bins.into(), "bin", "bins"),
        file.display()
    ));
    if let Some(root) = &args.into {
        next_steps(root);
    }
    Ok(())
}

fn destination(args: &Args) -> Result<Destination, Failure> {
    if let Some(root) = &args.into {
        let windows = WindowParameters {
            period_seconds: args.period_minutes * 60,
            min_clients: args.min_clients,
        };
        let world = World::make(root, &windows)?;
        let open = |share| places::mailbox(&world.ingestion(share).to_string_lossy());
        return Ok(Destination {
            mailboxes: [open(Share::First)?, open(Share::Second)?],
            truth: world.truth(),
            ingestor: Ingestor::of_folder(root)?,
        });
    }
    match (&args.keys, &args.first, &args.second, &args.truth) {
        (Some(keys), Some(first), Some(second), Some(truth)) => Ok(Destination {
            mailboxes: [places::mailbox(first)?, places::mailbox(second)?],
            truth: truth.clone(),
            ingestor: Ingestor::of_folder(keys)?,
        }),
        _ => Err(Failure::new(
            ExitClass::Usage,
            "give --into, or all of --keys, --first, --second and --truth",
            "see `facilitator sample --help`",
        )),
    }
}

fn next_steps(root: &Path) {
    let root = root.display();
    output::line("next:");
    for step in ["intake", "aggregate"] {
        for party in ["first", "second"] {
            output::line(format_args!("  facilitator {step} --parameters {root}/{party}.json"));
        }
    }
    output::line(format_args!(
        "  facilitator reassemble {root}/portal-first {root}/portal-second \\\n      --keys {root} --truth {root}/truth.json"
    ));
}
