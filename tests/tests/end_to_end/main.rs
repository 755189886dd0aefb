//! End-to-end tests on a real node: `tests/run --only end-to-end` starts one and names it in `PRIO_OPERATOR_NODE`.
//!
//! Each scenario has two parties of its own, in namespaces and folders of its own; windows are of the past, so that
//! nobody waits for a clock.
#![allow(clippy::unwrap_used)]

mod bad_batches;
mod causes;
mod clouds;
mod kills;
mod ledger;
mod preflight;
mod refusals;
mod scenario;
mod windows;
