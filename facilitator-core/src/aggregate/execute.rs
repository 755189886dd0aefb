//! The sum of a plan: from the records' sealed accumulators, less what doesn't count. A batch is opened only to subtract,
//! or where a sealed accumulator is damaged.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Stop;
use super::judge::{Judged, judge};
use crate::crypto;
use crate::formats::ingestion::DataSharePacket;
use crate::formats::ledger::{BlockedReason, FailedReason, RECORDS, hex};
use crate::formats::names::{BatchId, BatchTime, WindowId};
use crate::formats::plan::{Member, Plan, messages_digest};
use crate::formats::record::{RECORD_MAX_BYTES, Record, RecordPlain};
use crate::intake::{Opener, read_packets};
use crate::peer_messages::{PeerBatch, read_peers};
use crate::processor::{Processor, WorkError};
use crate::proof;
use crate::put::read_if_there;

/// Members that are judged at the same time.
const MEMBERS: usize = 8;

/// A plan at work.
pub(super) struct Execution<'a> {
    pub processor: &'a Processor,
    pub window: &'a WindowId,
    pub plan: &'a Plan,
}

/// What counts, before any accumulator is opened.
pub(super) struct Counted {
    pub packets: u64,
    pub clients: u64,
    pub invalid_proofs: u64,
    pub missing_peer_messages: u64,
    pub excluded_packets: u64,
    /// SHA-256 over the UUIDs of the counted packets, in order of (object name, packet index).
    pub packet_set_digest: [u8; 32],
    /// Every UUID of the plan's batches that isn't counted, once, in order of (object name, packet index).
    pub invalid: Vec<Uuid>,
    /// The members, in the plan's order.
    pub members: Vec<JudgedMember>,
}

/// A member after its proofs were checked.
pub(super) struct JudgedMember {
    batch: BatchId,
    /// Of the record's plain part. The record itself is read again for the sum: memory is flat in members and packets.
    plain_digest: [u8; 32],
    subtracted: Vec<(usize, u8)>,
    packets: u64,
    excluded: u64,
}

type Failure = (FailedReason, String);

impl JudgedMember {
    /// How many of its packets count.
    pub(super) fn clients(&self) -> u64 {
        self.packets - self.excluded - self.subtracted.len() as u64
    }
}

