//! Measures the core against the floor that its cryptography sets, in the same run: `make bench`.
//!
//! Prints a table and writes `target/bench/summary.json`. `docs/performance.md` explains the rows.
#![allow(clippy::print_stdout, reason = "this is the table")]

mod bulk;
mod claims;
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

use anyhow::Context as _;
use clap::Parser;
use comfy_table::{Table, presets};

use crate::measure::Row;

/// Measures the core; every figure stands beside its floor.
#[derive(Parser)]
struct Args {
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

/// Exit status where a goal is missed.
const MISSED: u8 = 1;

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
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
    let table = table(&rows).to_string();
    println!("{table}");
    let summary = args.summary.unwrap_or_else(|| {
        let part = if args.only.is_empty() { "summary" } else { &args.only };
        Path::new("target/bench").join(part).with_extension("json")
    });
    if let Some(folder) = summary.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&summary, serde_json::to_vec_pretty(&rows)?)?;
    println!("summary in {}", summary.display());
    if let Some(document) = &args.document {
        write_into(document, &table)?;
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

fn write_into(document: &Path, table: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    let [begin, end] = ["<!-- figures -->\n", "<!-- end of figures -->"];
    let parts = text
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.with_context(|| format!("{} has no place for figures", document.display()))?;
    std::fs::write(document, format!("{before}{begin}{table}\n{end}{after}"))?;
    Ok(())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["What", "Value", "Unit", "Floor", "Ratio", "Goal", "Met"]);
    let figure = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:.3}"));
    for row in rows {
        let met = row.met.map_or("", |met| if met { "yes" } else { "no" });
        table.add_row([
            row.name.clone(),
            figure(Some(row.value)),
            row.unit.to_owned(),
            figure(row.floor),
            figure(row.ratio),
            figure(row.goal),
            met.to_owned(),
        ]);
    }
    table
}
