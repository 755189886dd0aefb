//! The draft of a batch's record: every packet decided, nothing visible yet. Then the record, which commits.

use std::sync::Arc;

use mailbox::PutOutcome;

use super::accumulate::{Accumulated, DecidedPacket, KeySum, Known};
use super::read::{self, Reading};
use super::{IntakeOutcome, Refusal, wait_for_keys};
use crate::crypto::seal::seal;
use crate::formats::ledger::{BlockedReason, RejectedReason};
use crate::formats::names::BatchId;
use crate::formats::record::{RecordEncoder, RecordHead, write_seals};
use crate::guards::duplicates::Repeats;
use crate::outgoing::Outgoing;
use crate::own_record::StoredRecord;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::uses::mark_record;

/// Passes over one batch, at most: two where no packet object is replaced meanwhile.
const PASSES: usize = 5;

/// Takes note of packets as a pass decides them, in file order. Every pass has one of its own: what an abandoned pass said
/// doesn't count.
///
/// Called on the thread that puts decisions together: what it takes adds to every packet.
pub trait Witness: Send + 'static {
    /// The next packet was decided; [`DecidedPacket::mounted`] and [`DecidedPacket::ephemeral`] are there where it is in.
    fn decided(&mut self, packet: &DecidedPacket);
}

/// Takes note of nothing.
impl Witness for () {
    fn decided(&mut self, _: &DecidedPacket) {}
}

/// A batch whose packets are all decided, with its record on its way. Nothing is visible before [`Draft::commit`].
pub struct Draft<'a, W> {
    /// What the record says of the batch.
    pub head: RecordHead,
    /// What was decided about its packets as a whole.
    pub accumulated: Accumulated,
    /// What the pass that stands told its witness.
    pub witness: W,
    pub(super) encoder: RecordEncoder,
    pub(super) record: Outgoing<'a>,
}

/// What drafting came to.
pub enum Drafted<'a, W> {
    /// At least one packet is in.
    Draft(Box<Draft<'a, W>>),
    /// Bad for good.
    Refused(Refusal),
    /// Not now; [`IntakeOutcome::Blocked`].
    Blocked(IntakeOutcome),
}

/// Packets of a batch that other batches have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replays {
    /// SHA-256 of the ingestion header that the packets were read under.
    pub header_digest: [u8; 32],
    /// Their places in the batch, ascending.
    pub packets: Vec<u32>,
}

/// Reads, verifies and decides a batch, without making anything visible.
///
/// `replays` are excluded as such, where the batch is still the one that they were found in; where it was replaced, it is
/// blocked. `take_anyway`: packets that can't be opened are excluded rather than waited for (ledger rule 2). `witness` makes
/// the witness of a pass.
///
/// A pass takes names that it doesn't remember for new; where that was wrong, another pass is made that knows them. What
/// looks bad is read once more before it is refused: a batch may be caught while its writer replaces it.
///
/// # Errors
/// [`WorkError`]: no outcome is known.
pub async fn draft<'a, W: Witness>(
    processor: &'a Processor,
    batch: &BatchId,
    take_anyway: bool,
    replays: Option<&Replays>,
    mut witness: impl FnMut() -> W,
) -> Result<Drafted<'a, W>, WorkError> {
    let knowing = |repeats| {
        let replays = replays.map_or_else(Vec::new, |replays| replays.packets.clone());
        Arc::new(Known { repeats, replays })
    };
    let mut known = knowing(Repeats::default());
    // The header that `known` is of.
    let mut of = replays.map(|replays| replays.header_digest);
    let mut doubted = false;
    for _ in 0..PASSES {
        let mut draft = match read::read(processor, batch, &known, witness()).await? {
            Reading::Refused(refusal) if doubted => return Ok(Drafted::Refused(refusal)),
            Reading::Refused(first) => {
                tracing::info!(batch = %batch.path(), reason = %first.reason, "reading the batch again before refusing it");
                doubted = true;
                continue;
            }
            Reading::Blocked { reason, message } => return Ok(Drafted::Blocked(blocked(reason, message))),
            Reading::Taken(draft) => draft,
        };
        let header = draft.head.header_digest;
        let replaced = of.is_some_and(|of| of != header);
        if !replaced && draft.accumulated.repeats.is_empty() {
            return Ok(draft.judged(take_anyway).await);
        }
        draft.abort().await;
        if replaced && replays.is_some() {
            break;
        }
        // What was found in a batch that is no more says nothing of the one that replaced it.
        (known, of) = match replaced {
            true => (knowing(Repeats::default()), None),
            false => (knowing(draft.accumulated.repeats), Some(header)),
        };
    }
    let message = "the batch changes while it is read: its writer may not be done".to_owned();
    Ok(Drafted::Blocked(blocked(BlockedReason::ObjectMissing, message)))
}

fn blocked(reason: BlockedReason, message: String) -> IntakeOutcome {
    IntakeOutcome::Blocked {
        reason,
        message,
        packets: 0,
        excluded: 0,
    }
}

impl<'a, W> Draft<'a, W> {
    /// Whether the packets that are in make a record.
    async fn judged(mut self: Box<Self>, take_anyway: bool) -> Drafted<'a, W> {
        if let Some(outcome) = wait_for_keys(&self.accumulated, take_anyway) {
            self.abort().await;
            return Drafted::Blocked(outcome);
        }
        if self.accumulated.keys.is_empty() {
            self.abort().await;
            return Drafted::Refused(Refusal {
                reason: RejectedReason::NoUsablePackets,
                message: "every packet of the batch is excluded, none for want of a key".to_owned(),
                header_digest: Some(self.head.header_digest),
                packet_digest: Some(self.head.packet_digest),
            });
        }
        Drafted::Draft(self)
    }

    /// Gives the draft up; nothing of it is left in the ledger.
    pub async fn abort(&mut self) {
        self.record.abort().await;
    }

    /// Ends the record with the accumulators, sealed under the packet keys that they were opened with, and puts it: the
    /// commit point. Where one is there, that one counts.
    ///
    /// # Errors
    /// [`WorkError`]: whether it is there is not known.
    pub(crate) async fn commit(mut self, processor: &Processor) -> Result<StoredRecord, WorkError> {
        let head = &self.head;
        let keys = &self.accumulated.keys;
        let of = |mounted: usize| &processor.packet_keys[mounted].key;
        let points: Vec<_> = keys.iter().map(|key| *of(key.mounted).public_point()).collect();
        let tail = self.record.tail();
        let ended = self.encoder.end(&points, tail).and_then(|digest| {
            let seal = |key: &KeySum| seal(of(key.mounted), &head.header_digest, head.share, &digest, &key.sum);
            write_seals(&keys.iter().map(seal).collect::<Vec<_>>(), tail)
        });
        if let Err(error) = ended {
            return InternalSnafu {
                doing: "ending a record",
                detail: error.to_string(),
            }
            .fail();
        }
        mark_record(processor, head, keys.iter().map(|key| key.mounted)).await?;
        match self.record.commit().await? {
            (PutOutcome::Created, bytes) => Ok(StoredRecord::of(&head.batch, bytes)),
            (PutOutcome::Exists, _) => Ok(StoredRecord::open_existing(processor, &head.batch).await?),
        }
    }
}
