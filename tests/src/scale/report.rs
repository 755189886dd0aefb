//! What a run showed: tables for people, `result.json` for programs.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use super::Amounts;
use super::measure::Costs;
use super::progress::{Phases, SUMMED};

/// So many batches of both parties are to be through …
pub const GOAL_BATCHES: usize = 10_000;
/// … in so many seconds, on two cores: the goal.
pub const GOAL_SECONDS: f64 = 300.0;
/// The most memory of an operator, in bytes: the goal.
pub const GOAL_OPERATOR_BYTES: f64 = 256.0 * 1024.0 * 1024.0;
/// Parts that used less CPU are one line together, in seconds.
const SMALL: f64 = 0.5;

/// One run.
pub struct Report<'a> {
    /// Batches of each party.
    pub batches: usize,
    /// What was asked for.
    pub settings: Value,
    /// When each phase was reached.
    pub phases: &'a Phases,
    /// Seconds of these that both waited for the cutoff that they agreed on, and for it to settle.
    pub agreed: f64,
    /// What it took.
    pub costs: &'a Costs,
    /// Every window's sums are the truth's.
    pub matched: bool,
}

impl Report<'_> {
    /// As `result.json` has it.
    pub fn json(&self) -> Value {
        let costs = self.costs;
        let seconds: Amounts = self
            .phases
            .all()
            .iter()
            .map(|(phase, at)| ((*phase).to_owned(), *at))
            .collect();
        let per_batch = |count: f64| count / self.both();
        // Fewer batches say nothing of the goal.
        let in_time =
            (self.batches >= GOAL_BATCHES).then(|| self.phases.at(SUMMED).is_some_and(|at| at <= GOAL_SECONDS));
        json!({
            "batches": self.batches,
            "settings": self.settings,
            "match": self.matched,
            "secondsFromApply": seconds,
            "secondsOfAgreedWait": self.agreed,
            "goals": {
                "seconds": {"goal": GOAL_SECONDS, "met": in_time},
                "operatorBytes": {"goal": GOAL_OPERATOR_BYTES, "met": self.operator_bytes() <= GOAL_OPERATOR_BYTES},
            },
            "cpuSeconds": costs.cpu,
            "machineCpuSeconds": costs.machine_cpu,
            "measuredSeconds": costs.seconds,
            "peakMemoryBytes": costs.peak_memory,
            "operatorCalls": costs.calls,
            "operatorWritesPerBatch": per_batch(self.operator_writes()),
            "apiWrites": costs.writes,
            "apiWritesPerBatch": per_batch(total(&costs.writes)),
            "storageRequests": costs.storage,
            "storageRequestsByBucket": costs.buckets,
            "storageRequestsPerBatch": per_batch(total(&costs.storage)),
            "operatorLooks": costs.looks,
            "jobs": costs.created("jobs"),
            "pods": costs.created("pods"),
        })
    }

    /// For people.
    pub fn tables(&self) -> String {
        let costs = self.costs;
        let mut phases: Vec<(String, String)> = self
            .phases
            .all()
            .iter()
            .map(|(phase, at)| ((*phase).to_owned(), format!("{at:.1} s")))
            .collect();
        phases.push((
            "of these, waited for the agreed cutoff".to_owned(),
            format!("{:.1} s", self.agreed),
        ));
        let (large, small): (Vec<_>, Vec<_>) = costs.cpu.iter().partition(|(_, seconds)| **seconds >= SMALL);
        let mut cpu: Vec<(String, f64)> = large
            .iter()
            .map(|(name, seconds)| ((*name).clone(), **seconds))
            .collect();
        cpu.sort_by(|a, b| b.1.total_cmp(&a.1));
        cpu.push(("the rest".to_owned(), small.iter().map(|(_, seconds)| **seconds).sum()));
        cpu.push(("the whole machine".to_owned(), costs.machine_cpu));
        let cpu = cpu
            .into_iter()
            .map(|(name, seconds)| (name, format!("{seconds:.1} s")))
            .collect();
        let memory = costs
            .peak_memory
            .iter()
            .map(|(name, bytes)| (name.clone(), format!("{:.0} MiB", bytes / 1_048_576.0)));
        let both = self.both();
        let counts = |amounts: &Amounts| -> Vec<(String, String)> {
            let line =
                |(name, count): (&String, &f64)| (name.clone(), format!("{count:.0} ({:.3} a batch)", count / both));
            amounts.iter().map(line).collect()
        };
        let mut writes = counts(&costs.calls);
        writes.push((
            "all writes, whoever's".to_owned(),
            format!(
                "{:.0} ({:.3} a batch)",
                total(&costs.writes),
                total(&costs.writes) / both
            ),
        ));
        let mut storage = counts(&costs.storage);
        storage.push((
            "all".to_owned(),
            format!(
                "{:.0} ({:.1} a batch)",
                total(&costs.storage),
                total(&costs.storage) / both
            ),
        ));
        let mut looks: Vec<(String, String)> = costs
            .looks
            .iter()
            .map(|(name, value)| (name.clone(), format!("{value:.1}")))
            .collect();
        looks.push((
            "Jobs, pods".to_owned(),
            format!("{:.0}, {:.0}", costs.created("jobs"), costs.created("pods")),
        ));
        [
            table("Both parties are through, after", phases),
            table("CPU", cpu),
            table("Peak memory", memory.collect()),
            table("Calls to the API server", writes),
            table("Requests to the stores", storage),
            table("Both operators", looks),
        ]
        .join("\n")
    }

    /// Batches of both parties: each takes in its own half of every one.
    fn both(&self) -> f64 {
        2.0 * f64::from(u32::try_from(self.batches).unwrap_or(u32::MAX))
    }

    fn operator_writes(&self) -> f64 {
        self.costs.calls.get("operators: writes").copied().unwrap_or_default()
    }

    fn operator_bytes(&self) -> f64 {
        let operators = self
            .costs
            .peak_memory
            .iter()
            .filter(|(name, _)| name.starts_with("operator"));
        operators.map(|(_, bytes)| *bytes).fold(0.0, f64::max)
    }
}

fn total(amounts: &Amounts) -> f64 {
    amounts.values().sum()
}

fn table(title: &str, rows: Vec<(String, String)>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(vec![title, ""]);
    for (name, value) in rows {
        table.add_row(vec![name, value]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