impl Execution<'_> {
    /// Checks every member's record and peer messages against the plan, and every proof.
    pub(super) async fn count(&self) -> Result<Result<Counted, Stop>, WorkError> {
        let mut judging = futures::stream::iter(&self.plan.members)
            .map(|member| self.judge(member))
            .buffered(MEMBERS);
        let mut digest = Sha256::new();
        let mut named = HashSet::new();
        let mut counted = Counted {
            packets: 0,
            clients: 0,
            invalid_proofs: 0,
            missing_peer_messages: 0,
            excluded_packets: 0,
            packet_set_digest: [0; 32],
            invalid: Vec::new(),
            members: Vec::with_capacity(self.plan.members.len()),
        };
        while let Some(member) = judging.try_next().await? {
            let (mut member, judged) = match member {
                Ok(member) => member,
                Err(stop) => return Ok(Err(stop)),
            };
            let Judged {
                counted: uuids,
                subtracted,
                not_counted,
                invalid_proofs,
                missing_peer_messages,
            } = judged;
            counted.packets += member.packets;
            counted.excluded_packets += member.excluded;
            counted.clients += uuids.len() as u64;
            counted.invalid_proofs += invalid_proofs;
            counted.missing_peer_messages += missing_peer_messages;
            uuids.iter().for_each(|uuid| digest.update(uuid.as_bytes()));
            counted
                .invalid
                .extend(not_counted.into_iter().filter(|uuid| named.insert(*uuid)));
            member.subtracted = subtracted;
            counted.members.push(member);
        }
        counted.packet_set_digest = digest.finalize().into();
        Ok(Ok(counted))
    }

    async fn judge(&self, member: &Member) -> Result<Result<(JudgedMember, Judged), Stop>, WorkError> {
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
        let record = match self.record(&batch, &member.record_digest).await? {
            Ok(record) => record,
            Err((reason, message)) => return Ok(Err(Stop::Failed(reason, message))),
        };
        let wanted = |read: &PeerBatch| match read {
            PeerBatch::Read { messages, .. } => {
                hex(&messages_digest(messages.iter().copied())) == member.messages_digest
            }
            _ => false,
        };
        let (theirs, pinned) = read_peers(self.processor, &batch, record.plain.packets.len(), wanted).await?;
        let of_batch = |detail: &str| format!("the peer's messages of {}: {detail}", batch.path());
        let lost = |detail: &str| Ok(Err(Stop::Failed(FailedReason::PeerMessagesLost, of_batch(detail))));
        let messages = match theirs {
            PeerBatch::Read { messages, .. } if pinned => messages,
            PeerBatch::Read { .. } => return lost("they aren't those that the plan pinned"),
            PeerBatch::Absent => return lost("they are gone"),
            PeerBatch::Bad { detail } => return lost(&detail),
            PeerBatch::SignerUnknown { detail } => {
                return Ok(Err(Stop::Blocked(BlockedReason::SignerUnknown, of_batch(&detail))));
            }
        };
        let judged = judge(&record.plain, messages);
        let (packets, excluded) = (record.plain.packets.len() as u64, record.plain.excluded());
        let plain_digest = record.plain.digest();
        Ok(Ok((
            JudgedMember {
                batch,
                plain_digest,
                subtracted: Vec::new(),
                packets,
                excluded,
            },
            judged,
        )))
    }

    async fn record(&self, batch: &BatchId, digest: &str) -> Result<Result<Record, Failure>, WorkError> {
        let key = batch.ledger_key(RECORDS);
        let lost = |detail: &str| Ok(Err((FailedReason::RecordLost, format!("the record {key} {detail}"))));
        let Some(bytes) = read_if_there(&*self.processor.mailboxes.ledger, &key, RECORD_MAX_BYTES).await? else {
            return lost("is gone");
        };
        let record = match Record::decode_despite_seals(&bytes) {
            Ok(record) => record,
            Err(error) => return lost(&format!("can't be read: {error}")),
        };
        if hex(&record.plain.digest()) == digest {
            return Ok(Ok(record));
        }
        lost("isn't the one that the plan pinned")
    }

    /// Adds the accumulators up and takes out what doesn't count.
    pub(super) async fn sum(&self, counted: &Counted) -> Result<Result<Zeroizing<Vec<u32>>, Stop>, WorkError> {
        let bins = self.plan.shape.bins;
        let mut total = Zeroizing::new(vec![0; bins as usize]);
        let mut reading = futures::stream::iter(&counted.members)
            .map(|member| async move {
                let record = self.record(&member.batch, &hex(&member.plain_digest)).await?;
                Ok::<_, WorkError>((member, record))
            })
            .buffered(MEMBERS);
        while let Some((member, record)) = reading.try_next().await? {
            let record = match record {
                Ok(record) => record,
                Err((reason, message)) => return Ok(Err(Stop::Failed(reason, message))),
            };
            if let Err(stop) = self.add_member(member, &record, &mut total).await? {
                return Ok(Err(stop));
            }
        }
        Ok(Ok(total))
    }

    async fn add_member(
        &self,
        member: &JudgedMember,
        record: &Record,
        total: &mut [u32],
    ) -> Result<Result<(), Stop>, WorkError> {
        let plain = &record.plain;
        let mut damaged = Vec::new();
        let mut mounted = Vec::with_capacity(plain.packet_keys.len());
        for (point, sealed) in plain.packet_keys.iter().zip(&record.sealed) {
            let Some(key) = self
                .processor
                .packet_keys
                .iter()
                .position(|key| key.key.public_point() == point)
            else {
                let message = format!(
                    "the batch {} was opened with a packet key that isn't mounted (public point {}…): mount it again",
                    member.batch.path(),
                    &hex(&point[..8])
                );
                return Ok(Err(Stop::Blocked(BlockedReason::PacketKeyNotMounted, message)));
            };
            let opened = crypto::open(
                &self.processor.packet_keys[key].key,
                &plain.head.header_digest,
                plain.head.share,
                &member.plain_digest,
                sealed,
            );
            match opened {
                Ok(sum) => proof::accumulate(total, &sum),
                Err(error) => {
                    tracing::warn!(batch = %member.batch.path(), %error, "summing the batch from its packets instead");
                    damaged.push(mounted.len() as u8);
                }
            }
            mounted.push(key);
        }
        if damaged.is_empty() && member.subtracted.is_empty() {
            return Ok(Ok(()));
        }
        let wanted = if damaged.is_empty() {
            member
                .subtracted
                .iter()
                .map(|(index, key)| (*index, Wanted { key: *key, add: false }))
                .collect()
        } else {
            wanted_of_damaged(member, plain, &damaged)
        };
        self.open_batch(member, plain, wanted, mounted, total).await
    }

    /// Opens the ingestion batch, decrypts the wanted packets alone, and adds or subtracts them. `mounted` says which
    /// mounted key stands for each of the record's.
    async fn open_batch(
        &self,
        member: &JudgedMember,
        plain: &RecordPlain,
        wanted: HashMap<usize, Wanted>,
        mounted: Vec<usize>,
        total: &mut [u32],
    ) -> Result<Result<(), Stop>, WorkError> {
        let bins = self.plan.shape.bins;
        let (passed, opened) = read_packets(self.processor, &member.batch, move |source, keys, share| {
            let mut sum = Zeroizing::new(vec![0; bins as usize]);
            let mut left = wanted.len();
            for (index, packet) in DataSharePacket::stream(source).enumerate() {
                let packet = packet?;
                let Some(wanted) = wanted.get(&index) else { continue };
                let key = &keys[mounted[usize::from(wanted.key)]];
                let mut opener = Opener::new(bins, share, std::slice::from_ref(key));
                if opener.open(&packet).is_err() {
                    break;
                }
                let values = opener.values();
                if wanted.add {
                    proof::accumulate(&mut sum, values)
                } else {
                    proof::subtract_from(&mut sum, values)
                }
                left -= 1;
            }
            Ok((sum, left))
        })
        .await?;
        let batch = member.batch.path();
        let failed = |reason, message| Ok(Err(Stop::Failed(reason, message)));
        if passed.digest != plain.head.packet_digest {
            let message = format!("the packets of {batch} had to be opened and aren't those of the record any more");
            return failed(FailedReason::IngestionChanged, message);
        }
        match opened {
            Ok((sum, 0)) => {
                proof::accumulate(total, &sum);
                Ok(Ok(()))
            }
            Ok((_, left)) => failed(
                FailedReason::KeyGone,
                format!(
                    "{left} packets of {batch} that were opened at intake don't open any more: check the mounted keys"
                ),
            ),
            Err(error) => failed(
                FailedReason::IngestionChanged,
                format!("the packets of {batch}: {error}"),
            ),
        }
    }
}

/// Which packets to add, of damaged accumulators, and which to subtract, of sound ones. The set is the record's.
fn wanted_of_damaged(member: &JudgedMember, plain: &RecordPlain, damaged: &[u8]) -> HashMap<usize, Wanted> {
    let subtracted: HashSet<usize> = member.subtracted.iter().map(|(index, _)| *index).collect();
    plain
        .included()
        .filter_map(|(index, _, key, _)| {
            let add = damaged.contains(&key);
            // Damaged: those that count are added; sound: those that don't are taken out.
            (subtracted.contains(&index) != add).then_some((index, Wanted { key, add }))
        })
        .collect()
}

/// A packet to be opened.
struct Wanted {
    /// The record's key that opens it.
    key: u8,
    /// Whether it is added or subtracted.
    add: bool,
}
