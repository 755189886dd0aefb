//! The room that processors share: the caps on Jobs and pods of one operator.

use std::collections::BTreeMap;

use crate::metrics::ProcessorKey;
use crate::settings::Settings;
use crate::workload::{PlannedJob, Room, Work};

/// Preflight Jobs of all processors at once: with a new image, all of them want some.
const MAX_PREFLIGHTS: u32 = 4;

/// Jobs and pods that a processor uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Unfinished Jobs.
    pub jobs: u32,
    /// Pods that they want at once.
    pub pods: u32,
    /// Those of the Jobs that are preflights.
    pub preflights: u32,
    /// There is work that found no room at the last plan.
    waits: bool,
}

impl Usage {
    /// Of unfinished Jobs, each with the pods that it wants.
    pub fn of(pods: impl Iterator<Item = u32>) -> Self {
        pods.fold(Self::default(), |sum, pods| Self {
            jobs: sum.jobs + 1,
            pods: sum.pods.saturating_add(pods),
            ..sum
        })
    }

    /// The same of preflights.
    pub fn of_preflights(pods: impl Iterator<Item = u32>) -> Self {
        let usage = Self::of(pods);
        Self {
            preflights: usage.jobs,
            ..usage
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            jobs: self.jobs.saturating_add(other.jobs),
            pods: self.pods.saturating_add(other.pods),
            preflights: self.preflights.saturating_add(other.preflights),
            waits: self.waits || other.waits,
        }
    }

    /// With what was planned.
    #[must_use]
    pub fn and(self, planned: &[PlannedJob]) -> Self {
        planned.iter().fold(self, |sum, job| Self {
            jobs: sum.jobs + 1,
            pods: sum.pods.saturating_add(job.parallelism),
            preflights: sum.preflights + u32::from(matches!(job.work, Work::Preflight { .. })),
            ..sum
        })
    }
}

/// What planned Jobs leave of the room.
#[must_use]
pub fn less(room: Room, planned: &[PlannedJob]) -> Room {
    let used = Usage::default().and(planned);
    Room {
        jobs: room.jobs.saturating_sub(used.jobs),
        pods: room.pods.saturating_sub(used.pods),
    }
}

/// What all processors use.
#[derive(Debug, Default)]
pub struct Usages(BTreeMap<ProcessorKey, Usage>);

impl Usages {
    /// The processors that use something.
    pub fn keys(&self) -> impl Iterator<Item = &ProcessorKey> {
        self.0.keys()
    }

    /// What the caps leave for one processor that uses `own`. While others wait, each has an equal share at most, so that
    /// one with much work can't keep the others waiting for ever.
    #[must_use]
    pub fn room(&self, key: &ProcessorKey, own: Usage, settings: &Settings) -> Room {
        let others = || self.0.iter().filter(|(other, _)| *other != key).map(|(_, usage)| usage);
        let sharing = 1 + u32::try_from(others().filter(|usage| usage.waits).count()).unwrap_or(u32::MAX - 1);
        let left = |limit: u32, own: u32, others: u32| {
            let free = limit.saturating_sub(own).saturating_sub(others);
            if sharing == 1 {
                free
            } else {
                free.min((limit / sharing).max(1).saturating_sub(own))
            }
        };
        Room {
            jobs: left(settings.max_jobs, own.jobs, others().map(|usage| usage.jobs).sum()),
            pods: left(settings.max_pods, own.pods, others().map(|usage| usage.pods).sum()),
        }
    }

    /// How many preflight Jobs may be begun. The last slot is work's, unless there is only one.
    #[must_use]
    pub fn room_for_preflights(&self, key: &ProcessorKey, own: Usage, settings: &Settings) -> u32 {
        let Room { jobs, pods } = self.room(key, own, settings);
        let beside_work = |free: u32, limit: u32| free.saturating_sub(u32::from(limit > 1));
        let others = self.0.iter().filter(|(other, _)| *other != key);
        let under_way = own.preflights + others.map(|(_, usage)| usage.preflights).sum::<u32>();
        beside_work(jobs, settings.max_jobs)
            .min(beside_work(pods, settings.max_pods))
            .min(MAX_PREFLIGHTS.saturating_sub(under_way))
    }

    /// Notes what a processor uses, and whether it has work that found no room.
    pub fn set(&mut self, key: &ProcessorKey, usage: Usage, waits: bool) {
        self.0.insert(key.clone(), Usage { waits, ..usage });
    }

    /// Notes what a processor uses before anybody knows whether it has more to do: that stays as it was.
    pub fn found(&mut self, key: &ProcessorKey, usage: Usage) {
        let waits = self.0.get(key).is_some_and(|before| before.waits);
        self.set(key, usage, waits);
    }

