//! What a person and a program read of the sums: tables, and `result.json`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use crate::fixtures::Truth;
use crate::output::say;
use crate::party::Pair;
use crate::sums::{self, Sums};

/// Bins in a row of a table.
const COLUMNS: usize = 16;

/// What was shown.
pub struct Shown {
    /// Whether all windows match.
    pub matched: bool,
    /// Ids of the keys that signed First's and Second's sum parts.
    pub signers: [BTreeSet<String>; 2],
}

/// Reassembles every window, prints its table, writes `result.json`.
///
/// # Errors
/// When a sum part can't be read, or the file can't be written.
pub async fn show(pair: &Pair, truths: &[&Truth], result: &Path) -> Result<Shown> {
    let signers = pair.signers().await?;
    let mut entries = Vec::new();
    let mut shown = Shown {
        matched: true,
        signers: [BTreeSet::new(), BTreeSet::new()],
    };
    for truth in truths {
        let sums = sums::reassemble(pair, &signers, truth)?;
        shown.matched &= sums.matches(truth);
        for (all, signer) in shown.signers.iter_mut().zip(&sums.signers) {
            all.insert(signer.clone());
        }
        say(table(truth, &sums));
        entries.extend(
            pair.parties
                .iter()
                .map(|party| entry(&party.name, party.index, &sums, truth)),
        );
    }
    let text = serde_json::to_string_pretty(&entries)?;
    std::fs::write(result, text).with_context(|| format!("{} can't be written", result.display()))?;
    Ok(shown)
}

fn entry(party: &str, index: usize, sums: &Sums, truth: &Truth) -> Value {
    json!({
        "party": party,
        "aggregation": truth.aggregation,
        "window": format!("{}-{}", truth.start, truth.end),
        "clients": sums.clients[index],
        "signer": sums.signers[index],
        "totals": sums.totals,
        "truth": truth.totals,
        "match": sums.matches(truth),
    })
}

/// The totals, and under each row of them the truth.
pub fn table(truth: &Truth, sums: &Sums) -> String {
    let verdict = if sums.matches(truth) { "match" } else { "NO MATCH" };
    let [first, second] = sums.clients;
    let clients = if first == second {
        first.to_string()
    } else {
        format!("{first} and {second}")
    };
    let title = format!(
        "{}: {clients} clients (truth: {}), {} bins: {verdict}",
        truth.name(),
        truth.clients,
        sums.totals.len()
    );
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let rows = sums.totals.len().max(truth.totals.len()).div_ceil(COLUMNS);
    for row in 0..rows {
        let part = |numbers: &[u64]| {
            let chunk = numbers.iter().skip(row * COLUMNS).take(COLUMNS).map(u64::to_string);
            chunk.collect::<Vec<_>>()
        };
        let line = |title: String, numbers: &[u64]| {
            let mut cells = vec![title];
            cells.extend(part(numbers));
            cells.resize(COLUMNS + 1, String::new());
            cells
        };
        table.add_row(line(format!("bins from {} on: totals", row * COLUMNS), &sums.totals));
        table.add_row(line("truth".to_owned(), &truth.totals));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_padding((0, 1));
    }
    format!("\n{title}\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_whether_totals_match() {
        let truth = Truth {
            aggregation: "a".into(),
            start: "202611200000".into(),
            end: "202611200300".into(),
            batches: Vec::new(),
            clients: 3,
            totals: (0..20).collect(),
        };
        let mut sums = Sums {
            clients: [3, 3],
            signers: ["first-1".into(), "second-1".into()],
            totals: (0..20).collect(),
        };
        assert!(table(&truth, &sums).contains("a 202611200000-202611200300: 3 clients (truth: 3), 20 bins: match"));
        sums.totals[19] = 7;
        assert!(table(&truth, &sums).contains("NO MATCH"));
    }
}
