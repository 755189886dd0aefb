//! The release: `released`, then the sum part into the portal's mailbox (ledger rules 6 and 11).

use std::sync::Arc;

use bytes::Bytes;
use mailbox::{Mailbox, MailboxError, MailboxErrorKind, ObjectKey, PutOutcome};
use uuid::Uuid;

use super::Stop;
use super::decide::decide_release;
use super::execute::Counted;
use super::plan::Frozen;
use crate::crypto::sha256;
use crate::formats::FormatError;
use crate::formats::avro::RecordWriter;
use crate::formats::batch::{MAX_HEADER_BYTES, read_header, read_packets, read_signature};
use crate::formats::ledger::{DeliveredPut, FailedReason, LedgerObject, RELEASED, REVISION, Released, hex};
use crate::formats::names::{SumPartPart, WindowId};
use crate::formats::plan::Plan;
use crate::formats::signature::BatchSignature;
use crate::formats::sum_part::{InvalidPacket, SumPart};
use crate::outgoing::Outgoing;
use crate::processor::{InternalSnafu, Processor, WorkError};
use crate::put::{BatchPut, ContentDigest, Meaning, OwnObject, put_batch, put_or_read, read_if_there};
use crate::stream::{ChunkWriter, Hashed, Source, transform};

/// The largest sum part header, in bytes: 2^19 sums of 5 bytes, and batches of 37.
const MAX_SUM_PART_BYTES: u64 = 16 * MAX_HEADER_BYTES;
/// What a UUID of the invalid list may take in its writer's encoding, in bytes.
const MAX_INVALID_BYTES: u64 = 64;

/// A sum part that is in the portal.
pub(super) struct ReleasedPart {
    /// Its header object.
    pub header: ObjectKey,
    /// SHA-256 of the header as we make it.
    pub digest: [u8; 32],
    /// How it came there.
    pub put: DeliveredPut,
}

/// Says in the ledger what is released, then puts the sum part.
pub(super) async fn release(
    processor: &Processor,
    window: &WindowId,
    frozen: &Frozen,
    counted: &Counted,
    total: &[u32],
) -> Result<Result<ReleasedPart, Stop>, WorkError> {
    let ledger = &*processor.mailboxes.ledger;
    let released = announcement(frozen, counted);
    let key = window.ledger_key(RELEASED);
    let (bytes, put) = put_or_read(ledger, &key, released.to_bytes()?.into(), Released::MAX_BYTES).await?;
    if put == PutOutcome::Exists && Released::from_bytes(&key, &bytes)? != released {
        let message = format!("{key} says that another set of packets was released for this window");
        return Ok(Err(Stop::Failed(FailedReason::ReleasedDiffers, message)));
    }
    if let Some(stop) = decide_release(processor, window, frozen, counted).await? {
        return Ok(Err(stop));
    }
    let key = |part| window.sum_part_key(&processor.instance, processor.share, part);
    let portal = &*processor.mailboxes.portal;
    let limit = processor.in_memory.object_bytes;
    let invalid = InvalidList::write(portal, key(SumPartPart::InvalidPackets), limit, &counted.invalid).await?;
    let part = sum_part(window, &frozen.plan, counted, total, invalid.digest.sha256);
    let header = Bytes::from(part.write());
    let signing_key = processor.signer(&frozen.plan.signer).unwrap_or(&processor.signing_key);
    let signature = BatchSignature::sign(signing_key, &header).map_err(|error| {
        InternalSnafu {
            doing: "signing the sum part",
            detail: error.to_string(),
        }
        .build()
    })?;
    let object = |part, bytes| OwnObject::new(key(part), bytes);
    let digest = sha256(&header);
    let mut parts = Vec::with_capacity(2);
    parts.extend(invalid.object());
    parts.push(object(SumPartPart::Header, header));
    let signature = object(SumPartPart::Signature, signature.write().into());
    let put = put_batch(portal, parts, signature, async || {
        meaning(processor, portal, window, &part, &counted.invalid).await
    })
    .await?;
    Ok(match put {
        BatchPut::There(put) => Ok(ReleasedPart {
            header: key(SumPartPart::Header),
            digest,
            put,
        }),
        BatchPut::Different(object) => {
            let message =
                format!("the portal's mailbox holds another sum part of ours in {object}; nothing was overwritten");
            Err(Stop::Failed(FailedReason::PortalHasOther, message))
        }
    })
}

