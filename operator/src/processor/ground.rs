//! What of the ledger and the spec every plan rests on.

use crds::DataShareProcessor;
use crds::conditions::reasons::{INVALID_SPEC, LEDGER_MISMATCH};
use facilitator_core::formats::ledger::LedgerIdentity;
use jiff::Timestamp;
use kube::ResourceExt;

use super::observe::{Mailboxes, ObserveError};
use super::report::{self, Stall};
use super::{ReconcileError, parameters};
use crate::window::Schedule;
use crate::workload::Timing;

/// The ledger's identity, if it has one, and the schedule that follows from it and the spec.
pub(super) struct Ground {
    pub(super) ledger: Option<LedgerIdentity>,
    pub(super) start_at: Timestamp,
    pub(super) schedule: Schedule,
}

/// Why nothing is planned, with the ledger that was found.
pub(super) type Groundless = (Stall, Option<LedgerIdentity>);

impl Ground {
    /// Reads `ledger.json`, and compares it with what the status remembers and the spec says.
    pub(super) async fn find(
        mailboxes: &Mailboxes,
        processor: &DataShareProcessor,
        timing: &Timing,
        now: Timestamp,
    ) -> Result<Result<Self, Groundless>, ReconcileError> {
        let ledger = match mailboxes.ledger_identity().await {
            Ok(ledger) => ledger,
            Err(error @ ObserveError::Ledger { .. }) => return Ok(Err((stall(LEDGER_MISMATCH, error), None))),
            Err(source) => return Err(ReconcileError::Mailbox { source }),
        };
        Ok(Self::of(ledger, processor, timing, now))
    }

    fn of(
        ledger: Option<LedgerIdentity>,
        processor: &DataShareProcessor,
        timing: &Timing,
        now: Timestamp,
    ) -> Result<Self, Groundless> {
        let spec = &processor.spec;
        let remembered = processor.status.as_ref().and_then(|status| status.ledger_id.as_deref());
        let share = parameters::share(spec.share);
        if let Some(stall) = report::check_ledger(ledger.as_ref(), remembered, &spec.instance, share) {
            return Err((stall, ledger));
        }
        let start_at = match &ledger {
            Some(ledger) => ledger
                .start_at
                .parse()
                .map_err(|error| (stall(LEDGER_MISMATCH, format!("ledger.json: startAt: {error}")), None))?,
            None => {
                let created = processor.creation_timestamp().map_or(now, |time| time.0);
                parameters::default_start(spec, created).map_err(|error| (stall(INVALID_SPEC, error), None))?
            }
        };
        match Schedule::of(spec, start_at, timing) {
            Ok(schedule) => Ok(Self {
                ledger,
                start_at,
                schedule,
            }),
            Err(error) => Err((stall(INVALID_SPEC, error), ledger)),
        }
    }
}

fn stall(reason: &'static str, message: impl ToString) -> Stall {
    Stall {
        reason,
        message: message.to_string(),
    }
}
