//! The signature object: the commit of every batch, and the whole of a single-object validation.

use super::FormatError;
use super::avro::{self, Decoder, Encoder, Fields, Record};
use crate::crypto::BatchSigningKey;

/// What a `.sig` object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSignature {
    /// ECDSA P-256 SHA-256 over the header's bytes, ASN.1 DER.
    pub batch_header_signature: Vec<u8>,
    /// The id of the key that signed.
    pub key_identifier: String,
    /// The header's bytes, in a single-object validation.
    pub batch_header: Option<Vec<u8>>,
    /// The packet object's bytes, in a single-object validation.
    pub packets: Option<Vec<u8>>,
}

impl Record for BatchSignature {
    const NAME: &'static str = "PrioBatchSignature";
    const SCHEMA: &'static str = r#"{"type":"record","namespace":"org.abetterinternet.prio.v1","name":"PrioBatchSignature","fields":[{"name":"batch_header_signature","type":"bytes"},{"name":"key_identifier","type":"string"},{"name":"batch_header","type":["null","bytes"],"default":null},{"name":"packets","type":["null","bytes"],"default":null}]}"#;

    fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            batch_header_signature: fields.bytes("batch_header_signature")?,
            key_identifier: fields.short_text("key_identifier")?,
            batch_header: fields.inline_bytes("batch_header")?,
            packets: fields.inline_bytes("packets")?,
        })
    }

    const DECODES: bool = true;

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            batch_header_signature: decoder.bytes()?,
            key_identifier: decoder.short_text()?,
            batch_header: decoder.inline_bytes()?,
            packets: decoder.inline_bytes()?,
        })
    }

    fn encode(&self, encoder: &mut Encoder<'_>) {
        self.encode_head(encoder);
        encoder.optional_bytes(self.packets.as_deref());
    }
}

impl BatchSignature {
    /// Signs a header's bytes, for a batch of three objects.
    ///
    /// # Errors
    /// [`crate::crypto::SigningError`] where the second implementation refuses the signature.
    pub fn sign(key: &BatchSigningKey, header: &[u8]) -> Result<Self, crate::crypto::SigningError> {
        Ok(Self {
            batch_header_signature: key.sign(header)?,
            key_identifier: key.id().to_owned(),
            batch_header: None,
            packets: None,
        })
    }

    /// Signs a header's bytes and takes them and the packet object's in.
    ///
    /// # Errors
    /// As [`BatchSignature::sign`].
    pub fn sign_inline(
        key: &BatchSigningKey,
        header: Vec<u8>,
        packets: Vec<u8>,
    ) -> Result<Self, crate::crypto::SigningError> {
        let signature = Self::sign(key, &header)?;
        Ok(Self {
            batch_header: Some(header),
            packets: Some(packets),
            ..signature
        })
    }

    /// Writes the object; in the buffer of the packets, where it has them: they may be long.
    #[must_use]
    pub fn into_object(mut self) -> Vec<u8> {
        let Some(packets) = self.packets.take() else {
            return self.write();
        };
        let length = packets.len();
        let begin = |encoder: &mut Encoder<'_>| {
            self.encode_head(encoder);
            encoder.long(1);
            encoder.length(length);
        };
        avro::write_one_around::<Self>(begin, packets)
    }

    fn encode_head(&self, encoder: &mut Encoder<'_>) {
        encoder.bytes(&self.batch_header_signature);
        encoder.bytes(self.key_identifier.as_bytes());
        encoder.optional_bytes(self.batch_header.as_deref());
    }

    /// Header and packet bytes of a single-object validation; `None` unless both are there: then the two objects count.
    #[must_use]
    pub fn inline(&self) -> Option<(&[u8], &[u8])> {
        Some((self.batch_header.as_deref()?, self.packets.as_deref()?))
    }

    /// Reads the object, which holds exactly one record.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        avro::read_one(bytes)
    }

    /// Writes the object.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        avro::write_one(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_the_same_in_the_packets_buffer() {
        for packets in [None, Some(0), Some(1), Some(100_000)] {
            let signature = BatchSignature {
                batch_header_signature: vec![1; 71],
                key_identifier: "key".into(),
                batch_header: packets.map(|_| vec![2; 300]),
                packets: packets.map(|length| vec![3; length]),
            };
            assert_eq!(signature.write(), signature.into_object(), "{packets:?}");
        }
    }
}
