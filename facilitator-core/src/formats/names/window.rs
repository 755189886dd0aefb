//! Names of windows and of their sum parts.

use std::fmt;

use mailbox::ObjectKey;
use snafu::ensure;

use super::{
    AggregationId, BatchRange, BatchTime, EmptyWindowSnafu, InstanceName, MAX_RELEASES, NameError, RELEASE_FOLDER,
    ReleaseSnafu, SumPartPart, object_key,
};
use crate::formats::ledger::{PARTIALS, SHARDS};
use crate::formats::work::Share;

/// Which window of which aggregation, `[start, end)`, and which of its releases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId {
    /// The aggregation.
    pub aggregation: AggregationId,
    /// The first minute.
    pub start: BatchTime,
    /// The minute after the last.
    pub end: BatchTime,
    /// Which release: 1 but where an approved override releases the window once more, 2 to [`MAX_RELEASES`].
    release: u8,
}

impl WindowId {
    /// A window, its first release.
    ///
    /// # Errors
    /// [`NameError::EmptyWindow`] unless `start` is before `end`.
    pub fn new(aggregation: AggregationId, start: BatchTime, end: BatchTime) -> Result<Self, NameError> {
        ensure!(
            start < end,
            EmptyWindowSnafu {
                start: start.to_compact(),
                end: end.to_compact()
            }
        );
        Ok(Self {
            aggregation,
            start,
            end,
            release: 1,
        })
    }

    /// Another release of the same window.
    ///
    /// # Errors
    /// [`NameError::Release`] unless `release` is 2 to [`MAX_RELEASES`].
    pub fn again(&self, release: u8) -> Result<Self, NameError> {
        ensure!((2..=MAX_RELEASES).contains(&release), ReleaseSnafu { release });
        Ok(Self {
            release,
            ..self.clone()
        })
    }

    /// The window's first release.
    #[must_use]
    pub fn first(&self) -> Self {
        Self {
            release: 1,
            ..self.clone()
        }
    }

    /// Which release, 1 to [`MAX_RELEASES`].
    #[must_use]
    pub fn release(&self) -> u8 {
        self.release
    }

    /// Parses `<agg>/<start>-<end>`, or `<agg>/<start>-<end>.<release>` of a further release.
    ///
    /// # Errors
    /// [`NameError`], naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (aggregation, times) = text.split_once('/').unwrap_or((text, ""));
        let (start, end) = times.split_once('-').unwrap_or((times, ""));
        let aggregation = AggregationId::parse(aggregation)?;
        let release = end
            .split_once('.')
            .and_then(|(end, release)| Some((end, digit(release)?)));
        let window = |end| {
            Self::new(
                aggregation,
                BatchTime::parse_compact(start)?,
                BatchTime::parse_compact(end)?,
            )
        };
        match release {
            Some((end, release)) => window(end)?.again(release),
            None => window(end),
        }
    }

    /// `<agg>/<start>-<end>`, of a further release with `.<release>` after it: its name in every ledger folder.
    #[must_use]
    pub fn path(&self) -> String {
        match self.release {
            1 => self.times(),
            release => format!("{}.{release}", self.times()),
        }
    }

    fn times(&self) -> String {
        format!(
            "{}/{}-{}",
            self.aggregation,
            self.start.to_compact(),
            self.end.to_compact()
        )
    }

    /// Whether a batch of this time is in the window.
    #[must_use]
    pub fn contains(&self, time: BatchTime) -> bool {
        self.start <= time && time < self.end
    }

    /// The name of an object of the sum part that `share` of `instance` writes. A further release is in a folder of its
    /// own, `<instance>.release-<release>`: what reads the first one neither meets a name that it can't parse nor misses it.
    #[must_use]
    pub fn sum_part_key(&self, instance: &InstanceName, share: Share, part: SumPartPart) -> ObjectKey {
        let times = self.times();
        let stem = match self.release {
            1 => format!("{instance}/{times}"),
            release => format!("{instance}{RELEASE_FOLDER}{release}/{times}"),
        };
        let n = share.index();
        object_key(match part {
            SumPartPart::Header => format!("{stem}.sum_{n}"),
            SumPartPart::Signature => format!("{stem}.sum_{n}.sig"),
            SumPartPart::InvalidPackets => format!("{stem}.invalid_uuid_{n}.avro"),
        })
    }

    /// The release's object in a folder of the ledger: `<folder>/` and its [`WindowId::path`].
    #[must_use]
    pub fn ledger_key(&self, folder: &str) -> ObjectKey {
        object_key(format!("{folder}/{}", self.path()))
    }

    /// The partial sum of a range of its plan: `partials/<agg>/<start>-<end>/<range>`.
    #[must_use]
    pub fn partial_key(&self, range: &BatchRange) -> ObjectKey {
        object_key(format!("{}{range}", self.partials()))
    }

    /// What the names of its partial sums begin with.
    #[must_use]
    pub fn partials(&self) -> String {
        format!("{PARTIALS}/{}/", self.path())
    }

    /// What was found of a range for a plan at that cutoff, in milliseconds since 1970:
    /// `shards/<agg>/<start>-<end>/<cutoff>/<range>`.
    #[must_use]
    pub fn shard_key(&self, cutoff_millis: i64, range: &BatchRange) -> ObjectKey {
        object_key(format!("{}{range}", self.shards(cutoff_millis)))
    }

    /// What the names of the shards of its plan at that cutoff begin with.
    #[must_use]
    pub fn shards(&self, cutoff_millis: i64) -> String {
        format!("{SHARDS}/{}/{cutoff_millis}/", self.path())
    }
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// The window and the range of a partial sum's name; `None` for names that aren't ours.
#[must_use]
pub fn parse_partial_name(name: &str) -> Option<(WindowId, BatchRange)> {
    let (window, range) = name.strip_prefix(PARTIALS)?.strip_prefix('/')?.rsplit_once('/')?;
    Some((WindowId::parse(window).ok()?, BatchRange::parse(range).ok()?))
}

/// The window, the cutoff in milliseconds since 1970 and the range of a plan shard's name; `None` for names that aren't ours.
#[must_use]
pub fn parse_shard_name(name: &str) -> Option<(WindowId, i64, BatchRange)> {
    let (rest, range) = name.strip_prefix(SHARDS)?.strip_prefix('/')?.rsplit_once('/')?;
    let (window, cutoff) = rest.rsplit_once('/')?;
    let millis: i64 = cutoff
        .parse()
        .ok()
        .filter(|millis: &i64| millis.to_string() == cutoff)?;
    Some((WindowId::parse(window).ok()?, millis, BatchRange::parse(range).ok()?))
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
        let (folder, window) = name.strip_suffix(ending)?.split_once('/')?;
        let window = WindowId::parse(window).ok().filter(|window| window.release == 1)?;
        let (instance, window) = match folder.rsplit_once(RELEASE_FOLDER) {
            Some((instance, release)) => (instance, window.again(digit(release)?).ok()?),
            None => (folder, window),
        };
        Some((InstanceName::parse(instance).ok()?, window, *share, *part))
    })
}

/// A release's number as names hold it: one digit.
fn digit(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        _ => None,
    }
}
