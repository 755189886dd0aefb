//! One file a format; the table of names, encodings and bounds is `docs/formats.md`.

pub mod avro;
pub mod batch;
pub mod claims;
pub(crate) mod error;
pub mod ingestion;
pub mod ledger;
pub mod manifest;
pub mod names;
pub mod parameters;
pub mod partial;
pub mod plan;
pub mod preflight;
pub mod record;
pub mod shard;
pub mod signature;
pub mod sum_part;
pub mod validation;
pub mod work;

pub use error::{BatchError, FormatError};
