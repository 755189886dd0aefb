//! What of the mailboxes a look lists: what is open each time, everything from time to time.

use jiff::{SignedDuration, Timestamp};
use snafu::ResultExt;

use super::look::Look;
use super::memory::Memory;
use super::observe::Mailboxes;
use super::{MailboxSnafu, ReconcileError};
use crate::claims;
use crate::inventory::Inventory;
use crate::window::{Schedule, Scope};

/// All old windows without a result are listed at least so often, so that what was deleted by hand comes back.
const REBUILD_LATEST: SignedDuration = SignedDuration::from_hours(1);
/// And not before so many ticks: a batch of an old date that comes late is found then.
const REBUILD_TICKS: i32 = 30;
/// Of the time, such listings take a hundredth at most.
const REBUILD_SHARE: i32 = 100;

impl Look<'_> {
    pub(super) async fn inventory(
        &self,
        mailboxes: &Mailboxes,
        schedule: &Schedule,
        memory: &mut Memory,
    ) -> Result<Inventory, ReconcileError> {
        let tick = SignedDuration::try_from(self.context.settings.tick).unwrap_or(REBUILD_LATEST);
        let due = |(rebuilt, took): (Timestamp, SignedDuration)| {
            self.now.duration_since(rebuilt) >= rebuild_every(tick, took)
        };
        let everything = memory.open.is_none() || memory.rebuilt.is_none_or(due);
        let open = memory.open.clone().unwrap_or_default();
        let scope = Scope::new(schedule, &open, everything, self.now);
        let (begun, before) = ((self.context.clock)(), (memory.open.clone(), memory.rebuilt));
        if everything {
            // Where a look is given up for taking too long, the next ones go on with what is known to be open.
            (memory.open, memory.rebuilt) = (Some(open), Some((self.now, REBUILD_LATEST)));
            // What came before it is found by it: that keys may go rests on that.
            memory.seen.list_anew();
        }
        let listings = mailboxes.listings(
            &scope,
            &schedule.aggregations,
            &mut memory.seen,
            &self.context.metrics,
            self.context.clock,
        );
        let listings = listings.await;
        if everything {
            (memory.open, memory.rebuilt) = before;
        }
        let listings = listings.context(MailboxSnafu)?;
        if everything {
            memory.rebuilt = Some((self.now, (self.context.clock)().duration_since(begun)));
        }
        Ok(Inventory::build(listings, schedule, self.now))
    }

    /// Lists claims from time to time. A look doesn't fail over it: what isn't compacted is read all the same.
    pub(super) async fn claims(&self, mailboxes: &Mailboxes, memory: &mut Memory) {
        let due = memory
            .claims_looked
            .is_none_or(|looked| self.now.duration_since(looked) >= claims::LOOK_EVERY);
        if !due || !self.processor.spec.replay_guard.enabled {
            return;
        }
        memory.claims_looked = Some(self.now);
        match mailboxes.claims(&claims::days(self.now)).await {
            Ok(listed) => memory.claims = listed,
            Err(error) => tracing::warn!(%error, "claims can't be listed; they aren't compacted"),
        }
    }
}

/// How long after a listing of all old windows, which took `took`, comes the next.
fn rebuild_every(tick: SignedDuration, took: SignedDuration) -> SignedDuration {
    let of = |time: SignedDuration, factor| time.checked_mul(factor).unwrap_or(REBUILD_LATEST);
    of(tick, REBUILD_TICKS).max(of(took, REBUILD_SHARE)).min(REBUILD_LATEST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn old_windows_are_looked_for_often_where_that_is_cheap() {
        let of =
            |tick, took| rebuild_every(SignedDuration::from_secs(tick), SignedDuration::from_millis(took)).as_secs();
        assert_eq!(
            [of(2, 10), of(10, 10), of(10, 9_000), of(10, 90_000)],
            [60, 300, 900, 3_600]
        );
    }
}
