//! The steps of a run that demo and tests share: wait until all is delivered, set cutoffs, wait until all is summed.

use std::time::Duration;

use anyhow::Result;
use crds::AggregationWindow;
use crds::conditions::{
    AGGREGATED, KEYS_LOADED, MAILBOXES_LISTED, MANIFEST_PUBLISHED, PEERS_KNOWN, READY, STALLED, WORKERS_READY,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::fixtures::Truth;
use crate::party::{Pair, Party};
use crate::wait::{Seen, until};

/// A window that a test expects, with the counts by party that say when its batches are through.
#[derive(Clone, Debug)]
pub struct Expected {
    /// What its sum parts must add up to.
    pub truth: Truth,
    /// Batches that each party delivers to the other.
    pub delivered: [usize; 2],
    /// Batches that each party refuses for good.
    pub rejected: [usize; 2],
}

impl Expected {
    /// One window of this one's batches and another's, which must be of the same window.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.truth.batches.extend(other.truth.batches);
        self.truth.clients += other.truth.clients;
        for (total, more) in self.truth.totals.iter_mut().zip(other.truth.totals) {
            *total += more;
        }
        for party in 0..2 {
            self.delivered[party] += other.delivered[party];
            self.rejected[party] += other.rejected[party];
        }
        self
    }
}

impl From<Truth> for Expected {
    fn from(truth: Truth) -> Self {
        let batches = truth.batches.len();
        Self {
            truth,
            delivered: [batches; 2],
            rejected: [0; 2],
        }
    }
}

/// A condition's status and reason; `Unknown` where it isn't there.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> (&'a str, &'a str) {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or(("Unknown", ""), |condition| {
        (condition.status.as_str(), condition.reason.as_str())
    })
}

/// The message of a condition; empty where it isn't there.
pub fn message<'a>(conditions: &'a [Condition], kind: &str) -> &'a str {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map_or("", |condition| condition.message.as_str())
}

/// The conditions of a window.
pub fn window_conditions(window: &AggregationWindow) -> &[Condition] {
    window
        .status
        .as_ref()
        .map_or(&[], |status| status.conditions.as_slice())
}

/// The window of a party that a truth is about.
pub fn find<'a>(windows: &'a [AggregationWindow], truth: &Truth) -> Option<&'a AggregationWindow> {
    windows
        .iter()
        .find(|w| w.spec.aggregation == truth.aggregation && w.spec.start == truth.start)
}

/// Waits until both parties have keys that all can see in their manifests, and know each other and the ingestor by theirs.
pub async fn wait_acquainted(pair: &Pair, limit: Duration) -> Result<()> {
    until("keys are in use, manifests are known", limit, || async {
        let mut states = Vec::new();
        for party in &pair.parties {
            let conditions = party.processor().await?.status.map(|status| status.conditions);
            let conditions = conditions.unwrap_or_default();
            for kind in [KEYS_LOADED, MANIFEST_PUBLISHED, PEERS_KNOWN, MAILBOXES_LISTED] {
                let (status, reason) = condition(&conditions, kind);
                if status != "True" {
                    states.push(format!("{} {kind} {reason}", party.name));
                }
            }
        }
        Ok(if states.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(states.join(", "))
        })
    })
    .await
}

/// Waits until both parties have taken in all batches of the windows and sent each other their validations.
pub async fn wait_delivered(pair: &Pair, expected: &[Expected], limit: Duration) -> Result<()> {
    until("batches taken in and delivered", limit, || async {
        Ok(match delivered(pair, expected).await? {
            (true, _) => Seen::Done(()),
            (false, states) => Seen::NotYet(states),
        })
    })
    .await
}

