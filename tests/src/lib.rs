//! What the demo and the end-to-end tests share: a handle on the node, two parties on it, batches with known totals,
//! and the way from two sum parts to the totals.

pub mod callers;
pub mod cluster;
pub mod command;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod dependencies;
pub mod fixtures;
pub mod flow;
pub mod images;
pub mod ingestor;
pub mod keys;
pub mod leaks;
pub mod objects;
pub mod output;
pub mod partner;
pub mod party;
mod pods;
pub mod rings;
pub mod rotation;
pub mod samples;
pub mod scale;
pub mod stores;
pub mod sums;
pub mod tables;
pub mod wait;
pub mod web;
