//! The plan step: what is found of the window's batches, all at once or range by range, becomes the frozen set.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use mailbox::ListRequest;

use super::batch::Batches;
use super::membership::{Candidate, first_set, tally};
use super::{AggregateOutcome, Clock, observe};
use crate::crypto::sha256;
use crate::formats::ledger::{BlockedReason, LedgerObject, PLANS, REVISION, short_message};
use crate::formats::names::{BatchRange, WindowId, parse_shard_name};
use crate::formats::plan::Plan;
use crate::formats::shard::PlanShard;
use crate::formats::work::Approval;
use crate::processor::{Processor, WorkError};
use crate::put::{put, put_or_read, read_if_there};
use crate::uses::mark_plan;

/// A plan and what stands for its bytes.
pub(super) struct Frozen {
    pub plan: Plan,
    /// SHA-256 of them.
    pub digest: [u8; 32],
}

impl Frozen {
    fn of(window: &WindowId, bytes: &Bytes) -> Result<Self, WorkError> {
        Ok(Self {
            plan: Plan::from_bytes(&window.ledger_key(PLANS), bytes)?,
            digest: sha256(bytes),
        })
    }
}

/// Under what a window is planned once more.
#[derive(Clone, Copy)]
pub(super) struct Override<'a> {
    pub approval: &'a Approval,
    pub clock: Clock<'a>,
}

impl Override<'_> {
    /// It is over: what to say then.
    pub(super) fn expired(&self) -> Option<AggregateOutcome> {
        let Approval {
            expires_at_millis,
            release,
            ..
        } = self.approval;
        ((self.clock)().as_millisecond() >= *expires_at_millis).then(|| {
            let expired = Timestamp::from_millisecond(*expires_at_millis).unwrap_or(Timestamp::MIN);
            AggregateOutcome::Blocked {
                reason: BlockedReason::OverrideExpired,
                message: format!("the override for release {release} expired at {expired}"),
                cutoff_millis: None,
            }
        })
    }
}

