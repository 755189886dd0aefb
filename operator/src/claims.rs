//! Claims: which days of them are compacted next. From names and times alone: what claims hold is for workers to read. A
//! compaction that is missed costs workers reads, nothing else. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::DataShareProcessor;
use facilitator_core::claims::COMPACT_CHUNKS;
use facilitator_core::formats::claims::{ClaimDay, ClaimsObject, PacketKeyName, parse_claims_name};
use facilitator_core::formats::work::{CompactItem, WorkList};
use jiff::{SignedDuration, Timestamp};

use crate::inventory::Listed;
use crate::workload::{Allowance, JobView, PlannedJob, Room, Work};

/// Claims are looked at so often.
pub const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(15);
/// So many days are looked at, today's the last: claims are filed by the time of their announcement, so that older days get
/// no more of them.
const DAYS: i32 = 8;
/// Days of a Job: it takes minutes.
const MAX_ITEMS: usize = 64;

/// What a decision on claims rests on.
#[derive(Clone, Copy, Debug)]
pub struct ClaimsInput<'a> {
    /// The processor, as last read.
    pub processor: &'a DataShareProcessor,
    /// Claims' names, of [`days`]; empty where it isn't time to look.
    pub listed: &'a [Listed],
    /// The processor's intake Jobs, compactions among them.
    pub jobs: &'a [JobView],
    /// [`crate::workload::WorkersHealth::intake`].
    pub allowance: Allowance,
    /// What the caps leave.
    pub room: Room,
}

/// The days whose claims may be worth compacting.
#[must_use]
pub fn days(now: Timestamp) -> BTreeSet<ClaimDay> {
    (0..DAYS).map(|ago| ClaimDay::of(now).plus(-ago)).collect()
}

/// One day's names.
#[derive(Default)]
struct Day {
    chunks: Vec<Timestamp>,
    /// The newest run's number, and when it was put.
    newest: Option<(u32, Timestamp)>,
}

impl Day {
    /// Chunks that were put after the newest run: it can't hold them.
    fn waiting(&self) -> usize {
        let after = self.newest.map(|(_, stored)| stored);
        self.chunks.iter().filter(|stored| Some(**stored) > after).count()
    }
}

