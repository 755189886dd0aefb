//! Everything that comes from outside, mutated at random from a corpus: nothing may panic, take long, take much memory, or
//! read back otherwise than it was written. On stable Rust, in one thread, for `FUZZ_SECONDS` (20 without).
//!
//! Inputs count as new that end in another way than all before them: which error, naming what; what code they reach isn't
//! looked at. `FUZZ_KEEP=1` adds them to the corpus, up to some dozens; what fails goes to `fuzz/failures` in any case. See
//! `fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../support/listener.rs"]
mod listener;
#[path = "../hostile/memory.rs"]
mod memory;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "the other tests of it use the rest")]
#[path = "../flow/world.rs"]
mod world;

mod mutate;
mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use facilitator_core::crypto::sha256;
use facilitator_core::formats::batch::hex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::memory::Counting;
use crate::targets::{ACCEPTED, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The longest input, in bytes.
const MAX_INPUT: usize = 16 << 10;
/// The longest input that is kept, in bytes: three objects of a batch, each with its schema.
const MAX_KEPT: usize = 6 << 10;
/// No more are kept for a target.
const MAX_CORPUS: usize = 48;
/// Each target's corpus has so many.
const MIN_CORPUS: usize = 10;
/// A run goes on, whatever the time, until a target has had so many inputs.
const MIN_EXECUTIONS: u64 = 1_000;
/// What one input may allocate at once, in bytes.
const MAX_PEAK: usize = 16 << 20;
/// How long one input may take before it counts as a hang; machines pause for seconds.
const MAX_TIME: Duration = Duration::from_secs(10);

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn corpus_files(name: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(folder("corpus").join(name));
    let mut files: Vec<_> = folder
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The order of a folder is the file system's.
    files.sort();
    files
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let files = corpus_files(target.name);
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .chain((target.seeds)())
        .collect()
}

/// Adds to the corpus what is new there.
fn keep(target: &Target, input: &[u8]) {
    if input.len() <= MAX_KEPT && corpus_files(target.name).len() < MAX_CORPUS {
        let folder = folder("corpus").join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(&hex(&sha256(input))[..16]), input).unwrap();
    }
}

/// How an input ended, but for what it holds itself: numbers, digests and quoted text vary without end. All between the first
/// quote and the last is left out, because what is quoted may hold quotes.
fn feature(said: &str) -> String {
    const QUOTES: [char; 2] = ['"', '`'];
    let (before, after) = match (said.find(QUOTES), said.rfind(QUOTES)) {
        (Some(first), Some(last)) => (&said[..first], &said[last + 1..]),
        _ => (said, ""),
    };
    let words = before.split(' ').chain(after.split(' '));
    let plain: Vec<_> = words
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .take(60)
        .collect();
    plain.join(" ")
}

struct Found {
    executions: u64,
    features: usize,
    /// How many inputs were accepted as each of the target's parts.
    accepted: Vec<u64>,
    failures: Vec<String>,
}

/// Runs one input; `Err`: what must not be.
fn execute(target: &Target, input: &[u8]) -> Result<Vec<String>, String> {
    memory::restart();
    let begun = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| "it panicked".to_owned())??;
    let (peak, time) = (memory::peak(), begun.elapsed());
    assert_eq!(
        ended.len(),
        target.parts.len(),
        "{}: an answer for each part",
        target.name
    );
    if peak > MAX_PEAK {
        return Err(format!("{peak} bytes were allocated"));
    }
    if time > MAX_TIME {
        return Err(format!("it took {time:?}"));
    }
    Ok(ended)
}

impl Found {
    /// Runs one input. Whether it ended in a new way.
    fn run(&mut self, target: &Target, input: &[u8], features: &mut HashSet<String>) -> bool {
        self.executions += 1;
        match execute(target, input) {
            Ok(ended) => {
                for (count, said) in self.accepted.iter_mut().zip(&ended) {
                    *count += u64::from(said.starts_with(ACCEPTED));
                }
                let ways: Vec<_> = ended.iter().map(|said| feature(said)).collect();
                features.insert(ways.join(" | "))
            }
            Err(failure) => {
                let file = folder("failures").join(format!("{}-{}", target.name, &hex(&sha256(input))[..16]));
                std::fs::create_dir_all(folder("failures")).unwrap();
                std::fs::write(&file, input).unwrap();
                self.failures.push(format!(
                    "{}: {failure}: fuzz/failures/{}",
                    target.name,
                    file.file_name().unwrap().display()
                ));
                false
            }
        }
    }
}

