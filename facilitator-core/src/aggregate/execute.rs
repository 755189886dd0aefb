//! Some members of a plan, counted and then summed: from the records' sealed accumulators, less what doesn't count. A batch
//! is opened only to subtract, or where a sealed accumulator is damaged.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Stop;
use super::batch::{AT_A_TIME, Batches, JudgedRecord, OpenBatch};
use super::judge::{Judged, Subtracted};
use super::packets::{OpenedPackets, Subtraction, UsedKey};
use crate::crypto::{self, PublicPoint};
use crate::formats::ledger::{BlockedReason, FailedReason, RECORDS, hex};
use crate::formats::names::{BatchId, BatchTime, WindowId};
use crate::formats::plan::{Member, Plan};
use crate::formats::record::RecordError;
use crate::peer_messages::PeerBatch;
use crate::processor::{Processor, WorkError};
use crate::proof;

/// A plan at work.
pub(super) struct Execution<'a> {
    pub processor: &'a Processor,
    pub window: &'a WindowId,
    pub plan: &'a Plan,
    batches: &'a Batches<'a>,
}

/// What counts of some members, before any accumulator is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub packets: u64,
    pub clients: u64,
    pub invalid_proofs: u64,
    pub missing_peer_messages: u64,
    pub excluded_packets: u64,
    /// The members, in the plan's order.
    pub members: Vec<CountedMember>,
    /// Every UUID of the members that isn't counted, in order of (object name, packet index).
    pub invalid: Arc<Vec<Uuid>>,
}

/// What counts of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedMember {
    pub clients: u64,
    /// SHA-256 over the UUIDs of the packets that count, in file order.
    pub digest: [u8; 32],
}

impl Counted {
    /// With the members that follow.
    pub(super) fn append(&mut self, next: Self) {
        self.packets += next.packets;
        self.clients += next.clients;
        self.invalid_proofs += next.invalid_proofs;
        self.missing_peer_messages += next.missing_peer_messages;
        self.excluded_packets += next.excluded_packets;
        self.members.extend(next.members);
        self.add_invalid(next.invalid);
    }

    /// Of many packets there is one copy.
    fn add_invalid(&mut self, more: Arc<Vec<Uuid>>) {
        if self.invalid.is_empty() {
            self.invalid = more;
        } else {
            Arc::make_mut(&mut self.invalid).extend(more.iter());
        }
    }

    /// Names every UUID of the invalid list once, where it comes first. Takes 4 bytes a packet, and no set of them.
    pub(super) fn name_each_once(&mut self) {
        let uuids = Arc::make_mut(&mut self.invalid);
        let mut order: Vec<u32> = (0..).take(uuids.len()).collect();
        order.sort_unstable_by_key(|index| (uuids[*index as usize], *index));
        let again = order
            .windows(2)
            .filter(|pair| uuids[pair[0] as usize] == uuids[pair[1] as usize]);
        let mut again: Vec<u32> = again.map(|pair| pair[1]).collect();
        again.sort_unstable();
        let (mut index, mut again) = (0, again.into_iter().peekable());
        uuids.retain(|_| {
            index += 1;
            again.next_if_eq(&(index - 1)).is_none()
        });
    }

    /// SHA-256 over the members' digests: which packets count.
    pub(super) fn packet_set_digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        self.members.iter().for_each(|member| digest.update(member.digest));
        digest.finalize().into()
    }
}

/// A member after its proofs were checked.
pub(super) struct JudgedMember {
    batch: BatchId,
    /// Of the record's plain part. The record itself is read again for the sum: memory is flat in members and packets.
    plain_digest: [u8; 32],
    subtracted: Arc<Vec<Subtracted>>,
    /// Less these, where the plan's look at the packets told.
    subtraction: Option<Subtraction>,
}

/// A sum, and the packet keys whose packets it sums, in order of first use.
pub(super) struct Sum {
    pub total: Zeroizing<Vec<u32>>,
    pub keys: Vec<PublicPoint>,
}

impl<'a> Execution<'a> {
    pub(super) fn new(batches: &'a Batches<'a>, window: &'a WindowId, plan: &'a Plan) -> Self {
        Self {
            processor: batches.processor(),
            window,
            plan,
            batches,
        }
    }

