//! Everything that comes from outside, mutated at random from a corpus: nothing may panic, take long, take much memory, or
//! read back otherwise than it was written. On stable Rust, in one thread, for `FUZZ_SECONDS` (20 without).
//!
//! Inputs count as new that end in another way than all before them: which error, naming what. `FUZZ_KEEP=1` adds them to
//! the corpus, up to some dozens; what fails goes to `fuzz/failures` in any case. See `fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../hostile/memory.rs"]
mod memory;
#[path = "../support/mod.rs"]
mod support;

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
use crate::targets::Target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The longest input, in bytes.
const MAX_INPUT: usize = 16 << 10;
/// The longest input that is kept, in bytes.
const MAX_KEPT: usize = 2 << 10;
/// No more are kept for a target.
const MAX_CORPUS: usize = 48;
/// What one input may allocate at once, in bytes.
const MAX_PEAK: usize = 16 << 20;
/// How long one input may take before it counts as a hang; machines pause for seconds.
const MAX_TIME: Duration = Duration::from_secs(10);

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = folder("corpus").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The order of a folder is the file system's.
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .chain((target.seeds)())
        .collect()
}

/// How an input ended, but for what it holds itself: digits and quoted text vary without end.
fn feature(outcome: &str) -> String {
    let mut plain = String::new();
    let mut quoted = false;
    for c in outcome.chars().take(200) {
        quoted ^= matches!(c, '"' | '`');
        if !quoted && (c.is_ascii_alphabetic() || c == ' ') {
            plain.push(c);
        }
    }
    plain
}

struct Found {
    executions: u64,
    features: usize,
    failures: Vec<String>,
}

/// Runs one input; `Err`: what must not be.
fn execute(target: &Target, input: &[u8]) -> Result<String, String> {
    memory::restart();
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| "it panicked".to_owned())??;
    let (peak, time) = (memory::peak(), begun.elapsed());
    if peak > MAX_PEAK {
        return Err(format!("{peak} bytes were allocated"));
    }
    if time > MAX_TIME {
        return Err(format!("it took {time:?}"));
    }
    Ok(outcome)
}

fn fuzz(target: &Target, time: Duration, seed: u64) -> Found {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pool = corpus(target);
    let mut features = HashSet::new();
    let mut found = Found {
        executions: 0,
        features: 0,
        failures: Vec::new(),
    };
    let mut ran = |input: &[u8], features: &mut HashSet<String>| -> bool {
        found.executions += 1;
        match execute(target, input) {
            Ok(outcome) => features.insert(feature(&outcome)),
            Err(failure) => {
                let file = folder("failures").join(format!("{}-{}", target.name, &hex(&sha256(input))[..16]));
                std::fs::create_dir_all(folder("failures")).unwrap();
                std::fs::write(&file, input).unwrap();
                found.failures.push(format!(
                    "{}: {failure}: fuzz/failures/{}",
                    target.name,
                    file.file_name().unwrap().display()
                ));
                false
            }
        }
    };
    for input in &pool {
        ran(input, &mut features);
    }
    let known = features.len();
    let keep = std::env::var_os("FUZZ_KEEP").is_some();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let chosen = rng.random_range(0..pool.len());
        let other = rng.random_range(0..pool.len());
        let input = mutate::mutated(&pool[chosen], &pool[other], &mut rng, MAX_INPUT);
        if ran(&input, &mut features) {
            let folder = folder("corpus").join(target.name);
            if keep && input.len() <= MAX_KEPT && pool.len() < MAX_CORPUS {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(&hex(&sha256(&input))[..16]), &input).unwrap();
            }
            pool.push(input);
        }
    }
    found.features = features.len();
    eprintln!(
        "{:20} {:8} executions, {:3} ways to end, {} of them new",
        target.name,
        found.executions,
        features.len(),
        features.len() - known
    );
    found
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
            "name": target.name, "executions": found.executions, "features": found.features,
        })).collect::<Vec<_>>(),
    });
    std::fs::write(
        support::report_folder("fuzz").join("summary.json"),
        format!("{summary}\n"),
    )
    .unwrap();
    eprintln!("{executions} executions of {} targets", targets.len());
    assert_eq!(failures, Vec::<&String>::new());
}