fn fuzz(target: &Target, time: Duration, seed: u64) -> Found {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pool = corpus(target);
    let mut features = HashSet::new();
    let mut found = Found {
        executions: 0,
        features: 0,
        accepted: vec![0; target.parts.len()],
        failures: Vec::new(),
    };
    let keeps = std::env::var_os("FUZZ_KEEP").is_some();
    for input in &pool {
        if found.run(target, input, &mut features) && keeps {
            keep(target, input);
        }
    }
    let known = features.len();
    let mut in_corpus = corpus_files(target.name).len();
    let begun = Instant::now();
    while begun.elapsed() < time || found.executions < MIN_EXECUTIONS {
        let chosen = rng.random_range(0..pool.len());
        let other = rng.random_range(0..pool.len());
        let input = mutate::mutated(&pool[chosen], &pool[other], &mut rng, MAX_INPUT);
        let new = found.run(target, &input, &mut features);
        if keeps && (new || in_corpus < MIN_CORPUS) {
            keep(target, &input);
            in_corpus += 1;
        }
        if new {
            pool.push(input);
        }
    }
    found.features = features.len();
    eprintln!(
        "{:20} {:8} executions, {:3} ways to end, {} of them new; accepted: {}",
        target.name,
        found.executions,
        features.len(),
        features.len() - known,
        found.accepted_parts(target)
    );
    found
}

impl Found {
    fn accepted_parts(&self, target: &Target) -> String {
        let parts = target.parts.iter().zip(&self.accepted);
        parts
            .map(|(part, count)| format!("{part} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The quickest way to lose a corpus is to rename a target.
#[test]
fn every_target_has_a_corpus_of_small_files_and_every_corpus_a_target() {
    let targets = targets::all();
    for target in &targets {
        let files = corpus_files(target.name);
        assert!(
            files.len() >= MIN_CORPUS,
            "{} has {} files: FUZZ_KEEP=1 FUZZ_TARGET={} adds some",
            target.name,
            files.len(),
            target.name
        );
        for file in files {
            let length = std::fs::metadata(&file).unwrap().len();
            assert!(length <= MAX_KEPT as u64, "{}: {length} bytes", file.display());
        }
    }
    for folder in std::fs::read_dir(folder("corpus")).unwrap() {
        let name = folder.unwrap().file_name();
        assert!(
            targets.iter().any(|target| *target.name == *name),
            "{} is no target's",
            name.display()
        );
    }
}

#[test]
fn no_input_panics_lingers_swells_or_reads_back_otherwise() {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .map_or(20.0, |text| text.parse().unwrap());
    let seed = std::env::var("FUZZ_SEED").ok().map_or(1, |text| text.parse().unwrap());
    let only = std::env::var("FUZZ_TARGET").ok();
    let targets: Vec<_> = targets::all()
        .into_iter()
        .filter(|target| only.as_deref().is_none_or(|only| only == target.name))
        .collect();
    assert!(!targets.is_empty(), "no such target");
    let each = Duration::from_secs_f64(seconds / targets.len() as f64);
    let found: Vec<_> = targets.iter().map(|target| fuzz(target, each, seed)).collect();
    let executions: u64 = found.iter().map(|found| found.executions).sum();
    let failures: Vec<_> = found.iter().flat_map(|found| found.failures.iter().take(3)).collect();
    let summary = serde_json::json!({
        "executions": executions,
        "failures": failures.len(),
        "targets": targets.iter().zip(&found).map(|(target, found)| serde_json::json!({
            "name": target.name, "executions": found.executions, "features": found.features, "accepted": found.accepted,
        })).collect::<Vec<_>>(),
    });
    std::fs::write(
        support::report_folder("fuzz").join("summary.json"),
        format!("{summary}\n"),
    )
    .unwrap();
    eprintln!("{executions} executions of {} targets", targets.len());
    assert_eq!(failures, Vec::<&String>::new());
    for (target, found) in targets.iter().zip(&found) {
        assert!(
            found.executions >= MIN_EXECUTIONS,
            "{}: {}",
            target.name,
            found.executions
        );
        // A target that refuses everything tries nothing behind the first check.
        assert!(
            found.accepted.iter().all(|count| *count > 0),
            "{}: nothing was accepted as one of: {}",
            target.name,
            found.accepted_parts(target)
        );
    }
}
