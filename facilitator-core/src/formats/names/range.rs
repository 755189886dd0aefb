//! Ranges of batch names: what the parts of a large window are named by.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use mailbox::ListRequest;
use snafu::ensure;
use uuid::Uuid;

use super::{BatchTime, NameError, RangeSnafu, WindowId};

/// The digits of a minute, `YYYYMMDDHHmm`.
const MINUTE_DIGITS: usize = 12;
/// The characters of a hyphenated UUID.
const UUID_CHARS: usize = 36;

/// A place between batch names: right before the batch of this time and UUID. Written as `YYYYMMDDHHmm` and the UUID's
/// digits without the zeros at their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    time: BatchTime,
    uuid: Uuid,
}

impl Cut {
    /// Before every batch of that minute.
    #[must_use]
    pub fn before_minute(time: BatchTime) -> Self {
        Self {
            time,
            uuid: Uuid::nil(),
        }
    }

    /// The shortest between two batches, of which `before` comes first.
    #[must_use]
    pub fn between(before: (BatchTime, Uuid), after: (BatchTime, Uuid)) -> Self {
        if before.0 < after.0 {
            return Self::before_minute(after.0);
        }
        let (before, uuid) = (before.1.as_u128(), after.1.as_u128());
        let digits = (before ^ uuid).leading_zeros() / 4 + 1;
        let kept = u128::MAX.checked_shl(u128::BITS - 4 * digits).unwrap_or(u128::MAX);
        Self {
            time: after.0,
            uuid: Uuid::from_u128(uuid & kept),
        }
    }

    /// Whether the batch of that time, as paths have it, and UUID comes before it.
    #[must_use]
    pub fn is_after(&self, time: &str, uuid: Uuid) -> bool {
        (time, uuid) < (self.time.to_path().as_str(), self.uuid)
    }

    fn parse(text: &str) -> Option<Self> {
        let (minute, digits) = text.split_at_checked(MINUTE_DIGITS)?;
        let plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !plain || digits.len() > 32 || digits.ends_with('0') {
            return None;
        }
        Some(Self {
            time: BatchTime::parse_compact(minute).ok()?,
            uuid: Uuid::try_parse(&format!("{digits:0<32}")).ok()?,
        })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uuid = self.uuid.simple().to_string();
        write!(f, "{}{}", self.time.to_compact(), uuid.trim_end_matches('0'))
    }
}

/// The batches of an aggregation from one cut up to another: `<cut>-<cut>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchRange {
    from: Cut,
    to: Cut,
}

/// A range of a tiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// It.
    pub range: BatchRange,
    /// It is one of those that were there; otherwise it fills a gap between them.
    pub there: bool,
}

impl BatchRange {
    /// All of a window.
    #[must_use]
    pub fn whole(window: &WindowId) -> Self {
        Self {
            from: Cut::before_minute(window.start),
            to: Cut::before_minute(window.end),
        }
    }

