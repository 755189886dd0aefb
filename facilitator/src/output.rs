//! The only place that writes to the terminal: results to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::Write;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Starts the log on standard error. `RUST_LOG` overrides the level (default: warnings by hand, info in JSON).
pub fn start_log(format: LogFormat) {
    let default = match format {
        LogFormat::Text => "warn",
        LogFormat::Json => "info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.without_time().with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // A second start in one process keeps the first log.
    drop(started);
}

/// A line of the result.
pub fn line(text: impl Display) {
    text_to_stdout(&format!("{text}\n"));
}

/// Text of the result that ends its own lines.
pub fn text(text: impl Display) {
    text_to_stdout(&text.to_string());
}

fn text_to_stdout(text: &str) {
    // A reader that went away (`| head`) is no fault.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// A number and what it counts.
pub fn count(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

/// The one line that says why a command gave up and what to do.
#[allow(clippy::print_stderr)]
pub fn failure(message: &str, advice: &str) {
    let message = one_line(message);
    if advice.is_empty() {
        eprintln!("error: {message}");
    } else {
        eprintln!("error: {message}; {}", one_line(advice));
    }
}

/// clap's message on one line, and where to read on.
pub fn usage(rendered: &impl Display) {
    let rendered = rendered.to_string();
    // The message and its tips stand before the usage; both may take several lines.
    let message = rendered.split("\nUsage:").next().unwrap_or_default();
    let message = message.split("\nFor more information").next().unwrap_or_default();
    let message = message.trim_start_matches("error:").trim().replace("\n\n  tip: ", "; ");
    failure(&message, "see `facilitator --help`, or `facilitator COMMAND --help`");
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
