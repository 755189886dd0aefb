//! What each privacy guard is for. Every test first does without the guard what an observer of both parties' messages or
//! sums can do, and recovers what a client keeps secret; then the whole flow, with the guard, gives nothing to do it with.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "../flow/world.rs"]
mod world;

mod observer;
mod query_points;
mod replays;
mod sums;
