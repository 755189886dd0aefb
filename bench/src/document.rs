//! The table of figures, and the document that shows it.

use std::path::Path;

use anyhow::Context as _;
use comfy_table::{Table, presets};

use crate::measure::Row;

/// What the table stands between.
const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- end of figures -->";

/// The rows that a run left in its summary.
pub fn read_summary(summary: &Path) -> anyhow::Result<Vec<Row>> {
    let bytes = std::fs::read(summary).with_context(|| format!("reading {}", summary.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no summary", summary.display()))
}

/// Puts the table of these rows in place of the document's.
pub fn write_into(document: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("{} has no place for figures", document.display()))?;
    std::fs::write(document, format!("{before}{BEGIN}{}\n{END}{after}", table(rows)))?;
    Ok(())
}

/// A line for each row.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["What", "Value", "Unit", "Floor", "Ratio", "Goal", "Met"]);
    let figure = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:.3}"));
    for row in rows {
        let met = row.met.map_or("", |met| if met { "yes" } else { "no" });
        table.add_row([
            row.name.clone(),
            figure(Some(row.value)),
            row.unit.clone(),
            figure(row.floor),
            figure(row.ratio),
            figure(row.goal),
            met.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_summary_takes_the_place_of_the_one_before() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let [summary, document] = ["summary.json", "document.md"].map(|name| folder.path().join(name));
        let rows = [
            Row::at_most("a packet", "µs", &[(2.0, 3.0)], Some(1.25)),
            Row::plain("memory", "MB", 1.5, None),
        ];
        std::fs::write(&summary, serde_json::to_vec_pretty(&rows)?)?;
        let read = read_summary(&summary)?;
        assert_eq!(read, rows);

        let text = |table: &str| format!("Before.\n\n{BEGIN}{table}\n{END}\n\nAfter.\n");
        std::fs::write(&document, text("| an old table |"))?;
        for _ in 0..2 {
            write_into(&document, &read)?;
            assert_eq!(std::fs::read_to_string(&document)?, text(&table(&rows).to_string()));
        }
        std::fs::write(&document, "No place.")?;
        assert!(write_into(&document, &read).is_err());
        Ok(())
    }
}