    /// Parses `<cut>-<cut>`, exactly.
    ///
    /// # Errors
    /// [`NameError::Range`] for any other form and for ranges that hold nothing.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parsed = text
            .split_once('-')
            .and_then(|(from, to)| Some((Cut::parse(from)?, Cut::parse(to)?)));
        let Some((from, to)) = parsed else {
            return RangeSnafu { text }.fail();
        };
        ensure!(from < to, RangeSnafu { text });
        Ok(Self { from, to })
    }

    /// Where it begins.
    #[must_use]
    pub fn begin(&self) -> Cut {
        self.from
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> Cut {
        self.to
    }

    /// Whether it holds the batch of that time and UUID.
    #[must_use]
    pub fn contains(&self, time: BatchTime, uuid: Uuid) -> bool {
        let batch = Cut { time, uuid };
        self.from <= batch && batch < self.to
    }

    /// What lists every name `<prefix><time>/<uuid>…` of its batches. Names of a few others may come along.
    #[must_use]
    pub fn listing(&self, prefix: String) -> ListRequest {
        let bound = |cut: &Cut, most: usize| {
            let path = format!("{prefix}{}", cut.time.to_path());
            if cut.uuid.is_nil() {
                return path;
            }
            let uuid = cut.uuid.hyphenated().to_string();
            let uuid = uuid.trim_end_matches(['0', '-']);
            format!("{path}/{}", &uuid[..uuid.len().min(most)])
        };
        ListRequest {
            // Names at the bound are left out, and the batch right after the cut may have it as its whole name.
            start_after: Some(bound(&self.from, UUID_CHARS - 1)),
            end_before: Some(bound(&self.to, UUID_CHARS)),
            prefix,
            ..ListRequest::default()
        }
    }

    /// Parts it into those of `there` that follow each other, and the gaps between them. Which of several that overlap
    /// are taken depends on nothing but `there`.
    #[must_use]
    pub fn tiled(&self, there: &BTreeSet<Self>) -> Vec<Tile> {
        let within: BTreeSet<&Self> = there
            .iter()
            .filter(|range| self.from <= range.from && range.to <= self.to)
            .collect();
        let mut tiles = Vec::new();
        let mut at = self.from;
        while at < self.to {
            let longest = within.iter().rfind(|range| range.from == at);
            let range = longest.map_or_else(
                || {
                    let next = within.iter().find(|range| range.from > at);
                    Self {
                        from: at,
                        to: next.map_or(self.to, |next| next.from),
                    }
                },
                |range| **range,
            );
            at = range.to;
            tiles.push(Tile {
                range,
                there: longest.is_some(),
            });
        }
        tiles
    }

    /// Parts it so that each part holds at most `size` of its batches, and none much fewer than another. `names` are sorted;
    /// those outside of it don't count.
    #[must_use]
    pub fn parted(&self, names: impl Iterator<Item = (BatchTime, Uuid)>, size: usize) -> Vec<Self> {
        let names: Vec<_> = names.filter(|(time, uuid)| self.contains(*time, *uuid)).collect();
        let parts = names.len().div_ceil(size.max(1)).max(1);
        let mut cuts: Vec<Cut> = (1..parts)
            .map(|part| part * names.len() / parts)
            .map(|first| Cut::between(names[first - 1], names[first]))
            .collect();
        cuts.push(self.to);
        let mut from = self.from;
        cuts.into_iter()
            .map(|to| Self {
                from: std::mem::replace(&mut from, to),
                to,
            })
            .collect()
    }
}

impl fmt::Display for BatchRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl FromStr for BatchRange {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn window() -> WindowId {
        WindowId::parse("a/202611200000-202611200300").unwrap()
    }

    fn name(minute: u32, uuid: u128) -> (BatchTime, Uuid) {
        let time = BatchTime::parse_path(&format!("2026/11/20/{:02}/{:02}", minute / 60, minute % 60)).unwrap();
        (time, Uuid::from_u128(uuid))
    }

    fn range(text: &str) -> BatchRange {
        BatchRange::parse(text).unwrap()
    }

    #[test]
    fn names_of_ranges_go_both_ways_and_have_one_form() {
        let full = format!("202611200001-202611200001{}", "f".repeat(32));
        for text in ["202611200000-202611200300", "2026112001008f-2026112001009", &full] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(BatchRange::whole(&window()).to_string(), "202611200000-202611200300");
        for text in [
            "",
            "202611200000",
            "202611200000-202611200000",
            "202611200300-202611200000",
            "2026112000000-202611200300",
            "20261120000080-202611200300",
            "2026112000008F-202611200300",
            "202611200000g-202611200300",
            "202611202500-202611210000",
            "202611200000-202611200300-",
            "20261120000-202611200300",
        ] {
            assert!(BatchRange::parse(text).is_err(), "{text:?}");
        }
        assert!(BatchRange::parse(&format!("{full}1")).is_err());
    }

    #[test]
    fn the_shortest_cut_tells_two_neighbours_apart() {
        let table = [
            (name(1, 5), name(2, 3), "202611200002"),
            (name(1, 0), name(1, 1), &format!("202611200001{:032x}", 1)),
            (name(1, 0x10), name(1, 0x2f), &format!("202611200001{:031x}", 2)),
            (name(1, 0x8e << 120), name(1, 0x8f12 << 112), "2026112000018f"),
            (name(1, 7 << 124), name(1, u128::MAX), "202611200001f"),
            (
                name(1, u128::MAX - 1),
                name(1, u128::MAX),
                &format!("202611200001{}", "f".repeat(32)),
            ),
        ];
        for (before, after, expected) in table {
            let cut = Cut::between(before, after);
            assert_eq!(cut.to_string(), expected);
            let at = |(time, uuid): (BatchTime, Uuid)| Cut { time, uuid };
            assert!(at(before) < cut && cut <= at(after), "{expected}");
            assert!(cut.is_after(&before.0.to_path(), before.1) && !cut.is_after(&after.0.to_path(), after.1));
        }
    }

