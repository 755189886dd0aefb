//! A plan in parts. What a range of its members comes to is a pure function of the plan, the records and the peer's
//! messages, so that it doesn't matter who counts and sums it: a pod of its own, which leaves a sealed partial sum in the
//! ledger, or whoever puts the parts together and finds none.
//!
//! Why ledger rule 7 holds although a partial sum opens accumulators before the floor is tested: it is sealed as the
//! records are, under all packet keys of its packets at once, so that it tells nobody anything that the records beside it
//! don't. Whether a sum leaves the processor is decided where the parts are put together, of all clients, before a seal
//! is opened.

use std::collections::BTreeSet;
use std::sync::Arc;

use mailbox::ListRequest;
use zeroize::Zeroizing;

use super::Stop;
use super::execute::{Counted, CountedMember, Execution, JudgedMember, not_mounted};
use super::plan::Frozen;
use crate::crypto::{PacketDecryptionKey, open_partial, seal_partial};
use crate::formats::ledger::{FailedReason, LedgerObject, REVISION, hex};
use crate::formats::names::{BatchRange, Cut, Tile, WindowId, parse_partial_name};
use crate::formats::partial::{Base64, Partial, PartialPlain};
use crate::formats::plan::Member;
use crate::processor::{Processor, WorkError};
use crate::proof;
use crate::put::{put, read_if_there};

/// The parts of a plan at work.
pub(super) struct Parts<'a> {
    execution: &'a Execution<'a>,
    frozen: &'a Frozen,
    parts: Vec<Part<'a>>,
}

struct Part<'a> {
    range: BatchRange,
    /// The ledger has its partial sum.
    there: bool,
    members: &'a [Member],
    counted: Option<CountedBy>,
}

/// Who counted a part.
enum CountedBy {
    Us(Vec<JudgedMember>),
    /// Another pod. The digest is that of the partial sum's plain part: it is read again for the sum.
    Another([u8; 32]),
}

impl<'a> Parts<'a> {
    /// The partial sums that are there, and the gaps between them.
    pub(super) async fn find(execution: &'a Execution<'a>, frozen: &'a Frozen) -> Result<Self, WorkError> {
        let window = execution.window;
        let request = ListRequest {
            prefix: window.partials(),
            ..ListRequest::default()
        };
        let page = execution.processor.mailboxes.ledger.list_all(&request).await?;
        let names = page.objects.iter().map(|meta| meta.key.as_str());
        let there: BTreeSet<_> = names
            .filter_map(|name| parse_partial_name(name).map(|(_, range)| range))
            .collect();
        let mut rest = frozen.plan.members.as_slice();
        let tiles = BatchRange::whole(window).tiled(&there);
        let last = tiles.len() - 1;
        let part = |(index, tile): (usize, Tile)| {
            // Whatever a plan names, no member is left out.
            let end = if index == last {
                rest.len()
            } else {
                first_after(rest, &tile.range.end())
            };
            let members;
            (members, rest) = rest.split_at(end);
            Part {
                range: tile.range,
                there: tile.there,
                members,
                counted: None,
            }
        };
        Ok(Self {
            execution,
            frozen,
            parts: tiles.into_iter().enumerate().map(part).collect(),
        })
    }

    /// What counts, before any seal is opened.
    pub(super) async fn count(&mut self) -> Result<Result<Counted, Stop>, WorkError> {
        let mut all = Counted::default();
        for part in &mut self.parts {
            let (counted, by) = match part.read(self.execution, self.frozen).await? {
                Some(partial) => (counted_of(&partial.plain), CountedBy::Another(partial.plain.digest()?)),
                None => match self.execution.count(part.members).await? {
                    Ok((counted, judged)) => (counted, CountedBy::Us(judged)),
                    Err(stop) => return Ok(Err(stop)),
                },
            };
            all.append(counted);
            part.counted = Some(by);
        }
        all.name_each_once();
        Ok(Ok(all))
    }

    /// Leaves the partial sums aside, whatever they say. Whether there were any.
    pub(super) fn distrust(&mut self) -> bool {
        let is_used = |part: &Part<'_>| matches!(part.counted, Some(CountedBy::Another(_)));
        let any = self.parts.iter().any(is_used);
        self.parts.iter_mut().for_each(|part| part.there = false);
        any
    }

    /// The sum of what was counted. `None`: a partial sum is damaged or another now, and what it said isn't to be believed:
    /// all must be counted again, that part here.
    pub(super) async fn sum(&mut self) -> Result<Result<Option<Zeroizing<Vec<u32>>>, Stop>, WorkError> {
        let mut total = Zeroizing::new(vec![0; self.frozen.plan.shape.bins as usize]);
        for part in &mut self.parts {
            let added = match &part.counted {
                Some(CountedBy::Us(judged)) => self.execution.sum(judged).await?.map(|sum| Some(sum.total)),
                Some(CountedBy::Another(digest)) => part.open(self.execution, self.frozen, digest).await?,
                None => Ok(None),
            };
            match added {
                Ok(Some(sum)) => proof::accumulate(&mut total, &sum),
                Ok(None) => {
                    tracing::warn!(range = %part.range, "summing the part from its records instead");
                    part.there = false;
                    return Ok(Ok(None));
                }
                Err(stop) => return Ok(Err(stop)),
            }
        }
        Ok(Ok(Some(total)))
    }
}

