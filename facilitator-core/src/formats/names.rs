//! Names of objects and of what they hold: `docs/formats.md` §1 and §2. Strict both ways: a name that we would not
//! write is not one that we read.

use std::fmt;
use std::str::FromStr;

use mailbox::ObjectKey;
use serde::{Deserialize, Serialize};
use snafu::{Snafu, ensure};
use uuid::Uuid;

use super::work::Share;

mod range;
mod time;
mod window;

pub use range::{BatchRange, Cut, Tile};
pub use time::BatchTime;
pub use window::{WindowId, parse_partial_name, parse_shard_name, parse_sum_part_name};

/// The longest aggregation id and instance name, in bytes.
pub const MAX_NAME_BYTES: usize = 100;
/// No window is released more often: each further release takes an override of its own.
pub const MAX_RELEASES: u8 = 9;
/// Between an instance's name and a further release's number, in the folder of its sum parts. No instance's name ends so.
pub(super) const RELEASE_FOLDER: &str = ".release-";
/// Top-level folders that are no aggregations: the original's task markers, and what is reserved for us.
pub const RESERVED_AGGREGATIONS: [&str; 2] = ["task-markers", "prio-operator"];

/// A name that can't be used. Never retryable: the same text stays wrong.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
pub enum NameError {
    /// Not an aggregation id.
    #[snafu(display(
        "{text:?} is no aggregation id: use 1 to 100 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, and none of {}",
        RESERVED_AGGREGATIONS.join(", ")
    ))]
    Aggregation {
        /// The text refused.
        text: String,
    },
    /// Not an instance name.
    #[snafu(display(
        "{text:?} is no instance name: use 1 to 100 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, and not ending in {RELEASE_FOLDER} and digits"
    ))]
    Instance {
        /// The text refused.
        text: String,
    },
    /// Not a batch's time.
    #[snafu(display("{text:?} is no batch time: write YYYY/MM/DD/HH/mm, in UTC"))]
    Time {
        /// The text refused.
        text: String,
    },
    /// Not a time of a window.
    #[snafu(display("{text:?} is no window time: write YYYYMMDDHHmm, in UTC"))]
    WindowTime {
        /// The text refused.
        text: String,
    },
    /// Not a UUID as names hold it.
    #[snafu(display("{text:?} is no batch UUID: write 36 characters, lower case, with hyphens"))]
    BatchUuid {
        /// The text refused.
        text: String,
    },
    /// Not a further release's number.
    #[snafu(display("there is no release {release} of a window by override: write 2 to {MAX_RELEASES}"))]
    Release {
        /// The number refused.
        release: u8,
    },
    /// A window that ends before it begins, or is empty.
    #[snafu(display("the window {start}-{end} is empty: its end must be after its start"))]
    EmptyWindow {
        /// Start, `YYYYMMDDHHmm`.
        start: String,
        /// End, `YYYYMMDDHHmm`.
        end: String,
    },
    /// Not a range of batch names.
    #[snafu(display(
        "{text:?} is no range of batch names: write two cuts, YYYYMMDDHHmm and the first digits of a UUID, with a hyphen between"
    ))]
    Range {
        /// The text refused.
        text: String,
    },
}

impl NameError {
    /// Whether the same call may succeed later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

fn is_plain_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

/// The id of an aggregation: 1 to 100 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit, not reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AggregationId(String);

impl AggregationId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`NameError::Aggregation`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        ensure!(
            is_plain_name(text) && !RESERVED_AGGREGATIONS.contains(&text),
            AggregationSnafu { text }
        );
        Ok(Self(text.to_owned()))
    }
}
text_type!(AggregationId);

/// The processor's name in manifests and sum-part paths (`us-ct-g-enpa`): 1 to 100 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

