//! When a window begins, ends, may be planned and is over. Pure: the clock is an argument.
//!
//! A window is half open, `[start, end)`. Windows tile time from 0001-01-01T00:00:00Z on, as Go's `Time.Truncate` does
//! and with it the original's; both parties must agree on all of [`WindowSettings`].

use jiff::{SignedDuration, Timestamp};
use snafu::{OptionExt, Snafu, ensure};

/// Seconds from 0001-01-01T00:00:00Z (Go's zero time) to 1970-01-01T00:00:00Z.
const YEAR_ONE_TO_EPOCH_SECONDS: i64 = 62_135_596_800;

/// Why there is no such window.
#[derive(Debug, PartialEq, Eq, Snafu)]
pub enum WindowError {
    /// The period isn't a positive number of whole minutes.
    #[snafu(display("a period of {period_seconds} s is not a window's: set whole minutes, 60 s or more"))]
    Period {
        /// The period asked for, in seconds.
        period_seconds: u32,
    },
    /// The window would begin or end outside the years that can be written.
    #[snafu(display("no window holds {time}: it is at the edge of the calendar; check the clock or the batch's path"))]
    OutOfCalendar {
        /// The time asked for.
        time: Timestamp,
    },
    /// The end isn't after the start, or they are not whole minutes.
    #[snafu(display("{start} to {end} is not a window: give whole minutes, the end after the start"))]
    Bounds {
        /// The start asked for.
        start: Timestamp,
        /// The end asked for.
        end: Timestamp,
    },
}

/// The settings that decide cutoffs, as in `spec.windows` of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSettings {
    /// A window's length in seconds, whole minutes.
    pub period_seconds: u32,
    /// Seconds after a window's end in which batches still arrive and are answered.
    pub grace_period_seconds: u32,
    /// Seconds between a cutoff and its planning, so that listings show what was there at the cutoff.
    pub settle_seconds: u32,
    /// How many times the cutoff of a window without a member moves by one period.
    pub max_defers: u32,
}

/// A time window `[start, end)` of an aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
}

impl Window {
    /// A window of given bounds, for names that carry both.
    ///
    /// # Errors
    /// [`WindowError::Bounds`] where the end isn't after the start or either isn't a whole minute.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, WindowError> {
        let whole = |time: Timestamp| time.as_second().rem_euclid(60) == 0 && time.subsec_nanosecond() == 0;
        ensure!(start < end && whole(start) && whole(end), BoundsSnafu { start, end });
        Ok(Self { start, end })
    }

    /// The window that holds `time`, for windows of `period_seconds` aligned to year 1.
    ///
    /// # Errors
    /// [`WindowError::Period`] for zero or a fraction of a minute; [`WindowError::OutOfCalendar`] at the calendar's edge.
    pub fn holding(time: Timestamp, period_seconds: u32) -> Result<Self, WindowError> {
        ensure!(
            period_seconds > 0 && period_seconds.is_multiple_of(60),
            PeriodSnafu { period_seconds }
        );
        let period = i64::from(period_seconds);
        // A fraction of a second before 1970 counts down from the next whole one.
        let second = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
        let start = second - (second + YEAR_ONE_TO_EPOCH_SECONDS).rem_euclid(period);
        let at = |second: i64| Timestamp::from_second(second).ok().context(OutOfCalendarSnafu { time });
        Ok(Self {
            start: at(start)?,
            end: at(start + period)?,
        })
    }

    /// The first instant in the window.
    #[must_use]
    pub fn start(self) -> Timestamp {
        self.start
    }

    /// The first instant after the window.
    #[must_use]
    pub fn end(self) -> Timestamp {
        self.end
    }

    /// Whether `time` is in the window.
    #[must_use]
    pub fn contains(self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// Whether the two windows share an instant.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Every cutoff of the window in ascending order: `end + grace − settle + k · period` for k from 0 to `max_defers`,
    /// and the one that both parties agreed on beside them.
    #[must_use]
    pub fn cutoffs(self, settings: &WindowSettings, agreed: Option<Timestamp>) -> Vec<Timestamp> {
        let first = i64::from(settings.grace_period_seconds) - i64::from(settings.settle_seconds);
        let mut cutoffs: Vec<_> = (0..=i64::from(settings.max_defers))
            .map(|defers| SignedDuration::from_secs(first + defers * i64::from(settings.period_seconds)))
            .filter_map(|after_end| self.end.checked_add(after_end).ok())
            .chain(agreed)
            .collect();
        cutoffs.sort_unstable();
        cutoffs.dedup();
        cutoffs
    }
}

