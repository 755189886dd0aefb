//! Lines of a status. Pure.

use crds::processor::{PreflightLine, PreflightOutcome, PreflightStage};
use facilitator_core::formats::preflight::{Line, Outcome};

use crate::workload::Stage;

/// The check of whether there is a pod at all.
const POD: &str = "Pod";
/// The longest text; the schema's bound is a little above.
const MAX_CHARS: usize = 1000;

pub(super) fn checker(stage: Stage) -> PreflightStage {
    match stage {
        Stage::Intake => PreflightStage::Intake,
        Stage::Aggregate => PreflightStage::Aggregate,
    }
}

/// No pod of a stage came to an end.
pub(super) fn no_pod(stage: Stage, detail: &str, remedy: &str) -> PreflightLine {
    PreflightLine {
        stage: checker(stage),
        check: POD.to_owned(),
        mailbox: None,
        outcome: PreflightOutcome::Failed,
        detail: short(detail),
        remedy: short(remedy),
    }
}

/// What a pod told.
pub(super) fn told(stage: Stage, line: Line) -> PreflightLine {
    PreflightLine {
        stage: checker(stage),
        check: word(&line.check),
        mailbox: line.mailbox.map(|place| word(&place)),
        outcome: match line.outcome {
            Outcome::Passed => PreflightOutcome::Passed,
            Outcome::Failed => PreflightOutcome::Failed,
            Outcome::NotCheckable => PreflightOutcome::NotCheckable,
        },
        detail: short(&line.detail),
        remedy: short(&line.remedy),
    }
}

/// As formats write it.
fn word(of: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(of).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// A text within the schema's bounds, without what a terminal would obey.
pub(super) fn short(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_CHARS).collect()
}
