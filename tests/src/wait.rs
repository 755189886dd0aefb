//! Waiting: one way, never a fixed sleep, and the last state seen is in the error.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::output::say;

/// What a look gave.
pub enum Seen<T> {
    /// What was waited for.
    Done(T),
    /// The state in a few words, shown whenever it changes.
    NotYet(String),
    /// It can't come any more, and why.
    Never(String),
}

/// Looks twice a second until it is done or the limit has passed. An error of a look counts as a state: an API server
/// that is busy for a moment fails nothing.
pub async fn until<T, F, L>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> L,
    L: Future<Output = Result<Seen<T>>>,
{
    let start = Instant::now();
    let mut shown = String::new();
    loop {
        let state = match look().await {
            Ok(Seen::Done(value)) => {
                say(format!("   {:5.1} s  {what}: done", start.elapsed().as_secs_f64()));
                return Ok(value);
            }
            Ok(Seen::NotYet(state)) => state,
            Ok(Seen::Never(why)) => bail!("{what}: {why}"),
            Err(error) => format!("{error:#}"),
        };
        if state != shown {
            say(format!("   {:5.1} s  {what}: {state}", start.elapsed().as_secs_f64()));
            shown = state;
        }
        if start.elapsed() > limit {
            bail!("waited {} s for: {what}. Last seen: {shown}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A condition that must go on holding for a while: for what must *not* happen.
pub async fn holds<F, L>(what: &str, time: Duration, mut look: F) -> Result<()>
where
    F: FnMut() -> L,
    L: Future<Output = Result<bool>>,
{
    let start = Instant::now();
    while start.elapsed() < time {
        if !look().await? {
            bail!(
                "after {:.1} s this no longer held: {what}",
                start.elapsed().as_secs_f64()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    say(format!("   {:5.1} s  {what}: held", start.elapsed().as_secs_f64()));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn ends_with_the_last_state_when_time_is_up() {
        let error = until("a sum", Duration::from_millis(1), || async {
            Ok(Seen::<()>::NotYet("3 of 4".into()))
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for: a sum. Last seen: 3 of 4");
    }

    #[tokio::test]
    async fn goes_on_after_an_error_of_a_look() {
        let mut looks = 0;
        let value = until("an answer", Duration::from_secs(5), || {
            looks += 1;
            let first = looks == 1;
            async move { if first { bail!("busy") } else { Ok(Seen::Done(7)) } }
        })
        .await
        .unwrap();
        assert_eq!(value, 7);
    }
}