/// Whether both parties have taken in all batches of the windows and sent each other their validations; and how far they are.
pub async fn delivered(pair: &Pair, expected: &[Expected]) -> Result<(bool, String)> {
    let mut states = Vec::new();
    let mut done = true;
    for party in &pair.parties {
        let windows = party.windows().await?;
        let (mut delivered, mut rejected) = (0, 0);
        for window in expected {
            let counts = find(&windows, &window.truth)
                .and_then(|w| w.status.as_ref()?.batches.clone())
                .unwrap_or_default();
            delivered += counts.delivered.min(whole(window.delivered[party.index]));
            rejected += counts.rejected.min(whole(window.rejected[party.index]));
        }
        let wanted: usize = expected.iter().map(|w| w.delivered[party.index]).sum();
        let refused: usize = expected.iter().map(|w| w.rejected[party.index]).sum();
        done &= delivered == whole(wanted) && rejected == whole(refused);
        let rejections = if refused > 0 {
            format!(" and {rejected} of {refused} rejected")
        } else {
            String::new()
        };
        states.push(format!(
            "{} {delivered} of {wanted}{rejections}{}",
            party.name,
            trouble(party).await?
        ));
    }
    Ok((done, states.join(", ")))
}

/// Why a party's processor isn't Ready, where workers or mailboxes are the cause.
async fn trouble(party: &Party) -> Result<String> {
    let processor = party.processor().await?;
    let conditions = processor.status.map(|status| status.conditions).unwrap_or_default();
    for kind in [STALLED, MAILBOXES_LISTED, WORKERS_READY] {
        let bad = if kind == STALLED { "True" } else { "False" };
        if condition(&conditions, kind).0 == bad {
            return Ok(format!(" ({kind}={bad}: {})", message(&conditions, kind)));
        }
    }
    Ok(String::new())
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Sets the same cutoff, that many seconds from now, for the windows at both parties, as they would agree on by mail.
pub async fn set_cutoffs(pair: &Pair, windows: &[&Truth], seconds: i64) -> Result<Timestamp> {
    let cutoff = Timestamp::from_second((Timestamp::now() + SignedDuration::from_secs(seconds)).as_second())?;
    let names: Vec<(&str, &str)> = windows
        .iter()
        .map(|window| (&*window.aggregation, &*window.start))
        .collect();
    set_cutoffs_at(pair, &names, cutoff).await?;
    Ok(cutoff)
}

/// The same at a time, for windows by aggregation and start.
pub async fn set_cutoffs_at(pair: &Pair, windows: &[(&str, &str)], cutoff: Timestamp) -> Result<()> {
    for party in &pair.parties {
        let processor = party.processor().await?;
        let mut cutoffs: Vec<Value> = processor
            .spec
            .windows
            .cutoffs
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        for (aggregation, start) in windows {
            cutoffs.retain(|old| old["aggregation"] != *aggregation || old["start"] != *start);
            cutoffs.push(json!({"aggregation": aggregation, "start": start, "cutoff": cutoff.to_string()}));
        }
        party.patch(&json!({"spec": {"windows": {"cutoffs": cutoffs}}})).await?;
    }
    Ok(())
}

/// Waits until both parties have summed all the windows; ends early when one can't be summed any more.
pub async fn wait_summed(pair: &Pair, truths: &[&Truth], limit: Duration) -> Result<()> {
    until("windows summed", limit, || summed(pair, truths)).await
}

/// Whether both parties have summed all the windows, or one of them can't be summed any more.
pub async fn summed(pair: &Pair, truths: &[&Truth]) -> Result<Seen<()>> {
    let mut states = Vec::new();
    let mut done = true;
    for party in &pair.parties {
        let windows = party.windows().await?;
        let mut summed = 0;
        for truth in truths {
            let Some(window) = find(&windows, truth) else {
                continue;
            };
            let conditions = window_conditions(window);
            if condition(conditions, AGGREGATED).0 == "True" {
                summed += 1;
            } else if matches!(condition(conditions, READY).1, "Failed" | "BelowFloor" | "Empty") {
                let why = message(conditions, READY);
                return Ok(Seen::Never(format!("{} {}: {why}", party.name, truth.name())));
            }
        }
        done &= summed == truths.len();
        states.push(format!(
            "{} {summed} of {}{}",
            party.name,
            truths.len(),
            trouble(party).await?
        ));
    }
    Ok(if done {
        Seen::Done(())
    } else {
        Seen::NotYet(states.join(", "))
    })
}
