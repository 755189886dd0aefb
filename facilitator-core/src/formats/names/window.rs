//! Names of windows and of their sum parts.

use std::fmt;

use mailbox::ObjectKey;
use snafu::ensure;

use super::{AggregationId, BatchRange, BatchTime, EmptyWindowSnafu, InstanceName, NameError, SumPartPart, object_key};
use crate::formats::ledger::{PARTIALS, SHARDS};
use crate::formats::work::Share;

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
        })
    }

    /// Parses `<agg>/<start>-<end>`.
    ///
    /// # Errors
    /// [`NameError`], naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (aggregation, times) = text.split_once('/').unwrap_or((text, ""));
        let (start, end) = times.split_once('-').unwrap_or((times, ""));
        let aggregation = AggregationId::parse(aggregation)?;
        Self::new(
            aggregation,
            BatchTime::parse_compact(start)?,
            BatchTime::parse_compact(end)?,
        )
    }

    /// `<agg>/<start>-<end>`: its name in every ledger folder.
    #[must_use]
    pub fn path(&self) -> String {
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
        let (instance, window) = name.strip_suffix(ending)?.split_once('/')?;
        Some((
            InstanceName::parse(instance).ok()?,
            WindowId::parse(window).ok()?,
            *share,
            *part,
        ))
    })
}
