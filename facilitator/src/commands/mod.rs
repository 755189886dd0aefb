//! One module a command: its arguments, and what it does.

pub mod aggregate;
pub mod copy;
pub mod intake;
pub mod keys;
pub mod lint_manifest;
pub mod preflight;
pub mod reassemble;
pub mod sample;
pub mod work;
