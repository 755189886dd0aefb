//! The binary as a whole: time and peak memory of `facilitator intake` and `aggregate`, in folders.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::measure::{Row, median, status_kib};

/// The most that a process may take of memory, in MB.
pub const GOAL: f64 = 128.0;
const PARTIES: [&str; 2] = ["first", "second"];

/// CPU ticks of children that ended, of 10 ms each.
fn children_ticks() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the command's name, which is in brackets, cutime and cstime are fields 16 and 17 of the whole.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .context("no fields")?
        .split_whitespace()
        .collect();
    let field = |i: usize| {
        fields
            .get(i)
            .and_then(|field| field.parse::<u64>().ok())
            .context("no number")
    };
    Ok(field(13)? + field(14)?)
}

/// What a process took.
pub struct Took {
    pub wall: Duration,
    pub cpu_seconds: f64,
    /// The most that was resident at once, by the kernel's high-water mark.
    pub peak_kib: u64,
    /// What was resident, read every two milliseconds.
    resident_kib: Vec<f64>,
}

impl Took {
    /// [`Took::peak_kib`] in MB, of 1,000,000 bytes.
    pub fn peak_megabytes(&self) -> f64 {
        self.peak_kib as f64 * 1024.0 / 1e6
    }

    /// What is resident in the last quarter of its time beyond what was in the one before, in MB: medians, as peaks of one and
    /// the same work differ by several MB.
    pub fn growth_megabytes(&self) -> f64 {
        let quarter = self.resident_kib.len() / 4;
        let of = |number: usize| median(self.resident_kib[number * quarter..(number + 1) * quarter].to_vec());
        (of(3) - of(2)) * 1024.0 / 1e6
    }

    /// A row for each figure.
    pub fn rows(&self, name: impl Fn(&str) -> String) -> [Row; 3] {
        [
            Row::plain(name("wall time"), "s", self.wall.as_secs_f64(), None),
            Row::plain(name("CPU time"), "s", self.cpu_seconds, None),
            Row::plain(name("peak memory"), "MB", self.peak_megabytes(), Some(GOAL)),
        ]
    }
}

/// Runs a program to its end.
pub fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<Took> {
    let (before, start) = (children_ticks()?, Instant::now());
    let mut child = Command::new(program).args(arguments).stdout(Stdio::null()).spawn()?;
    let pid = child.id().to_string();
    let (mut peak_kib, mut resident_kib) = (0, Vec::new());
    let status = loop {
        // The mark only rises; read often, for it is gone with the process.
        if let Some([peak, resident]) = status_kib(&pid, ["VmHWM", "VmRSS"]) {
            peak_kib = peak_kib.max(peak);
            resident_kib.push(resident as f64);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall = start.elapsed();
    ensure!(status.success(), "{} {arguments:?} failed: {status}", program.display());
    Ok(Took {
        wall,
        cpu_seconds: (children_ticks()? - before) as f64 / 100.0,
        peak_kib,
        resident_kib,
    })
}

/// Makes a world of samples in a folder `world` of this one, with these further arguments.
pub fn sample(facilitator: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let into = folder.join("world");
    let into = into.to_str().context("a folder's name isn't UTF-8")?;
    run(facilitator, &[&["sample", "--into", into], arguments].concat()).map(drop)
}

/// Runs a command of a party's in such a folder.
fn work(facilitator: &Path, command: &str, folder: &Path, party: &str) -> anyhow::Result<Took> {
    let parameters = folder.join(format!("world/{party}.json"));
    let parameters = parameters.to_str().context("a folder's name isn't UTF-8")?;
    run(facilitator, &[command, "--parameters", parameters])
}

/// Time and memory of one batch of so many packets.
pub fn rows(facilitator: &Path, packets: u32) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for bins in [16, 256] {
        let folder = tempfile::tempdir()?;
        let (bins_text, packets_text) = (bins.to_string(), packets.to_string());
        let options = ["--bins", &bins_text, "--packets", &packets_text, "--batches", "1"];
        sample(facilitator, folder.path(), &options)?;
        for command in ["intake", "aggregate"] {
            for party in PARTIES {
                let took = work(facilitator, command, folder.path(), party)?;
                rows.extend(
                    took.rows(|what| format!("facilitator {command}, {party}, {packets} packets, {bins} bins: {what}")),
                );
            }
        }
    }
    Ok(rows)
}

/// Time and memory of aggregations of many batches.
pub fn many(facilitator: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batches in ["1000", "2000"] {
        let folder = tempfile::tempdir()?;
        let options = ["--bins", "16", "--packets", "20", "--batches", batches];
        sample(facilitator, folder.path(), &options)?;
        for party in PARTIES {
            work(facilitator, "intake", folder.path(), party)?;
        }
        for party in PARTIES {
            let took = work(facilitator, "aggregate", folder.path(), party)?;
            rows.extend(took.rows(|what| {
                format!("facilitator aggregate, {party}, 16 bins, {batches} batches of 20 packets: {what}")
            }));
        }
    }
    Ok(rows)
}