    /// A processor can't plan: nobody keeps room for it.
    pub fn gave_up(&mut self, key: &ProcessorKey) {
        if let Some(usage) = self.0.get_mut(key) {
            usage.waits = false;
        }
    }

    /// A processor is gone, or doesn't decode.
    pub fn forget(&mut self, key: &ProcessorKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::processor::memory::Memories;
    use crate::settings::Flags;
    use clap::Parser;

    fn settings(jobs: &str, pods: &str) -> Settings {
        let flags = [
            "operator",
            "--namespaces=a",
            "--worker-image=w:1",
            "--max-jobs",
            jobs,
            "--max-pods",
            pods,
        ];
        Settings::try_from(Flags::try_parse_from(flags).unwrap()).unwrap()
    }

    fn key(name: &str) -> ProcessorKey {
        ("a".to_owned(), name.to_owned())
    }

    #[test]
    fn the_caps_hold_over_all_processors_and_are_shared_while_others_wait() {
        let usage = |jobs, pods| Usage {
            jobs,
            pods,
            ..Usage::default()
        };
        let room = |jobs, pods| Room { jobs, pods };
        let settings = settings("4", "10");
        let mut usages = Usages::default();
        assert_eq!(usages.room(&key("a"), usage(0, 0), &settings), room(4, 10));
        assert_eq!(usages.room(&key("a"), usage(1, 3), &settings), room(3, 7));
        usages.set(&key("b"), usage(2, 6), false);
        assert_eq!(usages.room(&key("a"), usage(1, 3), &settings), room(1, 1));
        usages.set(&key("b"), usage(0, 0), true);
        assert_eq!(usages.room(&key("a"), usage(1, 3), &settings), room(1, 2));
        assert_eq!(usages.room(&key("a"), usage(3, 9), &settings), room(0, 0));
        assert_eq!(
            usages.room(&key("b"), usage(0, 0), &settings),
            room(4, 10),
            "its own entry doesn't count against it"
        );
    }

    #[test]
    fn one_that_can_no_longer_plan_keeps_no_room_from_others() {
        let usage = |jobs, pods| Usage {
            jobs,
            pods,
            ..Usage::default()
        };
        let room = |jobs, pods| Room { jobs, pods };
        let settings = settings("4", "10");
        let memories = Memories::default();
        memories.usages().set(&key("b"), usage(2, 6), true);
        memories.usages().found(&key("b"), usage(0, 0));
        let of_a = || memories.usages().room(&key("a"), usage(0, 0), &settings);
        assert_eq!(of_a(), room(2, 5), "its Jobs are over, and it still waits");
        memories.usages().gave_up(&key("b"));
        assert_eq!(of_a(), room(4, 10));
        memories.usages().set(&key("b"), usage(1, 1), true);
        assert_eq!(
            memories.keys().into_iter().collect::<Vec<_>>(),
            [key("b")],
            "a sweep finds it"
        );
        memories.forget(&key("b"));
        assert_eq!(of_a(), room(4, 10));
    }

    #[test]
    fn preflights_are_few_at_a_time_and_leave_a_slot_for_work() {
        let of = |preflights: u32| Usage::of_preflights((0..preflights).map(|_| 1));
        let room = |max_jobs: &str, own: Usage, others: Usage| {
            let mut usages = Usages::default();
            usages.set(&key("b"), others, false);
            usages.room_for_preflights(&key("a"), own, &settings(max_jobs, "100"))
        };
        let work = |jobs: u32| Usage::of((0..jobs).map(|_| 1));
        for (max_jobs, own, others, expected) in [
            ("50", of(0), of(0), 4),
            ("50", of(1), of(0), 3),
            ("50", of(0), of(3), 1),
            ("50", of(2), of(3), 0),
            ("50", of(0), work(20), 4),
            ("3", of(0), of(0), 2),
            ("3", work(1), of(0), 1),
            ("3", work(2), of(0), 0),
            ("2", of(1), of(0), 0),
            ("1", of(0), of(0), 1),
            ("1", work(1), of(0), 0),
        ] {
            assert_eq!(room(max_jobs, own, others), expected, "{max_jobs} {own:?} {others:?}");
        }
        // What is noted keeps which of the Jobs are preflights.
        let memories = Memories::default();
        memories.usages().found(&key("b"), of(4).plus(work(1)));
        assert_eq!(
            memories
                .usages()
                .room_for_preflights(&key("a"), of(0), &settings("50", "100")),
            0
        );
    }
}
