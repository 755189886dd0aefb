//! Names of objects and of what they hold: `docs/formats.md` §1 and §2. Strict both ways: a name that we would not
//! write is not one that we read.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use mailbox::ObjectKey;
use serde::{Deserialize, Serialize};
use snafu::{Snafu, ensure};
use uuid::Uuid;

use super::work::Share;

/// The longest aggregation id and instance name, in bytes.
pub const MAX_NAME_BYTES: usize = 100;
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
    #[snafu(display("{text:?} is no instance name: use 1 to 100 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"))]
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
    /// A window that ends before it begins, or is empty.
    #[snafu(display("the window {start}-{end} is empty: its end must be after its start"))]
    EmptyWindow {
        /// Start, `YYYYMMDDHHmm`.
        start: String,
        /// End, `YYYYMMDDHHmm`.
        end: String,
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
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
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
        ensure!(is_plain_name(text) && !RESERVED_AGGREGATIONS.contains(&text), AggregationSnafu { text });
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
        ensure!(is_plain_name(text), InstanceSnafu { text });
        Ok(Self(text.to_owned()))
    }
}
text_type!(InstanceName);

/// A minute of UTC, as batch paths (`YYYY/MM/DD/HH/mm`) and window names (`YYYYMMDDHHmm`) hold it; years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchTime(DateTime);

impl BatchTime {
    /// Parses `YYYY/MM/DD/HH/mm`, exactly.
    ///
    /// # Errors
    /// [`NameError::Time`] for any other form and for dates that don't exist.
    pub fn parse_path(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let slashes = bytes.len() == 16 && [4, 7, 10, 13].iter().all(|i| bytes[*i] == b'/');
        ensure!(slashes, TimeSnafu { text });
        Self::from_digits(&text.replace('/', "")).ok_or_else(|| TimeSnafu { text }.build())
    }

    /// Parses `YYYYMMDDHHmm`, exactly.
    ///
    /// # Errors
    /// [`NameError::WindowTime`] for any other form and for dates that don't exist.
    pub fn parse_compact(text: &str) -> Result<Self, NameError> {
        Self::from_digits(text).ok_or_else(|| WindowTimeSnafu { text }.build())
    }

    fn from_digits(digits: &str) -> Option<Self> {
        if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i16>().ok();
        let small = |from: usize, to: usize| i8::try_from(part(from, to)?).ok();
        let year = part(0, 4).filter(|year| *year >= 1)?;
        let date = Date::new(year, small(4, 6)?, small(6, 8)?).ok()?;
        let time = jiff::civil::Time::new(small(8, 10)?, small(10, 12)?, 0, 0).ok()?;
        Some(Self(date.to_datetime(time)))
    }

    /// The minute that holds `timestamp`; `None` before year 1.
    #[must_use]
    pub fn from_timestamp(timestamp: Timestamp) -> Option<Self> {
        let datetime = TimeZone::UTC.to_datetime(timestamp);
        let minute = jiff::civil::Time::new(datetime.hour(), datetime.minute(), 0, 0).ok()?;
        (datetime.year() >= 1).then(|| Self(datetime.date().to_datetime(minute)))
    }

    /// The instant.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        // UTC has no gaps, and every civil time of years 1 to 9999 is at most hours from the range that jiff keeps.
        TimeZone::UTC.to_timestamp(self.0).unwrap_or(Timestamp::MAX)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.timestamp().as_millisecond()
    }

    /// `YYYY/MM/DD/HH/mm`.
    #[must_use]
    pub fn to_path(self) -> String {
        self.0.strftime("%Y/%m/%d/%H/%M").to_string()
    }

    /// `YYYYMMDDHHmm`.
    #[must_use]
    pub fn to_compact(self) -> String {
        self.0.strftime("%Y%m%d%H%M").to_string()
    }
}

impl fmt::Display for BatchTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_path())
    }
}

