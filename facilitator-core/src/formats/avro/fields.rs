//! Decoded fields by name, with the promotions that Avro's schema resolution allows.

use apache_avro::types::Value;
use uuid::Uuid;

use super::MAX_VALUE_BYTES;
use crate::formats::FormatError;

/// The longest name or id, in bytes.
pub(super) const MAX_SHORT_BYTES: usize = 1 << 10;

/// The fields of one decoded record. Each is taken once; those that nobody takes are ignored.
#[derive(Debug)]
pub struct Fields {
    record: &'static str,
    values: Vec<(String, Value)>,
}

/// `["null", T]` in any order, or T itself.
fn unwrap_union(value: Value) -> Value {
    match value {
        Value::Union(_, inner) => *inner,
        other => other,
    }
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bytes(bytes) => String::from_utf8(bytes).ok(),
        Value::Uuid(uuid) => Some(uuid.hyphenated().to_string()),
        _ => None,
    }
}

fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::String(text) => Some(text.into_bytes()),
        _ => None,
    }
}

fn long_of(value: &Value) -> Option<i64> {
    match value {
        Value::Long(number) => Some(*number),
        Value::Int(number) => Some(i64::from(*number)),
        _ => None,
    }
}

fn uuid_of(value: Value) -> Option<Uuid> {
    match value {
        Value::Uuid(uuid) => Some(uuid),
        Value::String(text) => Uuid::try_parse(&text).ok(),
        _ => None,
    }
}

impl Fields {
    /// The fields of a record of that name, as apache-avro reads them.
    #[must_use]
    pub fn new(record: &'static str, values: Vec<(String, Value)>) -> Self {
        Self { record, values }
    }

    fn find(&mut self, field: &'static str) -> Option<Value> {
        let (_, value) = self.values.iter_mut().find(|(name, _)| name == field)?;
        Some(unwrap_union(std::mem::replace(value, Value::Null)))
    }

    fn take(&mut self, field: &'static str) -> Result<Value, FormatError> {
        self.find(field).ok_or(FormatError::MissingField {
            record: self.record,
            field,
        })
    }

    fn wrong(&self, field: &'static str, expected: &'static str) -> FormatError {
        FormatError::WrongType {
            record: self.record,
            field,
            expected,
        }
    }

    fn bounded(&self, what: &'static str, length: usize) -> Result<(), FormatError> {
        if length <= MAX_VALUE_BYTES {
            return Ok(());
        }
        Err(FormatError::TooLarge {
            record: self.record,
            what,
            limit: MAX_VALUE_BYTES as u64,
        })
    }

    /// A UUID, with or without its logical type.
    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid, FormatError> {
        uuid_of(self.take(field)?).ok_or_else(|| self.wrong(field, "UUID"))
    }

    /// A string of at most 16 MiB.
    pub fn text(&mut self, field: &'static str) -> Result<String, FormatError> {
        let text = text_of(self.take(field)?).ok_or_else(|| self.wrong(field, "string"))?;
        self.bounded(field, text.len())?;
        Ok(text)
    }

    /// A string of at most 1 KiB: names and ids, which end up in messages.
    pub fn short_text(&mut self, field: &'static str) -> Result<String, FormatError> {
        let text = self.text(field)?;
        self.short(field, text.len()).map(|()| text)
    }

    /// A string or null. The field itself must be there.
    pub fn optional_text(&mut self, field: &'static str) -> Result<Option<String>, FormatError> {
        match self.take(field)? {
            Value::Null => Ok(None),
            value => {
                let text = text_of(value).ok_or_else(|| self.wrong(field, "string or null"))?;
                self.bounded(field, text.len())?;
                Ok(Some(text))
            }
        }
    }

    /// A string of at most 1 KiB, or null. The field itself must be there.
    pub fn short_optional_text(&mut self, field: &'static str) -> Result<Option<String>, FormatError> {
        let text = self.optional_text(field)?;
        self.short(field, text.as_ref().map_or(0, String::len)).map(|()| text)
    }

    /// At most 1 KiB of bytes, or null. The field itself must be there.
    pub fn short_optional_bytes(&mut self, field: &'static str) -> Result<Option<Vec<u8>>, FormatError> {
        let bytes = self.optional_bytes(field)?;
        self.short(field, bytes.as_ref().map_or(0, Vec::len)).map(|()| bytes)
    }

