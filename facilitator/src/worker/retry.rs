//! Waiting for storage: twice as long each time, with jitter, within a budget that the whole chunk shares.

use std::time::Duration;

use rand::Rng;

/// How long storage may be waited for in one run.
const TOTAL: Duration = Duration::from_secs(120);
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// What is left to wait.
#[derive(Debug)]
pub struct Budget {
    left: Duration,
    next: Duration,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            left: TOTAL,
            next: FIRST,
        }
    }

    /// After a success the next wait is short again; what was spent stays spent.
    pub fn succeeded(&mut self) {
        self.next = FIRST;
    }

    /// Waits before another try; `false` once the budget is spent.
    pub async fn wait(&mut self) -> bool {
        let jitter = rand::rng().random_range(0.5..1.0);
        match self.take(jitter) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
            None => false,
        }
    }

    fn take(&mut self, jitter: f64) -> Option<Duration> {
        let wait = self.next.mul_f64(jitter);
        self.left = self.left.checked_sub(wait)?;
        self.next = (self.next * 2).min(LONGEST);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut budget = Budget::new();
        let waits: Vec<_> = std::iter::from_fn(|| budget.take(1.0)).collect();
        assert_eq!(waits[..3], [250, 500, 1_000].map(Duration::from_millis));
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        let total: Duration = waits.iter().sum();
        assert!(total <= TOTAL && total + LONGEST > TOTAL);
        assert!(budget.take(1.0).is_none() || budget.left < LONGEST);
    }
}
