//! Exactly once: every point at which a worker may stop, every answer that may be lost, every order of two workers' calls.
//! Counts go to `target/exactness/summary.json`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod gate;
mod interleave;
mod outcomes;
mod overrides;
mod parts;
mod replays;
mod splits;
mod stops;
mod world;

use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use facilitator_core::formats::work::{Share, ValidationFormat};

use crate::interleave::Case;
use crate::stops::{Counts, Scene};
use crate::world::{Build, SHARES};

type Job<'a> = (
    String,
    Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send + 'a>,
);

/// Runs jobs on all cores, each on a runtime of its own.
fn on_all_cores(jobs: Vec<Job<'_>>) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = Mutex::new(jobs.into_iter());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                loop {
                    let job = jobs.lock().unwrap().next();
                    let Some((name, job)) = job else { break };
                    let begun = Instant::now();
                    runtime.block_on(job());
                    eprintln!("{:6.1} s  {name}", begun.elapsed().as_secs_f64());
                }
            });
        }
    });
}

/// A case, made on the thread that runs it.
type MakeCase = fn() -> Pin<Box<dyn Future<Output = Case>>>;

fn jobs(counts: &Counts) -> Vec<Job<'_>> {
    const PARTS: usize = 4;
    const SEEDS: u64 = 800;
    let mut jobs: Vec<Job<'_>> = Vec::new();
    let exhaustive: [(&str, MakeCase); 13] = [
        ("two intakes", || Box::pin(interleave::same_intake(Build::Right))),
        ("two large intakes", || Box::pin(interleave::same_large_intake())),
        ("two intakes, other keys", || {
            Box::pin(interleave::intakes_with_other_keys(Build::Right))
        }),
        ("two aggregations", || Box::pin(interleave::same_window())),
        ("overlapping windows", || Box::pin(interleave::overlapping_windows())),
        ("intake and window", || Box::pin(interleave::intake_and_window())),
        ("late peer", || Box::pin(interleave::late_peer())),
        ("two plan shards", || Box::pin(parts::two_shards())),
        ("partial sums and window", || Box::pin(parts::partial_sums_and_window())),
        ("one override twice", || Box::pin(overrides::same_override())),
        ("an expiring override", || Box::pin(overrides::expiring_override())),
        ("override and window", || {
            Box::pin(overrides::override_and_window(Build::Right))
        }),
        ("original and replay", || {
            Box::pin(replays::original_and_replay(Build::Right))
        }),
    ];
    for (name, make) in exhaustive {
        let job = move || -> Pin<Box<dyn Future<Output = ()> + '_>> {
            Box::pin(async move { make().await.every_order(20_000, counts).await })
        };
        jobs.push((format!("every order: {name}"), Box::new(job)));
    }
    for share in SHARES {
        for part in 0..PARTS {
            let job = move || -> Pin<Box<dyn Future<Output = ()> + '_>> {
                Box::pin(async move {
                    Scene::of(share, ValidationFormat::ThreeObjects, Build::Right)
                        .await
                        .pairs(part, PARTS, counts)
                        .await;
                })
            };
            jobs.push((format!("pairs of stops: {share:?}, part {part}"), Box::new(job)));
        }
    }
    for part in 0..PARTS {
        let job = move || -> Pin<Box<dyn Future<Output = ()> + '_>> {
            Box::pin(async move {
                Scene::streamed(Share::Second, ValidationFormat::ThreeObjects, Build::Right)
                    .await
                    .pairs(part, PARTS, counts)
                    .await;
            })
        };
        jobs.push((format!("pairs of stops, streamed, part {part}"), Box::new(job)));
    }
    let job = move || -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move { overrides::scene(Share::First, 2).await.pairs(0, 1, counts).await })
    };
    jobs.push(("pairs of stops: an override".into(), Box::new(job)));
    let random: [(&str, MakeCase); 6] = [
        ("everything", || Box::pin(interleave::everything())),
        ("overlapping windows", || Box::pin(interleave::windows_and_crashes())),
        ("intake and window", || Box::pin(interleave::intake_and_window())),
        ("parted in two ways", || Box::pin(parts::parted_in_two_ways())),
        ("two overrides", || Box::pin(overrides::two_overrides())),
        ("replays and compaction", || Box::pin(replays::replays_and_compaction())),
    ];
    for (name, make) in random {
        let job = move || -> Pin<Box<dyn Future<Output = ()> + '_>> {
            Box::pin(async move { make().await.random_orders(0, SEEDS, counts).await })
        };
        jobs.push((format!("random orders: {name}"), Box::new(job)));
    }
    let job = move || -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            for mut scene in stops::single_scenes().await {
                scene.singles(counts).await;
            }
        })
    };
    jobs.push(("single faults".into(), Box::new(job)));
    jobs
}

#[test]
fn whatever_stops_is_lost_or_runs_at_the_same_time_everything_is_there_once() {
    let counts = Counts::default();
    let begun = Instant::now();
    on_all_cores(jobs(&counts));
    let violations = counts.violations.into_inner().unwrap();
    let summary = serde_json::json!({
        "points": counts.points.load(Ordering::Relaxed),
        "pairs": counts.pairs.load(Ordering::Relaxed),
        "interleavings": counts.interleavings.load(Ordering::Relaxed),
        "violations": violations.len(),
    });
    std::fs::write(
        support::report_folder("exactness").join("summary.json"),
        format!("{summary}\n"),
    )
    .unwrap();
    eprintln!("{summary} in {:.1} s", begun.elapsed().as_secs_f64());
    for violation in violations.iter().take(20) {
        eprintln!("{violation}");
    }
    assert_eq!(violations.len(), 0);
}

/// The checks above are worth something: each way of building it wrong is caught.
#[test]
fn every_wrong_build_is_caught() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for build in [Build::SignatureFirst, Build::RecordAfterValidation] {
        for streamed in [false, true] {
            let counts = Counts::default();
            runtime.block_on(async {
                let (share, format) = (Share::First, ValidationFormat::ThreeObjects);
                let mut scene = match streamed {
                    false => Scene::of(share, format, build).await,
                    true => Scene::streamed(share, format, build).await,
                };
                scene.singles(&counts).await;
            });
            let violations = counts.violations.into_inner().unwrap();
            assert!(!violations.is_empty(), "{build:?} passes, streamed: {streamed}");
            eprintln!("{build:?}: {} violations, such as: {}", violations.len(), violations[0]);
        }
    }
    let wrong: [(&str, MakeCase); 3] = [
        ("put not conditional", || {
            Box::pin(interleave::intakes_with_other_keys(Build::PutNotConditional))
        }),
        ("decision before announcement", || {
            Box::pin(overrides::override_and_window(Build::DecideBeforeAnnouncing))
        }),
        ("look before announce", || {
            Box::pin(replays::original_and_replay(Build::LookBeforeClaiming))
        }),
    ];
    for (name, make) in wrong {
        let counts = Counts::default();
        runtime.block_on(async { make().await.every_order(20_000, &counts).await });
        let violations = counts.violations.into_inner().unwrap();
        assert!(!violations.is_empty(), "{name} passes");
        eprintln!("{name}: {}", violations[0]);
    }
}