impl FromStr for BatchTime {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse_path(text)
    }
}

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
    let endings =
        [(".batch", IngestionPart::Header), (".batch.sig", IngestionPart::Signature), (".batch.avro", IngestionPart::Packets)];
    endings.iter().find_map(|(ending, part)| Some((BatchId::parse(name.strip_suffix(ending)?).ok()?, *part)))
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

/// Which window of which aggregation: `[start, end)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId {
    /// The aggregation.
    pub aggregation: AggregationId,
    /// The first minute.
    pub start: BatchTime,
    /// The minute after the last.
    pub end: BatchTime,
}

impl WindowId {
    /// A window.
    ///
    /// # Errors
    /// [`NameError::EmptyWindow`] unless `start` is before `end`.
    pub fn new(aggregation: AggregationId, start: BatchTime, end: BatchTime) -> Result<Self, NameError> {
        ensure!(start < end, EmptyWindowSnafu { start: start.to_compact(), end: end.to_compact() });
        Ok(Self { aggregation, start, end })
    }

    /// Parses `<agg>/<start>-<end>`.
    ///
    /// # Errors
    /// [`NameError`], naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (aggregation, times) = text.split_once('/').unwrap_or((text, ""));
        let (start, end) = times.split_once('-').unwrap_or((times, ""));
        let aggregation = AggregationId::parse(aggregation)?;
        Self::new(aggregation, BatchTime::parse_compact(start)?, BatchTime::parse_compact(end)?)
    }

    /// `<agg>/<start>-<end>`: its name in every ledger folder.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}-{}", self.aggregation, self.start.to_compact(), self.end.to_compact())
    }

    /// Whether a batch of this time is in the window.
    #[must_use]
    pub fn contains(&self, time: BatchTime) -> bool {
        self.start <= time && time < self.end
    }

    /// The name of an object of the sum part that `share` of `instance` writes.
    #[must_use]
    pub fn sum_part_key(&self, instance: &InstanceName, share: Share, part: SumPartPart) -> ObjectKey {
        let stem = format!("{instance}/{}", self.path());
        let n = share.index();
        object_key(match part {
            SumPartPart::Header => format!("{stem}.sum_{n}"),
            SumPartPart::Signature => format!("{stem}.sum_{n}.sig"),
            SumPartPart::InvalidPackets => format!("{stem}.invalid_uuid_{n}.avro"),
        })
    }

    /// The window's object in a folder of the ledger: `<folder>/<agg>/<start>-<end>`.
    #[must_use]
    pub fn ledger_key(&self, folder: &str) -> ObjectKey {
        object_key(format!("{folder}/{}", self.path()))
    }
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// What an object of a portal's mailbox is, by instance and share; `None` for names that aren't ours.
#[must_use]
pub fn parse_sum_part_name(name: &str) -> Option<(InstanceName, WindowId, Share, SumPartPart)> {
    let endings = [
        (".sum_0", Share::First, SumPartPart::Header),
        (".sum_1", Share::Second, SumPartPart::Header),
        (".sum_0.sig", Share::First, SumPartPart::Signature),
        (".sum_1.sig", Share::Second, SumPartPart::Signature),
        (".invalid_uuid_0.avro", Share::First, SumPartPart::InvalidPackets),
        (".invalid_uuid_1.avro", Share::Second, SumPartPart::InvalidPackets),
    ];
    endings.iter().find_map(|(ending, share, part)| {
        let (instance, window) = name.strip_suffix(ending)?.split_once('/')?;
        Some((InstanceName::parse(instance).ok()?, WindowId::parse(window).ok()?, *share, *part))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const UUID: &str = "5a3da7c8-bf33-45d0-bfc6-7ef267c821f2";

    #[test]
    fn takes_and_refuses_aggregation_ids() {
        for text in ["kittens-seen", "a", "A.b_c-9", "x.batch", &"a".repeat(100)] {
            assert_eq!(AggregationId::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "-a", ".a", "a/b", "a b", "ä", "task-markers", "prio-operator", &"a".repeat(101), "a\n"] {
            assert!(AggregationId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_go_both_ways_and_only_real_ones() {
        let time = BatchTime::parse_path("2026/11/20/00/45").unwrap();
        assert_eq!(time.to_compact(), "202611200045");
        assert_eq!(time.timestamp().to_string(), "2026-11-20T00:45:00Z");
        assert_eq!(BatchTime::parse_compact("202611200045").unwrap(), time);
        assert_eq!(BatchTime::from_timestamp("2026-11-20T00:45:59.9Z".parse().unwrap()), Some(time));
        assert_eq!(BatchTime::parse_path("0001/01/01/00/00").unwrap().to_path(), "0001/01/01/00/00");
        for text in ["2026/02/30/00/00", "2026/11/20/24/00", "2026/11/20/00/60", "2026/1/20/00/00", "2026-11-20-00-00",
            "2026/11/20/00/00/", "0000/01/01/00/00", "+026/11/20/00/00", "2026/11/20/00/0é", "202611200045"] {
            assert!(BatchTime::parse_path(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_of_a_batch_go_both_ways() {
        let id = BatchId::parse(&format!("x.batch/2026/11/20/00/00/{UUID}")).unwrap();
        for part in [IngestionPart::Header, IngestionPart::Signature, IngestionPart::Packets] {
            assert_eq!(parse_ingestion_name(id.ingestion_key(part).as_str()), Some((id.clone(), part)));
        }
        for share in [Share::First, Share::Second] {
            for part in [ValidationPart::Header, ValidationPart::Signature, ValidationPart::Packets] {
                assert_eq!(parse_validation_name(id.validation_key(share, part).as_str()), Some((id.clone(), share, part)));
            }
        }
        assert_eq!(id.ledger_key("records").as_str(), format!("records/x.batch/2026/11/20/00/00/{UUID}"));
    }

    #[test]
    fn foreign_names_are_none() {
        let stem = format!("a/2026/11/20/00/00/{UUID}");
        let upper = UUID.to_uppercase();
        for name in [
            format!("{stem}.batch.sig.sig"), format!("{stem}.batch.gz"), format!("{stem}.validity_2"), stem.clone(),
            format!("/{stem}.batch"), format!("x/{stem}.batch"), format!("a/2026/11/20/00/00/{upper}.batch"),
            format!("a/2026/11/20/00/00/{}.batch", UUID.replace('-', "")), format!("a/2026/13/20/00/00/{UUID}.batch"),
            format!("task-markers/2026/11/20/00/00/{UUID}.batch"), String::new(), ".batch".to_owned(),
        ] {
            assert_eq!(parse_ingestion_name(&name), None, "{name}");
            assert_eq!(parse_validation_name(&name), None, "{name}");
        }
    }

    #[test]
    fn names_of_a_window_go_both_ways() {
        let window = WindowId::parse("kittens-seen/202611200000-202611200300").unwrap();
        let instance = InstanceName::parse("us-ct-g-enpa").unwrap();
        let key = window.sum_part_key(&instance, Share::Second, SumPartPart::InvalidPackets);
        assert_eq!(key.as_str(), "us-ct-g-enpa/kittens-seen/202611200000-202611200300.invalid_uuid_1.avro");
        for part in [SumPartPart::Header, SumPartPart::Signature, SumPartPart::InvalidPackets] {
            let key = window.sum_part_key(&instance, Share::First, part);
            assert_eq!(parse_sum_part_name(key.as_str()), Some((instance.clone(), window.clone(), Share::First, part)));
        }
        assert!(window.contains(window.start) && !window.contains(window.end));
        for text in ["a/202611200300-202611200300", "a/202611200300-202611200000", "a/202611200300", "202611200300-202611200400"] {
            assert!(WindowId::parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_sum_part_name("kittens-seen/202611200000-202611200300.sum_0"), None);
    }
}
