//! Which Batch objects there should be. The times come from the ledger, so that a rebuilt cluster shows the same.

use crds::processor::BatchObjects;
use jiff::{SignedDuration, Timestamp};

use super::outcome::Kind;
use super::plan::State;
use crate::inventory::{BatchInventory, WindowInventory};

/// What is to be with a batch's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is made if missing.
    Wanted,
    /// It stays if it is there.
    Kept,
    /// It goes.
    Gone,
}

/// When the batch's outcome became final; `None` while it isn't.
fn ended(state: &State, window: &WindowInventory, batch: &BatchInventory) -> Option<Timestamp> {
    match state {
        State::Ended(Kind::Validated) => batch.delivered,
        State::Ended(Kind::Rejected) => batch.rejected,
        State::Ended(Kind::Late) => [batch.signed, window.planned, window.finished]
            .into_iter()
            .flatten()
            .max(),
        _ => None,
    }
}

/// Whether there should be an object: for what is planned, and for outcomes as long as they are news.
pub(super) fn wish(
    state: &State,
    window: &WindowInventory,
    batch: &BatchInventory,
    mode: BatchObjects,
    retention: SignedDuration,
    now: Timestamp,
) -> Wish {
    if ended(state, window, batch).is_some_and(|ended| now.duration_since(ended) >= retention) {
        return Wish::Gone;
    }
    match (state, mode) {
        (State::Ended(Kind::Validated), BatchObjects::Exceptions) => Wish::Gone,
        (State::Running, BatchObjects::All) | (State::Ended(_), _) => Wish::Wanted,
        _ => Wish::Kept,
    }
}
