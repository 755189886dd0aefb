//! The Prio v2 batch protocol: formats, cryptography, proofs, intake and aggregation. No Kubernetes, no cloud.

pub mod aggregate;
pub mod claims;
pub mod crypto;
pub mod formats;
pub mod guards;
pub mod identity;
pub mod intake;
mod outgoing;
mod own_record;
mod peer_messages;
pub mod preflight;
pub mod processor;
pub mod proof;
pub mod put;
pub mod sample;
mod stream;
pub mod uses;
pub mod window;
