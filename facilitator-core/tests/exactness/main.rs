//! Exactly once: every point at which a worker may stop, every way in which a call may fail, every order of two workers'
//! calls. Counts go to `target/exactness/summary.json`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod cases;
mod check;
mod drawn;
mod gate;
mod marks;
mod orders;
mod outcomes;
mod overrides;
mod overwritten;
mod parts;
mod replays;
mod scenes;
mod splits;
mod stops;
mod sums;
mod truth;
mod work;
mod world;
mod wrong;
mod wrong_builds;

use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use facilitator_core::formats::ledger::{
    DECISIONS, DELIVERED, LEDGER_OBJECT, PARTIALS, PLANS, RECORDS, REJECTED, RELEASED, RESULTS, SHARDS, USES,
};
use facilitator_core::formats::work::{Share, ValidationFormat};
use tokio::runtime::Runtime;

use crate::gate::Kind;
use crate::orders::Case;
use crate::scenes::Plot;
use crate::stops::Counts;
use crate::truth::Violation;
use crate::world::{Build, Mounts, SHARES};

/// What all searches may take on two cores. That they take longer is no failure: others may use the machine.
const MOST_SECONDS: f64 = 180.0;

/// A search, on the thread that runs it.
type Search = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Counts>>> + Send>;
type MakeCase = fn() -> Pin<Box<dyn Future<Output = Case>>>;

struct Job {
    name: String,
    /// A search that tries less than this has lost what it searched.
    at_least: usize,
    search: Search,
}

