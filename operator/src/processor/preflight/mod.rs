//! Preflights: Jobs under each stage's account say, before work does, what of keys, rights, clocks and formats is wrong. They
//! never hold up work: their Jobs are apart from the stages' own, and nothing waits for them.

mod decide;
mod judge;
mod lines;
mod look;
mod remedy;
#[cfg(test)]
mod tests;

pub use decide::{PreflightDecision, PreflightInput, decide};
