//! One file a format; the table of names, encodings and bounds is `docs/formats.md`.

pub mod work;
