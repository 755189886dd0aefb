//! Claims on packets: names, chunks and runs. `docs/formats.md` §3.10.

mod chunk;
mod run;

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use mailbox::ObjectKey;
use snafu::Snafu;

pub use chunk::{Chunk, MAX_CHUNK_BYTES, MAX_CHUNK_ENTRIES, claims_in};
pub use run::{
    MAX_RUN_BYTES, MAX_RUN_ENTRIES, MAX_RUN_HEADER_BYTES, RUN_PREFIX_BYTES, RunHeader, RunIndex, RunReference,
    encode_run, entries_of, header_length,
};

use super::batch::hex;

/// The folder of claims.
pub const CLAIMS: &str = "claims";
/// The length of a claim, in bytes.
pub const CLAIM_BYTES: usize = 16;
/// Runs of one day and key are numbered from 1 to this.
pub const MAX_RUN_NUMBER: u32 = 999_999;

/// Why bytes are not claims. Never retryable: the same bytes stay wrong.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
#[snafu(visibility(pub(self)))]
pub enum ClaimsError {
    /// They don't begin as claims do.
    #[snafu(display("these bytes are no claims; restore the object, or ask who else writes the ledger"))]
    NotClaims,
    /// They aren't the bytes whose digest is the name.
    #[snafu(display("the claims' digest isn't their name; restore the object"))]
    OtherDigest,
    /// A field holds what it can't, or is missing.
    #[snafu(display("the claims' {field} is out of bounds; restore the object"))]
    OutOfBounds {
        /// Which field.
        field: &'static str,
    },
}

/// A batch's claim on a packet; ordered as claims are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// What the packet is known by.
    pub fingerprint: u64,
    /// Who claims it: a batch's path, hashed with a key.
    pub owner: u64,
}

impl Claim {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fingerprint.to_le_bytes());
        out.extend_from_slice(&self.owner.to_le_bytes());
    }

    fn read(bytes: &[u8; CLAIM_BYTES]) -> Self {
        let (fingerprint, owner) = bytes.split_at(8);
        let number = |half: &[u8]| half.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self {
            fingerprint: number(fingerprint),
            owner: number(owner),
        }
    }
}

/// Reads claims that must be sorted, each there once.
fn read_sorted(bytes: &[u8]) -> Result<Vec<Claim>, ClaimsError> {
    let (claims, rest) = bytes.as_chunks();
    let claims: Vec<Claim> = claims.iter().map(Claim::read).collect();
    let sorted = claims.is_sorted_by(|one, next| one < next);
    snafu::ensure!(
        rest.is_empty() && sorted && !claims.is_empty(),
        OutOfBoundsSnafu { field: "list" }
    );
    Ok(claims)
}

/// A packet key in names: the first 16 bytes of its public point's SHA-256, in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketKeyName([u8; 16]);

impl PacketKeyName {
    /// Of the SHA-256 of a public point.
    #[must_use]
    pub fn of(digest: &[u8; 32]) -> Self {
        Self(first_half(digest))
    }

    /// Parses 32 hex digits, lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    /// The folder of its claims, with the `/` at its end.
    #[must_use]
    pub fn folder(self) -> String {
        format!("{CLAIMS}/{self}/")
    }
}

impl fmt::Display for PacketKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PacketKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A day on which claims were announced, UTC; in names `YYYYMMDD`, years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimDay(Date);

impl ClaimDay {
    /// The day that holds an instant.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        ClaimHour::of(time).day
    }

    /// Parses `YYYYMMDD`, exactly.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let of = |digits: &str| i16::try_from(number(digits)?).ok();
        let part = |from, to| i8::try_from(of(text.get(from..to)?)?).ok();
        let year = of(text.get(..4)?).filter(|year| *year >= 1 && text.len() == 8)?;
        Date::new(year, part(4, 6)?, part(6, 8)?).ok().map(Self)
    }

    /// So many days later, or earlier; at most to the ends of time.
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        let first = Date::constant(1, 1, 1);
        let span: Span = days.days();
        Self(self.0.saturating_add(span).max(first))
    }
}

impl fmt::Display for ClaimDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.strftime("%Y%m%d").fmt(f)
    }
}

/// An hour in which claims were announced, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimHour {
    /// The day.
    pub day: ClaimDay,
    /// The hour, 0 to 23.
    pub hour: u8,
}

impl ClaimHour {
    /// The hour that holds an instant; the first there is for all that is before it.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        let first = DateTime::constant(1, 1, 1, 0, 0, 0, 0);
        let time = TimeZone::UTC.to_datetime(time).max(first);
        Self {
            day: ClaimDay(time.date()),
            hour: time.hour().unsigned_abs(),
        }
    }
}

/// Which chunk of a packet key's claims: the hour in which it was announced, and the digest of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// The day.
    pub day: ClaimDay,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The first 16 bytes of the SHA-256 of the object's bytes.
    pub digest: [u8; 16],
}

