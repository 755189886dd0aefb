//! Measures the core against the floor that its cryptography sets, in the same run: `make bench`.
//!
//! Prints a table and writes `target/bench/summary.json`. `docs/performance.md` explains the rows.
#![allow(clippy::print_stdout, reason = "this is the table")]

mod bulk;
mod claims;
mod document;
mod floor;
mod large;
mod measure;
mod memory;
mod parts;
mod pieces;
mod process;
mod work;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Where the figures of all parts go.
const SUMMARY: &str = "target/bench/summary.json";

/// Measures the core; every figure stands beside its floor.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only parts whose name holds this: pieces, intake, small, sums, parts, claims, process, memory (minutes, and two
    /// gigabytes of disk).
    #[arg(default_value = "")]
    only: String,
    /// Packets of an intake batch.
    #[arg(long, default_value_t = 10_000)]
    packets: usize,
    /// Bins of the intake batches.
    #[arg(long, value_delimiter = ',', default_value = "16,256,1024")]
    bins: Vec<u32>,
    /// Bytes of the batch whose intake's memory is measured.
    #[arg(long, default_value_t = 400_000_000)]
    bytes: u64,
    /// Batches of the window that is summed in parts.
    #[arg(long, default_value_t = 10_000)]
    batches: u32,
    /// Packets of the batch whose aggregation's memory is measured: 2.4 million of Second's are 400 MB.
    #[arg(long, default_value_t = 2_400_000)]
    large: u64,
    /// Rounds of intake and sums.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Batches of a pod, for claims.
    #[arg(long, value_delimiter = ',', default_value = "100,500")]
    batches_per_pod: Vec<usize>,
    /// The binary whose whole process is measured.
    #[arg(long, default_value = "target/x86_64-unknown-linux-gnu/release/facilitator")]
    facilitator: PathBuf,
    /// Where the summary goes. [default: target/bench/summary.json; of one part, target/bench/<part>.json]
    #[arg(long)]
    summary: Option<PathBuf>,
    /// A document whose table between the lines `<!-- figures -->` and `<!-- end of figures -->` is to be this one.
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Measures nothing: puts the figures of an earlier run into a document.
    Document {
        /// A document with a place for the table, as of `--document`.
        file: PathBuf,
        /// What the run wrote.
        #[arg(long, default_value = SUMMARY)]
        summary: PathBuf,
    },
}

/// Exit status where a goal is missed.
const MISSED: u8 = 1;

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Command::Document { file, summary }) = &args.command {
        document::write_into(file, &document::read_summary(summary)?)?;
        println!("the figures of {} are in {}", summary.display(), file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |part: &str| part.contains(&args.only);
    let keys = world::Keys::new()?;
    let mut rows = Vec::new();
    if wanted("pieces") {
        rows.extend(pieces::rows()?);
    }
    if wanted("intake") {
        rows.extend(work::intake(&keys, &args.bins, args.packets, args.rounds)?);
    }
    if wanted("small") {
        rows.extend(work::small_batches(&keys, args.rounds)?);
    }
    if wanted("sums") {
        rows.extend(work::sums(&keys, args.rounds)?);
    }
    if wanted("parts") {
        rows.extend(parts::rows(&keys, args.batches, args.rounds)?);
    }
    if wanted("claims") {
        for batches in &args.batches_per_pod {
            rows.extend(claims::rows(*batches)?);
        }
    }
    if wanted("process") {
        rows.extend(process::rows(&args.facilitator, 20_000)?);
    }
    if wanted("memory") {
        rows.extend(memory::rows(&args.facilitator, args.bytes)?);
        rows.extend(process::many(&args.facilitator)?);
        rows.extend(large::rows(&args.facilitator, args.large)?);
    }
    println!("{}", document::table(&rows));
    let summary = args.summary.unwrap_or_else(|| match args.only.as_str() {
        "" => SUMMARY.into(),
        part => Path::new(SUMMARY).with_file_name(part).with_extension("json"),
    });
    if let Some(folder) = summary.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&summary, serde_json::to_vec_pretty(&rows)?)?;
    println!("summary in {}", summary.display());
    if let Some(document) = &args.document {
        document::write_into(document, &rows)?;
    }
    let goals = rows.iter().filter(|row| row.met.is_some()).count();
    let missed: Vec<_> = rows.iter().filter(|row| row.met == Some(false)).collect();
    println!("{} of {goals} goals met", goals - missed.len());
    let all_met = missed.is_empty();
    for row in missed {
        println!("  not met: {}", row.name);
    }
    Ok(if all_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(MISSED)
    })
}
