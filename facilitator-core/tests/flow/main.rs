//! Intake and aggregation on whole mailboxes: both parties, the original's objects, faults and crashes.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod faults;
mod large;
mod many;
mod original;
mod overrides;
mod repeat;
mod replaced;
mod replays;
mod rotation;
mod windows;
mod world;
