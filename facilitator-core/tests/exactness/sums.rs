//! What sums must be: of exactly the clients that both parties answered and whose values are bits, and beside them the exact
//! list of all others.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::batch::{hex, read_header, read_packets, read_signature};
use facilitator_core::formats::ledger::{Released, Verdict, WindowResult};
use facilitator_core::formats::names::{BatchId, SumPartPart, ValidationPart, WindowId};
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::record::{Message, PacketExclusion, PacketState};
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::ValidationPacket;
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{self, proof_holds};
use uuid::Uuid;

use crate::check::{Objects, members, parse, record};
use crate::truth::Truth;
use crate::world::{Content, Place, instance, place};

/// What must become of some members of a plan.
#[derive(Default)]
pub struct Expected {
    pub batches: u64,
    pub packets: u64,
    pub clients: u64,
    pub invalid_proofs: u64,
    pub missing_peer_messages: u64,
    pub excluded: u64,
    pub sum: Vec<u32>,
    /// Clients of each member.
    pub members: Vec<u64>,
    /// SHA-256 over the UUIDs of the clients of each member, one after another.
    pub counted: Vec<u8>,
    /// Each packet that isn't counted once, in order of (batch, packet).
    pub invalid: Vec<Uuid>,
    /// The clients: batch and packet.
    pub client_set: Vec<(Uuid, usize)>,
}

/// The first message of each UUID in the validation batch that is there.
fn messages(id: &BatchId, writer: Share, there: &Objects) -> Result<HashMap<Uuid, Option<Message>>, String> {
    let empty = Bytes::new();
    let read = |part| there.get(id.validation_key(writer, part).as_str()).unwrap_or(&empty);
    let wrong = |error: &dyn std::fmt::Display| format!("the peer's answer to {}: {error}", id.path());
    let signature = read_signature(read(ValidationPart::Signature)).map_err(|error| wrong(&error))?;
    let packets = match signature.inline() {
        Some((_, packets)) => packets,
        None => read(ValidationPart::Packets),
    };
    let mut messages = HashMap::new();
    for packet in ValidationPacket::read_all(packets).map_err(|error| wrong(&error))? {
        messages.entry(packet.uuid).or_insert(packet.message());
    }
    Ok(messages)
}

/// Whether two shares of the values are of bits.
fn are_bits(one: &[u32], other: &[u32]) -> bool {
    one.iter().zip(other).all(|(one, other)| proof::add(*one, *other) <= 1)
}

impl Truth {
    /// What must become of batches that both parties answered.
    pub fn expected(&self, share: Share, batches: &[BatchId], bins: usize, now: &Content) -> Result<Expected, String> {
        let mut all = Expected {
            sum: vec![0; bins],
            ..Expected::default()
        };
        let mut named = HashSet::new();
        for id in batches {
            self.expect(share, id, now, &mut all)
                .map_err(|detail| format!("{}: {detail}", id.path()))?
                .into_iter()
                .for_each(|uuid| {
                    if named.insert(uuid) {
                        all.invalid.push(uuid);
                    }
                });
        }
        Ok(all)
    }

    /// Adds a batch; returns the UUIDs that it doesn't count, in its order.
    fn expect(&self, share: Share, id: &BatchId, now: &Content, all: &mut Expected) -> Result<Vec<Uuid>, String> {
        let of = |share| {
            let record = record(&now[place(share, Place::Ledger)], id)?.ok_or_else(|| "no record".to_owned())?;
            Ok::<_, String>((self.version_of(share, &record)?, record))
        };
        let ((ours, own_record), (theirs, peer_record)) = (of(share)?, of(share.peer())?);
        let peer_values: HashMap<Uuid, &Option<Vec<u32>>> = peer_record
            .plain
            .included()
            .map(|(index, uuid, ..)| (uuid, &theirs.packets[index].values))
            .collect();
        let messages = messages(id, share.peer(), &now[place(share, Place::PeerValidation)])?;
        let (mut clients, mut uncounted) = (Vec::new(), Vec::new());
        for (index, packet) in own_record.plain.packets.iter().enumerate() {
            all.packets += 1;
            let message = match packet.state {
                PacketState::In { message, .. } => message,
                PacketState::Excluded(reason) => {
                    all.excluded += 1;
                    // Its name is the first one's, which is a client or listed by itself.
                    if reason != PacketExclusion::DuplicateUuid {
                        uncounted.push(packet.uuid);
                    }
                    continue;
                }
            };
            let heard = messages.get(&packet.uuid).copied().flatten();
            let values = ours.packets[index]
                .values
                .as_ref()
                .ok_or("a packet that doesn't open is in")?;
            let is_client = match peer_values.get(&packet.uuid) {
                Some(Some(theirs)) => are_bits(values, theirs),
                _ => false,
            };
            if heard.is_some_and(|heard| proof_holds(message, heard)) != is_client {
                return Err(format!(
                    "packet {index}: the messages don't prove what is so, {is_client}"
                ));
            }
            if is_client {
                proof::accumulate(&mut all.sum, values);
                clients.extend(packet.uuid.into_bytes());
                all.client_set.push((id.uuid, index));
            } else {
                all.missing_peer_messages += u64::from(heard.is_none());
                all.invalid_proofs += u64::from(heard.is_some());
                uncounted.push(packet.uuid);
            }
        }
        let count = (clients.len() / 16) as u64;
        all.batches += 1;
        all.clients += count;
        all.members.push(count);
        all.counted.extend(sha256(&clients));
        Ok(uncounted)
    }

