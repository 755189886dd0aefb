//! One module a command: its arguments, and what it does.

pub mod keys;
pub mod lint_manifest;
pub mod reassemble;