/// When a cutoff is planned: `settle_seconds` after it.
#[must_use]
pub fn planned_at(cutoff: Timestamp, settings: &WindowSettings) -> Timestamp {
    later(cutoff, settings.settle_seconds)
}

/// The cutoffs that are due at `now`, in order: what goes into the work list.
#[must_use]
pub fn due(cutoffs: &[Timestamp], settings: &WindowSettings, now: Timestamp) -> Vec<Timestamp> {
    cutoffs
        .iter()
        .copied()
        .filter(|cutoff| planned_at(*cutoff, settings) <= now)
        .collect()
}

/// With a legacy peer, the plan of a cutoff waits at most one period for answers to what was delivered: the instant from
/// which it is made, where `unanswered` says whether an answer to something delivered by the cutoff is still missing.
#[must_use]
pub fn planned_at_with_legacy_peer(cutoff: Timestamp, settings: &WindowSettings, unanswered: bool) -> Timestamp {
    let planned = planned_at(cutoff, settings);
    if unanswered {
        later(planned, settings.period_seconds)
    } else {
        planned
    }
}

/// The next cutoff that something delivered at `now` can still meet. `None`: the window is closed.
#[must_use]
pub fn next_cutoff(cutoffs: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    cutoffs.iter().copied().filter(|cutoff| now <= *cutoff).min()
}

/// Whether something delivered at `now` can still be in the window's sum.
#[must_use]
pub fn is_open(cutoffs: &[Timestamp], now: Timestamp) -> bool {
    next_cutoff(cutoffs, now).is_some()
}

/// The earliest instant at which a window now or later open may begin: discovery lists from there on and needs no older
/// names, agreed cutoffs aside.
#[must_use]
pub fn oldest_open_start(settings: &WindowSettings, now: Timestamp) -> Timestamp {
    let period = i64::from(settings.period_seconds);
    let reach = period * (i64::from(settings.max_defers) + 1) + i64::from(settings.grace_period_seconds);
    now.checked_sub(SignedDuration::from_secs(reach))
        .unwrap_or(Timestamp::MIN)
}

