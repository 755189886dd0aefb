//! What a preflight tells: a line a check, `docs/formats.md` §4.4.

use serde::{Deserialize, Serialize};

use super::ledger::short_message;
use super::work::REVISION;

/// The longest termination message that Kubernetes keeps, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// How many characters of a text are kept at most: tried in this order, until all lines fit into a message.
const TEXT_CHARS: [usize; 6] = [500, 300, 180, 100, 50, 20];
/// Of a check that passed, a detail is never worth more.
const PASSED_CHARS: usize = 60;

/// The worker pods that a preflight stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PreflightStage {
    /// Takes ingestion batches in.
    Intake,
    /// Sums windows.
    Aggregate,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Check {
    /// `parameters.json` is there and of this build's revision.
    Parameters,
    /// The signing keys are mounted, and are the published ones.
    SigningKey,
    /// The packet keys are mounted, and hold the published one.
    PacketKeys,
    /// The ingestor's public keys can be used.
    IngestorKeys,
    /// The peer's public keys can be used.
    PeerKeys,
    /// Our own manifest is one that partners can use.
    Manifest,
    /// How we write and what partners write go together.
    Formats,
    /// A mailbox's names can be listed.
    List,
    /// A mailbox's objects can be read.
    Read,
    /// Objects may be put there.
    Write,
    /// The store refuses to replace an object.
    ConditionalWrites,
    /// The ledger is this processor's.
    Identity,
    /// The store deletes nothing that is needed.
    Expiry,
    /// The store's clock and the pod's agree.
    Clock,
    /// A partner's batch is signed by a key that is known.
    Signature,
}

/// The mailbox that a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// Where the ingestor puts our share's batches.
    Ingestion,
    /// Where the peer puts its validation batches for us.
    PeerValidation,
    /// Our own.
    Ledger,
    /// The peer's, for our validation batches.
    Peer,
    /// Where sum parts go.
    Portal,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// Work would fail.
    Failed,
    /// It can't be known from there; the detail says why.
    NotCheckable,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    /// What was checked.
    pub check: Check,
    /// Of which mailbox; `None` where it is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<Place>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do; empty unless it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Line {
    /// A line without a mailbox.
    #[must_use]
    pub fn new(check: Check, outcome: Outcome, detail: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Self {
        Self {
            check,
            mailbox: None,
            outcome,
            detail: short_message(&detail.to_string()),
            remedy: short_message(&remedy.to_string()),
        }
    }

    /// The same of a mailbox.
    #[must_use]
    pub fn of(self, place: Place) -> Self {
        Self {
            mailbox: Some(place),
            ..self
        }
    }

    fn cut(&self, chars: usize) -> Self {
        let cut = |text: &str, chars: usize| {
            let mut kept: String = text.chars().take(chars).collect();
            if kept.len() < text.len() {
                kept.push('…');
            }
            kept
        };
        let detail = match self.outcome {
            Outcome::Passed => chars.min(PASSED_CHARS),
            Outcome::Failed | Outcome::NotCheckable => chars,
        };
        Self {
            detail: cut(&self.detail, detail),
            remedy: cut(&self.remedy, chars),
            ..self.clone()
        }
    }
}

/// What a pod tells of its preflight: its termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreflightReport {
    /// [`REVISION`].
    pub revision: u32,
    /// The lines, in the order of the documentation.
    pub lines: Vec<Line>,
}

impl PreflightReport {
    /// Of these lines.
    #[must_use]
    pub fn new(lines: Vec<Line>) -> Self {
        Self {
            revision: REVISION,
            lines,
        }
    }

    /// The report in so many bytes: texts are cut as far as needed, checks and outcomes never left out.
    #[must_use]
    pub fn to_message(&self) -> String {
        let of = |chars: usize| {
            let lines = self.lines.iter().map(|line| line.cut(chars)).collect();
            serde_json::to_string(&Self { lines, ..self.clone() }).unwrap_or_default()
        };
        let whole = TEXT_CHARS
            .into_iter()
            .map(of)
            .find(|text| text.len() <= MAX_MESSAGE_BYTES);
        whole.unwrap_or_else(|| of(0))
    }

    /// Reads what a pod told.
    #[must_use]
    pub fn from_message(text: &str) -> Option<Self> {
        let report: Self = serde_json::from_str(text.trim()).ok()?;
        (report.revision == REVISION).then_some(report)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_report_fits_into_a_termination_message_and_keeps_every_outcome() {
        let line = |outcome| {
            let long = "\"ü".repeat(250);
            Line::new(Check::ConditionalWrites, outcome, &long, &long).of(Place::PeerValidation)
        };
        let outcomes = [Outcome::Passed, Outcome::Failed, Outcome::NotCheckable];
        for count in [1, 10, 25] {
            let lines: Vec<Line> = outcomes.into_iter().cycle().take(count).map(line).collect();
            let report = PreflightReport::new(lines.clone());
            let message = report.to_message();
            assert!(message.len() <= MAX_MESSAGE_BYTES, "{count}: {}", message.len());
            let read = PreflightReport::from_message(&message).unwrap();
            let outcomes = |lines: &[Line]| lines.iter().map(|line| line.outcome).collect::<Vec<_>>();
            assert_eq!(outcomes(&read.lines), outcomes(&lines));
            assert!(read.lines.iter().all(|line| !line.detail.is_empty()), "{count}");
        }
        let short = PreflightReport::new(vec![
            Line::new(Check::Clock, Outcome::Passed, "2 s", "").of(Place::Ledger),
        ]);
        assert_eq!(
            short.to_message(),
            r#"{"revision":1,"lines":[{"check":"Clock","mailbox":"ledger","outcome":"Passed","detail":"2 s"}]}"#
        );
        assert_eq!(PreflightReport::from_message(&short.to_message()), Some(short));
        assert_eq!(PreflightReport::from_message("{\"revision\":2,\"lines\":[]}"), None);
    }
}
