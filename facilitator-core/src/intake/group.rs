//! The intake of several batches. Each is decided for itself; their packets are claimed together (ledger rule 1), so that
//! many small batches cost one announcement and one look. Then each is recorded and delivered.

use std::sync::Arc;

use super::accumulate::DecidedPacket;
use super::draft::{Draft, Drafted, Replays, Witness, draft};
use super::{Begun, IntakeOutcome, begin, deliver, refuse};
use crate::claims::{ClaimedPacket, Claims, ClaimsFault, ReplayGuard};
use crate::crypto::ClaimKey;
use crate::formats::names::BatchId;
use crate::processor::{Processor, WorkError};

/// Packets that are claimed together, at most; a batch that has more is claimed alone.
const GROUP_PACKETS: usize = 1 << 16;
/// Batches that are claimed together, at most: their records wait in memory.
const GROUP_BATCHES: usize = 1 << 12;

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
    let keys = processor.packet_keys.iter().map(|mounted| ClaimKey::of(&mounted.key));
    let mut group = Group {
        processor,
        keys: keys.collect(),
        drafts: Vec::new(),
        packets: 0,
        results: Vec::new(),
    };
    for (index, wanted) in wanted.iter().enumerate() {
        let claiming = || Claiming {
            keys: Arc::clone(&group.keys),
            packets: Vec::new(),
        };
        match begin(processor, &wanted.batch, wanted.take_anyway, claiming).await {
            Ok(Begun::Ended(outcome)) => group.results.push((index, Ok(outcome))),
            Ok(Begun::Drafted(draft)) => group.add(index, wanted, draft).await,
            Err(error) => {
                let unavailable = error.is_retryable();
                group.results.push((index, Err(error)));
                if unavailable {
                    break;
                }
            }
        }
    }
    group.finish().await;
    group.results.sort_by_key(|(index, _)| *index);
    group.results.into_iter().map(|(_, result)| result).collect()
}

/// Takes note of the packets that are in.
struct Claiming {
    keys: Arc<[ClaimKey]>,
    packets: Vec<ClaimedPacket>,
}

impl Witness for Claiming {
    fn decided(&mut self, packet: &DecidedPacket) {
        if let (Some(mounted), Some(ephemeral)) = (packet.mounted, packet.ephemeral)
            && let Ok(key) = u8::try_from(mounted)
        {
            self.packets.push(ClaimedPacket {
                fingerprint: self.keys[mounted].fingerprint(&ephemeral),
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
    results: Vec<(usize, Result<IntakeOutcome, WorkError>)>,
}

impl<'a, 'w> Group<'a, 'w> {
    async fn add(&mut self, index: usize, wanted: &'w Wanted, draft: Box<Draft<'a, Claiming>>) {
        let packets = draft.witness.packets.len();
        if self.packets + packets > GROUP_PACKETS {
            self.finish().await;
        }
        self.packets += packets;
        self.drafts.push(Waiting { index, wanted, draft });
        if self.packets >= GROUP_PACKETS || self.drafts.len() >= GROUP_BATCHES || self.processor.replay_guard.is_none()
        {
            self.finish().await;
        }
    }

    /// Claims what waits, and brings each batch to its end.
    async fn finish(&mut self) {
        let mut drafts = std::mem::take(&mut self.drafts);
        self.packets = 0;
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
                    self.results.push((waiting.index, Err(fault.clone().into())));
                }
            }
        }
    }

    async fn replays(&self, guard: ReplayGuard, drafts: &mut [Waiting<'_, '_>]) -> Result<Vec<Vec<u32>>, ClaimsFault> {
        let mut claims = Claims::default();
        for Waiting { draft, .. } in drafts {
            let packets = std::mem::take(&mut draft.witness.packets);
            claims.add(&draft.head.batch, draft.head.header_digest, packets);
        }
        let ledger = &*self.processor.mailboxes.ledger;
        claims.find_replays(ledger, &self.keys, guard).await
    }
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
    match self::draft(processor, batch, wanted.take_anyway, Some(&replays), || ()).await? {
        Drafted::Draft(draft) => {
            let record = draft.commit(processor).await?;
            deliver::deliver(processor, batch, &record).await
        }
        Drafted::Refused(refusal) => refuse(processor, batch, refusal).await,
        Drafted::Blocked(outcome) => Ok(outcome),
    }
}
