//! A quick reader of the records that we know, and schemas parsed once.
//!
//! It reads what is plainly well formed and gives up on anything else: then apache-avro reads the record again, and what
//! it says counts. So the two agree by construction on all that is refused, and by test on what is read.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use apache_avro::Schema;
use apache_avro::schema::UuidSchema;
use uuid::Uuid;

use super::fields::MAX_SHORT_BYTES;
use super::{MAX_VALUE_BYTES, Record};

/// Schemas that are remembered, over all kinds of records; a hostile writer of many only makes us forget.
const REMEMBERED: usize = 64;
/// Longer schema texts are not remembered, in bytes.
const MAX_REMEMBERED_TEXT: usize = 16 << 10;

/// Hands out values in Avro's binary encoding; `None` for whatever isn't plainly right.
#[derive(Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Reads from `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What wasn't read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// A long, in at most nine bytes: longer ones are for apache-avro.
    #[inline]
    pub fn long(&mut self) -> Option<i64> {
        let mut zigzag = 0_u64;
        for (i, byte) in self.0.iter().take(9).enumerate() {
            zigzag |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.0 = &self.0[i + 1..];
                return Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        None
    }

    /// An int.
    pub fn int(&mut self) -> Option<i32> {
        self.long()?.try_into().ok()
    }

    /// A double.
    pub fn double(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }

    fn slice(&mut self, limit: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok().filter(|length| *length <= limit)?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        self.slice(MAX_VALUE_BYTES).map(<[u8]>::to_vec)
    }

    /// A string.
    pub fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.slice(MAX_VALUE_BYTES)?)
            .ok()
            .map(str::to_owned)
    }

    /// A string of at most 1 KiB.
    pub fn short_text(&mut self) -> Option<String> {
        self.text().filter(|text| text.len() <= MAX_SHORT_BYTES)
    }

    /// At most 1 KiB of bytes.
    pub fn short_bytes(&mut self) -> Option<Vec<u8>> {
        self.slice(MAX_SHORT_BYTES).map(<[u8]>::to_vec)
    }

    /// A UUID as a string.
    pub fn uuid(&mut self) -> Option<Uuid> {
        Uuid::try_parse_ascii(self.slice(64)?).ok()
    }

    /// `["null", T]`.
    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.long()? {
            0 => Some(None),
            1 => value(self).map(Some),
            _ => None,
        }
    }

    /// `["int", "null"]`.
    pub fn int_or_null(&mut self) -> Option<Option<i32>> {
        match self.long()? {
            0 => self.int().map(Some),
            1 => Some(None),
            _ => None,
        }
    }

    /// `["null", "bytes"]` of any length.
    pub fn inline_bytes(&mut self) -> Option<Option<Vec<u8>>> {
        self.optional(|decoder| decoder.slice(usize::MAX).map(<[u8]>::to_vec))
    }
}

/// A writer's schema.
#[derive(Debug)]
pub(super) struct WriterSchema {
    pub schema: Schema,
    /// It has the fields of our own schema, in its order: [`Record::decode`] reads it, where there is one.
    pub ours: bool,
}

type Remembered = HashMap<(&'static str, Vec<u8>), Arc<WriterSchema>>;

static SCHEMAS: LazyLock<Mutex<Remembered>> = LazyLock::new(Mutex::default);

/// The writer's schema of this text, from memory where it was seen before; errors are not remembered.
pub(super) fn schema_of<T: Record, E>(
    text: &[u8],
    parse: impl FnOnce(&[u8]) -> Result<Schema, E>,
) -> Result<Arc<WriterSchema>, E> {
    // A panic elsewhere leaves the map whole.
    let remembered = || SCHEMAS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (T::NAME, text.to_vec());
    if let Some(known) = remembered().get(&key) {
        return Ok(Arc::clone(known));
    }
    let schema = parse(text)?;
    let ours = Schema::parse_str(T::SCHEMA).is_ok_and(|ours| same_fields(&ours, &schema));
    let known = Arc::new(WriterSchema { schema, ours });
    if text.len() <= MAX_REMEMBERED_TEXT {
        let mut remembered = remembered();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, Arc::clone(&known));
    }
    Ok(known)
}

/// Whether two records have the same fields in the same order, encoded alike; their own names don't matter.
fn same_fields(one: &Schema, other: &Schema) -> bool {
    let (Schema::Record(one), Schema::Record(other)) = (one, other) else {
        return false;
    };
    one.fields.len() == other.fields.len()
        && one
            .fields
            .iter()
            .zip(&other.fields)
            .all(|(a, b)| a.name == b.name && same_encoding(&a.schema, &b.schema))
}

fn same_encoding(one: &Schema, other: &Schema) -> bool {
    use Schema::{Bytes, Double, Int, Long, Null, String, TimestampMillis, Union, Uuid};
    match (one, other) {
        (Uuid(UuidSchema::String) | String, Uuid(UuidSchema::String) | String)
        | (Long | TimestampMillis, Long | TimestampMillis)
        | (Bytes, Bytes)
        | (Double, Double)
        | (Int, Int)
        | (Null, Null) => true,
        (Union(one), Union(other)) => {
            one.variants().len() == other.variants().len()
                && one
                    .variants()
                    .iter()
                    .zip(other.variants())
                    .all(|(a, b)| same_encoding(a, b))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
