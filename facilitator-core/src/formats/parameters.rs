//! What the headers of a batch's ingestion and validation have in common.

use snafu::{Snafu, ensure};
use uuid::Uuid;

use super::FormatError;
use super::avro::{Decoder, Encoder, Fields};
use crate::proof;

/// The most bins that the field has roots for: 2^19 − 1.
pub const MAX_BINS: u32 = (1 << 19) - 1;

/// Parameters of a batch, as partners write them; [`BatchParameters::check`] says whether we can compute with them.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchParameters {
    /// The batch's UUID.
    pub batch_uuid: Uuid,
    /// The aggregation's name.
    pub name: String,
    /// Values of a packet.
    pub bins: i32,
    /// Parameter of the noise that clients add; passed on.
    pub epsilon: f64,
    /// The field's prime; 4293918721 where absent.
    pub prime: i64,
    /// 2 where absent.
    pub number_of_servers: i32,
    /// Passed on.
    pub hamming_weight: Option<i32>,
}

/// A well-formed header of something that we don't do. Never retryable.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
pub enum ParametersError {
    /// Bins out of bounds.
    #[snafu(display("bins is {bins}; 1 to {MAX_BINS} can be processed"))]
    Bins {
        /// As the header says.
        bins: i32,
    },
    /// Another field.
    #[snafu(display("prime is {prime}; only {} can be processed", proof::PRIME))]
    Prime {
        /// As the header says.
        prime: i64,
    },
    /// No number.
    #[snafu(display("epsilon is {epsilon}; it must be a finite number"))]
    Epsilon {
        /// As the header says, as text.
        epsilon: String,
    },
    /// Another number of share processors.
    #[snafu(display("number_of_servers is {number}; only 2 can be processed"))]
    NumberOfServers {
        /// As the header says.
        number: i32,
    },
}

impl ParametersError {
    /// Whether the same header may pass later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl BatchParameters {
    /// The number of bins, if all parameters are ones that we compute with.
    ///
    /// # Errors
    /// [`ParametersError`], naming the parameter.
    pub fn check(&self) -> Result<u32, ParametersError> {
        let bins = u32::try_from(self.bins)
            .ok()
            .filter(|bins| (1..=MAX_BINS).contains(bins));
        let bins = bins.ok_or(ParametersError::Bins { bins: self.bins })?;
        ensure!(self.prime == i64::from(proof::PRIME), PrimeSnafu { prime: self.prime });
        // JSON has no other numbers: a plan with such a shape couldn't be read again.
        ensure!(
            self.epsilon.is_finite(),
            EpsilonSnafu {
                epsilon: self.epsilon.to_string()
            }
        );
        ensure!(
            self.number_of_servers == 2,
            NumberOfServersSnafu {
                number: self.number_of_servers
            }
        );
        Ok(bins)
    }

    /// The first field, batch UUID included, in which another header of the same batch differs; NaN equals itself.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.batch_uuid != other.batch_uuid {
            Some("batch_uuid")
        } else {
            self.shape_difference(other)
        }
    }

    /// The first field, batch UUID left out, in which a batch of the same window differs; NaN equals itself.
    #[must_use]
    pub fn shape_difference(&self, other: &Self) -> Option<&'static str> {
        let checks = [
            ("name", self.name == other.name),
            ("bins", self.bins == other.bins),
            (
                "epsilon",
                self.epsilon == other.epsilon || self.epsilon.to_bits() == other.epsilon.to_bits(),
            ),
            ("prime", self.prime == other.prime),
            ("number_of_servers", self.number_of_servers == other.number_of_servers),
            ("hamming_weight", self.hamming_weight == other.hamming_weight),
        ];
        checks.iter().find(|(_, same)| !same).map(|(field, _)| *field)
    }

    pub(super) fn from_fields(fields: &mut Fields) -> Result<Self, FormatError> {
        Ok(Self {
            batch_uuid: fields.uuid("batch_uuid")?,
            name: fields.short_text("name")?,
            bins: fields.int("bins")?,
            epsilon: fields.double("epsilon")?,
            prime: fields.long_or("prime", i64::from(proof::PRIME))?,
            number_of_servers: fields.int_or("number_of_servers", 2)?,
            hamming_weight: fields.optional_int("hamming_weight")?,
        })
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            batch_uuid: decoder.uuid()?,
            name: decoder.short_text()?,
            bins: decoder.int()?,
            epsilon: decoder.double()?,
            prime: decoder.long()?,
            number_of_servers: decoder.int()?,
            hamming_weight: decoder.int_or_null()?,
        })
    }

    pub(super) fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.uuid(self.batch_uuid);
        encoder.bytes(self.name.as_bytes());
        encoder.int(self.bins);
        encoder.double(self.epsilon);
        encoder.long(self.prime);
        encoder.int(self.number_of_servers);
        encoder.int_or_null(self.hamming_weight);
    }
}