/// An object under `claims/<packet-key>/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimsObject {
    /// What a worker announced.
    Chunk(ChunkName),
    /// What was compacted of a day.
    Run {
        /// The day.
        day: ClaimDay,
        /// Its place in the day's runs, from 1.
        number: u32,
    },
}

impl ClaimsObject {
    /// The object's name.
    #[must_use]
    pub fn key(self, packet_key: PacketKeyName) -> ObjectKey {
        let name = match self {
            Self::Chunk(ChunkName { day, hour, digest }) => format!("{day}{hour:02}/{}", hex(&digest)),
            Self::Run { day, number } => format!("{day}-runs/{number:06}"),
        };
        ObjectKey::parse(packet_key.folder() + &name).expect("hex digits and numbers make a name")
    }

    /// The day that it belongs to.
    #[must_use]
    pub fn day(self) -> ClaimDay {
        match self {
            Self::Chunk(name) => name.day,
            Self::Run { day, .. } => day,
        }
    }
}

/// What an object of the ledger is; `None` for names that are no claims'.
#[must_use]
pub fn parse_claims_name(name: &str) -> Option<(PacketKeyName, ClaimsObject)> {
    let mut parts = name.split('/');
    let (folder, key, time, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let key = PacketKeyName::parse(key).filter(|_| folder == CLAIMS && parts.next().is_none())?;
    let object = match time.strip_suffix("-runs") {
        Some(day) => ClaimsObject::Run {
            day: ClaimDay::parse(day)?,
            number: number(last).filter(|number| last.len() == 6 && *number > 0)?,
        },
        None => {
            let (day, hour) = time.split_at_checked(8).filter(|(_, hour)| hour.len() == 2)?;
            ClaimsObject::Chunk(ChunkName {
                day: ClaimDay::parse(day)?,
                hour: u8::try_from(number(hour)?).ok().filter(|hour| *hour < 24)?,
                digest: parse_hex(last)?,
            })
        }
    };
    Some((key, object))
}

/// The day of a folder's name `<YYYYMMDDHH>` or `<YYYYMMDD>-runs`, below a packet key's.
#[must_use]
pub fn day_of_folder(name: &str) -> Option<ClaimDay> {
    ClaimDay::parse(name.get(..8)?)
}

fn first_half(digest: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// Digits alone: no sign, no space.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// 32 digits, lower case. A look reads tens of thousands of names.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks();
    let pairs: &[[u8; 2]; 16] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        let key = "00112233445566778899aabbccddeeff";
        for name in [
            format!("claims/{key}/2026112003/{key}"),
            format!("claims/{key}/2026112023/{key}"),
            format!("claims/{key}/20261120-runs/000001"),
            format!("claims/{key}/00010101-runs/999999"),
        ] {
            let (packet_key, object) = parse_claims_name(&name).unwrap();
            assert_eq!(object.key(packet_key).as_str(), name);
            let folder = name.rsplit('/').nth(1).unwrap();
            assert_eq!(day_of_folder(folder), Some(object.day()));
        }
        for name in [
            format!("claims/{key}/2026112024/{key}"),
            format!("claims/{key}/2026113103/{key}"),
            format!("claims/{key}/20261120/{key}"),
            format!("claims/{key}/2026112003/{}", key.to_uppercase()),
            format!("claims/{key}/2026112003/{key}/more"),
            format!("claims/{key}/2026112003/{key}00"),
            format!("claims/{key}/20261120-runs/000000"),
            format!("claims/{key}/20261120-runs/1"),
            format!("claims/{key}/20261120-runs/+00001"),
            format!("claims/{key}/+0261120-runs/000001"),
            format!("claims/{key}/00001120-runs/000001"),
            format!("claims/{key}/202611200/{key}"),
            format!("claims/{key}/20261120003/{key}"),
            format!("claims/{key}/20261120+3/{key}"),
            format!("claims/{key}/20261120-runs/0000001"),
            format!("records/{key}/2026112003/{key}"),
            format!("claims/{}/2026112003/{key}", &key[2..]),
            "claims".into(),
        ] {
            assert_eq!(parse_claims_name(&name), None, "{name}");
        }
    }

    #[test]
    fn days_are_counted_over_months_and_end_with_time() {
        let day = |text| ClaimDay::parse(text).unwrap();
        assert_eq!(day("20261225").plus(14), day("20270108"));
        assert_eq!(day("00010103").plus(-14), day("00010101"));
        assert_eq!(day("99991230").plus(14), day("99991231"));
        let hour = |text: &str| ClaimHour::of(text.parse().unwrap());
        let (day, hour_of_day) = (day("20261120"), hour("2026-11-20T03:59:59Z"));
        assert_eq!((hour_of_day.day, hour_of_day.hour), (day, 3));
        let first = ClaimHour::of(Timestamp::MIN);
        assert_eq!((first.day.to_string(), first.hour), ("00010101".to_owned(), 0));
    }
}