    #[test]
    fn parts_hold_every_batch_once_and_are_even() {
        let names: Vec<_> = (0..10).map(|n| name(n / 4, u128::from(n) << 96)).collect();
        for size in 1..12 {
            let whole = BatchRange::whole(&window());
            let parts = whole.parted(names.iter().copied(), size);
            assert_eq!(parts.len(), names.len().div_ceil(size));
            let held: Vec<usize> = parts
                .iter()
                .map(|part| names.iter().filter(|(time, uuid)| part.contains(*time, *uuid)).count())
                .collect();
            assert_eq!(held.iter().sum::<usize>(), names.len());
            assert!(held.iter().all(|held| (1..=size).contains(held)), "{size}: {held:?}");
            assert!(
                held.iter().max().unwrap() - held.iter().min().unwrap() <= 1,
                "{size}: {held:?}"
            );
            assert!(whole.tiled(&parts.into_iter().collect()).iter().all(|tile| tile.there));
        }
        assert_eq!(BatchRange::whole(&window()).parted(std::iter::empty(), 3).len(), 1);
        let late = range("202611200100-202611200200");
        assert_eq!(late.parted(names.iter().copied(), 1), [late], "no batch of its own");
    }

    #[test]
    fn tiles_fill_the_gaps_and_overlap_nowhere() {
        let tiles = |there: &[&str]| -> Vec<String> {
            let there = there.iter().map(|text| range(text)).collect();
            let tiles = BatchRange::whole(&window()).tiled(&there);
            assert_eq!(tiles[0].range.from, Cut::before_minute(window().start));
            assert!(tiles.windows(2).all(|pair| pair[0].range.to == pair[1].range.from));
            assert_eq!(tiles.last().unwrap().range.to, Cut::before_minute(window().end));
            let text = |tile: &Tile| {
                let short = tile.range.to_string().replace("20261120", "");
                if tile.there { short } else { format!("({short})") }
            };
            tiles.iter().map(text).collect()
        };
        let (one, two, three) = (
            "202611200000-202611200100",
            "202611200100-202611200200",
            "202611200200-202611200300",
        );
        assert_eq!(tiles(&[]), ["(0000-0300)"]);
        assert_eq!(tiles(&[one, two, three]), ["0000-0100", "0100-0200", "0200-0300"]);
        assert_eq!(tiles(&[one, three]), ["0000-0100", "(0100-0200)", "0200-0300"]);
        assert_eq!(tiles(&[two]), ["(0000-0100)", "0100-0200", "(0200-0300)"]);
        let longer = "202611200000-202611200130";
        assert_eq!(
            tiles(&[one, longer, two, three]),
            ["0000-0130", "(0130-0200)", "0200-0300"]
        );
        let beyond = "202611200200-202611200400";
        assert_eq!(tiles(&[beyond]), ["(0000-0300)"]);
    }

    #[test]
    fn listings_begin_and_end_with_the_range() {
        let uuid = "5a3da7c8-bf33-45d0-bfc6-7ef267c821f2";
        let digits = uuid.replace('-', "");
        let listed = |range: &BatchRange, name: &str| {
            let request = range.listing("p/".into());
            let after = request.start_after.as_deref().is_none_or(|start| start < name);
            after && request.end_before.as_deref().is_none_or(|end| name < end)
        };
        for (text, held) in [
            ("202611200000-202611200300", true),
            ("202611200001-202611200002", true),
            ("202611200000-202611200001", false),
            ("2026112000015a3-2026112000015a4", true),
            ("2026112000015a3da7c8bf-202611200002", true),
            ("202611200000-2026112000015a3da7c8bf33", false),
            (&format!("202611200001{digits}-202611200002"), true),
            (&format!("202611200000-202611200001{digits}"), false),
        ] {
            let range = range(text);
            let time = BatchTime::parse_path("2026/11/20/00/01").unwrap();
            assert_eq!(range.contains(time, Uuid::parse_str(uuid).unwrap()), held, "{text}");
            for ending in ["", ".batch", ".batch.sig", ".validity_0.sig"] {
                let name = format!("p/2026/11/20/00/01/{uuid}{ending}");
                assert_eq!(listed(&range, &name), held, "{text} {name}");
            }
        }
    }
}
