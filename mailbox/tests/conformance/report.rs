//! What came out: a line for each operation as it ends, the table, and `target/conformance/summary.json`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;
use tokio::task::JoinError;

/// How an operation on a backend ended.
pub enum Outcome {
    /// What of it the store itself didn't show; empty where it showed all.
    Passed(&'static str),
    Failed(String),
    /// Why the backend can't show it.
    Skipped(&'static str),
}

pub struct Cell {
    pub operation: &'static str,
    pub backend: &'static str,
    pub outcome: Outcome,
}

impl Cell {
    fn words(&self) -> (&'static str, &str) {
        match &self.outcome {
            Outcome::Passed(reason) => ("passed", reason),
            Outcome::Failed(reason) => ("failed", reason),
            Outcome::Skipped(reason) => ("skipped", reason),
        }
    }

    pub fn tell(&self, took: Duration) {
        let (result, reason) = self.words();
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!(": {reason}")
        };
        println!(
            "test {}::{} ... {result} ({} ms){reason}",
            self.backend,
            self.operation,
            took.as_millis()
        );
    }
}

pub fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match panic.downcast_ref::<String>() {
            Some(message) => message.clone(),
            None => panic
                .downcast_ref::<&str>()
                .map_or("it panicked", |message| message)
                .to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

/// Prints the table; where all was tried, writes the summary.
pub fn tell(cells: &[Cell], complete: bool) -> ExitCode {
    let count = |result: &str| cells.iter().filter(|cell| cell.words().0 == result).count();
    println!("\n{}", table(cells));
    if complete {
        let file = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../target/conformance/summary.json"
        ));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, summary(cells)).unwrap();
        println!("target/conformance/summary.json has each cell with its reason.");
    }
    let (passed, failed, skipped) = (count("passed"), count("failed"), count("skipped"));
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Serialize)]
struct Line<'a> {
    operation: &'a str,
    backend: &'a str,
    result: &'a str,
    reason: &'a str,
}

fn summary(cells: &[Cell]) -> String {
    let mut lines = Vec::with_capacity(cells.len());
    for cell in cells {
        let (result, reason) = cell.words();
        lines.push(Line {
            operation: cell.operation,
            backend: cell.backend,
            result,
            reason,
        });
    }
    serde_json::to_string_pretty(&lines).unwrap() + "\n"
}

/// Operation × backend; what a backend can't show, or not all of, has a number, and its reason below.
fn table(cells: &[Cell]) -> String {
    let mut backends: Vec<_> = cells.iter().map(|cell| cell.backend).collect();
    backends.dedup();
    let mut notes: Vec<String> = Vec::new();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(std::iter::once("operation").chain(backends.iter().copied()));
    let mut operations: Vec<_> = cells.iter().map(|cell| cell.operation).collect();
    operations.sort_by_key(|operation| cells.iter().position(|cell| cell.operation == *operation));
    operations.dedup();
    for operation in operations {
        let mut row = vec![operation.replace('_', " ")];
        for backend in &backends {
            let cell = cells
                .iter()
                .find(|cell| cell.operation == operation && cell.backend == *backend);
            row.push(match cell.map(Cell::words) {
                Some((result @ ("passed" | "skipped"), reason)) if !reason.is_empty() => {
                    let (result, note) = match result {
                        "skipped" => ("–", format!("not shown: {reason}")),
                        passed => (passed, reason.to_owned()),
                    };
                    let known = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
                        notes.push(note);
                        notes.len() - 1
                    });
                    format!("{result} ({})", known + 1)
                }
                Some((result, _)) => result.to_owned(),
                None => String::new(),
            });
        }
        table.add_row(row);
    }
    let notes = notes
        .iter()
        .enumerate()
        .map(|(number, note)| format!("\n({}) {note}", number + 1));
    format!("{table}\n{}", notes.collect::<String>())
}
