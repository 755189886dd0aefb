//! Whether a window may be released beside those that share time with it (ledger rule 6).
//!
//! A release is announced by `released/`, then the others' announcements are looked at, then `decisions/` is put: `Release`
//! where none was in the way, `Withdraw` otherwise. Of two windows that share time, each announces before it looks, so both
//! can't find nobody; and whichever of a window's workers decides first decides for all of them and for every rerun.

use mailbox::ListRequest;

use crate::formats::ledger::{DECISIONS, Decided, LedgerObject, RELEASED, REVISION, ReleaseDecision};
use crate::formats::names::WindowId;
use crate::guards::release::overlapping;
use crate::processor::{Processor, WorkError};
use crate::put::{put_or_read, read_if_there};

/// What was decided of a window's release, if anything was.
pub(super) async fn decided(processor: &Processor, window: &WindowId) -> Result<Option<Decided>, WorkError> {
    let key = window.ledger_key(DECISIONS);
    match read_if_there(&*processor.mailboxes.ledger, &key, Decided::MAX_BYTES).await? {
        Some(bytes) => Ok(Some(Decided::from_bytes(&key, &bytes)?)),
        None => Ok(None),
    }
}

/// Before the work: whether the window is, or is now, out of the question; as a sentence.
pub(super) async fn withdrawn_already(processor: &Processor, window: &WindowId) -> Result<Option<String>, WorkError> {
    let decided = match decided(processor, window).await? {
        Some(decided) => Some(decided),
        None => match in_the_way(processor, window).await? {
            Some(other) => Some(decide(processor, window, Some(other)).await?),
            None => None,
        },
    };
    Ok(decided.as_ref().and_then(sentence))
}

/// After the announcement: decides. A sentence where the window must not be released.
pub(super) async fn decide_release(processor: &Processor, window: &WindowId) -> Result<Option<String>, WorkError> {
    let decided = match decided(processor, window).await? {
        Some(decided) => decided,
        None => {
            let other = in_the_way(processor, window).await?;
            decide(processor, window, other).await?
        }
    };
    Ok(sentence(&decided))
}

fn sentence(decided: &Decided) -> Option<String> {
    (decided.decision == ReleaseDecision::Withdraw).then(|| {
        let other = decided.in_the_way.as_deref().unwrap_or("another window");
        format!("the window shares time with {other}, whose release was announced: a batch is in one sum at most")
    })
}

async fn decide(processor: &Processor, window: &WindowId, other: Option<WindowId>) -> Result<Decided, WorkError> {
    let decision = if other.is_some() {
        ReleaseDecision::Withdraw
    } else {
        ReleaseDecision::Release
    };
    let decided = Decided {
        revision: REVISION,
        decision,
        in_the_way: other.map(|other| other.path()),
    };
    let key = window.ledger_key(DECISIONS);
    let bytes = decided.to_bytes()?.into();
    let (bytes, _) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, Decided::MAX_BYTES).await?;
    Ok(Decided::from_bytes(&key, &bytes)?)
}

/// An announced window of this aggregation that shares time with `window` and wasn't withdrawn.
async fn in_the_way(processor: &Processor, window: &WindowId) -> Result<Option<WindowId>, WorkError> {
    let request = ListRequest {
        prefix: format!("{RELEASED}/{}/", window.aggregation.as_str()),
        ..ListRequest::default()
    };
    let there = processor.mailboxes.ledger.list_all(&request).await?;
    let announced = there
        .objects
        .iter()
        .filter_map(|meta| WindowId::parse(meta.key.as_str().strip_prefix(RELEASED)?.strip_prefix('/')?).ok());
    for other in announced.filter(|other| overlapping(window, other)) {
        let withdrawn = decided(processor, &other)
            .await?
            .is_some_and(|other| other.decision == ReleaseDecision::Withdraw);
        if !withdrawn {
            return Ok(Some(other));
        }
    }
    Ok(None)
}
