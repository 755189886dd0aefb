//! The intake of several batches. Each is decided for itself; their packets are claimed together (ledger rule 1), so that
//! many small batches cost one announcement and one look. Then each is recorded and delivered.
//!
//! What looks bad is left alone for the processor's pause and looked at again before it is refused: it may have been caught
//! while its writer replaces it. The pause is one for all.

use std::sync::Arc;

use super::accumulate::DecidedPacket;
use super::draft::{Draft, Drafted, Look, Replays, Witness, draft};
use super::listed::Listed;
use super::{Begun, IntakeOutcome, Refusal, begin, changing, deliver, refuse};
use crate::claims::{ClaimedPacket, Claims, ClaimsFault, ReplayGuard};
use crate::crypto::ClaimKey;
use crate::formats::ledger::{BlockedReason, short_message};
use crate::formats::names::BatchId;
use crate::processor::{Processor, WorkError};

/// Packets that are claimed together, at most; a batch that has more is claimed alone.
const GROUP_PACKETS: usize = 1 << 16;
/// Batches that are claimed together, at most.
const GROUP_BATCHES: usize = 1 << 12;
/// What drafts may take in memory while they wait, in bytes: packets that are excluded take room, too.
const GROUP_BYTES: usize = 16 << 20;
/// Looks at a batch that is bad in another way each time.
const LOOKS: usize = 4;

/// A batch without a result: its index, and what was found wrong with it before.
type Open = (usize, Option<Box<Refusal>>);

/// A batch to take in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub batch: BatchId,
    /// The last planning before the cutoff: packets that can't be opened are excluded rather than waited for (ledger rule 2).
    pub take_anyway: bool,
}

/// Takes ingestion batches in. A result for each, in their order, up to the first that storage kept from having one: those
/// behind it weren't tried. A batch that fails otherwise doesn't keep the others from theirs.
pub async fn take_in_all(processor: &Processor, wanted: &[Wanted]) -> Vec<Result<IntakeOutcome, WorkError>> {
    // Without a guard nothing is claimed, and no claim takes memory.
    let claiming = processor
        .packet_keys
        .iter()
        .filter(|_| processor.replay_guard.is_some());
    let keys = claiming.map(|mounted| ClaimKey::of(&mounted.key));
    let mut group = Group {
        processor,
        keys: keys.collect(),
        drafts: Vec::new(),
        packets: 0,
        bytes: 0,
        results: Vec::new(),
    };
    let mut open: Vec<Open> = (0..wanted.len()).map(|index| (index, None)).collect();
    let mut listed = Listed::of(processor, wanted).await;
    for look in 0..LOOKS {
        if look > 0 {
            listed = Listed::default();
            if !processor.reread_pause.is_zero() {
                tokio::time::sleep(processor.reread_pause).await;
            }
        }
        open = group.look(wanted, open, &listed).await;
        group.finish().await;
        if open.is_empty() {
            break;
        }
    }
    let changing = open.into_iter().map(|(index, _)| (index, Ok(changing())));
    group.results.extend(changing);
    group.results.sort_by_key(|(index, _)| *index);
    group.results.into_iter().map(|(_, result)| result).collect()
}

/// Takes note of the packets that are in, where they are claimed.
struct Claiming {
    /// Of the mounted packet keys; none where nothing is claimed.
    keys: Arc<[ClaimKey]>,
    packets: Vec<ClaimedPacket>,
}

impl Witness for Claiming {
    fn decided(&mut self, packet: &DecidedPacket) {
        if let (Some(mounted), Some(ephemeral)) = (packet.mounted, packet.ephemeral)
            && let Some(claim_key) = self.keys.get(mounted)
            && let Ok(key) = u8::try_from(mounted)
        {
            self.packets.push(ClaimedPacket {
                fingerprint: claim_key.fingerprint(&ephemeral),
                packet: packet.index,
                key,
            });
        }
    }
}

/// A batch that is decided.
struct Waiting<'a, 'w> {
    index: usize,
    wanted: &'w Wanted,
    draft: Box<Draft<'a, Claiming>>,
}

/// Batches that are decided and not yet claimed, and what came of others.
struct Group<'a, 'w> {
    processor: &'a Processor,
    keys: Arc<[ClaimKey]>,
    drafts: Vec<Waiting<'a, 'w>>,
    packets: usize,
    /// What the drafts take in memory.
    bytes: usize,
    results: Vec<(usize, Result<IntakeOutcome, WorkError>)>,
}

