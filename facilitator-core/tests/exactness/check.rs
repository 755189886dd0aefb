//! What must hold after every single change to any store, and at the end. Nothing here asks the code under test how it
//! did: objects are read as a partner or an auditor reads them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use facilitator_core::crypto::ecies::ephemeral_point;
use facilitator_core::crypto::{PublicPoint, TrustedKeys, sha256};
use facilitator_core::formats::batch::{hex, read_header, read_packets, read_signature};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::ledger::{Delivered, LedgerObject, Released, Verdict, WindowResult};
use facilitator_core::formats::names::{
    BatchId, IngestionPart, SumPartPart, ValidationPart, WindowId, parse_ingestion_name, parse_sum_part_name,
    parse_validation_name,
};
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::record::Record;
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use facilitator_core::processor::{MountedPacketKey, Processor};
use facilitator_core::proof;
use uuid::Uuid;

use crate::world::{Content, Mounts, Place, SHARES, Setup, World, place};

pub type Objects = BTreeMap<String, Bytes>;

/// A batch's packets: the UUID and, where it opens, our share of the values.
pub type Packets = Vec<(Uuid, Option<Vec<u32>>)>;

/// What is true of a world, found by decrypting everything.
pub struct Truth {
    trusted: TrustedKeys,
    /// By share and batch.
    pub batches: [HashMap<String, Packets>; 2],
    /// The packets' ephemeral keys, by share and batch.
    ephemeral_keys: [HashMap<String, Vec<PublicPoint>>; 2],
    /// Validation batches and sum parts found good already, by the digest of all that was looked at.
    pub good: HashSet<[u8; 32]>,
    /// Where a window is released again, all sums together tell of nobody or of so many.
    pub floor: usize,
    last: Content,
    /// By share, every packet key.
    pub keys: [Arc<[MountedPacketKey]>; 2],
}

impl Truth {
    pub fn of(world: &World) -> Self {
        let batches = SHARES.map(|share| {
            let processor = all_keys(world, share);
            let there = world.places[place(share, Place::Ingestion)].snapshot();
            let mut batches = HashMap::new();
            for (name, bytes) in &there {
                let Some((id, IngestionPart::Packets)) = parse_ingestion_name(name) else {
                    continue;
                };
                let header = IngestionHeader::read(&there[id.ingestion_key(IngestionPart::Header).as_str()]).unwrap();
                let bins = header.parameters.check().unwrap();
                let open = |packet: &DataSharePacket| {
                    let keys = processor.packet_keys.iter();
                    let plaintext = keys
                        .filter_map(|key| key.key.decrypt(&packet.encrypted_payload).ok())
                        .next()?;
                    let elements = match share {
                        Share::First => proof::parse_first_share(&plaintext, bins),
                        Share::Second => proof::parse_second_share(&plaintext, bins),
                    };
                    Some(elements.ok()?[..bins as usize].to_vec())
                };
                let packets = DataSharePacket::read_all(bytes).unwrap();
                batches.insert(
                    id.path(),
                    packets.iter().map(|packet| (packet.uuid, open(packet))).collect(),
                );
            }
            batches
        });
        let ephemeral_keys = SHARES.map(|share| {
            let there = world.places[place(share, Place::Ingestion)].snapshot();
            let packets = there.iter().filter_map(|(name, bytes)| {
                let (id, part) = parse_ingestion_name(name)?;
                (part == IngestionPart::Packets).then(|| (id.path(), DataSharePacket::read_all(bytes).unwrap()))
            });
            let of = |packet: &DataSharePacket| *ephemeral_point(&packet.encrypted_payload).unwrap();
            packets
                .map(|(path, packets)| (path, packets.iter().map(of).collect()))
                .collect()
        });
        Self {
            trusted: world.keys.trusted.clone(),
            batches,
            ephemeral_keys,
            good: HashSet::new(),
            floor: 1,
            last: world.content(),
            keys: SHARES.map(|share| all_keys(world, share).packet_keys),
        }
    }

    /// Forgets what was there: the world was set back.
    pub fn restart(&mut self, content: &Content) {
        self.last.clone_from(content);
    }

    /// Checks everything that must hold at any moment.
    pub fn check(&mut self, world: &World) -> Result<(), String> {
        let now = world.content();
        for (number, (before, after)) in self.last.iter().zip(&now).enumerate() {
            if number % 4 == Place::Ingestion as usize {
                continue;
            }
            for (name, bytes) in before {
                match after.get(name) {
                    Some(there) if there == bytes => {}
                    Some(_) => return Err(format!("{name} was overwritten")),
                    None => return Err(format!("{name} was deleted")),
                }
            }
        }
        for share in SHARES {
            self.check_party(share, &now)
                .map_err(|detail| format!("{share:?}: {detail}"))?;
        }
        self.last = now;
        Ok(())
    }

