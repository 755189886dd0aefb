//! Clocks, rounds that alternate between floor and subject, and rows.

use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// One line of the table and of `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure: a median over rounds.
    pub value: f64,
    /// Its unit; the floor has the same.
    pub unit: String,
    /// What bounds it from below (from above, for scaling), measured in the same rounds; or the most that is allowed.
    pub floor: Option<f64>,
    /// Median over rounds of value / floor.
    pub ratio: Option<f64>,
    /// What the ratio must reach; `None`: for information.
    pub goal: Option<f64>,
    /// Whether it does.
    pub met: Option<bool>,
}

impl Row {
    /// A row whose ratio must be at most `goal`.
    pub fn at_most(name: impl Into<String>, unit: &str, rounds: &[(f64, f64)], goal: Option<f64>) -> Self {
        let ratio = median(rounds.iter().map(|(floor, value)| value / floor).collect());
        Self {
            name: name.into(),
            value: median(rounds.iter().map(|(_, value)| *value).collect()),
            unit: unit.to_owned(),
            floor: Some(median(rounds.iter().map(|(floor, _)| *floor).collect())),
            ratio: Some(ratio),
            goal,
            met: goal.map(|goal| ratio <= goal),
        }
    }

    /// A figure without a floor. `allowed`: the most that it may be, which stands in a floor's place, with a goal of 1.
    pub fn plain(name: impl Into<String>, unit: &str, value: f64, allowed: Option<f64>) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            floor: allowed,
            ratio: allowed.map(|allowed| value / allowed),
            goal: allowed.map(|_| 1.0),
            met: allowed.map(|allowed| value <= allowed),
        }
    }
}

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn micros(time: Timespec) -> f64 {
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// CPU time that `work` takes on this thread, in µs.
pub fn thread_time(work: impl FnOnce()) -> f64 {
    let before = micros(clock_gettime(ClockId::ThreadCPUTime));
    work();
    micros(clock_gettime(ClockId::ThreadCPUTime)) - before
}

/// CPU time that `work` takes on all threads of the process, in µs.
pub fn process_time<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = micros(clock_gettime(ClockId::ProcessCPUTime));
    let result = work();
    (micros(clock_gettime(ClockId::ProcessCPUTime)) - before, result)
}

/// Wall time of `work`, in µs.
pub fn wall_time<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64() * 1e6, result)
}

/// Alternates short rounds of two pieces of work on this thread: CPU µs of each of `(floor, subject)` per call.
pub fn alternate(
    rounds: usize,
    (floor_calls, mut floor): (usize, impl FnMut()),
    (subject_calls, mut subject): (usize, impl FnMut()),
) -> Vec<(f64, f64)> {
    floor();
    subject();
    let mut measure = || {
        let one = thread_time(|| (0..floor_calls).for_each(|_| floor())) / floor_calls as f64;
        let other = thread_time(|| (0..subject_calls).for_each(|_| subject())) / subject_calls as f64;
        (one, other)
    };
    (0..rounds).map(|_| measure()).collect()
}

/// Runs `work` on the first `cores` of the cores that we may use; threads that it starts stay on them too.
pub fn on_cores<T>(cores: usize, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let all = sched_getaffinity(None)?;
    let mut some = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| all.is_set(*cpu))
        .take(cores)
        .for_each(|cpu| some.set(cpu));
    sched_setaffinity(None, &some)?;
    let result = work();
    sched_setaffinity(None, &all)?;
    Ok(result)
}

/// Peaks or other fields of `/proc/<pid>/status`, in KiB.
pub fn status_kib<const N: usize>(pid: &str, fields: [&str; N]) -> Option<[u64; N]> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |field: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    let mut figures = [0; N];
    for (figure, field) in figures.iter_mut().zip(fields) {
        *figure = kib(field)?;
    }
    Some(figures)
}
