//! The documentation's table. Times and sizes vary: they are in the summary alone.

use std::fmt::Write;
use std::path::Path;

use crate::{Case, MILLIS, PEAK_KB};

/// Compares the tables of `docs/security.md` with the cases, or writes them where `UPDATE_DOCS` is set.
///
/// # Panics
/// Where they differ.
pub fn check(kinds: &[(&str, Vec<Case>)]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let new = between(&text, "hostile kinds", &counts(kinds));
    let new = between(&new, "hostile cases", &all(kinds));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, new).unwrap();
        return;
    }
    // Not the whole in a message.
    let line = text.lines().zip(new.lines()).position(|(old, new)| old != new);
    assert!(
        text == new,
        "docs/security.md isn't what the hostile cases say (from line {} on): run this test with UPDATE_DOCS=1 and commit \
         what it writes",
        line.map_or(0, |line| line + 1)
    );
}

/// The text with other lines between the marks of that name.
fn between(text: &str, name: &str, lines: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: written by facilitator-core/tests/hostile -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    format!("{before}{begin}{lines}{end}{after}")
}

fn counts(kinds: &[(&str, Vec<Case>)]) -> String {
    let mut table =
        String::from("| What is hostile | Refused | Harmless | Bound, ms | Bound, KiB |\n|---|--:|--:|--:|--:|\n");
    let mut row = |name: &str, cases: &[&Case]| {
        let refused = cases.iter().filter(|case| case.refused).count();
        let millis = cases.iter().map(|case| case.millis).fold(MILLIS, f64::max);
        let peak_kb = cases.iter().map(|case| case.peak_kb).fold(PEAK_KB, usize::max);
        let harmless = cases.len() - refused;
        writeln!(table, "| {name} | {refused} | {harmless} | {millis} | {peak_kb} |").unwrap();
    };
    for (name, cases) in kinds {
        row(name, &cases.iter().collect::<Vec<_>>());
    }
    row("All", &kinds.iter().flat_map(|(_, cases)| cases).collect::<Vec<_>>());
    table
}

fn all(kinds: &[(&str, Vec<Case>)]) -> String {
    let mut text = String::new();
    let plain = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    let mut table = |name: &str, column: &str, cases: Vec<&Case>| {
        write!(text, "\n### {name}\n\n| Case | {column} |\n|---|---|\n").unwrap();
        for case in cases {
            let mut name = plain(&case.name);
            if case.millis > MILLIS {
                write!(name, " (within {} ms)", case.millis).unwrap();
            }
            writeln!(text, "| {name} | {} |", plain(&case.expected)).unwrap();
        }
    };
    for (name, cases) in kinds {
        table(name, "Refused with", cases.iter().filter(|case| case.refused).collect());
    }
    let harmless = kinds.iter().flat_map(|(_, cases)| cases).filter(|case| !case.refused);
    table(
        "What looks bad and does no harm",
        "What comes of it",
        harmless.collect(),
    );
    text + "\n"
}