impl<'a, 'w> Group<'a, 'w> {
    /// Looks at batches, up to the first that storage keeps from it; `open` are their indices with what was found wrong before.
    /// Returns those that need another look, with what is wrong now.
    async fn look(&mut self, wanted: &'w [Wanted], open: Vec<Open>, listed: &Listed) -> Vec<Open> {
        let mut doubtful = Vec::new();
        let mut open = open.into_iter();
        while let Some((index, doubted)) = open.next() {
            let Wanted { batch, take_anyway } = &wanted[index];
            let keys = Arc::clone(&self.keys);
            let claiming = || Claiming {
                keys: Arc::clone(&keys),
                packets: Vec::new(),
            };
            match begin(
                self.processor,
                batch,
                *take_anyway,
                doubted.as_deref(),
                listed,
                claiming,
            )
            .await
            {
                Ok(Begun::Ended(outcome)) => self.results.push((index, Ok(outcome))),
                Ok(Begun::Drafted(draft)) => self.add(index, &wanted[index], draft).await,
                Ok(Begun::Doubtful(refusal)) => {
                    tracing::info!(batch = %batch.path(), reason = %refusal.reason, "looking at the batch again before refusing it");
                    doubtful.push((index, Some(Box::new(refusal))));
                }
                Err(error) => {
                    let storage = error.mailbox_error().filter(|_| error.is_retryable()).cloned();
                    self.results.push((index, Err(error)));
                    if let Some(source) = storage {
                        // What was looked at before has a result, and has none for the same reason.
                        let doubted = open.filter(|(_, doubted)| doubted.is_some());
                        let without = doubtful.into_iter().chain(doubted).map(|(index, _)| index);
                        self.results
                            .extend(without.map(|index| (index, Err(source.clone().into()))));
                        return Vec::new();
                    }
                }
            }
        }
        doubtful
    }

    async fn add(&mut self, index: usize, wanted: &'w Wanted, draft: Box<Draft<'a, Claiming>>) {
        let claimed = &draft.witness.packets;
        let packets = claimed.len();
        let bytes = draft.held_bytes() + claimed.capacity() * size_of::<ClaimedPacket>();
        if self.packets + packets > GROUP_PACKETS || self.bytes + bytes > GROUP_BYTES {
            self.finish().await;
        }
        self.packets += packets;
        self.bytes += bytes;
        self.drafts.push(Waiting { index, wanted, draft });
        let full = self.packets >= GROUP_PACKETS || self.bytes >= GROUP_BYTES || self.drafts.len() >= GROUP_BATCHES;
        if full || self.processor.replay_guard.is_none() {
            self.finish().await;
        }
    }

    /// Claims what waits, and brings each batch to its end.
    async fn finish(&mut self) {
        let mut drafts = std::mem::take(&mut self.drafts);
        (self.packets, self.bytes) = (0, 0);
        let replays = match self.processor.replay_guard {
            Some(guard) if !drafts.is_empty() => self.replays(guard, &mut drafts).await,
            _ => Ok(vec![Vec::new(); drafts.len()]),
        };
        match replays {
            Ok(replays) => {
                for (waiting, replays) in drafts.into_iter().zip(replays) {
                    let index = waiting.index;
                    let result = settle(self.processor, waiting, replays).await;
                    self.results.push((index, result));
                }
            }
            Err(fault) => {
                for mut waiting in drafts {
                    waiting.draft.abort().await;
                    let result = unclaimed(&waiting, &fault);
                    self.results.push((waiting.index, result));
                }
            }
        }
    }

    async fn replays(&self, guard: ReplayGuard, drafts: &mut [Waiting<'_, '_>]) -> Result<Vec<Vec<u32>>, ClaimsFault> {
        let mut claims = Claims::default();
        for Waiting { draft, .. } in drafts {
            let packets = std::mem::take(&mut draft.witness.packets);
            claims.add(&draft.head.batch, packets);
        }
        let ledger = &*self.processor.mailboxes.ledger;
        let now = (self.processor.clock)();
        claims.find_replays(ledger, &self.keys, guard, now).await
    }
}

/// What a fault of claims is to a batch: damaged claims hold it up until they are restored.
fn unclaimed(waiting: &Waiting<'_, '_>, fault: &ClaimsFault) -> Result<IntakeOutcome, WorkError> {
    if !fault.is_of_an_object() {
        return Err(fault.clone().into());
    }
    let accumulated = &waiting.draft.accumulated;
    Ok(IntakeOutcome::Blocked {
        reason: BlockedReason::ClaimsUnreadable,
        message: short_message(&format!("packets can't be looked for in other batches: {fault}")),
        packets: accumulated.packets,
        excluded: accumulated.excluded(),
    })
}

/// Records and delivers a batch whose packets are claimed; where there are replays among them, without these.
async fn settle(
    processor: &Processor,
    waiting: Waiting<'_, '_>,
    packets: Vec<u32>,
) -> Result<IntakeOutcome, WorkError> {
    let Waiting { wanted, mut draft, .. } = waiting;
    let batch = &wanted.batch;
    if packets.is_empty() {
        let record = draft.commit(processor).await?;
        return deliver::deliver(processor, batch, &record).await;
    }
    tracing::warn!(batch = %batch.path(), packets = packets.len(), "packets that another batch has are left out");
    draft.abort().await;
    let replays = Replays {
        header_digest: draft.head.header_digest,
        packets,
    };
    drop(draft);
    match self::draft(processor, batch, wanted.take_anyway, Look::Without(&replays), || ()).await? {
        Drafted::Draft(draft) => {
            let record = draft.commit(processor).await?;
            deliver::deliver(processor, batch, &record).await
        }
        Drafted::Refused(refusal) => refuse(processor, batch, refusal).await,
        // It was good a moment ago.
        Drafted::Doubtful(_) => Ok(changing()),
        Drafted::Blocked(outcome) => Ok(outcome),
    }
}
