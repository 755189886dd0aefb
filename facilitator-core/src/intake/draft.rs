//! The draft of a batch's record: every packet decided, nothing visible yet. Then the record, which commits.

use std::sync::Arc;

use mailbox::PutOutcome;

use super::accumulate::{Accumulated, DecidedPacket, KeySum, Known};
use super::read::{self, Reading};
use super::{IntakeOutcome, Refusal, changing, wait_for_keys};
use crate::crypto::seal::seal;
use crate::formats::ledger::RejectedReason;
use crate::formats::names::BatchId;
use crate::formats::record::{RecordEncoder, RecordHead, write_seals};
use crate::guards::duplicates::Repeats;
use crate::outgoing::Outgoing;
use crate::own_record::StoredRecord;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::uses::mark_record;

/// Passes of one look, at most: two where no packet object is replaced meanwhile.
const PASSES: usize = 5;

/// Takes note of packets as a pass decides them, in file order. Every pass has one of its own: what an abandoned pass said
/// doesn't count.
///
/// Called by one core at a time, which the others may wait for: what it takes adds to every packet.
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
    /// It looks bad. [`Look::Doubting`] decides, once its writer had time to put what belongs together.
    Doubtful(Refusal),
    /// Not now; [`IntakeOutcome::Blocked`].
    Blocked(IntakeOutcome),
}

/// Which look at a batch it is.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// The first one.
    First,
    /// After an earlier one found it bad: where it finds the same in the same objects, the batch is refused.
    Doubting(&'a Refusal),
    /// After its packets were claimed: without the replays. What keys can't open was judged before.
    Without(&'a Replays),
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
/// Replays are excluded as such, where the batch is still the one that they were found in; where it was replaced, it is
/// blocked. `take_anyway`: packets that can't be opened are excluded rather than waited for (ledger rule 2). `witness` makes
/// the witness of a pass.
///
/// A pass takes names that it doesn't remember for new; where that was wrong, another pass is made that knows them.
///
/// # Errors
/// [`WorkError`]: no outcome is known.
pub async fn draft<'a, W: Witness>(
    processor: &'a Processor,
    batch: &BatchId,
    take_anyway: bool,
    look: Look<'_>,
    mut witness: impl FnMut() -> W,
) -> Result<Drafted<'a, W>, WorkError> {
    let replays = match look {
        Look::Without(replays) => Some(replays),
        Look::First | Look::Doubting(_) => None,
    };
    let knowing = |repeats| {
        let replays = replays.map_or_else(Vec::new, |replays| replays.packets.clone());
        Arc::new(Known { repeats, replays })
    };
    let mut known = knowing(Repeats::default());
    // The header that `known` is of.
    let mut of = replays.map(|replays| replays.header_digest);
    for _ in 0..PASSES {
        let mut draft = match read::read(processor, batch, &known, witness()).await? {
            Reading::Refused(refusal) => {
                return Ok(match look {
                    Look::Doubting(first) if *first == refusal => Drafted::Refused(refusal),
                    _ => Drafted::Doubtful(refusal),
                });
            }
            Reading::Blocked { reason, message } => {
                return Ok(Drafted::Blocked(IntakeOutcome::Blocked {
                    reason,
                    message,
                    packets: 0,
                    excluded: 0,
                }));
            }
            Reading::Taken(draft) => draft,
        };
        let header = draft.head.header_digest;
        let replaced = of.is_some_and(|of| of != header);
        if !replaced && draft.accumulated.repeats.is_empty() {
            // Replays only take packets away: whether a key is missing was decided with all of them.
            let waits = replays
                .is_none()
                .then(|| wait_for_keys(&draft.accumulated, take_anyway));
            return Ok(draft.judged(waits.flatten()).await);
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
    Ok(Drafted::Blocked(changing()))
}

impl<'a, W> Draft<'a, W> {
    /// Whether the packets that are in make a record; `waits`: why not yet.
    async fn judged(mut self: Box<Self>, waits: Option<IntakeOutcome>) -> Drafted<'a, W> {
        if let Some(outcome) = waits {
            self.abort().await;
            return Drafted::Blocked(outcome);
        }
        if self.accumulated.keys.is_empty() {
            self.abort().await;
            return Drafted::Refused(Refusal {
                reason: RejectedReason::NoUsablePackets,
                message: "every packet of the batch is excluded, and no packet key is waited for".to_owned(),
                signature_digest: None,
                header_digest: Some(self.head.header_digest),
                packet_digest: Some(self.head.packet_digest),
            });
        }
        Drafted::Draft(self)
    }

    /// How many bytes of memory it takes while it waits, beside its witness.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let sums = self.accumulated.keys.iter().map(|key| size_of_val(&**key.sum));
        self.record.held_bytes() + sums.sum::<usize>()
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
