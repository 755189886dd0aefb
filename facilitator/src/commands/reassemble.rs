//! `facilitator reassemble`: adds the two parties' sum parts and prints the totals.

use std::collections::BTreeMap;
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use facilitator_core::formats::work::Share;

use crate::exit::{ExitClass, Failure};
use crate::key_folders::KeyFolders;
use crate::parts::{self, Found, SignerKeys};
use crate::reassembly::{Reassembled, reassemble};
use crate::{output, truth};

/// Examples for the help.
pub const AFTER: &str = "\
Examples:
  All windows of a local world, signatures checked, the truth beside:
    facilitator reassemble demo/portal-first demo/portal-second \\
        --keys demo --truth demo/truth.json
  One window, as JSON:
    facilitator reassemble demo/portal-first demo/portal-second \\
        --aggregation kittens-seen --start 202611200000 --json
  Two sum parts by their paths:
    facilitator reassemble \\
        first/202611200000-202611200300.sum_0 \\
        second/202611200000-202611200300.sum_1 \\
        --first-key first-key-1=first.pem --second-key second-key-1=second.pem

Exit code 65: the parts don't belong together, a signature or digest is wrong,
or the truth is another.";

/// Add the two sum parts of each window and print the totals.
///
/// FIRST and SECOND each name a portal's mailbox (a folder or URL; the same may serve for both), from which every window
/// is taken that both parties have summed, or one sum part, `….sum_0` or `….sum_1`. Both parts must be of the same
/// batches, with the same packets left out; else their sum would be noise. Signatures are checked where keys are given;
/// digests always.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// First's sum parts (`.sum_0`): a portal mailbox, or one sum part.
    pub first: String,
    /// Second's sum parts (`.sum_1`): a portal mailbox, or one sum part.
    pub second: String,
    /// Only this aggregation.
    #[arg(long, value_name = "NAME")]
    pub aggregation: Option<String>,
    /// Only the window that starts then.
    #[arg(long, value_name = "YYYYMMDDHHmm")]
    pub start: Option<String>,
    /// Only sum parts of this instance, the first folder of their names.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only this release of each window: 1 is the first, more come by overrides.
    #[arg(long, value_name = "NUMBER")]
    pub release: Option<u8>,
    /// Check signatures with the public keys that `facilitator keys` or `facilitator sample --into` made in DIR.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["first_key", "second_key"])]
    pub keys: Option<PathBuf>,
    /// A public key that may have signed First's parts: its id, and a PEM file. May be repeated.
    #[arg(long, value_name = "ID=FILE", requires = "second_key")]
    pub first_key: Vec<String>,
    /// A public key that may have signed Second's parts. May be repeated.
    #[arg(long, value_name = "ID=FILE", requires = "first_key")]
    pub second_key: Vec<String>,
    /// Compare with the truth that `facilitator sample` wrote.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// Print one JSON array instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// Parts that are missing, bad, or don't belong together; a truth that is another.
pub async fn run(args: Args) -> Result<(), Failure> {
    let keys = [signer_keys(&args, Share::First)?, signer_keys(&args, Share::Second)?];
    let known = args.truth.as_deref().map(truth::read).transpose()?.unwrap_or_default();
    let first = find(&args.first, Share::First, &args).await?;
    let mut second = find(&args.second, Share::Second, &args).await?;
    let mut results = Vec::new();
    for (window, one) in first {
        let Some(other) = second.remove(&window) else {
            return Err(missing(&window, "Second", &args.second));
        };
        let release = one.release();
        let one = one.read(&keys[0]).await?;
        let other = other.read(&keys[1]).await?;
        let mut result = reassemble(&one, &other).map_err(|difference| {
            Failure::new(
                ExitClass::Data,
                format_args!("window {window}: {difference}"),
                "ask both parties which batches and packets they summed",
            )
        })?;
        result.release = release;
        result.compare(&known);
        results.push(result);
    }
    if let Some(window) = second.into_keys().next() {
        return Err(missing(&window, "First", &args.first));
    }
    if results.is_empty() {
        return Err(Failure::new(
            ExitClass::NoInput,
            format_args!(
                "no sum part of what was asked for in {} and {}",
                args.first, args.second
            ),
            "run `facilitator aggregate` for both parties first, or check --aggregation, --start and --instance",
        ));
    }
    print(&results, args.json)?;
    let wrong = results.iter().filter(|result| result.matches == Some(false));
    match wrong.map(title).reduce(|a, b| format!("{a}; {b}")) {
        Some(wrong) => Err(Failure::new(
            ExitClass::Data,
            format_args!("the totals aren't the truth in: {wrong}"),
            "check that all of the window's batches were in the sum",
        )),
        None => Ok(()),
    }
}