    fn check_party(&mut self, share: Share, now: &Content) -> Result<(), String> {
        let (ledger, portal) = (&now[place(share, Place::Ledger)], &now[place(share, Place::Portal)]);
        let peer = &now[place(share.peer(), Place::PeerValidation)];
        for name in peer.keys() {
            match parse_validation_name(name) {
                Some((id, writer, part)) if writer == share => {
                    let record = record(ledger, &id)?.ok_or_else(|| format!("{name} has no record behind it"))?;
                    if part == ValidationPart::Signature {
                        self.check_validation(share, &id, &record, peer)?;
                    }
                }
                _ => return Err(format!("a strange object {name}")),
            }
        }
        for (name, bytes) in ledger
            .range("delivered/".to_owned()..)
            .take_while(|(name, _)| name.starts_with("delivered/"))
        {
            let delivered = parse::<Delivered>(name, bytes)?;
            let id = BatchId::parse(&name["delivered/".len()..]).map_err(|error| error.to_string())?;
            let record = record(ledger, &id)?.ok_or_else(|| format!("{name} without a record"))?;
            if delivered.record_digest != hex(&record.plain.digest()) || !peer.contains_key(&delivered.signature_object)
            {
                return Err(format!("{name} says of another record or of nothing"));
            }
        }
        for (name, bytes) in ledger
            .range("plans/".to_owned()..)
            .take_while(|(name, _)| name.starts_with("plans/"))
        {
            let plan = parse::<Plan>(name, bytes)?;
            for (id, digest) in members(name, &plan)? {
                let record = record(ledger, &id)?.ok_or_else(|| format!("{name}: {} has no record", id.path()))?;
                if hex(&record.plain.digest()) != digest {
                    return Err(format!("{name}: {} has another record", id.path()));
                }
            }
        }
        for (name, bytes) in ledger
            .range("partials/".to_owned()..)
            .take_while(|(name, _)| name.starts_with("partials/"))
        {
            self.check_partial(share, name, bytes, ledger)?;
        }
        self.check_answered_once(share, ledger)?;
        let mut summed: HashMap<Uuid, String> = HashMap::new();
        let mut sums: Vec<WindowId> = Vec::new();
        for (name, bytes) in portal {
            let (_, window, writer, part) =
                parse_sum_part_name(name).ok_or_else(|| format!("a strange object {name}"))?;
            let said = |folder| ledger.contains_key(window.ledger_key(folder).as_str());
            if writer != share || !said("released") || !said("decisions") {
                return Err(format!("{name} without `released` and `decisions`"));
            }
            if part != SumPartPart::Signature {
                continue;
            }
            for uuid in self.check_sum_part(share, &window, name, bytes, now)? {
                if window.release() > 1 {
                    continue;
                }
                if let Some(other) = summed.insert(uuid, name.clone()) {
                    return Err(format!("batch {uuid} is in two released sums: {other} and {name}"));
                }
            }
            sums.push(window);
        }
        if sums.iter().any(|window| window.release() > 1) {
            self.check_groups(share, &sums, portal)?;
        }
        for (name, bytes) in ledger
            .range("results/".to_owned()..)
            .take_while(|(name, _)| name.starts_with("results/"))
        {
            let result = parse::<WindowResult>(name, bytes)?;
            let window = WindowId::parse(&name["results/".len()..]).map_err(|error| error.to_string())?;
            let key = |part| window.sum_part_key(&crate::world::instance(), share, part);
            let there = portal.contains_key(key(SumPartPart::Signature).as_str());
            if there != (result.verdict == Verdict::Summed) {
                return Err(format!(
                    "{name} says {:?} {:?}, the sum part is there: {there}",
                    result.verdict, result.reason
                ));
            }
            let header = portal.get(key(SumPartPart::Header).as_str());
            if there && header.map(|bytes| hex(&sha256(bytes))) != result.sum_part_digest {
                return Err(format!("{name} has the digest of another sum part"));
            }
        }
        Ok(())
    }

