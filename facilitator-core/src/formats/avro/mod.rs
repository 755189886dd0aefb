//! Avro object containers: what partners share (`docs/formats.md` §2).
//!
//! Reading trusts nothing before it is checked: lengths are believed only as far as bytes follow, recursive schemas are
//! refused, and apache-avro decodes one record at a time, of which every length was looked at first. Blocks may be long: none
//! is held whole, but for those of snappy, which are bounded lower. Writing is our own and deterministic: codec null, one sync
//! marker, blocks of at most [`BLOCK_RECORDS`] records, schema text as frozen beside each record.

mod block;
mod bounds;
mod decoder;
mod fields;
mod inflate;
mod reader;
mod writer;

pub use decoder::Decoder;
pub use fields::Fields;
pub use reader::{RecordReader, read_all, read_one};
pub use writer::{Encoder, RecordWriter, write_all, write_one, write_one_around};

use super::FormatError;

/// The most records in a block that we write.
pub const BLOCK_RECORDS: usize = 1_000;
/// A block that we write ends after the record that passes so many bytes, so that readers need little memory.
pub const BLOCK_BYTES: usize = 4 << 20;
/// The largest block of a stream that is read, before and after decompression each, in bytes.
pub const MAX_BLOCK_BYTES: u64 = 64 << 20;
/// The largest block of codec snappy, before and after decompression each, in bytes: its bytes may point back to any that came
/// before, so that it is held whole. Writers make blocks of some tens of kilobytes.
pub const MAX_SNAPPY_BYTES: u64 = 16 << 20;
/// The longest string or byte string of a record, in bytes (inline packets of a single-object validation apart).
pub const MAX_VALUE_BYTES: usize = 16 << 20;
/// The sync marker of every container that we write: the same input gives the same bytes.
pub const SYNC_MARKER: [u8; 16] = *b"prio-operator v1";

/// A record of the protocol.
pub trait Record: Sized {
    /// Its Avro name without namespace, as error messages say it.
    const NAME: &'static str;
    /// The schema text that we write, byte for byte.
    const SCHEMA: &'static str;

    /// The most items of all its lists together; a record without lists may have unknown fields that are small ones.
    const MAX_ITEMS: usize = 1 << 10;

    /// Takes the record from decoded fields.
    ///
    /// # Errors
    /// [`FormatError::MissingField`], [`FormatError::WrongType`] and [`FormatError::TooLarge`].
    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError>;

    /// Whether [`Record::decode`] is there.
    const DECODES: bool = false;

    /// Reads the record from its binary encoding by [`Record::SCHEMA`], and nothing of what follows; `None` where that ends too
    /// early, and where [`Record::from_fields`] must say what is wrong. What this reads, that reads the same.
    fn decode(_: &mut Decoder<'_>) -> Option<Self> {
        None
    }

    /// Appends the record's Avro binary encoding, fields in the order of the schema.
    fn encode(&self, encoder: &mut Encoder<'_>);
}
