//! What must hold after every single change to any store, and at the end. Nothing here asks the code under test how it
//! did: objects are read as a partner or an auditor reads them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use facilitator_core::crypto::{PublicPoint, sha256};
use facilitator_core::formats::batch::{hex, read_header, read_packets, read_signature};
use facilitator_core::formats::ledger::{Delivered, LedgerObject, Rejected, RejectedReason};
use facilitator_core::formats::names::{
    BatchId, SumPartPart, ValidationPart, WindowId, parse_sum_part_name, parse_validation_name,
};
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::record::Record;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::Share;
use uuid::Uuid;

use crate::truth::{Truth, batch_in};
use crate::world::{Content, Place, place};

pub type Objects = BTreeMap<String, Bytes>;

/// The objects of a folder.
pub fn in_folder<'a>(ledger: &'a Objects, folder: &'a str) -> impl Iterator<Item = (&'a String, &'a Bytes)> {
    ledger
        .range(format!("{folder}/")..)
        .take_while(move |(name, _)| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

impl Truth {
    pub fn check_party(&mut self, share: Share, now: &Content) -> Result<(), String> {
        let ledger = &now[place(share, Place::Ledger)];
        self.check_answers(share, now)?;
        self.check_answered_once(share, ledger)?;
        if self.marked {
            self.check_marks(share, ledger)?;
        }
        for (name, bytes) in in_folder(ledger, "rejected") {
            let rejected = parse::<Rejected>(name, bytes)?;
            let digest = rejected.header_digest.as_deref().and_then(unhex);
            if rejected.reason == RejectedReason::NoUsablePackets
                && digest.is_some_and(|digest| !self.is_unusable(share, &digest))
            {
                return Err(format!("{name} refuses packets that must be answered"));
            }
        }
        for (name, bytes) in in_folder(ledger, "plans") {
            let plan = parse::<Plan>(name, bytes)?;
            for (id, digest) in members(name, &plan)? {
                let record = record(ledger, &id)?.ok_or_else(|| format!("{name}: {} has no record", id.path()))?;
                if hex(&record.plain.digest()) != digest {
                    return Err(format!("{name}: {} has another record", id.path()));
                }
            }
        }
        for (name, bytes) in in_folder(ledger, "partials") {
            self.check_partial(share, name, bytes, now)?;
        }
        self.check_released(share, now)?;
        for (name, bytes) in in_folder(ledger, "results") {
            self.check_result(share, name, bytes, now)?;
        }
        Ok(())
    }

    /// Records, and what is said of them at the peer's and in `delivered`.
    fn check_answers(&mut self, share: Share, now: &Content) -> Result<(), String> {
        let ledger = &now[place(share, Place::Ledger)];
        let peer = &now[place(share.peer(), Place::PeerValidation)];
        for (name, bytes) in in_folder(ledger, "records") {
            let seen = sha256(&[name.as_bytes(), bytes].concat());
            if !self.good.contains(&seen) {
                let id = batch_in(name, "records")?;
                let record = record(ledger, &id)?.ok_or_else(|| format!("{name} is gone"))?;
                self.check_record(share, &record)?;
                self.good.insert(seen);
            }
        }
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
        for (name, bytes) in in_folder(ledger, "delivered") {
            let delivered = parse::<Delivered>(name, bytes)?;
            let id = batch_in(name, "delivered")?;
            let record = record(ledger, &id)?.ok_or_else(|| format!("{name} without a record"))?;
            if delivered.record_digest != hex(&record.plain.digest()) || !peer.contains_key(&delivered.signature_object)
            {
                return Err(format!("{name} says of another record or of nothing"));
            }
        }
        Ok(())
    }

    /// No packet is answered in two batches, whatever UUID it has there.
    fn check_answered_once(&self, share: Share, ledger: &Objects) -> Result<(), String> {
        let mut answered: HashMap<PublicPoint, String> = HashMap::new();
        for (name, _) in in_folder(ledger, "records") {
            let path = batch_in(name, "records")?.path();
            let record = record(ledger, &batch_in(name, "records")?)?.ok_or_else(|| format!("{name} is gone"))?;
            let version = self.version_of(share, &record)?;
            for (packet, ..) in record.plain.included() {
                if let Some(other) = answered.insert(version.packets[packet].ephemeral, path.clone()) {
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
        if answered != recorded || packets.len() != recorded.len() {
            return Err(wrong(&"says something else than the record"));
        }
        self.good.insert(seen);
        Ok(())
    }

    /// Whatever is in the portal: whole, announced and decided, and no batch in two sums, but under an override.
    fn check_released(&mut self, share: Share, now: &Content) -> Result<(), String> {
        let (ledger, portal) = (&now[place(share, Place::Ledger)], &now[place(share, Place::Portal)]);
        let mut summed: HashMap<Uuid, String> = HashMap::new();
        let mut sums: Vec<WindowId> = Vec::new();
        for name in portal.keys() {
            let (_, window, writer, part) =
                parse_sum_part_name(name).ok_or_else(|| format!("a strange object {name}"))?;
            let said = |folder| ledger.contains_key(window.ledger_key(folder).as_str());
            if writer != share || !said("released") || !said("decisions") {
                return Err(format!("{name} without `released` and `decisions`"));
            }
            if part != SumPartPart::Signature {
                continue;
            }
            for uuid in self.check_sum_part(share, &window, name, now)? {
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
            self.check_groups(share, &sums, now)?;
        }
        Ok(())
    }
}

/// A digest in hex.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let bytes: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

pub fn parse<T: LedgerObject>(name: &str, bytes: &[u8]) -> Result<T, String> {
    T::from_bytes(&name.parse().map_err(|_| "a name".to_owned())?, bytes).map_err(|error| error.to_string())
}

pub fn record(ledger: &Objects, id: &BatchId) -> Result<Option<Record>, String> {
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
