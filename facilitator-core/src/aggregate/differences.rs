//! What a further release tells beside the releases before it (ledger rule 6): every packet that an earlier one counts is
//! told from its plan, the records and the peer's messages. No accumulator and no packet is opened.

use super::Stop;
use super::batch::Batches;
use super::decide::{announced, is_withdrawn};
use super::execute::{Counted, Execution};
use super::plan::{Frozen, read_plan};
use crate::formats::ledger::{FailedReason, LedgerObject, RELEASED, Refusal, Released, hex};
use crate::formats::names::WindowId;
use crate::formats::plan::Plan;
use crate::guards::release::{CountedBatch, CountedSum, overlapping, refusal};
use crate::processor::{Processor, WorkError};
use crate::put::read_if_there;

/// Why the release must not be; `None`: it may. `Err`: something is missing to tell it now.
pub(super) async fn refused(
    processor: &Processor,
    window: &WindowId,
    frozen: &Frozen,
    counted: &Counted,
) -> Result<Result<Option<Refusal>, Stop>, WorkError> {
    let mut sums = vec![counted_sum(window, &frozen.plan, counted)];
    for earlier in earlier(processor, window).await? {
        match earlier_sum(processor, &earlier).await? {
            Ok(sum) => sums.push(sum),
            Err(Stop::Failed(reason, message)) => return Ok(Ok(Some(Refusal { reason, message }))),
            Err(blocked) => return Ok(Err(blocked)),
        }
    }
    Ok(Ok(refusal(&sums, processor.min_clients)))
}

/// Every announced release that shares time with the window, or with one that does, and so on, and wasn't withdrawn:
/// whoever has all sums can combine just these. A release that is still on its way counts as one.
async fn earlier(processor: &Processor, window: &WindowId) -> Result<Vec<WindowId>, WorkError> {
    let mut rest = announced(processor, window).await?;
    let mut found = vec![window.clone()];
    loop {
        let (touching, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|other| found.iter().any(|one| overlapping(one, other)));
        let mut more = false;
        for other in touching {
            if other != *window && !is_withdrawn(processor, &other).await? {
                found.push(other);
                more = true;
            }
        }
        if !more {
            return Ok(found.split_off(1));
        }
        rest = others;
    }
}

/// What a release counts, as it was announced. [`Stop::Failed`] where that can't be told any more.
async fn earlier_sum(processor: &Processor, window: &WindowId) -> Result<Result<CountedSum, Stop>, WorkError> {
    let lost = |detail: &str| {
        let message = format!("which packets {window} counts can't be told any more: {detail}");
        Ok(Err(Stop::Failed(FailedReason::EarlierSetLost, message)))
    };
    let key = window.ledger_key(RELEASED);
    let Some(bytes) = read_if_there(&*processor.mailboxes.ledger, &key, Released::MAX_BYTES).await? else {
        return lost("its announcement is gone");
    };
    let released = Released::from_bytes(&key, &bytes)?;
    let frozen = match read_plan(processor, window).await? {
        Some(frozen) if hex(&frozen.digest) == released.plan_digest => frozen,
        _ => return lost("its plan is gone or another"),
    };
    let batches = Batches::new(processor);
    let execution = Execution::new(&batches, window, &frozen.plan);
    let counted = match execution.count(&frozen.plan.members).await? {
        Ok((counted, _)) => counted,
        Err(Stop::Failed(_, message)) => return lost(&message),
        Err(blocked) => return Ok(Err(blocked)),
    };
    if hex(&counted.packet_set_digest()) != released.packet_set_digest || counted.clients != released.clients {
        return lost("its records and the peer's messages give another set");
    }
    Ok(Ok(counted_sum(window, &frozen.plan, &counted)))
}

fn counted_sum(window: &WindowId, plan: &Plan, counted: &Counted) -> CountedSum {
    let batches = plan
        .members
        .iter()
        .zip(&counted.members)
        .map(|(member, judged)| CountedBatch {
            batch: (member.time.clone(), member.uuid),
            pinned: (member.record_digest.clone(), member.messages_digest.clone()),
            clients: judged.clients,
        });
    CountedSum {
        window: window.clone(),
        batches: batches.collect(),
    }
}
