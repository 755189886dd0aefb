//! Which names a look lists: what is open, and from time to time everything that has no result yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use facilitator_core::formats::names::{AggregationId, BatchTime, WindowId};
use facilitator_core::window::{Window, oldest_open_start};
use jiff::{SignedDuration, Timestamp};

use super::Schedule;

/// So long after a window's result its late batches are still looked for.
const LATE_FOR: SignedDuration = SignedDuration::from_hours(24);

/// A stretch of time whose names are listed. It begins and ends with a window: a window that is listed in part would look
/// as if it had never been planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it; `None`: no end.
    pub end: Option<Timestamp>,
}

/// What one look lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// From here on names in `results/` are listed, before all others: one a window, the whole history.
    pub results_from: Timestamp,
    /// From here on everything is listed.
    from: Timestamp,
    /// Older windows that are listed as long as they have no result.
    older: BTreeSet<WindowId>,
    /// From here on every window is listed that has no result, or only since lately.
    everything_from: Option<Timestamp>,
    period_seconds: u32,
    now: Timestamp,
}

impl Scope {
    /// The scope of a look at `now`. `open` is [`super::WindowDecision::open`] of the last decision; `everything`: old
    /// windows that nothing is known of are looked for too, as far as the history reaches (at start, after a change of
    /// the spec, from time to time).
    #[must_use]
    pub fn new(schedule: &Schedule, open: &BTreeSet<WindowId>, everything: bool, now: Timestamp) -> Self {
        let period_seconds = schedule.settings.period_seconds;
        let from = oldest_open_start(&schedule.settings, now);
        let history = now.checked_sub(schedule.history).unwrap_or(Timestamp::MIN);
        let agreed = schedule.agreed.keys().filter_map(|(aggregation, start)| {
            let end = BatchTime::from_timestamp(aligned(start.timestamp(), period_seconds)?.end())?;
            WindowId::new(aggregation.clone(), *start, end).ok()
        });
        // A further release has a result of its own: until then the window is listed again.
        let approved = schedule.overrides.values().filter(|given| given.approved_by.is_some());
        let older: BTreeSet<WindowId> = open
            .iter()
            .cloned()
            .chain(agreed)
            .chain(approved.map(|given| given.id.clone()))
            .filter(|id| schedule.takes(id))
            .collect();
        let oldest = older
            .iter()
            .map(|id| id.start.timestamp())
            .fold(history.min(from), Timestamp::min);
        let begin = |time: Timestamp| {
            let time = time.max(schedule.start_at);
            aligned(time, period_seconds).map_or(time, Window::start)
        };
        Self {
            results_from: begin(oldest),
            from: begin(from),
            older,
            everything_from: everything.then(|| begin(history)),
            period_seconds,
            now,
        }
    }

    /// What is listed of one aggregation, ascending and apart from each other; `results` are the windows with a result,
    /// and when they got it.
    #[must_use]
    pub fn ranges(&self, aggregation: &AggregationId, results: &BTreeMap<WindowId, Timestamp>) -> Vec<Range> {
        let of_this = |id: &&WindowId| id.aggregation == *aggregation;
        let open = self.older.iter().filter(|id| of_this(id) && !results.contains_key(id));
        let mut ranges: Vec<_> = open
            .map(|id| self.whole(id.start.timestamp(), Some(id.end.timestamp())))
            .collect();
        if let Some(mut from) = self.everything_from {
            let over = results.iter().filter(|(id, _)| id.aggregation == *aggregation);
            let over = over
                .filter(|(_, at)| self.now.duration_since(**at) >= LATE_FOR)
                .map(|(id, _)| id);
            for id in over {
                if from < id.start.timestamp() {
                    ranges.push(self.whole(from, Some(id.start.timestamp())));
                }
                from = from.max(id.end.timestamp());
            }
            ranges.push(self.whole(from, None));
        }
        ranges.push(self.whole(self.from, None));
        merged(ranges)
    }

    /// Widened to whole windows of today's period.
    fn whole(&self, start: Timestamp, end: Option<Timestamp>) -> Range {
        let down = |time| aligned(time, self.period_seconds).map_or(time, Window::start);
        let up = |time| match aligned(time, self.period_seconds) {
            Some(window) if window.start() < time => window.end(),
            _ => time,
        };
        Range {
            start: down(start),
            end: end.map(up),
        }
    }
}

fn aligned(time: Timestamp, period_seconds: u32) -> Option<Window> {
    Window::holding(time, period_seconds).ok()
}

fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end.is_none_or(|end| range.start <= end) => {
                last.end = last.end.and_then(|last| Some(last.max(range.end?)));
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::workload::fixtures::{at, processor, schedule, window};
    use crds::processor::Cutoff;

    fn day(text: &str) -> Timestamp {
        format!("{text}Z").parse().unwrap()
    }

    fn of(scope: &Scope, results: &[(&str, &str)]) -> Vec<String> {
        let results = results.iter().map(|(id, at)| (window(id), day(at))).collect();
        let text = |time: Timestamp| time.strftime("%d %H:%M").to_string();
        let ranges = scope.ranges(&AggregationId::parse("kittens-seen").unwrap(), &results);
        ranges
            .iter()
            .map(|range| format!("{}-{}", text(range.start), range.end.map(text).unwrap_or_default()))
            .collect()
    }

    #[test]
    fn every_listing_begins_with_a_window_whatever_the_time() {
        // Period 3 h, grace 1 h, one defer: windows from 7 h ago on may be open; the processor's start is no window's.
        let mut processor = processor();
        processor.spec.windows.history_days = 1;
        let schedule = schedule(&processor);
        for minute in 0..400 {
            let now = at("2026-11-28T10:00:00Z")
                .checked_add(SignedDuration::from_mins(minute))
                .unwrap();
            for everything in [false, true] {
                let scope = Scope::new(&schedule, &BTreeSet::new(), everything, now);
                for begin in [
                    scope.results_from,
                    scope.from,
                    scope.ranges(&AggregationId::parse("a").unwrap(), &BTreeMap::new())[0].start,
                ] {
                    assert_eq!(Window::holding(begin, 10_800).unwrap().start(), begin, "{now}");
                }
                assert!(scope.from <= oldest_open_start(&schedule.settings, now));
                assert!(scope.results_from <= scope.from);
            }
        }
    }

    #[test]
    fn a_history_shorter_than_what_is_open_cuts_no_open_window() {
        let mut processor = processor();
        processor.spec.windows.history_days = 1;
        processor.spec.windows.period_seconds = 8 * 3_600;
        processor.spec.windows.grace_period_seconds = 4 * 3_600;
        processor.spec.windows.max_defers = 3;
        let scope = Scope::new(
            &schedule(&processor),
            &BTreeSet::new(),
            true,
            day("2026-11-28T10:30:00"),
        );
        assert_eq!(of(&scope, &[]), ["26 16:00-"]);
        assert_eq!(scope.results_from, day("2026-11-26T16:00:00"));
    }

    #[test]
    fn beside_what_may_be_open_only_open_windows_are_listed_and_from_time_to_time_all_without_a_result() {
        let mut processor = processor();
        let now = day("2026-11-28T10:30:00");
        let open = BTreeSet::from([
            window("kittens-seen/202611220300-202611220600"),
            window("puppies-seen/202611210300-202611210600"),
            window("kittens-seen/202611280300-202611280600"),
        ]);
        let none = BTreeSet::new();
        let look = |processor: &crds::DataShareProcessor, open: &BTreeSet<_>, everything| {
            Scope::new(&schedule(processor), open, everything, now)
        };
        assert_eq!(of(&look(&processor, &none, false), &[]), ["28 03:00-"]);
        assert_eq!(
            of(&look(&processor, &open, false), &[]),
            ["22 03:00-22 06:00", "28 03:00-"]
        );
        assert_eq!(
            of(&look(&processor, &open, true), &[]),
            ["19 00:00-"],
            "from startAt on"
        );
        let results = [
            ("kittens-seen/202611190000-202611190300", "2026-11-19T04:00:00"),
            ("kittens-seen/202611190300-202611190600", "2026-11-19T07:00:00"),
            ("kittens-seen/202611220300-202611220600", "2026-11-28T09:00:00"),
            ("kittens-seen/202611240000-202611240300", "2026-11-24T04:00:00"),
            ("puppies-seen/202611250000-202611250300", "2026-11-25T04:00:00"),
        ];
        assert_eq!(
            of(&look(&processor, &open, true), &results),
            ["19 06:00-24 00:00", "24 03:00-"],
            "late batches of a window that was summed today count"
        );
        assert_eq!(
            of(&look(&processor, &open, false), &results),
            ["28 03:00-"],
            "a result ends the need"
        );
        let scope = look(&processor, &none, false);
        assert_eq!(
            scope.results_from,
            day("2026-11-19T00:00:00"),
            "results over the history"
        );

        processor.spec.windows.history_days = 1;
        let entry = |aggregation: &str, start: &str| Cutoff {
            aggregation: aggregation.to_owned(),
            start: start.to_owned(),
            cutoff: "2026-11-28T12:00:00Z".to_owned(),
        };
        processor.spec.windows.cutoffs = vec![
            entry("kittens-seen", "202611240000"),
            entry("kittens-seen", "202611250000"),
        ];
        for everything in [false, true] {
            let scope = look(&processor, &none, everything);
            assert_eq!(
                scope.results_from,
                day("2026-11-24T00:00:00"),
                "an agreed window's result is looked for"
            );
            let recent = if everything { "27 09:00-" } else { "28 03:00-" };
            assert_eq!(
                of(&scope, &results),
                ["25 00:00-25 03:00", recent],
                "an entry that is served pins nothing"
            );
        }
        processor.spec.windows.cutoffs = vec![entry("kittens-seen", "202611180000")];
        assert_eq!(
            look(&processor, &none, false).results_from,
            day("2026-11-27T09:00:00"),
            "before startAt is not ours"
        );
    }

    #[test]
    fn windows_of_another_period_are_listed_with_what_they_touch() {
        let open = BTreeSet::from([window("kittens-seen/202611220200-202611220400")]);
        let scope = Scope::new(&schedule(&processor()), &open, false, day("2026-11-28T10:30:00"));
        assert_eq!(of(&scope, &[]), ["22 00:00-22 06:00", "28 03:00-"]);
    }
}