/// The place's parts, one a window.
async fn find(place: &str, share: Share, args: &Args) -> Result<BTreeMap<String, Found>, Failure> {
    let mut windows = BTreeMap::new();
    for found in parts::find(place, share).await? {
        let wanted =
            |wish: &Option<String>, has: Option<&str>| wish.is_none() || has.is_none() || wish.as_deref() == has;
        if !wanted(&args.aggregation, found.aggregation())
            || !wanted(&args.start, Some(found.start()))
            || !wanted(&args.instance, found.instance())
            || args.release.is_some_and(|only| only != found.release())
        {
            continue;
        }
        let window = found.window();
        if windows.insert(window.clone(), found).is_some() {
            return Err(Failure::new(
                ExitClass::Usage,
                format_args!("{place} holds sum parts of several instances for window {window}"),
                "choose one with --instance",
            ));
        }
    }
    Ok(windows)
}

fn missing(window: &str, party: &str, place: &str) -> Failure {
    Failure::new(
        ExitClass::NoInput,
        format_args!("{place} has no sum part of {party} for window {window}"),
        format_args!("wait for {party} to sum that window, or leave it out with --aggregation, --start and --release"),
    )
}

fn signer_keys(args: &Args, share: Share) -> Result<Option<SignerKeys>, Failure> {
    if let Some(root) = &args.keys {
        return SignerKeys::of_folder(&KeyFolders::of(root).signing(share)).map(Some);
    }
    let given = match share {
        Share::First => &args.first_key,
        Share::Second => &args.second_key,
    };
    if given.is_empty() {
        Ok(None)
    } else {
        SignerKeys::of_arguments(given).map(Some)
    }
}

fn title(result: &Reassembled) -> String {
    let release = match result.release {
        1 => String::new(),
        release => format!(" release {release}"),
    };
    format!("{} {}-{}{release}", result.aggregation, result.start, result.end)
}

fn print(results: &[Reassembled], json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(results)
            .map_err(|error| Failure::new(ExitClass::Internal, error, "report this fault"))?;
        output::line(text);
        return Ok(());
    }
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            output::line("");
        }
        let signatures = if result.verified {
            "signatures verified"
        } else {
            "signatures not checked (no keys given)"
        };
        output::line(format_args!(
            "{}: {} in {}, {} left out, {signatures}",
            title(result),
            output::count(result.clients, "client", "clients"),
            output::count(result.batches, "batch", "batches"),
            output::count(result.invalid_packets, "packet", "packets"),
        ));
        output::line(table(result));
        match result.matches {
            Some(true) => output::line("match"),
            Some(false) => output::line("NO MATCH"),
            None => {}
        }
    }
    Ok(())
}

fn table(result: &Reassembled) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    let truth = result.truth.as_ref();
    table.set_header(["bin", "total"].into_iter().chain(truth.map(|_| "truth")));
    for (bin, total) in result.totals.iter().enumerate() {
        let truth = truth.map(|truth| truth.get(bin).map_or_else(|| "-".to_owned(), u64::to_string));
        table.add_row([bin.to_string(), total.to_string()].into_iter().chain(truth));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
