//! Whether a window may be released beside those that share time with it (ledger rule 6).
//!
//! A release is announced by `released/`, then the others' announcements are looked at, then `decisions/` is put: `Release`
//! where none was in the way, `Withdraw` otherwise. Of two windows that share time, each announces before it looks, so both
//! can't find nobody; and whichever of a window's workers decides first decides for all of them and for every rerun.
//!
//! A further release of a window, by an approved override, finds others in any case: it is compared with them instead.

use mailbox::ListRequest;

use super::Stop;
use super::differences;
use super::execute::Counted;
use super::plan::Frozen;
use crate::formats::ledger::{
    DECISIONS, Decided, FailedReason, LedgerObject, RELEASED, REVISION, Refusal, ReleaseDecision, short_message,
};
use crate::formats::names::WindowId;
use crate::guards::release::overlapping;
use crate::processor::{Processor, WorkError};
use crate::put::{put_or_read, read_if_there};

/// What was decided of a window's release, if anything was.
async fn decided(processor: &Processor, window: &WindowId) -> Result<Option<Decided>, WorkError> {
    let key = window.ledger_key(DECISIONS);
    match read_if_there(&*processor.mailboxes.ledger, &key, Decided::MAX_BYTES).await? {
        Some(bytes) => Ok(Some(Decided::from_bytes(&key, &bytes)?)),
        None => Ok(None),
    }
}

/// Whether it was decided that the window isn't released.
pub(super) async fn is_withdrawn(processor: &Processor, window: &WindowId) -> Result<bool, WorkError> {
    let decided = decided(processor, window).await?;
    Ok(decided.is_some_and(|decided| decided.decision == ReleaseDecision::Withdraw))
}

/// Before the work on a first release: whether the window is, or is now, out of the question.
pub(super) async fn withdrawn_already(processor: &Processor, window: &WindowId) -> Result<Option<Stop>, WorkError> {
    let decided = match decided(processor, window).await? {
        Some(decided) => Some(decided),
        None => match in_the_way(processor, window).await? {
            Some(other) => Some(decide(processor, window, Some(other), None).await?),
            None => None,
        },
    };
    Ok(decided.and_then(stop))
}

/// After the announcement: decides. Why the window must not be released, or not yet.
pub(super) async fn decide_release(
    processor: &Processor,
    window: &WindowId,
    frozen: &Frozen,
    counted: &Counted,
) -> Result<Option<Stop>, WorkError> {
    let decided = match decided(processor, window).await? {
        Some(decided) => decided,
        None if window.release() == 1 => {
            let other = in_the_way(processor, window).await?;
            decide(processor, window, other, None).await?
        }
        None => match differences::refused(processor, window, frozen, counted).await? {
            Ok(refusal) => decide(processor, window, None, refusal).await?,
            Err(stop) => return Ok(Some(stop)),
        },
    };
    Ok(stop(decided))
}

fn stop(decided: Decided) -> Option<Stop> {
    if decided.decision == ReleaseDecision::Release {
        return None;
    }
    Some(match decided.refusal {
        Some(Refusal { reason, message }) => Stop::Failed(reason, message),
        None => {
            let other = decided.in_the_way.as_deref().unwrap_or("another window");
            let message = format!(
                "the window shares time with {other}, whose release was announced: a batch is in one sum at most"
            );
            Stop::Failed(FailedReason::WindowOverlaps, message)
        }
    })
}

async fn decide(
    processor: &Processor,
    window: &WindowId,
    other: Option<WindowId>,
    refusal: Option<Refusal>,
) -> Result<Decided, WorkError> {
    let decision = if other.is_some() || refusal.is_some() {
        ReleaseDecision::Withdraw
    } else {
        ReleaseDecision::Release
    };
    let decided = Decided {
        revision: REVISION,
        decision,
        in_the_way: other.map(|other| other.path()),
        refusal: refusal.map(|refusal| Refusal {
            message: short_message(&refusal.message),
            ..refusal
        }),
    };
    let key = window.ledger_key(DECISIONS);
    let bytes = decided.to_bytes()?.into();
    let (bytes, _) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Decided::MAX_BYTES).await?;
    Ok(Decided::from_bytes(&key, &bytes)?)
}

/// Every announced release of the window's aggregation.
pub(super) async fn announced(processor: &Processor, window: &WindowId) -> Result<Vec<WindowId>, WorkError> {
    let request = ListRequest {
        prefix: format!("{RELEASED}/{}/", window.aggregation.as_str()),
        ..ListRequest::default()
    };
    let there = processor.mailboxes.ledger.list_all(&request).await?;
    let windows = there
        .objects
        .iter()
        .filter_map(|meta| WindowId::parse(meta.key.as_str().strip_prefix(RELEASED)?.strip_prefix('/')?).ok());
    Ok(windows.collect())
}

/// An announced window of this aggregation that shares time with `window` and wasn't withdrawn.
async fn in_the_way(processor: &Processor, window: &WindowId) -> Result<Option<WindowId>, WorkError> {
    for other in announced(processor, window).await? {
        if overlapping(window, &other) && !is_withdrawn(processor, &other).await? {
            return Ok(Some(other));
        }
    }
    Ok(None)
}