/// The window's plan, if it has one.
pub(super) async fn read_plan(processor: &Processor, window: &WindowId) -> Result<Option<Frozen>, WorkError> {
    let key = window.ledger_key(PLANS);
    match read_if_there(&*processor.mailboxes.ledger, &key, Plan::MAX_BYTES).await? {
        Some(bytes) => Frozen::of(window, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Freezes the set; where another worker froze one first, that one counts. What shards tell of the window isn't looked for
/// again: the bytes are the same as without them. `again`: of a further release. `Err`: there is no set now.
pub(super) async fn make_plan(
    batches: &Batches<'_>,
    window: &WindowId,
    cutoffs: &[Timestamp],
    again: Option<Override<'_>>,
) -> Result<Result<Frozen, AggregateOutcome>, WorkError> {
    let processor = batches.processor();
    let mut cutoffs = cutoffs.to_vec();
    cutoffs.sort_unstable();
    let mut candidates = Vec::new();
    let there = match cutoffs.last() {
        Some(last) => shards(processor, window, *last).await?,
        None => BTreeSet::new(),
    };
    for tile in BatchRange::whole(window).tiled(&there) {
        let shard = match cutoffs.last() {
            Some(last) if tile.there => read_shard(processor, window, *last, &tile.range).await?,
            _ => None,
        };
        match shard {
            Some(found) => candidates.extend(found),
            None => match look(batches, window, &cutoffs, &tile.range).await? {
                Ok(found) => candidates.extend(found),
                Err(blocked) => return Ok(Err(blocked)),
            },
        }
    }
    let Some(set) = first_set(&candidates, &cutoffs, processor.legacy_peer) else {
        let last = cutoffs.last().copied().unwrap_or(Timestamp::MIN);
        let excluded = tally(&candidates, last, processor.legacy_peer);
        return Ok(Err(AggregateOutcome::NoMembers { excluded }));
    };
    let plan = Plan {
        revision: REVISION,
        aggregation: window.aggregation.as_str().to_owned(),
        start: window.start.to_compact(),
        end: window.end.to_compact(),
        cutoff_millis: set.cutoff.as_millisecond(),
        share: processor.share,
        instance: processor.instance.as_str().to_owned(),
        signer: processor.signing_key.id().to_owned(),
        shape: set.shape,
        members: set.members,
        exclusions: set.exclusions,
        approval: again.map(|again| again.approval.clone()),
    };
    mark_plan(processor, window, &plan.signer).await?;
    let key = window.ledger_key(PLANS);
    let bytes = plan.to_bytes()?.into();
    // Reading a large window takes a while.
    if let Some(expired) = again.and_then(|again| again.expired()) {
        return Ok(Err(expired));
    }
    let (bytes, _) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Plan::MAX_BYTES).await?;
    Frozen::of(window, &bytes).map(Ok)
}

/// Puts what is found of one range, unless that was done; whoever then sees that no range is left makes the plan. Each puts
/// before it looks, so that of several that end at the same time one sees all.
pub(super) async fn make_shard(
    processor: &Processor,
    window: &WindowId,
    cutoffs: &[Timestamp],
    range: &BatchRange,
) -> Result<AggregateOutcome, WorkError> {
    let batches = &Batches::to_plan(processor);
    let ledger = &*processor.mailboxes.ledger;
    let Some(last) = cutoffs.iter().max() else {
        let excluded = Vec::new();
        return Ok(AggregateOutcome::NoMembers { excluded });
    };
    if !shards(processor, window, *last).await?.contains(range) {
        let candidates = match look(batches, window, cutoffs, range).await? {
            Ok(candidates) => candidates,
            Err(blocked) => return Ok(blocked),
        };
        let shard = PlanShard {
            candidates,
            ..bare_shard(processor, window, *last, range)
        };
        let key = window.shard_key(last.as_millisecond(), range);
        // Where another worker was first, its shard is read with the others.
        put(ledger, &key, &shard.to_bytes()?.into()).await?;
    }
    let there = shards(processor, window, *last).await?;
    if BatchRange::whole(window).tiled(&there).iter().any(|tile| !tile.there) {
        return Ok(AggregateOutcome::Part);
    }
    match make_plan(batches, window, cutoffs, None).await? {
        Ok(_) => Ok(AggregateOutcome::Part),
        Err(unplanned) => Ok(unplanned),
    }
}

/// The ranges that shards tell of, for a plan at that last cutoff.
async fn shards(
    processor: &Processor,
    window: &WindowId,
    last_cutoff: Timestamp,
) -> Result<BTreeSet<BatchRange>, WorkError> {
    let request = ListRequest {
        prefix: window.shards(last_cutoff.as_millisecond()),
        ..ListRequest::default()
    };
    let page = processor.mailboxes.ledger.list_all(&request).await?;
    let names = page.objects.iter().map(|meta| meta.key.as_str());
    Ok(names
        .filter_map(|name| parse_shard_name(name).map(|(_, _, range)| range))
        .collect())
}

/// What a shard tells, where it is one that this processor would write now: settings may have changed since.
async fn read_shard(
    processor: &Processor,
    window: &WindowId,
    last_cutoff: Timestamp,
    range: &BatchRange,
) -> Result<Option<Vec<Candidate>>, WorkError> {
    let key = window.shard_key(last_cutoff.as_millisecond(), range);
    let Some(bytes) = read_if_there(&*processor.mailboxes.ledger, &key, PlanShard::MAX_BYTES).await? else {
        return Ok(None);
    };
    let usable = match PlanShard::from_bytes(&key, &bytes) {
        Ok(shard) => Some(shard).filter(|shard| shard.is_like(&bare_shard(processor, window, last_cutoff, range))),
        Err(error) => {
            tracing::warn!(%error, "looking at the range again");
            None
        }
    };
    Ok(usable.map(|shard| shard.candidates))
}

fn bare_shard(processor: &Processor, window: &WindowId, last_cutoff: Timestamp, range: &BatchRange) -> PlanShard {
    PlanShard {
        revision: REVISION,
        aggregation: window.aggregation.as_str().to_owned(),
        start: window.start.to_compact(),
        end: window.end.to_compact(),
        cutoff_millis: last_cutoff.as_millisecond(),
        range: range.to_string(),
        share: processor.share,
        instance: processor.instance.as_str().to_owned(),
        legacy_peer: processor.legacy_peer,
        candidates: Vec::new(),
    }
}

/// Looks at the batches of a range. `Err`: a person must mend something first.
async fn look(
    batches: &Batches<'_>,
    window: &WindowId,
    cutoffs: &[Timestamp],
    range: &BatchRange,
) -> Result<Result<Vec<Candidate>, AggregateOutcome>, WorkError> {
    let last = cutoffs.iter().max().copied();
    let found = observe::candidates(batches, &window.aggregation, range, last).await?;
    Ok(found.map_err(|(reason, message)| AggregateOutcome::Blocked {
        reason,
        message: short_message(&message),
        cutoff_millis: None,
    }))
}
