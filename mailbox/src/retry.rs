//! Tries calls on a store again: twice as long a wait each time, with jitter, within a budget that the mailbox shares, so
//! that a store in trouble isn't met with many times the usual load.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::Rng;

use crate::{MailboxError, Patience};

/// What one more try takes from the budget, and a success gives back a tenth of.
const TRY: u32 = 10;

/// A mailbox's patience and what is left of its budget.
#[derive(Debug)]
pub(crate) struct Retry {
    pub patience: Patience,
    left: AtomicU32,
}

impl Retry {
    pub fn new(patience: Patience) -> Self {
        let left = AtomicU32::new(patience.budget.saturating_mul(TRY));
        Self { patience, left }
    }

    /// Calls until it works, can't work, or patience ends. `call` is told how many tries went before.
    pub async fn run<T, F>(&self, mut call: impl FnMut(u32) -> F) -> Result<T, MailboxError>
    where
        F: Future<Output = Result<T, MailboxError>>,
    {
        let mut tried = 0;
        loop {
            match call(tried).await {
                Ok(value) => {
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) => {
                    tried += 1;
                    self.wait(tried, error).await?;
                }
            }
        }
    }

    /// Waits before the next try, after `tried` of them, where one is worth it; else gives the error back.
    pub async fn wait(&self, tried: u32, error: MailboxError) -> Result<(), MailboxError> {
        if !error.is_retryable() || tried >= self.patience.attempts || !self.take() {
            return Err(error);
        }
        tracing::debug!(%error, tried, "a call on a store is tried again");
        let jitter = rand::rng().random_range(0.0..1.0);
        tokio::time::sleep(wait_after(&self.patience, tried, jitter)).await;
        Ok(())
    }

    pub fn succeeded(&self) {
        let full = self.patience.budget.saturating_mul(TRY);
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left < full).then_some(left + 1)
        });
    }

    fn take(&self) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(TRY));
        taken.is_ok()
    }
}

/// The wait after `tried` tries; `jitter` is in 0 to 1. Half of it is certain, so that nobody comes back at once.
fn wait_after(patience: &Patience, tried: u32, jitter: f64) -> Duration {
    let doubled = 1_u32.checked_shl(tried.saturating_sub(1)).unwrap_or(u32::MAX);
    let longest = patience.first_wait.saturating_mul(doubled).min(patience.longest_wait);
    longest.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{MailboxErrorKind, MailboxUrl};

    fn error(kind: MailboxErrorKind) -> MailboxError {
        MailboxError::of_mailbox(kind, &MailboxUrl::memory("test"), "made by the test")
    }

    fn patience(attempts: u32, budget: u32) -> Patience {
        Patience {
            attempts,
            budget,
            first_wait: Duration::from_micros(10),
            ..Patience::default()
        }
    }

    /// Calls that fail `failures` times with `kind`; says how often it was called.
    async fn calls(retry: &Retry, failures: u32, kind: MailboxErrorKind) -> (u32, bool) {
        let mut calls = 0;
        let outcome = retry
            .run(|tried| {
                calls += 1;
                assert_eq!(tried + 1, calls);
                std::future::ready(if tried < failures { Err(error(kind)) } else { Ok(()) })
            })
            .await;
        (calls, outcome.is_ok())
    }

    #[tokio::test]
    async fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        use MailboxErrorKind::{Corrupt, Denied, NotFound, Unavailable};
        let retry = Retry::new(patience(3, 100));
        for (failures, kind, expected) in [
            (0, Unavailable, (1, true)),
            (2, Unavailable, (3, true)),
            (3, Unavailable, (3, false)),
            (1, Denied, (1, false)),
            (1, NotFound, (1, false)),
            (1, Corrupt, (1, false)),
        ] {
            assert_eq!(calls(&retry, failures, kind).await, expected, "{failures} × {kind:?}");
        }
    }

    #[tokio::test]
    async fn a_storm_uses_the_budget_up_and_successes_fill_it() {
        let retry = Retry::new(patience(4, 5));
        let storm = MailboxErrorKind::Unavailable;
        assert_eq!(calls(&retry, 9, storm).await, (4, false));
        assert_eq!(calls(&retry, 9, storm).await, (3, false));
        assert_eq!(calls(&retry, 9, storm).await, (1, false), "nothing is left");
        for _ in 0..10 {
            calls(&retry, 0, storm).await;
        }
        assert_eq!(
            calls(&retry, 9, storm).await,
            (2, false),
            "ten successes earned one try"
        );
    }

    #[test]
    fn waits_double_up_to_the_longest_and_half_is_jitter() {
        let patience = Patience::default();
        let waits: Vec<_> = (1..8).map(|tried| wait_after(&patience, tried, 1.0)).collect();
        assert_eq!(
            waits,
            [200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(Duration::from_millis)
        );
        assert_eq!(wait_after(&patience, 1, 0.0), Duration::from_millis(100));
        assert_eq!(wait_after(&patience, 99, 1.0), patience.longest_wait);
    }
}