    /// Checks the members' records and peer messages against the plan, and every proof.
    pub(super) async fn count(
        &self,
        members: &[Member],
    ) -> Result<Result<(Counted, Vec<JudgedMember>), Stop>, WorkError> {
        let mut judging = futures::stream::iter(members)
            .map(|member| self.judge(member))
            .buffered(AT_A_TIME);
        let mut counted = Counted::default();
        let mut judged_members = Vec::with_capacity(members.len());
        while let Some(member) = judging.try_next().await? {
            let (batch, record) = match member {
                Ok(judged) => judged,
                Err(stop) => return Ok(Err(stop)),
            };
            let judged = record.judged;
            counted.packets += judged.packets;
            counted.clients += judged.clients;
            counted.invalid_proofs += judged.invalid_proofs;
            counted.missing_peer_messages += judged.missing_peer_messages;
            counted.excluded_packets += judged.excluded;
            counted.members.push(CountedMember {
                clients: judged.clients,
                digest: judged.counted_digest,
            });
            counted.add_invalid(judged.not_counted.into());
            judged_members.push(JudgedMember {
                batch,
                plain_digest: record.digest,
                subtracted: judged.subtracted.into(),
                subtraction: record.subtraction,
            });
        }
        Ok(Ok((counted, judged_members)))
    }

    /// The member's batch, and what became of its packets.
    async fn judge(&self, member: &Member) -> Result<Result<(BatchId, JudgedRecord), Stop>, WorkError> {
        let batch = match BatchTime::parse_path(&member.time) {
            Ok(time) => BatchId {
                aggregation: self.window.aggregation.clone(),
                time,
                uuid: member.uuid,
            },
            Err(error) => {
                let message = format!("the plan names no batch: {error}");
                return Ok(Err(Stop::Failed(FailedReason::RecordLost, message)));
            }
        };
        let before = self
            .batches
            .judged_before(&batch, &member.record_digest, &member.messages_digest);
        if let Some(before) = before {
            return Ok(Ok((batch, before)));
        }
        let open = match self.open(&batch, &member.record_digest).await? {
            Ok(open) => open,
            Err(stop) => return Ok(Err(stop)),
        };
        let pinned = |judged: &Judged| hex(&judged.messages_digest) == member.messages_digest;
        let of_batch = |detail: &str| format!("the peer's messages of {}: {detail}", batch.path());
        let lost = |detail: &str| Ok(Err(Stop::Failed(FailedReason::PeerMessagesLost, of_batch(detail))));
        let judged = match open.judge(pinned).await {
            Ok(judged) => judged,
            Err(error) => return unread(&batch, error).map(Err),
        };
        let judged = match judged {
            Ok(judged) if pinned(&judged) => judged,
            Ok(_) => return lost("they aren't those that the plan pinned"),
            Err(PeerBatch::Absent) => return lost("they are gone"),
            Err(PeerBatch::Bad { detail }) => return lost(&detail),
            Err(PeerBatch::SignerUnknown { detail }) => {
                return Ok(Err(Stop::Blocked(BlockedReason::SignerUnknown, of_batch(&detail))));
            }
        };
        let record = JudgedRecord {
            digest: open.digest,
            judged,
            subtraction: None,
        };
        Ok(Ok((batch, record)))
    }

