//! The minutes that names hold.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use snafu::ensure;

use super::{NameError, TimeSnafu, WindowTimeSnafu};

/// A minute of UTC, as batch paths (`YYYY/MM/DD/HH/mm`) and window names (`YYYYMMDDHHmm`) hold it; years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
        let time = Time::new(small(8, 10)?, small(10, 12)?, 0, 0).ok()?;
        Some(Self(date.to_datetime(time)))
    }

    /// The minute that holds `timestamp`; `None` before year 1.
    #[must_use]
    pub fn from_timestamp(timestamp: Timestamp) -> Option<Self> {
        let datetime = TimeZone::UTC.to_datetime(timestamp);
        let minute = Time::new(datetime.hour(), datetime.minute(), 0, 0).ok()?;
        (datetime.year() >= 1).then(|| Self(datetime.date().to_datetime(minute)))
    }

    /// Its day, UTC.
    #[must_use]
    pub fn date(self) -> Date {
        self.0.date()
    }

    /// Its hour, 0 to 23.
    #[must_use]
    pub fn hour(self) -> u8 {
        self.0.hour().unsigned_abs()
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

impl TryFrom<String> for BatchTime {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse_path(&text)
    }
}

impl From<BatchTime> for String {
    fn from(time: BatchTime) -> Self {
        time.to_path()
    }
}