fn later(time: Timestamp, seconds: u32) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const SETTINGS: WindowSettings = WindowSettings {
        period_seconds: 28_800,
        grace_period_seconds: 14_400,
        settle_seconds: 600,
        max_defers: 3,
    };

    #[test]
    fn windows_tile_time_from_year_one() {
        // (time, period in seconds, start, end); 7 h does not divide a day, so its windows show the alignment.
        let table = [
            (
                "2026-11-20T00:00:00Z",
                10_800,
                "2026-11-20T00:00:00Z",
                "2026-11-20T03:00:00Z",
            ),
            (
                "2026-11-20T02:59:59.999Z",
                10_800,
                "2026-11-20T00:00:00Z",
                "2026-11-20T03:00:00Z",
            ),
            (
                "2026-11-20T03:00:00Z",
                10_800,
                "2026-11-20T03:00:00Z",
                "2026-11-20T06:00:00Z",
            ),
            (
                "1969-12-31T23:59:59.5Z",
                3_600,
                "1969-12-31T23:00:00Z",
                "1970-01-01T00:00:00Z",
            ),
            (
                "0001-01-01T00:00:00Z",
                25_200,
                "0001-01-01T00:00:00Z",
                "0001-01-01T07:00:00Z",
            ),
            (
                "0001-01-02T00:00:00Z",
                25_200,
                "0001-01-01T21:00:00Z",
                "0001-01-02T04:00:00Z",
            ),
            // 62135596800 mod 25200 = 7200: a window aligned to 1970 would begin at midnight.
            (
                "1970-01-01T00:00:00Z",
                25_200,
                "1969-12-31T22:00:00Z",
                "1970-01-01T05:00:00Z",
            ),
        ];
        for (time, period, start, end) in table {
            let window = Window::holding(at(time), period).unwrap();
            assert_eq!(
                (window.start(), window.end()),
                (at(start), at(end)),
                "{time} / {period}"
            );
            assert!(window.contains(at(time)));
            assert!(!window.contains(window.end()));
        }
    }

    #[test]
    fn refuses_periods_that_are_not_whole_minutes_and_times_beyond_the_calendar() {
        let now = at("2026-11-20T00:00:00Z");
        for period_seconds in [0, 1, 59, 61, 3_601] {
            assert_eq!(
                Window::holding(now, period_seconds),
                Err(WindowError::Period { period_seconds })
            );
        }
        assert!(matches!(
            Window::holding(Timestamp::MAX, 3_600),
            Err(WindowError::OutOfCalendar { .. })
        ));
        assert!(Window::new(now, now).is_err());
        assert!(Window::new(now, at("2026-11-20T00:00:30Z")).is_err());
    }

    #[test]
    fn the_cutoff_moves_by_periods_and_takes_the_agreed_one_in() {
        let window = Window::holding(at("2026-11-20T09:00:00Z"), 28_800).unwrap();
        let regular = [
            "2026-11-20T19:50:00Z",
            "2026-11-21T03:50:00Z",
            "2026-11-21T11:50:00Z",
            "2026-11-21T19:50:00Z",
        ]
        .map(at);
        assert_eq!(window.cutoffs(&SETTINGS, None), regular);
        assert_eq!(
            window.cutoffs(&SETTINGS, Some(regular[1])),
            regular,
            "an agreed one that is regular counts once"
        );
        let agreed = at("2027-01-01T00:00:15Z");
        assert_eq!(
            window.cutoffs(&SETTINGS, Some(agreed)),
            [&regular[..], &[agreed]].concat()
        );
        let early = at("2026-11-21T00:00:00Z");
        assert_eq!(window.cutoffs(&SETTINGS, Some(early))[1], early);
        let none = WindowSettings {
            max_defers: 0,
            ..SETTINGS
        };
        assert_eq!(window.cutoffs(&none, None), [regular[0]]);
    }

    #[test]
    fn a_cutoff_is_due_once_it_has_settled() {
        let window = Window::holding(at("2026-11-20T09:00:00Z"), 28_800).unwrap();
        let cutoffs = window.cutoffs(&SETTINGS, None);
        let table = [
            // now, how many are due, is the window open
            ("2026-11-20T12:00:00Z", 0, true),
            ("2026-11-20T19:50:00Z", 0, true),
            ("2026-11-20T19:59:59Z", 0, true),
            ("2026-11-20T20:00:00Z", 1, true),
            ("2026-11-21T12:00:00Z", 3, true),
            ("2026-11-21T19:50:00Z", 3, true),
            ("2026-11-21T19:50:01Z", 3, false),
            ("2026-11-21T20:00:00Z", 4, false),
            ("2030-01-01T00:00:00Z", 4, false),
        ];
        for (now, count, open) in table {
            assert_eq!(due(&cutoffs, &SETTINGS, at(now)), cutoffs[..count], "{now}");
            assert_eq!(is_open(&cutoffs, at(now)), open, "{now}");
        }
        assert_eq!(next_cutoff(&cutoffs, at("2026-11-20T19:50:01Z")), Some(cutoffs[1]));
    }

    #[test]
    fn a_window_still_open_is_not_older_than_the_oldest_open_start() {
        let now = at("2026-11-21T19:50:00Z");
        let window = Window::holding(at("2026-11-20T09:00:00Z"), 28_800).unwrap();
        assert!(is_open(&window.cutoffs(&SETTINGS, None), now));
        assert!(oldest_open_start(&SETTINGS, now) <= window.start());
    }

    #[test]
    fn a_legacy_peer_is_waited_for_one_period_at_most() {
        let cutoff = at("2026-11-20T19:50:00Z");
        assert_eq!(
            planned_at_with_legacy_peer(cutoff, &SETTINGS, false),
            at("2026-11-20T20:00:00Z")
        );
        assert_eq!(
            planned_at_with_legacy_peer(cutoff, &SETTINGS, true),
            at("2026-11-21T04:00:00Z")
        );
    }

    #[test]
    fn windows_overlap_only_when_they_share_an_instant() {
        let window = |start: &str, end: &str| Window::new(at(start), at(end)).unwrap();
        let three = window("2026-11-20T03:00:00Z", "2026-11-20T06:00:00Z");
        let table = [
            (window("2026-11-20T00:00:00Z", "2026-11-20T03:00:00Z"), false),
            (window("2026-11-20T06:00:00Z", "2026-11-20T09:00:00Z"), false),
            (window("2026-11-20T00:00:00Z", "2026-11-20T03:01:00Z"), true),
            (window("2026-11-20T04:00:00Z", "2026-11-20T05:00:00Z"), true),
            (window("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"), true),
            (three, true),
        ];
        for (other, expected) in table {
            assert_eq!(
                (three.overlaps(other), other.overlaps(three)),
                (expected, expected),
                "{other:?}"
            );
        }
    }
}