/// The invalid list on its way to the portal's mailbox: held where it is short, uploaded as it is written where it is long.
struct InvalidList<'a> {
    key: ObjectKey,
    list: Outgoing<'a>,
    digest: ContentDigest,
}

impl<'a> InvalidList<'a> {
    async fn write(
        portal: &'a dyn Mailbox,
        key: ObjectKey,
        limit: usize,
        invalid: &Arc<Vec<Uuid>>,
    ) -> Result<Self, WorkError> {
        let mut list = Outgoing::new(portal, key.clone(), limit);
        let is_short = invalid.len() as u64 * MAX_INVALID_BYTES <= limit as u64;
        let invalid = Arc::clone(invalid);
        let write = move |target: &mut ChunkWriter| {
            let mut packets = RecordWriter::new(Hashed::new(target));
            for uuid in invalid.iter() {
                packets.write(&InvalidPacket { uuid: *uuid })?;
            }
            let (_, digest) = packets.finish()?.finish();
            Ok::<_, FormatError>(digest)
        };
        let written = if is_short {
            let mut held = ChunkWriter::holding();
            let written = write(&mut held);
            *list.tail() = held.into_held();
            Some(written)
        } else {
            let nothing = Source::Bytes(Bytes::new());
            transform(nothing, Some(&mut list), move |_, target| write(target))
                .await?
                .1
        };
        let failed = |detail: String| {
            InternalSnafu {
                doing: "writing the invalid list",
                detail,
            }
            .build()
        };
        let digest = written
            .ok_or_else(|| failed("its writer panicked".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { key, list, digest })
    }

    /// The object; of no packets there is none.
    fn object(self) -> Option<OwnObject<'a>> {
        (self.digest.length > 0).then(|| OwnObject::outgoing(self.key, self.list, self.digest))
    }
}

fn announcement(frozen: &Frozen, counted: &Counted) -> Released {
    Released {
        revision: REVISION,
        plan_digest: hex(&frozen.digest),
        packet_set_digest: hex(&counted.packet_set_digest()),
        clients: counted.clients,
    }
}

/// Whether the ledger says that this plan's sum of these packets is released.
pub(super) async fn is_announced(
    processor: &Processor,
    window: &WindowId,
    frozen: &Frozen,
    counted: &Counted,
) -> Result<bool, WorkError> {
    let key = window.ledger_key(RELEASED);
    Ok(
        match read_if_there(&*processor.mailboxes.ledger, &key, Released::MAX_BYTES).await? {
            Some(bytes) => Released::from_bytes(&key, &bytes)? == announcement(frozen, counted),
            None => false,
        },
    )
}

/// The sum part of this plan and these packets, where a run before this one put it whole. Its sum can't be compared: this
/// is for a run that can't sum any more.
pub(super) async fn released_already(
    processor: &Processor,
    window: &WindowId,
    frozen: &Frozen,
    counted: &Counted,
) -> Result<Option<ReleasedPart>, WorkError> {
    if !is_announced(processor, window, frozen, counted).await? {
        return Ok(None);
    }
    let portal = &*processor.mailboxes.portal;
    let (there, invalid) = match read_there(processor, portal, window, counted.invalid.len()).await {
        Ok(Some(there)) => there,
        Ok(None) => return Ok(None),
        Err(error) => match error.kind() {
            MailboxErrorKind::Denied | MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge => return Ok(None),
            _ => return Err(error.into()),
        },
    };
    let sum: Vec<u32> = there
        .sum
        .iter()
        .filter_map(|element| u32::try_from(*element).ok())
        .collect();
    let mut digest = [0; 32];
    if there.packet_file_digest.len() == digest.len() {
        digest.copy_from_slice(&there.packet_file_digest);
    }
    let same = there == sum_part(window, &frozen.plan, counted, &sum, digest) && invalid == *counted.invalid;
    let header = window.sum_part_key(&processor.instance, processor.share, SumPartPart::Header);
    Ok(same.then(|| ReleasedPart {
        header,
        digest: sha256(&there.write()),
        put: DeliveredPut::SameMeaning,
    }))
}

