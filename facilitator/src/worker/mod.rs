//! The same work in a pod and by hand: parameters and keys become a processor, items become outcomes and reports.

pub mod items;
pub mod preflight;
pub mod probe;
pub mod retry;
pub mod setup;