impl Part<'_> {
    /// Its partial sum, if there is one of this plan and these members. Of nobody there is nothing to read.
    async fn read(&self, execution: &Execution<'_>, frozen: &Frozen) -> Result<Option<Partial>, WorkError> {
        if !self.there || self.members.is_empty() {
            return Ok(None);
        }
        let key = execution.window.partial_key(&self.range);
        let ledger = &*execution.processor.mailboxes.ledger;
        let Some(bytes) = read_if_there(ledger, &key, Partial::MAX_BYTES).await? else {
            return Ok(None);
        };
        match Partial::from_bytes(&key, &bytes) {
            Ok(partial) => {
                let plain = &partial.plain;
                let ours = plain.plan_digest == hex(&frozen.digest) && plain.range == self.range.to_string();
                Ok((ours && plain.is_of(self.members.len())).then_some(partial))
            }
            Err(error) => {
                tracing::warn!(%error, "counting the part again");
                Ok(None)
            }
        }
    }

    /// Opens its partial sum, which also proves what was said beside it. `None`: it doesn't open, or is another now.
    async fn open(
        &self,
        execution: &Execution<'_>,
        frozen: &Frozen,
        counted: &[u8; 32],
    ) -> Result<Result<Option<Zeroizing<Vec<u32>>>, Stop>, WorkError> {
        let Some(Partial { plain, sealed, .. }) = self.read(execution, frozen).await? else {
            return Ok(Ok(None));
        };
        let digest = plain.digest()?;
        if digest != *counted || plain.packet_keys.is_empty() {
            return Ok(Ok(None));
        }
        let mut keys = Vec::with_capacity(plain.packet_keys.len());
        for Base64(point) in &plain.packet_keys {
            let Some(key) = mounted(execution.processor, point) else {
                let what = format!("{} is sealed under", execution.window.partial_key(&self.range));
                return Ok(Err(not_mounted(&what, point)));
            };
            keys.push(key);
        }
        let share = execution.processor.share;
        let opened = open_partial(&keys, &frozen.digest, share, &plain.range, &digest, &sealed.0);
        let bins = frozen.plan.shape.bins as usize;
        Ok(Ok(opened.ok().filter(|sum| sum.len() == bins)))
    }
}

/// Counts and sums a range of a plan's members and leaves the sealed partial sum, unless that was done.
pub(super) async fn make_partial(
    execution: &Execution<'_>,
    frozen: &Frozen,
    range: &BatchRange,
) -> Result<Result<(), Stop>, WorkError> {
    let (processor, window) = (execution.processor, execution.window);
    let key = window.partial_key(range);
    if processor.mailboxes.ledger.head(&key).await?.is_some() {
        return Ok(Ok(()));
    }
    let (counted, judged) = match execution.count(members_of(frozen, window, range)).await? {
        Ok(counted) => counted,
        Err(stop) => return Ok(Err(stop)),
    };
    let sum = match execution.sum(&judged).await? {
        Ok(sum) => sum,
        Err(stop) => return Ok(Err(stop)),
    };
    let plain = PartialPlain {
        plan_digest: hex(&frozen.digest),
        range: range.to_string(),
        packets: counted.packets,
        clients: counted.clients,
        invalid_proofs: counted.invalid_proofs,
        missing_peer_messages: counted.missing_peer_messages,
        excluded_packets: counted.excluded_packets,
        members: counted.members.iter().map(|member| member.clients).collect(),
        counted: Base64(counted.members.iter().flat_map(|member| member.digest).collect()),
        invalid: Base64(counted.invalid.iter().flat_map(|uuid| *uuid.as_bytes()).collect()),
        packet_keys: sum.keys.iter().map(|point| Base64(point.to_vec())).collect(),
    };
    let keys: Vec<_> = sum.keys.iter().filter_map(|point| mounted(processor, point)).collect();
    let sealed = if counted.members.is_empty() {
        Vec::new()
    } else if keys.is_empty() || keys.len() < sum.keys.len() {
        // No intake of ours writes such records. Whoever sums the window needs no seal for them.
        let message = format!("a record of {range} names no packet key that is mounted");
        return Ok(Err(Stop::Failed(FailedReason::RecordLost, message)));
    } else {
        let digest = plain.digest()?;
        seal_partial(
            &keys,
            &frozen.digest,
            processor.share,
            &plain.range,
            &digest,
            &sum.total,
        )
    };
    let partial = Partial {
        revision: REVISION,
        plain,
        sealed: Base64(sealed),
    };
    // Where another worker was first, its bytes are the same.
    put(&*processor.mailboxes.ledger, &key, &partial.to_bytes()?.into()).await?;
    Ok(Ok(()))
}

fn mounted<'a>(processor: &'a Processor, point: &[u8]) -> Option<&'a PacketDecryptionKey> {
    processor.mounted(point).map(|index| &processor.packet_keys[index].key)
}

fn counted_of(plain: &PartialPlain) -> Counted {
    Counted {
        packets: plain.packets,
        clients: plain.clients,
        invalid_proofs: plain.invalid_proofs,
        missing_peer_messages: plain.missing_peer_messages,
        excluded_packets: plain.excluded_packets,
        members: plain
            .counted_digests()
            .zip(&plain.members)
            .map(|(digest, clients)| CountedMember {
                clients: *clients,
                digest,
            })
            .collect(),
        invalid: Arc::new(plain.invalid_uuids().collect()),
    }
}

/// The plan's members in a range.
fn members_of<'a>(frozen: &'a Frozen, window: &WindowId, range: &BatchRange) -> &'a [Member] {
    let members = frozen.plan.members.as_slice();
    let whole = BatchRange::whole(window);
    let from = if range.begin() == whole.begin() {
        0
    } else {
        first_after(members, &range.begin())
    };
    let to = if range.end() == whole.end() {
        members.len()
    } else {
        first_after(members, &range.end())
    };
    &members[from..to.max(from)]
}

/// The first of the members that isn't before the cut. They are sorted by name.
fn first_after(members: &[Member], cut: &Cut) -> usize {
    members.partition_point(|member| cut.is_after(&member.time, member.uuid))
}
