//! Which keys unfinished work still needs, from the marks that workers leave in the ledger. Pure.

use facilitator_core::formats::names::WindowId;
use jiff::Timestamp;

use crate::inventory::Inventory;
use crate::window::Schedule;

/// What is known of the use of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The end of the last window with work under it, or when that work was first seen, if that is later.
    pub last_used: Option<Timestamp>,
    /// The oldest window with work under it that isn't finished.
    pub needed_by: Option<WindowId>,
}

/// Of the windows that a key is marked in, with the time at which the mark was stored. A window that has no result needs
/// its keys: records are sealed under them, plans are to be signed by them. What is older than the history is given up.
#[must_use]
pub fn usage(marks: &[(WindowId, Timestamp)], inventory: &Inventory, schedule: &Schedule, now: Timestamp) -> Usage {
    let history = now.checked_sub(schedule.history).unwrap_or(Timestamp::MIN);
    let mut usage = Usage::default();
    for (window, stored) in marks {
        let used = window.end.timestamp().max(*stored);
        usage.last_used = usage.last_used.max(Some(used));
        let is_over = inventory
            .windows
            .get(window)
            .is_some_and(|known| known.finished.is_some());
        if !is_over && schedule.takes(window) && window.end.timestamp() >= history {
            usage.needed_by = match usage.needed_by {
                Some(oldest) if oldest.start <= window.start => Some(oldest),
                _ => Some(window.clone()),
            };
        }
    }
    usage
}

/// All that arrived before is taken in or refused: nothing that came earlier can ask for a key that wasn't marked.
#[must_use]
pub fn observed_until(inventory: &Inventory, now: Timestamp) -> Timestamp {
    let open = inventory.windows.values().filter(|window| !window.is_frozen());
    let waiting = open
        .flat_map(|window| window.batches.values())
        .filter(|batch| !batch.is_done());
    waiting.filter_map(|batch| batch.signed).fold(now, Timestamp::min)
}