struct Done {
    name: String,
    at_least: usize,
    counts: Counts,
    seconds: f64,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs jobs on all cores, each on a runtime of its own.
fn on_all_cores(jobs: Vec<Job>) -> Vec<Done> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let (jobs, done) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let runtime = runtime();
                loop {
                    let job = jobs.lock().unwrap().next();
                    let Some(Job { name, at_least, search }) = job else {
                        break;
                    };
                    let begun = Instant::now();
                    let counts = runtime.block_on(search());
                    let seconds = begun.elapsed().as_secs_f64();
                    eprintln!("{seconds:6.1} s  {:6} (at least {at_least})  {name}", counts.tried());
                    for violation in counts.violations.iter().take(2) {
                        eprintln!("         {violation}");
                    }
                    done.lock().unwrap().push(Done {
                        name,
                        at_least,
                        counts,
                        seconds,
                    });
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// Every order of the calls of two or three workers, with the fewest that there must be.
const EXHAUSTIVE: [(&str, usize, MakeCase); 27] = {
    use ValidationFormat::{SingleObject, ThreeObjects};
    [
        ("two intakes", 220, || {
            Box::pin(cases::same_intake(Share::First, ThreeObjects))
        }),
        ("two intakes at Second", 220, || {
            Box::pin(cases::same_intake(Share::Second, ThreeObjects))
        }),
        ("two intakes, one object", 56, || {
            Box::pin(cases::same_intake(Share::First, SingleObject))
        }),
        ("two large intakes", 410, || Box::pin(cases::same_large_intake())),
        ("two intakes, other keys", 220, || {
            Box::pin(cases::intakes_with_other_keys(Build::Right))
        }),
        ("two intakes, other formats", 500, || {
            Box::pin(cases::intakes_in_other_formats(Build::Right))
        }),
        ("two intakes, other signers", 25, || {
            Box::pin(cases::intakes_with_other_signers(Build::Right))
        }),
        ("original and replay", 3, || {
            Box::pin(replays::original_and_replay(Build::Right))
        }),
        ("group and replay", 180, || {
            Box::pin(cases::group_and_replay(Build::Right))
        }),
        ("listed group and replay", 100, || {
            Box::pin(cases::listed_group_and_replay())
        }),
        ("intake and compaction", 3, || Box::pin(cases::intake_and_compaction())),
        ("two aggregations", 1150, || Box::pin(cases::same_window(Share::Second))),
        ("two aggregations at First", 1150, || {
            Box::pin(cases::same_window(Share::First))
        }),
        ("two aggregations, other keys", 21, || {
            Box::pin(cases::windows_with_other_keys())
        }),
        ("two aggregations, other signers", 8, || {
            Box::pin(cases::windows_with_other_signers(Build::Right))
        }),
        ("overlapping windows", 5, || Box::pin(cases::overlapping_windows())),
        ("intake and window", 5, || Box::pin(cases::intake_and_window())),
        ("late peer", 2, || Box::pin(cases::late_peer(false))),
        ("late legacy peer", 2, || Box::pin(cases::late_peer(true))),
        ("two plan shards", 5, || Box::pin(parts::two_shards())),
        ("partial sums and window", 5, || {
            Box::pin(parts::partial_sums_and_window())
        }),
        ("one override twice", 890, || Box::pin(overrides::same_override())),
        ("an expiring override", 220, || Box::pin(overrides::expiring_override())),
        ("override and window", 4, || {
            Box::pin(overrides::override_and_window(Build::Right))
        }),
        ("two marked intakes", 14, || Box::pin(marks::marked_intakes())),
        ("two marked aggregations", 8, || Box::pin(marks::marked_windows())),
        ("two new ledgers", 2, || Box::pin(marks::new_ledger())),
    ]
};

/// Orders, faults and crashes drawn from seeds.
const RANDOM: [(&str, u64, MakeCase); 6] = [
    ("everything", 300, || Box::pin(cases::everything())),
    ("overlapping windows", 300, || {
        Box::pin(cases::windows_and_crashes(Build::Right))
    }),
    ("intake and window", 300, || Box::pin(cases::intake_and_window())),
    ("parted in two ways", 300, || Box::pin(parts::parted_in_two_ways())),
    ("two overrides", 300, || Box::pin(overrides::two_overrides())),
    ("replays and compaction", 300, || {
        Box::pin(replays::replays_and_compaction())
    }),
];

/// What one worker does, with the fewest single faults and pairs of stops: somewhat more than half of what there are.
const SCENES: [(Plot, usize, usize); 16] = {
    use ValidationFormat::{SingleObject, ThreeObjects};
    [
        (Plot::Batches(ThreeObjects), 115, 1870),
        (Plot::Batches(SingleObject), 105, 1700),
        (Plot::Streamed(ThreeObjects), 150, 3550),
        (Plot::Streamed(SingleObject), 130, 3310),
        (Plot::Parts, 170, 4110),
        (Plot::Keys([Mounts::One, Mounts::Both]), 75, 810),
        (Plot::Keys([Mounts::Both, Mounts::One]), 75, 750),
        (Plot::Keys([Mounts::One, Mounts::One]), 75, 810),
        (Plot::Replay, 105, 1780),
        (Plot::Group, 135, 1610),
        (Plot::Listed, 90, 800),
        (Plot::Compaction, 90, 1100),
        (Plot::Unusable, 85, 1040),
        (Plot::BelowFloor, 95, 1400),
        (Plot::Override(2), 65, 910),
        (Plot::Marked, 100, 1000),
    ]
};

fn jobs() -> Vec<Job> {
    const RUNS: usize = 60_000;
    let mut jobs = Vec::new();
    let mut job = |name: String, at_least, search: Search| jobs.push(Job { name, at_least, search });
    for (name, at_least, make) in EXHAUSTIVE {
        let search: Search = Box::new(move || Box::pin(async move { make().await.every_order(RUNS).await }));
        job(format!("every order: {name}"), at_least, search);
    }
    for share in SHARES {
        for (plot, points, pairs) in SCENES {
            let name = format!("{plot:?}, {share:?}");
            let search: Search = Box::new(move || Box::pin(async move { plot.scene(share).await.pairs().await }));
            job(format!("pairs of stops: {name}"), pairs, search);
            let search: Search = Box::new(move || Box::pin(async move { plot.scene(share).await.singles().await }));
            job(format!("single faults: {name}"), points, search);
        }
    }
    let refused: Search = Box::new(|| Box::pin(async { Plot::Override(1).scene(Share::Second).await.singles().await }));
    job("single faults: a refused override".into(), 55, refused);
    for (name, seeds, make) in RANDOM {
        let search: Search = Box::new(move || Box::pin(async move { make().await.random_orders(seeds).await }));
        job(
            format!("random orders: {name}"),
            usize::try_from(seeds).unwrap(),
            search,
        );
    }
    jobs
}

/// Every kind of call, and a put of every kind of object of the ledger, was one before which a worker stopped: `reports/` is
/// the binary's.
fn check_stops(counts: &Counts) -> Result<(), String> {
    let kinds: BTreeSet<Kind> = counts.stopped_before.iter().map(|(kind, _)| *kind).collect();
    let folders: BTreeSet<&str> = counts
        .stopped_before
        .iter()
        .filter_map(|(_, folder)| folder.as_deref())
        .collect();
    let all = [
        LEDGER_OBJECT,
        "claims",
        "runs",
        USES,
        RECORDS,
        DELIVERED,
        REJECTED,
        SHARDS,
        PLANS,
        PARTIALS,
        RELEASED,
        DECISIONS,
        RESULTS,
    ];
    if kinds == BTreeSet::from(Kind::ALL) && folders == BTreeSet::from(all) {
        return Ok(());
    }
    Err(format!(
        "workers stopped before {kinds:?}, and before puts into {folders:?} alone"
    ))
}

/// All counts, with a violation for every search that tried too little, and for calls before which nothing stopped.
fn judged(all_done: Vec<Done>) -> Counts {
    let mut all = Counts::default();
    for done in all_done {
        let tried = done.counts.tried();
        let mut counts = done.counts;
        if tried < done.at_least {
            let violation = format!("only {tried} tried, and at least {} are there", done.at_least);
            counts.violations.push(violation.into());
        }
        let at = |violation: Violation| violation.at(&done.name);
        counts.violations = counts.violations.into_iter().map(at).collect();
        all.add(counts);
    }
    if let Err(missing) = check_stops(&all) {
        all.violations.push(missing.into());
    }
    all
}

#[test]
fn a_search_that_tries_too_little_fails() {
    let done = Done {
        name: "nothing".into(),
        at_least: 1,
        counts: Counts::default(),
        seconds: 0.0,
    };
    let violations: Vec<String> = judged(vec![done]).violations.iter().map(Violation::to_string).collect();
    assert_eq!(violations.len(), 2, "{violations:?}");
    assert!(violations[0].starts_with("nothing: only 0 tried"), "{violations:?}");
    assert!(violations[1].contains("stopped before"), "{violations:?}");
}

#[test]
fn whatever_stops_fails_or_runs_at_the_same_time_everything_is_there_once() {
    let begun = Instant::now();
    let done = on_all_cores(jobs());
    let searches: Vec<_> = done
        .iter()
        .map(|done| serde_json::json!({"name": done.name, "tried": done.counts.tried(), "seconds": done.seconds}))
        .collect();
    let all = judged(done);
    let seconds = begun.elapsed().as_secs_f64();
    let summary = serde_json::json!({
        "points": all.points,
        "pairs": all.pairs,
        "interleavings": all.interleavings,
        "violations": all.violations.len(),
        "seconds": seconds,
        "searches": searches,
    });
    let file = support::report_folder("exactness").join("summary.json");
    std::fs::write(file, format!("{summary:#}\n")).unwrap();
    let (points, pairs, interleavings) = (all.points, all.pairs, all.interleavings);
    let violations = all.violations.len();
    eprintln!(
        "{points} points, {pairs} pairs, {interleavings} interleavings, {violations} violations in {seconds:.1} s"
    );
    if seconds > MOST_SECONDS {
        eprintln!("WARNING: longer than the {MOST_SECONDS} s that it may take on two cores");
    }
    assert_eq!(violations, 0);
}
