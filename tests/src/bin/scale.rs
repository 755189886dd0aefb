//! `make scale`: many small batches in S3 through two parties on the node, measured from the first apply to the last sum.

use std::cell::RefCell;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use prio_operator_tests::cluster::{Cluster, NODE_VARIABLE};
use prio_operator_tests::fixtures::{self, Truth};
use prio_operator_tests::keys::KeySet;
use prio_operator_tests::output::{say, step};
use prio_operator_tests::party::{self, Pair, Settings};
use prio_operator_tests::samples::{self, Damage, Sample};
use prio_operator_tests::scale::measure::{Costs, Meter};
use prio_operator_tests::scale::progress::{self, Phases};
use prio_operator_tests::scale::report::Report;
use prio_operator_tests::stores::Kind;
use prio_operator_tests::{flow, images, sums};
use serde_json::json;

/// Bins of every batch.
const BINS: u32 = 16;
/// Minutes of the window whose batches these are.
const MINUTES: usize = 180;
/// Seconds from now on the cutoff that both parties agree on once everything is with both.
const CUTOFF_SECONDS: i64 = 5;

/// Which batches get a Batch object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum BatchObjects {
    /// Those that went wrong: here none.
    Exceptions,
    /// Every one.
    All,
}

/// Measures two parties with many small batches in S3.
#[derive(Parser)]
struct Args {
    /// Batches.
    #[arg(long, env = "BATCHES", default_value_t = 10_000)]
    batches: usize,
    /// Which of them get a Batch object.
    #[arg(long, env = "BATCH_OBJECTS", value_enum, default_value = "Exceptions")]
    batch_objects: BatchObjects,
    /// Aggregations that they are spread over, each with one window.
    #[arg(long, env = "AGGREGATIONS", default_value_t = 5)]
    aggregations: usize,
    /// Packets of each.
    #[arg(long, env = "PACKETS", default_value_t = 20)]
    packets: usize,
    /// Batches that one pod takes in.
    #[arg(long, env = "BATCHES_PER_POD", default_value_t = 500)]
    batches_per_pod: u32,
    /// Seconds between two looks of an operator.
    #[arg(long, env = "TICK_SECONDS", default_value_t = 10)]
    tick_seconds: u32,
    /// Seconds that a phase may take.
    #[arg(long, env = "LIMIT_SECONDS", default_value_t = 1_800)]
    limit_seconds: u64,
    /// Samples all processors with perf meanwhile, into target/scale/perf.data.
    #[arg(long, env = "PERF")]
    perf: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let name = std::env::var(NODE_VARIABLE).unwrap_or_else(|_| "scale".to_owned());
    let outcome = tokio::select! {
        outcome = scale(&name, &args) => outcome,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say("\nNot every window matched: see target/scale/result.json.");
            ExitCode::FAILURE
        }
        Err(error) => {
            say(format!("\nerror: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn scale(name: &str, args: &Args) -> Result<bool> {
    ensure!(
        args.aggregations > 0 && args.batches >= args.aggregations,
        "at least one batch an aggregation"
    );
    let cluster = Cluster::attach(name).await?;
    let folder = cluster.repository.join("target/scale");
    let pair = prepare(&cluster, &folder.join("mailboxes"), args)?;
    let stores = pair.stores.clone().context("a pair in clouds has stores")?;

    step(1, "Install: an S3 for each party, the charts");
    let images = images::import(&cluster).await?;
    let programs = images::import_stores(&cluster).await?;
    pair.make_folders()?;
    stores.start(&cluster, &programs).await?;
    party::install_cluster_chart(&cluster).await?;
    for party in &pair.parties {
        pair.apply_surroundings(party).await?;
        pair.install(party, &images).await?;
    }

    step(2, "The ingestor writes batches and uploads them: not measured");
    let begun = Instant::now();
    let truths = write_batches(&pair, args)?;
    let truths: Vec<&Truth> = truths.iter().collect();
    say(format!(
        "   {:5.1} s  {} batches of {} packets, {BINS} bins, in {} windows",
        begun.elapsed().as_secs_f64(),
        args.batches,
        args.packets,
        truths.len()
    ));
    stores.upload(&pair, &images.facilitator).await?;

    step(
        3,
        "Measured: from applying both DataShareProcessors to the last sum part",
    );
    let meter = Meter::new(&pair).await?;
    let before = meter.snapshot().await?;
    let perf = args.perf.then(|| Perf::start(&folder)).transpose()?;
    let phases = RefCell::new(Phases::default());
    let limit = Duration::from_secs(args.limit_seconds);
    let begun = Instant::now();
    pair.apply_processors().await?;
    progress::wait_matched(&pair, &truths, begun, &phases, limit).await?;
    flow::set_cutoffs(&pair, &truths, CUTOFF_SECONDS).await?;
    flow::wait_summed(&pair, &truths, limit).await?;
    phases.borrow_mut().reached(progress::SUMMED, begun);
    if args.batch_objects == BatchObjects::All {
        progress::wait_told(&pair, args.batches, limit).await?;
        phases.borrow_mut().reached(progress::TOLD, begun);
    }
    let costs = Costs::between(&before, &meter.snapshot().await?);
    drop(perf);

    step(4, "The portal adds the parts");
    stores.download(&pair, &images.facilitator).await?;
    let signers = pair.signers().await?;
    let mut matched = true;
    for truth in &truths {
        let right = sums::reassemble(&pair, &signers, truth)?.matches(truth);
        let verdict = if right { "match" } else { "NO MATCH" };
        say(format!("   {}: {} clients: {verdict}", truth.name(), truth.clients));
        matched &= right;
    }
    if args.batch_objects == BatchObjects::Exceptions {
        for party in &pair.parties {
            let count = progress::objects(&pair, party).await?;
            ensure!(
                count == 0,
                "{} has {count} Batches, though none was an exception",
                party.name
            );
        }
    }
    let phases = phases.into_inner();
    let report = Report {
        batches: args.batches,
        settings: json!({
            "packets": args.packets, "bins": BINS, "windows": truths.len(),
            "batchObjects": pair.settings.batch_objects, "validationFormat": pair.settings.validation_format,
            "batchesPerPod": args.batches_per_pod, "sumBatchesPerPod": pair.settings.sum_batches_per_pod,
            "maxPods": party::MAX_PODS, "tickSeconds": args.tick_seconds,
        }),
        phases: &phases,
        agreed: f64::from(u32::try_from(CUTOFF_SECONDS)? + pair.settings.settle_seconds),
        costs: &costs,
        matched,
    };
    say(report.tables());
    let text = serde_json::to_string_pretty(&report.json())?;
    // The second one is kept when the other kind is measured.
    let kept = format!("result-{}.json", pair.settings.batch_objects.to_lowercase());
    for name in ["result.json", kept.as_str()] {
        let file = folder.join(name);
        std::fs::write(&file, &text).with_context(|| format!("{} can't be written", file.display()))?;
    }
    say(format!(
        "The same as JSON: target/scale/result.json and target/scale/{kept}"
    ));
    Ok(matched)
}

fn prepare(cluster: &Cluster, folder: &Path, args: &Args) -> Result<Pair> {
    let keys = fixtures::folder(&cluster.repository).join("keys.json");
    let keys = std::fs::read_to_string(&keys).with_context(|| format!("{} can't be read", keys.display()))?;
    // Two days ago, so that the window is over.
    let day = Timestamp::now().to_zoned(TimeZone::UTC).date().checked_sub(2.days())?;
    let settings = Settings {
        batches_per_pod: args.batches_per_pod,
        batch_objects: match args.batch_objects {
            BatchObjects::Exceptions => "Exceptions",
            BatchObjects::All => "All",
        },
        max_batch_objects: 20_000,
        validation_format: "SingleObject",
        tick_seconds: args.tick_seconds,
        ..Settings::from_day(day)
    };
    let pair = Pair::new(cluster, ["first", "second"], folder, KeySet::make(&keys)?, settings);
    Ok(pair.in_clouds([Kind::S3, Kind::S3]))
}

/// The same number of batches in each aggregation, spread over the minutes of one window.
fn write_batches(pair: &Pair, args: &Args) -> Result<Vec<Truth>> {
    let day = pair.settings.day()?.strftime("%Y/%m/%d").to_string();
    let window = |aggregation: usize| {
        let batches = (aggregation..args.batches).step_by(args.aggregations);
        let count = batches.len();
        let sample = |(at, _): (usize, usize)| {
            let minute = at * MINUTES / count;
            Sample {
                aggregation: format!("scale-{aggregation}"),
                time: format!("{day}/{:02}/{:02}", minute / 60, minute % 60),
                bins: BINS,
                packets: args.packets,
                damage: Damage::None,
            }
        };
        batches.enumerate().map(sample).collect::<Vec<_>>()
    };
    let windows: Vec<Vec<Sample>> = (0..args.aggregations).map(window).collect();
    let expected = samples::write_windows(pair, &windows)?;
    Ok(expected.into_iter().map(|expected| expected.truth).collect())
}

/// perf at work; it writes its file when this is dropped.
struct Perf(Child);

impl Perf {
    fn start(folder: &Path) -> Result<Self> {
        let child = Command::new("perf")
            .args(["record", "--all-cpus", "--freq", "99", "--call-graph", "fp", "--output"])
            .arg(folder.join("perf.data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("perf can't be started: install linux-perf")?;
        Ok(Self(child))
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // Killed it would leave half a file.
        let asked = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        if asked.is_ok() {
            let _ = self.0.wait();
        }
    }
}