impl InstanceName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError::Instance`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_release = text
            .rsplit_once(RELEASE_FOLDER)
            .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        ensure!(is_plain_name(text) && !is_release, InstanceSnafu { text });
        Ok(Self(text.to_owned()))
    }
}
text_type!(InstanceName);

/// The three objects of an ingestion batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IngestionPart {
    /// `.batch`
    Header,
    /// `.batch.sig`, written last
    Signature,
    /// `.batch.avro`
    Packets,
}

/// The objects of a validation batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValidationPart {
    /// `.validity_N`
    Header,
    /// `.validity_N.sig`, written last
    Signature,
    /// `.validity_N.avro`
    Packets,
}

/// The objects of a sum part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SumPartPart {
    /// `.sum_N`
    Header,
    /// `.sum_N.sig`, written last
    Signature,
    /// `.invalid_uuid_N.avro`, absent when empty
    InvalidPackets,
}

/// Which batch: ordered as its object names are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The aggregation.
    pub aggregation: AggregationId,
    /// The time of its path.
    pub time: BatchTime,
    /// Its UUID.
    pub uuid: Uuid,
}

impl BatchId {
    /// Parses `<agg>/<time>/<uuid>`.
    ///
    /// # Errors
    /// [`NameError`], naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (aggregation, rest) = text.split_once('/').unwrap_or((text, ""));
        let (time, uuid) = rest.rsplit_once('/').unwrap_or((rest, ""));
        Ok(Self {
            aggregation: AggregationId::parse(aggregation)?,
            time: BatchTime::parse_path(time)?,
            uuid: parse_uuid(uuid)?,
        })
    }

    /// `<agg>/<time>/<uuid>`: the stem of all its objects, and its name in every ledger folder.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.aggregation, self.time.to_path(), self.uuid)
    }

    /// The name of an object of the ingestion batch.
    #[must_use]
    pub fn ingestion_key(&self, part: IngestionPart) -> ObjectKey {
        let ending = match part {
            IngestionPart::Header => "",
            IngestionPart::Signature => ".sig",
            IngestionPart::Packets => ".avro",
        };
        object_key(format!("{}.batch{ending}", self.path()))
    }

    /// The name of an object of the validation batch that `share` writes.
    #[must_use]
    pub fn validation_key(&self, share: Share, part: ValidationPart) -> ObjectKey {
        let ending = match part {
            ValidationPart::Header => "",
            ValidationPart::Signature => ".sig",
            ValidationPart::Packets => ".avro",
        };
        object_key(format!("{}.validity_{}{ending}", self.path(), share.index()))
    }

    /// The batch's object in a folder of the ledger: `<folder>/<agg>/<time>/<uuid>`.
    #[must_use]
    pub fn ledger_key(&self, folder: &str) -> ObjectKey {
        object_key(format!("{folder}/{}", self.path()))
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Parses a UUID as names hold it: 36 characters, lower case.
///
/// # Errors
/// [`NameError::BatchUuid`].
pub fn parse_uuid(text: &str) -> Result<Uuid, NameError> {
    Uuid::try_parse(text)
        .ok()
        .filter(|uuid| uuid.hyphenated().to_string() == text)
        .ok_or_else(|| BatchUuidSnafu { text }.build())
}

/// Every name that gets here is made of checked parts, the longest of which is far below a store's limit.
fn object_key(name: String) -> ObjectKey {
    ObjectKey::parse(name).expect("checked parts make a name")
}

/// What an object of an ingestion mailbox is; `None` for names that aren't ours.
#[must_use]
pub fn parse_ingestion_name(name: &str) -> Option<(BatchId, IngestionPart)> {
    // From the end: an aggregation id may itself hold `.batch`.
    let endings = [
        (".batch", IngestionPart::Header),
        (".batch.sig", IngestionPart::Signature),
        (".batch.avro", IngestionPart::Packets),
    ];
    endings
        .iter()
        .find_map(|(ending, part)| Some((BatchId::parse(name.strip_suffix(ending)?).ok()?, *part)))
}

/// What an object of a validation mailbox is, and which share wrote it; `None` for names that aren't ours.
#[must_use]
pub fn parse_validation_name(name: &str) -> Option<(BatchId, Share, ValidationPart)> {
    let (name, part) = match (name.strip_suffix(".sig"), name.strip_suffix(".avro")) {
        (Some(name), _) => (name, ValidationPart::Signature),
        (_, Some(name)) => (name, ValidationPart::Packets),
        _ => (name, ValidationPart::Header),
    };
    let (stem, share) = match (name.strip_suffix(".validity_0"), name.strip_suffix(".validity_1")) {
        (Some(stem), _) => (stem, Share::First),
        (_, Some(stem)) => (stem, Share::Second),
        _ => return None,
    };
    Some((BatchId::parse(stem).ok()?, share, part))
}

/// The names of a listing under `folder/`, as batches. Names that aren't batches are passed over.
pub(crate) fn batches_of<'a>(
    keys: impl Iterator<Item = &'a ObjectKey> + 'a,
    folder: &'a str,
) -> impl Iterator<Item = BatchId> + 'a {
    keys.filter_map(move |key| key.as_str().strip_prefix(folder)?.strip_prefix('/'))
        .filter_map(|path| BatchId::parse(path).ok())
}

#[cfg(test)]
mod tests;
