//! What of the ledger and the spec every plan rests on.

use crds::DataShareProcessor;
use crds::conditions::reasons::{self, INVALID_SPEC, LEDGER_MISMATCH};
use facilitator_core::formats::ledger::LedgerIdentity;
use facilitator_core::formats::work::Share;
use jiff::Timestamp;
use kube::ResourceExt;
use uuid::Uuid;

use super::observe::{Mailboxes, ObserveError};
use super::report::Stall;
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
        if let Some(stall) = check_ledger(ledger.as_ref(), remembered, &spec.instance, share) {
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

/// Compares the ledger that is there with the one that the status remembers and with the spec.
fn check_ledger(
    found: Option<&LedgerIdentity>,
    remembered: Option<&str>,
    instance: &str,
    share: Share,
) -> Option<Stall> {
    let Some(found) = found else {
        return remembered.map(|id| Stall {
            reason: reasons::LEDGER_GONE,
            message: format!(
                "The ledger {id} has no ledger.json any more. Bring the ledger back, or correct its URL; starting with an empty \
                 one would sum everything again."
            ),
        });
    };
    let problem = if found.instance != instance || found.share != share {
        format!(
            "The ledger belongs to instance {} with share {:?}, this is {instance} with share {share:?}",
            found.instance, found.share
        )
    } else if remembered.is_some_and(|id| id.parse::<Uuid>().ok() != Some(found.id)) {
        format!(
            "The ledger is {}, the one used so far was {}",
            found.id,
            remembered.unwrap_or_default()
        )
    } else {
        return None;
    };
    Some(Stall {
        reason: reasons::LEDGER_MISMATCH,
        message: format!("{problem}. Correct mailboxes.ledger or bring the ledger back."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u128, instance: &str, share: Share) -> LedgerIdentity {
        let start_at = "2026-11-20T00:00:00Z".to_owned();
        LedgerIdentity {
            revision: 1,
            id: Uuid::from_u128(id),
            instance: instance.to_owned(),
            share,
            start_at,
        }
    }

    #[test]
    fn a_ledger_is_adopted_once_and_never_swapped() {
        let (one, two) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string());
        let ours = identity(1, "us", Share::First);
        let table = [
            (None, None, None),
            (None, Some(&one), Some(reasons::LEDGER_GONE)),
            (Some(&ours), None, None),
            (Some(&ours), Some(&one), None),
            (Some(&ours), Some(&two), Some(reasons::LEDGER_MISMATCH)),
            (
                Some(&identity(1, "them", Share::First)),
                Some(&one),
                Some(reasons::LEDGER_MISMATCH),
            ),
            (
                Some(&identity(1, "us", Share::Second)),
                None,
                Some(reasons::LEDGER_MISMATCH),
            ),
        ]
        .map(|(found, remembered, expected)| (found.cloned(), remembered.cloned(), expected));
        for (found, remembered, expected) in table {
            let stall = check_ledger(found.as_ref(), remembered.as_deref(), "us", Share::First);
            assert_eq!(stall.map(|stall| stall.reason), expected, "{found:?} {remembered:?}");
        }
    }
}
