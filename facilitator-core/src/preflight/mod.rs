//! Whether a stage's worker could do its work: its keys, partners' keys, and each mailbox as far as its rights go. Nothing is
//! put but one object of fixed content into our own ledger.

mod batches;
mod keys;
mod ledger;
mod mailboxes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailbox::{Mailbox, MailboxError};

use crate::aggregate::Clock;
use crate::crypto::PublicPoint;
use crate::formats::names::InstanceName;
use crate::formats::preflight::{Check, Line, Outcome, Place, PreflightStage};
use crate::formats::work::{Parameters, ValidationFormat};

/// One call on a store may take so long: a preflight is to be over within a minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What was found, without a secret.
    pub detail: String,
    /// What to do; may be empty where the detail says it.
    pub remedy: String,
}

/// The id and the public half of each mounted key.
pub type PublicHalves = Vec<(String, PublicPoint)>;

/// The mounted keys, as far as they can be read.
#[derive(Clone, Debug)]
pub struct OwnKeys {
    /// Keys that sign; the first one signs new work.
    pub signing: Result<PublicHalves, Trouble>,
    /// Keys that open packets.
    pub packets: Result<PublicHalves, Trouble>,
}

/// The mailboxes, as far as they can be opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Where the ingestor puts our share's batches.
    pub ingestion: Result<Arc<dyn Mailbox>, Trouble>,
    /// Where the peer puts its validation batches for us.
    pub peer_validation: Result<Arc<dyn Mailbox>, Trouble>,
    /// Our own ledger.
    pub ledger: Result<Arc<dyn Mailbox>, Trouble>,
    /// The peer's mailbox for our validation batches.
    pub peer: Result<Arc<dyn Mailbox>, Trouble>,
    /// Where sum parts go.
    pub portal: Result<Arc<dyn Mailbox>, Trouble>,
}

/// All that a preflight looks at.
pub struct Preflight<'a> {
    /// Whose work is to be done.
    pub stage: PreflightStage,
    /// What the stage's pods are given.
    pub parameters: &'a Parameters,
    /// The mounted keys.
    pub keys: &'a OwnKeys,
    /// The mailboxes.
    pub mailboxes: &'a Opened,
    /// Our own specific manifest as it is published; `None`: not known.
    pub manifest: Option<&'a str>,
    /// The pod's clock.
    pub clock: Clock<'a>,
}

impl Preflight<'_> {
    /// Checks all of it. A check that fails keeps none of the others from being made.
    pub async fn run(&self) -> Vec<Line> {
        let now = (self.clock)();
        let mut lines = keys::own(self.keys, self.manifest, now);
        let (ingestor, line) = keys::partner(Check::IngestorKeys, "the ingestor", &self.parameters.ingestor_keys);
        lines.push(line);
        let (peer, line) = keys::partner(Check::PeerKeys, "the peer", &self.parameters.peer_keys);
        lines.extend([line, self.formats()]);
        let all = &self.mailboxes;
        let ledger = self.ledger();
        let rest = async {
            match self.stage {
                PreflightStage::Intake => {
                    let (ingestion, outgoing) =
                        futures::join!(self.ingestion(&ingestor), self.writing(Place::Peer, &all.peer));
                    [ingestion, vec![outgoing]].concat()
                }
                PreflightStage::Aggregate => {
                    let (ingestion, validation, times, outgoing) = futures::join!(
                        self.ingestion(&ingestor),
                        self.peer_validation(&peer),
                        self.peer_times(),
                        self.writing(Place::Portal, &all.portal)
                    );
                    [ingestion, validation, vec![times, outgoing]].concat()
                }
            }
        };
        let (ledger, rest) = futures::join!(ledger, rest);
        lines.extend(ledger);
        lines.extend(rest);
        // What is wrong with a mailbox may show at more than one of its calls.
        let mut told = BTreeSet::new();
        lines.retain(|line| told.insert((line.check, line.mailbox)));
        lines
    }

    /// What the spec says of formats, before any batch is there.
    fn formats(&self) -> Line {
        let parameters = self.parameters;
        if let Err(error) = InstanceName::parse(&parameters.instance) {
            return failed(Check::Formats, error, "make a processor with another spec.instance");
        }
        if parameters.legacy_peer && parameters.validation_format == ValidationFormat::SingleObject {
            let detail = "validations are written as single objects, and the peer runs the original: whether its version reads \
                          them can't be seen from here; ThreeObjects is read by all";
            return Line::new(Check::Formats, Outcome::NotCheckable, detail, "");
        }
        let format = match parameters.validation_format {
            ValidationFormat::ThreeObjects => "three objects",
            ValidationFormat::SingleObject => "a single object",
        };
        passed(Check::Formats, format_args!("a validation is {format}"))
    }
}

fn passed(check: Check, detail: impl std::fmt::Display) -> Line {
    Line::new(check, Outcome::Passed, detail, "")
}

fn failed(check: Check, detail: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Line {
    Line::new(check, Outcome::Failed, detail, remedy)
}

fn not_checkable(check: Check, detail: impl std::fmt::Display) -> Line {
    Line::new(check, Outcome::NotCheckable, detail, "")
}

/// Gives a call its time. Inside the error, what is wrong for a person.
async fn within<T>(call: impl Future<Output = Result<T, MailboxError>>) -> Result<T, Fault> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::Mailbox(error)),
        Err(_) => Err(Fault::Silent),
    }
}

/// Why a call failed.
#[derive(Debug)]
enum Fault {
    Mailbox(MailboxError),
    /// No answer in time.
    Silent,
}

/// How far the pod's clock is ahead of a store's, in seconds, given the pod's time before and after the answer, and the
/// store's, in whole seconds, in between: 0 where both may be right.
fn seconds_ahead(before: Timestamp, after: Timestamp, store: Timestamp) -> i64 {
    let (before, after, store) = (before.as_second(), after.as_second(), store.as_second());
    if store < before {
        before - store
    } else if store > after {
        after - store
    } else {
        0
    }
}