    /// As [`Truth::expected`], of the members of a window's plan.
    fn expected_of(&self, share: Share, window: &WindowId, now: &Content) -> Result<Expected, String> {
        let name = window.ledger_key("plans");
        let bytes = now[place(share, Place::Ledger)].get(name.as_str());
        let plan = parse::<Plan>(name.as_str(), bytes.ok_or("no plan")?)?;
        let members: Vec<BatchId> = members(name.as_str(), &plan)?.into_iter().map(|(id, _)| id).collect();
        self.expected(share, &members, plan.shape.bins as usize, now)
    }

    /// A reader that sees the signature sees the whole sum part, and it is the sum of exactly the clients of the plan, and
    /// names exactly the others. Its batches.
    pub fn check_sum_part(
        &mut self,
        share: Share,
        window: &WindowId,
        name: &str,
        now: &Content,
    ) -> Result<Vec<Uuid>, String> {
        let (ledger, portal) = (&now[place(share, Place::Ledger)], &now[place(share, Place::Portal)]);
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let empty = Bytes::new();
        let read = |part| {
            portal
                .get(window.sum_part_key(&instance(), share, part).as_str())
                .unwrap_or(&empty)
        };
        let (header, invalid) = (read(SumPartPart::Header), read(SumPartPart::InvalidPackets));
        let of = |folder: &str| ledger.get(window.ledger_key(folder).as_str()).unwrap_or(&empty);
        let signature = read(SumPartPart::Signature);
        let seen = sha256(&[&signature[..], header, invalid, of("plans"), of("released")].concat());
        let signature = read_signature(signature).map_err(|error| wrong(&error))?;
        let part: SumPart = read_header(&signature, header, &self.trusted).map_err(|error| wrong(&error))?;
        if self.good.contains(&seen) {
            return Ok(part.batch_uuids);
        }
        let invalid: Vec<InvalidPacket> = read_packets(&part, invalid).map_err(|error| wrong(&error))?;
        let plan = parse::<Plan>("plans", of("plans"))?;
        let members = members(name, &plan)?;
        let uuids = members.iter().map(|(id, _)| id.uuid);
        if uuids.ne(part.batch_uuids.iter().copied()) {
            return Err(wrong(&"isn't of the plan's batches"));
        }
        let expected = self.expected_of(share, window, now).map_err(|detail| wrong(&detail))?;
        let invalid: Vec<Uuid> = invalid.iter().map(|packet| packet.uuid).collect();
        if invalid != expected.invalid {
            let expected = expected.invalid;
            return Err(wrong(&format!(
                "the invalid list is {invalid:?} and should be {expected:?}"
            )));
        }
        let sum = expected.sum.iter().copied().map(i64::from);
        let clients = (part.total_individual_clients, i64::try_from(expected.clients));
        if sum.ne(part.sum.iter().copied()) || Ok(clients.0) != clients.1 {
            return Err(wrong(&"isn't the sum of the clients that it should count"));
        }
        let released = parse::<Released>("released", of("released"))?;
        if released.plan_digest != hex(&sha256(of("plans"))) {
            return Err(wrong(&"`released` is of another plan"));
        }
        if released.clients != expected.clients || released.packet_set_digest != hex(&sha256(&expected.counted)) {
            return Err(wrong(&"`released` is of other clients"));
        }
        self.good.insert(seen);
        Ok(part.batch_uuids)
    }

    /// A result says of the sum part what is there, and of the plan what must become of it.
    pub fn check_result(&self, share: Share, name: &str, bytes: &[u8], now: &Content) -> Result<(), String> {
        let portal = &now[place(share, Place::Portal)];
        let result = parse::<WindowResult>(name, bytes)?;
        let window = WindowId::parse(&name["results/".len()..]).map_err(|error| error.to_string())?;
        let read = |part| portal.get(window.sum_part_key(&instance(), share, part).as_str());
        let there = read(SumPartPart::Signature).is_some();
        if there != (result.verdict == Verdict::Summed) {
            let (verdict, reason) = (result.verdict, result.reason);
            return Err(format!(
                "{name} says {verdict:?} {reason:?}, the sum part is there: {there}"
            ));
        }
        if there && read(SumPartPart::Header).map(|bytes| hex(&sha256(bytes))) != result.sum_part_digest {
            return Err(format!("{name} has the digest of another sum part"));
        }
        if result.verdict == Verdict::Failed {
            return Ok(());
        }
        let expected = self.expected_of(share, &window, now)?;
        let said = [
            (result.batches, expected.batches),
            (result.packets, expected.packets),
            (result.clients, expected.clients),
            (result.invalid_proofs, expected.invalid_proofs),
            (result.missing_peer_messages, expected.missing_peer_messages),
            (result.excluded_packets, expected.excluded),
        ];
        match said.iter().all(|(said, expected)| said == expected) {
            true => Ok(()),
            false => Err(format!("{name} counts otherwise (said, and should be): {said:?}")),
        }
    }

    /// Clients that the same sums count, as the portal sees them, are none or at least the floor.
    pub fn check_groups(&self, share: Share, sums: &[WindowId], now: &Content) -> Result<(), String> {
        let mut counted_by: HashMap<(Uuid, usize), Vec<&WindowId>> = HashMap::new();
        for window in sums {
            for client in self.expected_of(share, window, now)?.client_set {
                counted_by.entry(client).or_default().push(window);
            }
        }
        let mut groups: HashMap<Vec<&WindowId>, usize> = HashMap::new();
        for windows in counted_by.into_values() {
            *groups.entry(windows).or_default() += 1;
        }
        match groups.iter().find(|(_, clients)| **clients < self.floor) {
            Some((windows, clients)) => Err(format!("{clients} clients are in {windows:?} alone")),
            None => Ok(()),
        }
    }
}