    /// Clients that the same sums count, as the portal sees them, are none or at least the floor.
    fn check_groups(&self, share: Share, sums: &[WindowId], portal: &Objects) -> Result<(), String> {
        let mut counted_by: HashMap<(Uuid, Uuid), Vec<&WindowId>> = HashMap::new();
        for window in sums {
            let read = |part| {
                portal
                    .get(window.sum_part_key(&crate::world::instance(), share, part).as_str())
                    .map_or(&[][..], |bytes| bytes)
            };
            let part = SumPart::read(read(SumPartPart::Header)).map_err(|error| error.to_string())?;
            let invalid =
                InvalidPacket::read_all(read(SumPartPart::InvalidPackets)).map_err(|error| error.to_string())?;
            let invalid: HashSet<Uuid> = invalid.iter().map(|packet| packet.uuid).collect();
            for (batch, packets) in &self.batches[usize::from(share.index())] {
                let batch = BatchId::parse(batch).map_err(|error| error.to_string())?.uuid;
                if !part.batch_uuids.contains(&batch) {
                    continue;
                }
                for (packet, _) in packets.iter().filter(|(packet, _)| !invalid.contains(packet)) {
                    counted_by.entry((batch, *packet)).or_default().push(window);
                }
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

    /// No packet is answered in two batches, whatever UUID it has there.
    fn check_answered_once(&self, share: Share, ledger: &Objects) -> Result<(), String> {
        let mut answered: HashMap<&PublicPoint, &str> = HashMap::new();
        for (path, keys) in &self.ephemeral_keys[usize::from(share.index())] {
            let id = BatchId::parse(path).map_err(|error| error.to_string())?;
            let Some(record) = record(ledger, &id)? else { continue };
            for (packet, ..) in record.plain.included() {
                if let Some(other) = answered.insert(&keys[packet], path)
                    && other != path
                {
                    return Err(format!("packet {packet} of {path} is answered in {other} as well"));
                }
            }
        }
        Ok(())
    }

    /// A reader that sees the signature sees the whole validation batch, and it says what the record says.
    fn check_validation(&mut self, share: Share, id: &BatchId, record: &Record, peer: &Objects) -> Result<(), String> {
        let read = |part| peer.get(id.validation_key(share, part).as_str());
        let [signature, header, packets] = [
            ValidationPart::Signature,
            ValidationPart::Header,
            ValidationPart::Packets,
        ]
        .map(read);
        let empty = Bytes::new();
        let all = [signature, header, packets].map(|bytes| bytes.unwrap_or(&empty).as_ref());
        let seen = sha256(&[&record.encode(), all[0], all[1], all[2]].concat());
        if self.good.contains(&seen) {
            return Ok(());
        }
        let what = format!("validation batch of {}", id.path());
        let wrong = |error: &dyn std::fmt::Display| format!("{what}: {error}");
        let signature = read_signature(all[0]).map_err(|error| wrong(&error))?;
        let (header, packets) = signature.inline().unwrap_or((all[1], all[2]));
        let header: ValidationHeader = read_header(&signature, header, &self.trusted).map_err(|error| wrong(&error))?;
        let packets: Vec<ValidationPacket> = read_packets(&header, packets).map_err(|error| wrong(&error))?;
        let answered: Vec<_> = packets
            .iter()
            .filter_map(|packet| Some((packet.uuid, packet.message()?)))
            .collect();
        let recorded: Vec<_> = record
            .plain
            .included()
            .map(|(_, uuid, _, message)| (uuid, message))
            .collect();
        if answered != recorded {
            return Err(wrong(&"says something else than the record"));
        }
        let truth = &self.batches[usize::from(share.index())][&id.path()];
        let mut named = HashSet::new();
        let all_once = record.plain.packets.len() == truth.len()
            && record
                .plain
                .packets
                .iter()
                .zip(truth)
                .all(|(packet, (uuid, _))| packet.uuid == *uuid && named.insert(*uuid));
        if !all_once {
            return Err(format!("record of {}: not every packet once", id.path()));
        }
        self.good.insert(seen);
        Ok(())
    }

    /// A reader that sees the signature sees the whole sum part, and it is the sum of exactly what it says.
    fn check_sum_part(
        &mut self,
        share: Share,
        window: &WindowId,
        name: &str,
        signature: &[u8],
        now: &Content,
    ) -> Result<Vec<Uuid>, String> {
        let (ledger, portal) = (&now[place(share, Place::Ledger)], &now[place(share, Place::Portal)]);
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let empty = Bytes::new();
        let read = |part| {
            portal
                .get(window.sum_part_key(&crate::world::instance(), share, part).as_str())
                .unwrap_or(&empty)
        };
        let (header, invalid) = (read(SumPartPart::Header), read(SumPartPart::InvalidPackets));
        let of = |folder: &str| ledger.get(window.ledger_key(folder).as_str()).unwrap_or(&empty);
        let seen = sha256(&[signature, header, invalid, of("plans"), of("released")].concat());
        let signature = read_signature(signature).map_err(|error| wrong(&error))?;
        let part: SumPart = read_header(&signature, header, &self.trusted).map_err(|error| wrong(&error))?;
        if self.good.contains(&seen) {
            return Ok(part.batch_uuids);
        }
        let invalid: Vec<InvalidPacket> = read_packets(&part, invalid).map_err(|error| wrong(&error))?;
        let invalid: HashSet<Uuid> = invalid.iter().map(|packet| packet.uuid).collect();
        let plan = parse::<Plan>("plans", of("plans"))?;
        let released = parse::<Released>("released", of("released"))?;
        let members = members(name, &plan)?;
        if members
            .iter()
            .map(|(id, _)| id.uuid)
            .ne(part.batch_uuids.iter().copied())
        {
            return Err(wrong(&"isn't of the plan's batches"));
        }
        let mut sum = vec![0; part.sum.len()];
        let mut clients = 0;
        for (id, _) in &members {
            let record = record(ledger, id)?.ok_or_else(|| wrong(&"no record"))?;
            let in_record: HashSet<Uuid> = record.plain.included().map(|(_, uuid, _, _)| uuid).collect();
            for (uuid, values) in &self.batches[usize::from(share.index())][&id.path()] {
                if invalid.contains(uuid) {
                    continue;
                }
                let values = values
                    .as_ref()
                    .ok_or_else(|| wrong(&"counts a packet that doesn't open"))?;
                if !in_record.contains(uuid) {
                    return Err(format!("{name}: counts packet {uuid}, which the record excludes"));
                }
                proof::accumulate(&mut sum, values);
                clients += 1;
            }
        }
        let says: Vec<u32> = part
            .sum
            .iter()
            .map(|value| u32::try_from(*value).unwrap_or(u32::MAX))
            .collect();
        if says != sum || part.total_individual_clients != clients || released.clients != clients.cast_unsigned() {
            return Err(wrong(&"isn't the sum of the packets that it counts"));
        }
        if released.plan_digest != hex(&sha256(of("plans"))) {
            return Err(wrong(&"`released` is of another plan"));
        }
        self.good.insert(seen);
        Ok(part.batch_uuids)
    }
}

fn all_keys(world: &World, share: Share) -> Processor {
    let setup = Setup {
        mounts: Mounts::Both,
        ..Setup::of(share)
    };
    world.processor(&setup, &crate::gate::Gate::open())
}

pub fn parse<T: LedgerObject>(name: &str, bytes: &[u8]) -> Result<T, String> {
    T::from_bytes(&name.parse().map_err(|_| "a name".to_owned())?, bytes).map_err(|error| error.to_string())
}

fn record(ledger: &Objects, id: &BatchId) -> Result<Option<Record>, String> {
    let bytes = ledger.get(id.ledger_key("records").as_str());
    bytes
        .map(|bytes| Record::decode(bytes))
        .transpose()
        .map_err(|error| format!("record of {}: {error}", id.path()))
}

pub fn members(name: &str, plan: &Plan) -> Result<Vec<(BatchId, String)>, String> {
    let id = |member: &facilitator_core::formats::plan::Member| {
        let path = format!("{}/{}/{}", plan.aggregation, member.time, member.uuid);
        let id = BatchId::parse(&path).map_err(|error| format!("{name}: {error}"))?;
        Ok((id, member.record_digest.clone()))
    };
    plan.members.iter().map(id).collect()
}

/// `put` says whether this run or one before it stored the object: all that a fault may change in the bytes.
pub fn but_put(content: &Content) -> Vec<BTreeMap<String, Vec<u8>>> {
    let plain = |(name, bytes): (&String, &Bytes)| {
        let is_json = name.starts_with("delivered/") || name.starts_with("results/");
        let text = if is_json {
            String::from_utf8(bytes.to_vec()).unwrap_or_default()
        } else {
            String::new()
        };
        let bytes = if is_json {
            text.replace(r#""put":"SameBytes""#, r#""put":"Created""#).into_bytes()
        } else {
            bytes.to_vec()
        };
        (name.clone(), bytes)
    };
    content
        .iter()
        .map(|mailbox| mailbox.iter().map(plain).collect())
        .collect()
}

/// The first name in which two contents differ.
pub fn difference(there: &Content, expected: &Content) -> Option<String> {
    let (there, expected) = (but_put(there), but_put(expected));
    for (there, expected) in there.iter().zip(&expected) {
        for name in there.keys().chain(expected.keys()) {
            if there.get(name) != expected.get(name) {
                let how = match (there.get(name), expected.get(name)) {
                    (Some(_), Some(_)) => "has other bytes",
                    (Some(_), None) => "shouldn't be there",
                    _ => "is missing",
                };
                return Some(format!("{name} {how}"));
            }
        }
    }
    None
}
