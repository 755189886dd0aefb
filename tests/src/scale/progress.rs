//! How far a run is, and when it came to each phase.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Result;
use crds::Batch;
use crds::names::OUTCOME_LABEL;
use kube::api::{Api, ListParams, ObjectList};
use kube::core::PartialObjectMeta;

use crate::fixtures::Truth;
use crate::flow;
use crate::party::{Pair, Party};
use crate::wait::{Seen, until};

/// Seconds from the beginning at which both parties were through with a phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases(Vec<(&'static str, f64)>);

impl Phases {
    /// A phase that both are through with now, if it is the first time.
    pub fn reached(&mut self, phase: &'static str, begun: Instant) {
        if self.0.iter().all(|(known, _)| *known != phase) {
            self.0.push((phase, begun.elapsed().as_secs_f64()));
        }
    }

    /// All of them, in the order in which they were reached.
    pub fn all(&self) -> &[(&'static str, f64)] {
        &self.0
    }

    /// When a phase was reached.
    pub fn at(&self, phase: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == phase).map(|(_, at)| *at)
    }
}

/// Every batch is listed at both.
pub const FOUND: &str = "found";
/// Every batch is in a Job, or was.
pub const PLANNED: &str = "planned";
/// Every batch is taken in, and its validation is with the peer.
pub const DELIVERED: &str = "delivered";
/// Both have seen the other's validation of every batch.
pub const MATCHED: &str = "matched";
/// Both sum parts of every window are with the portal.
pub const SUMMED: &str = "summed";
/// Every Batch object tells its outcome.
pub const TOLD: &str = "told";

/// Where one party is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    found: i64,
    planned: i64,
    delivered: i64,
    matched: i64,
}

impl Progress {
    async fn of(party: &Party, truths: &[&Truth]) -> Result<Self> {
        let counts = party
            .processor()
            .await?
            .status
            .and_then(|status| status.batches)
            .unwrap_or_default();
        let planned = counts.running + counts.validated + counts.rejected + counts.blocked;
        let windows = party.windows().await?;
        let tallies = truths
            .iter()
            .filter_map(|truth| flow::find(&windows, truth)?.status.as_ref()?.batches.clone());
        let (delivered, matched) = tallies.fold((0, 0), |sum, tally| (sum.0 + tally.delivered, sum.1 + tally.matched));
        Ok(Self {
            found: planned + counts.waiting,
            planned,
            delivered,
            matched,
        })
    }

    fn least(self, other: Self) -> Self {
        Self {
            found: self.found.min(other.found),
            planned: self.planned.min(other.planned),
            delivered: self.delivered.min(other.delivered),
            matched: self.matched.min(other.matched),
        }
    }
}

/// Waits until both parties have seen each other's validations of all batches.
///
/// # Errors
/// When it takes longer than the limit.
pub async fn wait_matched(
    pair: &Pair,
    truths: &[&Truth],
    begun: Instant,
    phases: &RefCell<Phases>,
    limit: Duration,
) -> Result<()> {
    let all: usize = truths.iter().map(|truth| truth.batches.len()).sum();
    let all = i64::try_from(all)?;
    let tenths = |count: i64| format!("{} %", count * 10 / all * 10);
    until("found, planned, delivered, matched by both", limit, || async {
        let (first, second) = tokio::try_join!(
            Progress::of(&pair.parties[0], truths),
            Progress::of(&pair.parties[1], truths)
        )?;
        let both = first.least(second);
        let of = [
            (FOUND, both.found),
            (PLANNED, both.planned),
            (DELIVERED, both.delivered),
            (MATCHED, both.matched),
        ];
        for (phase, _) in of.iter().filter(|(_, count)| *count == all) {
            phases.borrow_mut().reached(phase, begun);
        }
        if both.matched == all {
            return Ok(Seen::Done(()));
        }
        Ok(Seen::NotYet(
            of.map(|(phase, count)| format!("{phase} {}", tenths(count))).join(", "),
        ))
    })
    .await
}

/// Waits until every batch's object tells that it was taken in. Of all objects one is looked at: lists of ten thousand would be
/// work of the API server that nobody else gives it.
///
/// # Errors
/// When it takes longer than the limit.
pub async fn wait_told(pair: &Pair, batches: usize, limit: Duration) -> Result<()> {
    until("Batch objects tell their outcome", limit, || async {
        for party in &pair.parties {
            let there = objects(pair, party).await?;
            if there < batches {
                return Ok(Seen::NotYet(format!("{} of {} are there", there, party.name)));
            }
            if is_any_untold(pair, party).await? {
                return Ok(Seen::NotYet(format!("some of {} don't", party.name)));
            }
        }
        Ok(Seen::Done(()))
    })
    .await
}

/// The number of a party's Batch objects.
///
/// # Errors
/// Those of the API server.
pub async fn objects(pair: &Pair, party: &Party) -> Result<usize> {
    let page = first(pair, party, ListParams::default()).await?;
    // The API server counts the rest only where nothing is selected.
    let more = page.metadata.remaining_item_count.unwrap_or_default();
    Ok(page.items.len() + usize::try_from(more)?)
}

async fn is_any_untold(pair: &Pair, party: &Party) -> Result<bool> {
    let untold = ListParams::default().labels(&format!("{OUTCOME_LABEL}!=Validated"));
    Ok(!first(pair, party, untold).await?.items.is_empty())
}

/// A list that ends after one of a party's Batch objects.
async fn first(pair: &Pair, party: &Party, of: ListParams) -> Result<ObjectList<PartialObjectMeta<Batch>>> {
    let api: Api<Batch> = Api::namespaced(pair.cluster.client.clone(), &party.worker_namespace);
    Ok(api.list_metadata(&of.limit(1)).await?)
}
