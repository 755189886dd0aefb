//! Keys of a processor: which Secrets its workers mount, whether they have the versions of its KeyRings, and which of
//! those versions its work still needs. The operator knows names and public halves; it reads no Secret.

mod look;
mod probe;
mod public;
mod resolve;
mod usage;

pub(super) use look::KeyLook;
pub use probe::{ProbeInput, ProbeMemory, Probes, probes};
pub(super) use public::PublicParts;
pub use resolve::{Resolution, Ring, Trouble, VersionHere, resolve};
pub use usage::{Usage, observed_until, usage};
