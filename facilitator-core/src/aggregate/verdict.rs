//! Verdicts of windows, and the result that says each for good.

use super::execute::Counted;
use super::plan::Frozen;
use super::{AggregateOutcome, release};
use crate::formats::ledger::{
    FailedReason, LedgerObject, RESULTS, REVISION, Verdict, WindowResult, hex, short_message,
};
use crate::formats::names::WindowId;
use crate::formats::plan::{Exclusion, ExclusionReason};
use crate::processor::{Processor, WorkError};
use crate::put::put_or_read;

/// Puts the window's result; where one is there, that one counts.
pub(super) async fn put_result(
    processor: &Processor,
    window: &WindowId,
    result: WindowResult,
    frozen: Option<&Frozen>,
) -> Result<AggregateOutcome, WorkError> {
    let key = window.ledger_key(RESULTS);
    let bytes = result.to_bytes()?.into();
    let (bytes, _) = put_or_read(&*processor.mailboxes.ledger, &key, bytes, WindowResult::MAX_BYTES).await?;
    let result = Box::new(WindowResult::from_bytes(&key, &bytes)?);
    let cutoff_millis = frozen.map(|frozen| frozen.plan.cutoff_millis);
    Ok(AggregateOutcome::Done {
        result,
        cutoff_millis,
        already: false,
    })
}

/// Fills verdicts in, from what is known so far.
pub(super) struct Verdicts(WindowResult);

impl Verdicts {
    pub(super) fn of(frozen: Option<&Frozen>) -> Self {
        let late =
            |exclusion: &&Exclusion| matches!(exclusion.reason, ExclusionReason::Late | ExclusionReason::PeerLate);
        Self(WindowResult {
            revision: REVISION,
            verdict: Verdict::Failed,
            reason: None,
            message: String::new(),
            plan_digest: frozen.map(|frozen| hex(&frozen.digest)),
            batches: frozen.map_or(0, |frozen| frozen.plan.members.len() as u64),
            packets: 0,
            clients: 0,
            invalid_proofs: 0,
            missing_peer_messages: 0,
            excluded_packets: 0,
            late_batches: frozen.map_or(0, |frozen| frozen.plan.exclusions.iter().filter(late).count() as u64),
            unread_times: frozen.map_or(0, |frozen| {
                frozen
                    .plan
                    .members
                    .iter()
                    .filter(|member| member.our_time_unread)
                    .count() as u64
            }),
            sum_part: None,
            sum_part_digest: None,
            put: None,
        })
    }

    pub(super) fn count(&mut self, counted: &Counted) {
        self.0.packets = counted.packets;
        self.0.clients = counted.clients;
        self.0.invalid_proofs = counted.invalid_proofs;
        self.0.missing_peer_messages = counted.missing_peer_messages;
        self.0.excluded_packets = counted.excluded_packets;
    }

    pub(super) fn failed(self, reason: FailedReason, message: &str) -> WindowResult {
        WindowResult {
            verdict: Verdict::Failed,
            reason: Some(reason),
            message: short_message(message),
            ..self.0
        }
    }

    pub(super) fn below_floor(self, message: &str) -> WindowResult {
        WindowResult {
            verdict: Verdict::BelowFloor,
            message: short_message(message),
            ..self.0
        }
    }

    pub(super) fn summed(self, part: release::ReleasedPart) -> WindowResult {
        WindowResult {
            verdict: Verdict::Summed,
            sum_part: Some(part.header.as_str().to_owned()),
            sum_part_digest: Some(hex(&part.digest)),
            put: Some(part.put),
            ..self.0
        }
    }
}