/// The next compaction, if one pays and none is under way.
#[must_use]
pub fn decide(input: &ClaimsInput<'_>) -> Option<PlannedJob> {
    let spec = &input.processor.spec;
    let compacts = |view: &&JobView| !view.is_finished() && matches!(view.work, Some(WorkList::CompactClaims { .. }));
    let taken: u32 = input.jobs.iter().map(JobView::pods_wanted).sum();
    let held = spec.suspend || !spec.replay_guard.enabled || input.allowance != Allowance::Free;
    if held || taken >= spec.workers.max_pods || input.jobs.iter().any(|view| compacts(&view)) {
        return None;
    }
    let mut days: BTreeMap<(PacketKeyName, ClaimDay), Day> = BTreeMap::new();
    for Listed { name, stored } in input.listed {
        let Some((key, object)) = parse_claims_name(name) else {
            continue;
        };
        let day = days.entry((key, object.day())).or_default();
        match object {
            ClaimsObject::Chunk(_) => day.chunks.push(*stored),
            ClaimsObject::Run { number, .. } => day.newest = day.newest.max(Some((number, *stored))),
        }
    }
    let due = days.iter().filter(|(_, day)| day.waiting() >= COMPACT_CHUNKS);
    // The newest first: they are looked at most.
    let due: Vec<_> = due.rev().take(MAX_ITEMS).collect();
    let items: Vec<CompactItem> = due
        .iter()
        .map(|((key, day), _)| CompactItem {
            packet_key: key.to_string(),
            day: day.to_string(),
        })
        .collect();
    // Once something was compacted, the same days are other work.
    let attempt = due
        .iter()
        .filter_map(|(_, day)| day.newest)
        .map(|(number, _)| number)
        .sum();
    let planned = (!items.is_empty()).then(|| PlannedJob {
        work: Work::CompactClaims(vec![items]),
        parallelism: 1,
        attempt,
        canary: false,
    });
    input.room.fit(planned).0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::workload::fixtures::{at, processor, started};

    const KEY: &str = "00112233445566778899aabbccddeeff";
    const OTHER: &str = "ffeeddccbbaa99887766554433221100";
    const ROOM: Room = Room { jobs: 1, pods: 1 };

    /// So many chunks of a day, put at `stored`.
    fn chunks(key: &str, day: &str, from: u8, count: u8, stored: &str) -> Vec<Listed> {
        let chunk = |n| Listed {
            name: format!("claims/{key}/{day}03/{:032x}", n),
            stored: at(stored),
        };
        (from..from + count).map(chunk).collect()
    }

    fn run(key: &str, day: &str, number: u32, stored: &str) -> Vec<Listed> {
        vec![Listed {
            name: format!("claims/{key}/{day}-runs/{number:06}"),
            stored: at(stored),
        }]
    }

    fn planned(processor: &DataShareProcessor, listed: &[Listed], jobs: &[JobView]) -> Option<PlannedJob> {
        decide(&ClaimsInput {
            processor,
            listed,
            jobs,
            allowance: Allowance::Free,
            room: ROOM,
        })
    }

    #[test]
    fn days_with_enough_chunks_that_no_run_can_hold_are_compacted() {
        let (day, next) = ("20261120", "20261121");
        let table = [
            ("nothing", vec![], vec![], 0),
            ("too few", chunks(KEY, day, 0, 3, "03:00"), vec![], 0),
            ("enough", chunks(KEY, day, 0, 4, "03:00"), vec![(KEY, day)], 0),
            (
                "too few of each",
                [
                    chunks(KEY, day, 0, 3, "03:00"),
                    chunks(KEY, next, 0, 3, "03:00"),
                    chunks(OTHER, day, 0, 3, "03:00"),
                ]
                .concat(),
                vec![],
                0,
            ),
            (
                "in the run",
                [chunks(KEY, day, 0, 40, "03:00"), run(KEY, day, 1, "03:10")].concat(),
                vec![],
                0,
            ),
            (
                "after the newest run",
                [
                    chunks(KEY, day, 0, 40, "03:00"),
                    run(KEY, day, 1, "03:10"),
                    run(KEY, day, 2, "03:20"),
                    chunks(KEY, day, 40, 4, "03:21"),
                ]
                .concat(),
                vec![(KEY, day)],
                2,
            ),
            (
                "the newest day first",
                [
                    chunks(KEY, day, 0, 9, "03:00"),
                    chunks(KEY, next, 0, 9, "03:00"),
                    chunks(OTHER, day, 0, 9, "03:00"),
                ]
                .concat(),
                vec![(OTHER, day), (KEY, next), (KEY, day)],
                0,
            ),
        ];
        for (name, listed, expected, attempt) in table {
            let planned = planned(&processor(), &listed, &[]);
            let items = planned.as_ref().map_or(Vec::new(), |job| match &job.work {
                Work::CompactClaims(chunks) => chunks.concat(),
                other => panic!("{name}: {other:?}"),
            });
            let items: Vec<_> = items
                .iter()
                .map(|item| (item.packet_key.as_str(), item.day.as_str()))
                .collect();
            assert_eq!(items, expected, "{name}");
            assert_eq!(planned.map_or(0, |job| job.attempt), attempt, "{name}");
        }
    }

    #[test]
    fn one_compaction_runs_at_a_time_under_the_account_of_intake() {
        let listed = chunks(KEY, "20261120", 0, 9, "03:00");
        let first = planned(&processor(), &listed, &[]).unwrap();
        let job = started(&first, &processor(), "03:00");
        let spec = job.job.spec.clone().unwrap().template.spec.unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some("intake"));
        assert!(job.name().starts_with("pha-claims-"), "{}", job.name());
        assert_eq!(planned(&processor(), &listed, std::slice::from_ref(&job)), None);
        assert!(planned(&processor(), &listed, &[job.complete()]).is_some());
    }

    #[test]
    fn nothing_is_compacted_where_nothing_may_start() {
        let listed = chunks(KEY, "20261120", 0, 9, "03:00");
        let mut suspended = processor();
        suspended.spec.suspend = true;
        assert_eq!(planned(&suspended, &listed, &[]), None);
        let mut unguarded = processor();
        unguarded.spec.replay_guard.enabled = false;
        assert_eq!(planned(&unguarded, &listed, &[]), None);
        let processor = processor();
        let input = ClaimsInput {
            processor: &processor,
            listed: &listed,
            jobs: &[],
            allowance: Allowance::Free,
            room: ROOM,
        };
        for input in [
            ClaimsInput {
                room: Room { jobs: 0, pods: 9 },
                ..input
            },
            ClaimsInput {
                allowance: Allowance::Canary,
                ..input
            },
            ClaimsInput {
                allowance: Allowance::Wait,
                ..input
            },
        ] {
            assert_eq!(decide(&input), None);
        }
    }

    #[test]
    fn the_last_days_are_looked_at() {
        let days: Vec<String> = days(at("04:20")).iter().map(ToString::to_string).collect();
        assert_eq!((days.len(), &*days[0], &*days[7]), (8, "20261113", "20261120"));
    }
}
