//! `kubectl prio keys`.

pub mod import;
pub mod plan;