    fn short(&self, what: &'static str, length: usize) -> Result<(), FormatError> {
        if length <= MAX_SHORT_BYTES {
            return Ok(());
        }
        Err(FormatError::TooLarge {
            record: self.record,
            what,
            limit: MAX_SHORT_BYTES as u64,
        })
    }

    /// Bytes, at most 16 MiB.
    pub fn bytes(&mut self, field: &'static str) -> Result<Vec<u8>, FormatError> {
        let bytes = bytes_of(self.take(field)?).ok_or_else(|| self.wrong(field, "bytes"))?;
        self.bounded(field, bytes.len())?;
        Ok(bytes)
    }

    /// Bytes or null. The field itself must be there.
    pub fn optional_bytes(&mut self, field: &'static str) -> Result<Option<Vec<u8>>, FormatError> {
        match self.take(field)? {
            Value::Null => Ok(None),
            value => {
                let bytes = bytes_of(value).ok_or_else(|| self.wrong(field, "bytes or null"))?;
                self.bounded(field, bytes.len())?;
                Ok(Some(bytes))
            }
        }
    }

    /// Bytes, null or nothing at all, bounded by the object alone: what a single-object validation carries inside.
    pub fn inline_bytes(&mut self, field: &'static str) -> Result<Option<Vec<u8>>, FormatError> {
        match self.find(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Ok(Some(bytes_of(value).ok_or_else(|| self.wrong(field, "bytes or null"))?)),
        }
    }

    /// An int.
    pub fn int(&mut self, field: &'static str) -> Result<i32, FormatError> {
        match self.take(field)? {
            Value::Int(number) => Ok(number),
            _ => Err(self.wrong(field, "int")),
        }
    }

    /// An int, or `default` where the writer's schema doesn't have the field.
    pub fn int_or(&mut self, field: &'static str, default: i32) -> Result<i32, FormatError> {
        if self.has(field) { self.int(field) } else { Ok(default) }
    }

    /// An int or null. The field itself must be there.
    pub fn optional_int(&mut self, field: &'static str) -> Result<Option<i32>, FormatError> {
        match self.take(field)? {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(number)),
            _ => Err(self.wrong(field, "int or null")),
        }
    }

    /// A long.
    pub fn long(&mut self, field: &'static str) -> Result<i64, FormatError> {
        long_of(&self.take(field)?).ok_or_else(|| self.wrong(field, "long"))
    }

    /// A long, or `default` where the writer's schema doesn't have the field.
    pub fn long_or(&mut self, field: &'static str, default: i64) -> Result<i64, FormatError> {
        if self.has(field) { self.long(field) } else { Ok(default) }
    }

    /// A time in milliseconds since 1970; microseconds are refused.
    pub fn millis(&mut self, field: &'static str) -> Result<i64, FormatError> {
        match self.take(field)? {
            Value::TimestampMillis(millis) => Ok(millis),
            value => long_of(&value).ok_or_else(|| self.wrong(field, "time in milliseconds")),
        }
    }

    /// A double.
    pub fn double(&mut self, field: &'static str) -> Result<f64, FormatError> {
        match self.take(field)? {
            Value::Double(number) => Ok(number),
            Value::Float(number) => Ok(f64::from(number)),
            #[allow(clippy::cast_precision_loss, reason = "as Avro's promotion of long to double")]
            value => long_of(&value)
                .map(|number| number as f64)
                .ok_or_else(|| self.wrong(field, "double")),
        }
    }

    /// A list of UUIDs.
    pub fn uuids(&mut self, field: &'static str) -> Result<Vec<Uuid>, FormatError> {
        self.list(field, "list of UUIDs", uuid_of)
    }

    /// A list of longs.
    pub fn longs(&mut self, field: &'static str) -> Result<Vec<i64>, FormatError> {
        self.list(field, "list of longs", |value| long_of(&value))
    }

    fn list<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        convert: impl Fn(Value) -> Option<T>,
    ) -> Result<Vec<T>, FormatError> {
        let Value::Array(values) = self.take(field)? else {
            return Err(self.wrong(field, expected));
        };
        values
            .into_iter()
            .map(convert)
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong(field, expected))
    }

    fn has(&self, field: &str) -> bool {
        self.values.iter().any(|(name, _)| name == field)
    }
}
