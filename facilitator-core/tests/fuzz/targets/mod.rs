//! What reads something from outside.

mod batches;
mod containers;
mod documents;
mod keys;
mod names;
mod records;

use std::fmt::Display;

/// Something to fuzz.
pub struct Target {
    pub name: &'static str,
    /// The parts of [`Target::run`]'s answer: the kinds of objects that an input is read as.
    pub parts: &'static [&'static str],
    /// Inputs besides those of the corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How an input ends as each of the parts, [`ACCEPTED`] in front where it was; `Err`: what must not be.
    pub run: fn(&[u8]) -> Result<Vec<String>, String>,
}

/// What was read and believed.
pub const ACCEPTED: &str = "accepted";

/// How something ended.
fn said<T, E: Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| ACCEPTED.into())
}

pub fn all() -> Vec<Target> {
    [
        containers::targets(),
        documents::targets(),
        keys::targets(),
        names::targets(),
        records::targets(),
        batches::targets(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
