//! Lines for people.

use std::io::Write;

/// A line on the standard output; whoever closed it doesn't want it.
pub fn line(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Why the command failed.
pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
