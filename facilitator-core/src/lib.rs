//! The Prio v2 batch protocol: formats, cryptography, proofs, intake and aggregation. No Kubernetes, no cloud.

pub mod crypto;
pub mod formats;
pub mod guards;
pub mod proof;
pub mod window;
