//! What partners, or whoever pretends to be one, may send: each case is refused for the expected reason, in milliseconds
//! and in small memory. The table goes to `target/hostile/summary.json` and is that of `docs/security.md`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../support/listener.rs"]
mod listener;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "the other tests of it use the rest")]
#[path = "../flow/world.rs"]
mod world;

mod avro;
mod batches;
mod blocks;
mod claims;
mod containers;
mod documents;
mod keys;
mod memory;
mod packets;
mod party;
mod peers;
mod records;
mod table;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a case may take unless it says otherwise, in milliseconds of processors' time, in a build for tests.
const MILLIS: f64 = 20.0;
/// What a case may allocate at once besides what it is given, in KiB, unless it says otherwise.
const PEAK_KB: usize = 2 << 10;

/// Something hostile.
pub struct Case {
    name: String,
    /// What `got` must hold.
    expected: String,
    /// It is refused; otherwise it is accepted as `expected` says, and does no harm.
    refused: bool,
    millis: f64,
    peak_kb: usize,
    run: Box<dyn Fn() -> String>,
}

/// A case that is refused with `expected`; `run` says what came of it.
pub fn case(name: impl Into<String>, expected: impl Into<String>, run: impl Fn() -> String + 'static) -> Case {
    Case {
        name: name.into(),
        expected: expected.into(),
        refused: true,
        millis: MILLIS,
        peak_kb: PEAK_KB,
        run: Box::new(run),
    }
}

/// A case that looks bad and is accepted as `expected` says.
pub fn harmless(name: impl Into<String>, expected: impl Into<String>, run: impl Fn() -> String + 'static) -> Case {
    Case {
        refused: false,
        ..case(name, expected, run)
    }
}

impl Case {
    /// For what is of some size by itself.
    pub fn within_kb(self, peak_kb: usize) -> Self {
        Self { peak_kb, ..self }
    }

    /// For what takes some time by itself.
    pub fn within_ms(self, millis: f64) -> Self {
        Self { millis, ..self }
    }

    /// What is wrong with what came of it.
    fn faults(&self, row: &Row) -> Vec<String> {
        let mut faults = Vec::new();
        let is_expected = row.got.contains(&self.expected) && !row.got.starts_with(DIFFERENT);
        if !is_expected || row.got.starts_with("accepted") == self.refused {
            faults.push(format!("{}: expected {:?}, got {:?}", row.case, self.expected, row.got));
        }
        if row.ms > self.millis {
            faults.push(format!("{}: {} ms, more than {}", row.case, row.ms, self.millis));
        }
        if row.peak_kb > self.peak_kb {
            faults.push(format!("{}: {} KiB, more than {}", row.case, row.peak_kb, self.peak_kb));
        }
        faults
    }
}

/// What came of it, as its error says, or that it passed.
pub fn said<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "accepted".into())
}

/// What `got` begins with where two ways that must agree don't: no case expects that, whatever one of them says.
const DIFFERENT: &str = "differs: ";

/// What came of it in two ways. `Err`: they don't agree.
pub fn agreed(result: Result<String, String>) -> String {
    result.unwrap_or_else(|different| format!("{DIFFERENT}{different}"))
}

#[derive(Serialize)]
struct Row {
    case: String,
    expected: String,
    got: String,
    ms: f64,
    peak_kb: usize,
}

/// The processors' time that this process took so far, in milliseconds. Not the wall's: others work on the same cores. Not this
/// thread's: intake has threads of its own.
fn cpu_millis() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The best of three: the cores' caches and clocks are others' as well.
fn measure(case: &Case) -> Row {
    let mut best: Option<Row> = None;
    for _ in 0..3 {
        memory::restart();
        let begun = cpu_millis();
        let got = (case.run)();
        let ms = ((cpu_millis() - begun) * 100.0).round() / 100.0;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let row = Row {
            case: case.name.clone(),
            expected: case.expected.clone(),
            got: got.chars().map(plain).take(300).collect(),
            ms,
            peak_kb: memory::peak().div_ceil(1024),
        };
        best = match best {
            Some(best) if best.ms <= row.ms => Some(best),
            _ => Some(row),
        };
        if ms < case.millis / 4.0 {
            break;
        }
    }
    best.unwrap()
}

/// Cases by the kind of what is hostile.
fn kinds() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        (
            "Avro containers: frames, metadata, schemas, codecs",
            containers::cases(),
        ),
        ("Avro containers: blocks and cuts", blocks::cases()),
        ("Avro records", avro::cases()),
        ("Batches: headers, signatures, objects that don't fit", batches::cases()),
        ("Packets and shares", packets::cases()),
        ("The peer's messages, and stores that lie", peers::cases()),
        ("Keys and signing requests", keys::cases()),
        ("Manifests and their URLs", keys::manifests()),
        ("Names and mailbox URLs", documents::names()),
        ("Work lists and parameters", documents::work()),
        ("The ledger's JSON", documents::ledger()),
        ("Records", records::cases()),
        ("Claims", claims::cases()),
    ]
}

/// The only test of this program: another one's work would be counted.
#[test]
fn everything_hostile_is_refused_for_its_reason_quickly_and_in_small_memory() {
    let kinds = kinds();
    let mut rows: Vec<Row> = Vec::new();
    let mut faults = Vec::new();
    for case in kinds.iter().flat_map(|(_, cases)| cases) {
        let row = measure(case);
        faults.extend(case.faults(&row));
        if rows.iter().any(|other| other.case == row.case) {
            faults.push(format!("{}: given twice", row.case));
        }
        rows.push(row);
    }
    std::fs::write(
        support::report_folder("hostile").join("summary.json"),
        serde_json::to_vec_pretty(&rows).unwrap(),
    )
    .unwrap();
    eprintln!("{} cases", rows.len());
    assert_eq!(faults, Vec::<String>::new());
    assert!(rows.len() >= 150, "{} cases", rows.len());
    table::check(&kinds);
}