fn sum_part(window: &WindowId, plan: &Plan, counted: &Counted, total: &[u32], invalid_digest: [u8; 32]) -> SumPart {
    let shape = &plan.shape;
    SumPart {
        batch_uuids: plan.members.iter().map(|member| member.uuid).collect(),
        name: shape.name.clone(),
        bins: i32::try_from(shape.bins).unwrap_or(i32::MAX),
        epsilon: shape.epsilon,
        prime: i64::try_from(shape.prime).unwrap_or(i64::MAX),
        number_of_servers: i32::try_from(shape.number_of_servers).unwrap_or(i32::MAX),
        hamming_weight: shape.hamming_weight,
        sum: total.iter().map(|element| i64::from(*element)).collect(),
        aggregation_start_time: window.start.as_millis(),
        aggregation_end_time: window.end.as_millis(),
        packet_file_digest: invalid_digest.to_vec(),
        total_individual_clients: i64::try_from(counted.clients).unwrap_or(i64::MAX),
    }
}

/// Whether the sum part that is there is signed by us and says what ours says, in whatever order and bytes.
async fn meaning(
    processor: &Processor,
    portal: &dyn Mailbox,
    window: &WindowId,
    ours: &SumPart,
    invalid: &[Uuid],
) -> Result<Meaning, MailboxError> {
    match read_there(processor, portal, window, invalid.len()).await {
        Ok(Some((there, there_invalid))) => {
            let sorted = |uuids: &[Uuid]| {
                let mut uuids = uuids.to_vec();
                uuids.sort_unstable();
                uuids
            };
            let same_invalid = sorted(&there_invalid) == sorted(invalid);
            let mut there = there;
            there.packet_file_digest.clone_from(&ours.packet_file_digest);
            let same_batches = sorted(&there.batch_uuids) == sorted(&ours.batch_uuids);
            there.batch_uuids.clone_from(&ours.batch_uuids);
            let same = same_invalid && same_batches && there == *ours;
            Ok(if same { Meaning::Same } else { Meaning::Other })
        }
        Ok(None) => Ok(Meaning::Other),
        Err(error) => match error.kind() {
            MailboxErrorKind::Denied => Ok(Meaning::Unread),
            MailboxErrorKind::NotFound | MailboxErrorKind::TooLarge => Ok(Meaning::Other),
            _ => Err(error),
        },
    }
}

/// The sum part that is there, where it is one of ours. `invalid`: how many packets ours lists; more are another's.
async fn read_there(
    processor: &Processor,
    portal: &dyn Mailbox,
    window: &WindowId,
    invalid: usize,
) -> Result<Option<(SumPart, Vec<Uuid>)>, MailboxError> {
    let key = |part| window.sum_part_key(&processor.instance, processor.share, part);
    let keys = processor.own_keys();
    let signature = portal.read(&key(SumPartPart::Signature), MAX_HEADER_BYTES).await?;
    let header = portal.read(&key(SumPartPart::Header), MAX_SUM_PART_BYTES).await?;
    let invalid = match portal
        .read(
            &key(SumPartPart::InvalidPackets),
            MAX_HEADER_BYTES + MAX_INVALID_BYTES * invalid as u64,
        )
        .await
    {
        Err(error) if error.kind() == MailboxErrorKind::NotFound => Bytes::new(),
        read => read?,
    };
    let read = read_signature(&signature).and_then(|signature| {
        let part = read_header::<SumPart>(&signature, &header, &keys)?;
        let invalid = read_packets::<InvalidPacket>(&part, &invalid)?;
        Ok((part, invalid.iter().map(|packet| packet.uuid).collect()))
    });
    Ok(read.ok())
}
