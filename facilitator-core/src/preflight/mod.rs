//! Whether a stage's worker could do its work: its keys, partners' keys, and each mailbox as far as its rights go. Nothing is
//! put but one object of fixed content into our own ledger.

mod batches;
mod keys;
mod ledger;
mod mailboxes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailbox::{Mailbox, MailboxError};
use tokio::time::{Instant, timeout, timeout_at};

use crate::aggregate::Clock;
use crate::crypto::PublicPoint;
use crate::formats::names::InstanceName;
use crate::formats::preflight::{Check, Line, Outcome, Place, PreflightStage};
use crate::formats::work::{Parameters, ValidationFormat};

/// One call on a store may take so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The checks of a mailbox that partners write into.
const OF_PARTNERS: &[Check] = &[Check::List, Check::Clock, Check::Read, Check::Signature];
/// Those of our ledger.
const OF_LEDGER: &[Check] = &[
    Check::List,
    Check::Clock,
    Check::Write,
    Check::ConditionalWrites,
    Check::Read,
    Check::Identity,
    Check::Expiry,
];

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
    /// All of it takes at most so long: what isn't checked by then is told as such.
    pub time: Duration,
}

impl Preflight<'_> {
    /// Checks all of it. A check that fails keeps none of the others from being made.
    pub async fn run(&self) -> Vec<Line> {
        let (now, until) = ((self.clock)(), Instant::now() + self.time);
        let mut lines = keys::own(self.keys, self.manifest, now);
        let (ingestor, line) = keys::partner(Check::IngestorKeys, "the ingestor", &self.parameters.ingestor_keys);
        lines.push(line);
        let (peer, line) = keys::partner(Check::PeerKeys, "the peer", &self.parameters.peer_keys);
        lines.extend([line, self.formats()]);
        let ledger = in_time(until, Place::Ledger, OF_LEDGER, async |told| self.ledger(told).await);
        let ingestion = in_time(until, Place::Ingestion, OF_PARTNERS, async |told| {
            self.ingestion(&ingestor, told).await;
        });
        let rest = async {
            match self.stage {
                PreflightStage::Intake => {
                    in_time(until, Place::Peer, &[Check::Write], async |told| {
                        told.push(self.writing(Place::Peer, &self.mailboxes.peer).await);
                    })
                    .await
                }
                PreflightStage::Aggregate => {
                    let validation = in_time(until, Place::PeerValidation, OF_PARTNERS, async |told| {
                        self.peer_validation(&peer, told).await;
                    });
                    let times = in_time(until, Place::Peer, &[Check::List, Check::Clock], async |told| {
                        self.peer_times(told).await;
                    });
                    let portal = in_time(until, Place::Portal, &[Check::Write], async |told| {
                        told.push(self.writing(Place::Portal, &self.mailboxes.portal).await);
                    });
                    let (validation, times, portal) = futures::join!(validation, times, portal);
                    [validation, times, portal].concat()
                }
            }
        };
        let (ledger, ingestion, rest) = futures::join!(ledger, ingestion, rest);
        lines.extend([ledger, ingestion, rest].concat());
        once(lines)
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

/// What is wrong with a mailbox may show at more than one of its calls: a line a check, and a failed one before others.
fn once(lines: Vec<Line>) -> Vec<Line> {
    let mut told: Vec<Line> = Vec::with_capacity(lines.len());
    for line in lines {
        let same = told
            .iter_mut()
            .find(|other| (other.check, other.mailbox) == (line.check, line.mailbox));
        match same {
            None => told.push(line),
            Some(other) if line.outcome == Outcome::Failed && other.outcome != Outcome::Failed => *other = line,
            Some(_) => {}
        }
    }
    told
}

/// Gives the checks of a mailbox their time: what was found by then is kept, and the rest told as not checked.
async fn in_time(until: Instant, place: Place, checks: &[Check], work: impl AsyncFnOnce(&mut Vec<Line>)) -> Vec<Line> {
    let mut told = Vec::new();
    if timeout_at(until, work(&mut told)).await.is_err() {
        for check in checks {
            if !told.iter().any(|line: &Line| line.check == *check) {
                let detail = "no time was left: what comes before took too long";
                told.push(not_checkable(*check, detail).of(place));
            }
        }
    }
    told
}

/// Gives a call its time. Inside the error, what is wrong for a person.
async fn within<T>(call: impl Future<Output = Result<T, MailboxError>>) -> Result<T, Fault> {
    match timeout(PATIENCE, call).await {
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
