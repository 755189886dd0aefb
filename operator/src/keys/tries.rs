//! Keys that couldn't be made: the next try comes later each time. Lost with the process, and harmless.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// The longest time between two tries.
const LONGEST: Duration = Duration::from_secs(3_600);
/// So many characters of an error are told.
const MAX_ERROR: usize = 600;

/// A ring: its namespace and its name.
pub type RingKey = (String, String);

/// Of all rings.
#[derive(Debug, Default)]
pub struct Tries(Mutex<BTreeMap<RingKey, Failed>>);

/// Tries of one ring that failed, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    count: u32,
    /// When it is tried again.
    pub next: Timestamp,
    /// Why the last one failed.
    pub error: String,
}

impl Tries {
    /// Why no key is to be made now.
    #[must_use]
    pub fn held(&self, ring: &RingKey, now: Timestamp) -> Option<Failed> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(ring).filter(|failed| failed.next > now).cloned()
    }

    /// A try failed: twice as long as before until the next, beginning with two ticks, an hour at most.
    pub fn failed(&self, ring: &RingKey, tick: Duration, now: Timestamp, error: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.get(ring).map_or(0, |failed| failed.count).saturating_add(1);
        let wait = tick.saturating_mul(1 << count.min(16)).min(LONGEST.max(tick));
        let failed = Failed {
            count,
            next: now.checked_add(wait).unwrap_or(Timestamp::MAX),
            error: error.chars().take(MAX_ERROR).collect(),
        };
        known.insert(ring.clone(), failed);
    }

    /// A key was made, or the ring is gone.
    pub fn forget(&self, ring: &RingKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(ring);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_try_waits_longer_than_the_one_before_until_one_succeeds() {
        let (tries, ring) = (Tries::default(), ("a".to_owned(), "ring".to_owned()));
        let now = Timestamp::UNIX_EPOCH;
        let mut waits = Vec::new();
        for _ in 0..8 {
            tries.failed(&ring, Duration::from_secs(60), now, "forbidden");
            waits.push(tries.held(&ring, now).unwrap().next.as_second());
        }
        assert_eq!(waits, [120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
        assert_eq!(tries.held(&ring, Timestamp::from_second(3_600).unwrap()), None, "due");
        assert_eq!(tries.held(&("b".to_owned(), "ring".to_owned()), now), None);
        tries.forget(&ring);
        assert_eq!(tries.held(&ring, now), None);
        tries.failed(&ring, Duration::from_secs(60), now, "forbidden");
        assert_eq!(tries.held(&ring, now).unwrap().next.as_second(), 120);
    }
}