    /// The batch's record, where it is the one of that digest.
    async fn open(&self, batch: &BatchId, digest: &str) -> Result<Result<OpenBatch<'_>, Stop>, WorkError> {
        match self.batches.open(batch).await {
            Ok(Some(open)) if hex(&open.digest) == digest => Ok(Ok(open)),
            Ok(Some(_)) => Ok(Err(record_lost(batch, NOT_PINNED))),
            Ok(None) => Ok(Err(record_lost(batch, "is gone"))),
            Err(error) => unread(batch, error).map(Err),
        }
    }

    /// Adds the accumulators up and takes out what doesn't count.
    pub(super) async fn sum(&self, members: &[JudgedMember]) -> Result<Result<Sum, Stop>, WorkError> {
        let mut all = self.nothing();
        // Each is done within its own future: whoever has its turn goes on, whatever is waited for here.
        let mut summing = futures::stream::iter(members)
            .map(|member| self.sum_member(member))
            .buffered(AT_A_TIME);
        while let Some(sum) = summing.try_next().await? {
            match sum {
                Ok(sum) => {
                    proof::accumulate(&mut all.total, &sum.total);
                    for key in sum.keys {
                        if !all.keys.contains(&key) {
                            all.keys.push(key);
                        }
                    }
                }
                Err(stop) => return Ok(Err(stop)),
            }
        }
        Ok(Ok(all))
    }

    fn nothing(&self) -> Sum {
        Sum {
            total: Zeroizing::new(vec![0; self.plan.shape.bins as usize]),
            keys: Vec::new(),
        }
    }

    async fn sum_member(&self, member: &JudgedMember) -> Result<Result<Sum, Stop>, WorkError> {
        let open = match self.open(&member.batch, &hex(&member.plain_digest)).await? {
            Ok(open) => open,
            Err(stop) => return Ok(Err(stop)),
        };
        let mut sum = self.nothing();
        sum.keys.clone_from(&open.packet_keys);
        let mut keys = Vec::with_capacity(open.packet_keys.len());
        for (point, sealed) in open.packet_keys.iter().zip(&open.sealed) {
            let Some(mounted) = self.processor.mounted(point) else {
                let what = format!("the batch {} was opened with", member.batch.path());
                return Ok(Err(not_mounted(&what, point)));
            };
            let (key, head) = (&self.processor.packet_keys[mounted].key, &open.head);
            let opened = crypto::open(key, &head.header_digest, head.share, &member.plain_digest, sealed);
            let damaged = match opened {
                Ok(opened) => {
                    proof::accumulate(&mut sum.total, &opened);
                    false
                }
                Err(error) => {
                    tracing::warn!(batch = %member.batch.path(), %error, "summing the batch from its packets instead");
                    true
                }
            };
            keys.push(UsedKey { mounted, damaged });
        }
        if keys.iter().all(|key| !key.damaged) {
            if member.subtracted.is_empty() {
                return Ok(Ok(sum));
            }
            if let Some(subtraction) = &member.subtraction {
                proof::accumulate(&mut sum.total, subtraction);
                return Ok(Ok(sum));
            }
        }
        let opened = self.open_packets(member, &open, keys).await?;
        Ok(opened.map(|opened| {
            proof::accumulate(&mut sum.total, &opened);
            sum
        }))
    }

    /// What of the batch's packets completes the sum of its sound accumulators.
    async fn open_packets(
        &self,
        member: &JudgedMember,
        open: &OpenBatch<'_>,
        keys: Vec<UsedKey>,
    ) -> Result<Result<Zeroizing<Vec<u32>>, Stop>, WorkError> {
        let opened = match open.open_packets(keys, Arc::clone(&member.subtracted)).await {
            Ok(opened) => opened,
            Err(error) => return unread(&member.batch, error).map(Err),
        };
        let batch = member.batch.path();
        let failed = |reason, message| Ok(Err(Stop::Failed(reason, message)));
        match opened {
            None => failed(
                FailedReason::IngestionChanged,
                format!("the packets of {batch} had to be opened and aren't those of the record any more"),
            ),
            Some(Ok(OpenedPackets { sum, closed: 0 })) => Ok(Ok(sum)),
            Some(Ok(OpenedPackets { closed, .. })) => failed(
                FailedReason::KeyGone,
                format!(
                    "{closed} packets of {batch} that were opened at intake don't open any more: check the mounted keys"
                ),
            ),
            Some(Err(error)) => failed(
                FailedReason::IngestionChanged,
                format!("the packets of {batch}: {error}"),
            ),
        }
    }
}

const NOT_PINNED: &str = "isn't the one that the plan pinned";

/// What it is to the plan that a record can't be gone through any more.
fn unread(batch: &BatchId, error: WorkError) -> Result<Stop, WorkError> {
    match error {
        WorkError::Record {
            source: RecordError::Replaced,
            ..
        } => Ok(record_lost(batch, NOT_PINNED)),
        WorkError::Record { source, .. } => Ok(record_lost(batch, &format!("can't be read: {source}"))),
        WorkError::Foreign { .. } => Ok(record_lost(batch, "is another's")),
        error => Err(error),
    }
}

fn record_lost(batch: &BatchId, detail: &str) -> Stop {
    let key = batch.ledger_key(RECORDS);
    Stop::Failed(FailedReason::RecordLost, format!("the record {key} {detail}"))
}

/// A packet key isn't mounted that `what` needs.
pub(super) fn not_mounted(what: &str, point: &[u8]) -> Stop {
    let begin = hex(&point[..point.len().min(8)]);
    let message = format!("{what} a packet key that isn't mounted (public point {begin}…): mount it again");
    Stop::Blocked(BlockedReason::PacketKeyNotMounted, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_several_batches_do_not_count_is_named_where_it_comes_first() {
        let named = |lists: &[&[u128]]| {
            let mut counted = Counted::default();
            for list in lists {
                counted.append(Counted {
                    invalid: Arc::new(list.iter().copied().map(Uuid::from_u128).collect()),
                    ..Counted::default()
                });
            }
            counted.name_each_once();
            counted.invalid.iter().map(Uuid::as_u128).collect::<Vec<_>>()
        };
        let none: [u128; 0] = [];
        assert_eq!(named(&[]), none);
        assert_eq!(named(&[&[], &[]]), none);
        assert_eq!(named(&[&[3, 1], &[2]]), [3, 1, 2]);
        assert_eq!(named(&[&[3, 1], &[1, 3, 2, 1], &[2, 5, 3]]), [3, 1, 2, 5]);
        assert_eq!(named(&[&[7, 7], &[7], &[7, 8]]), [7, 8]);
    }
}
