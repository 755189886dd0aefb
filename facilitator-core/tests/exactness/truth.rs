//! What is true of a world, found by decrypting everything with every key, and from what is in the ingestion batches alone:
//! which packets may be answered, and which clients must be counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use facilitator_core::crypto::ecies::ephemeral_point;
use facilitator_core::crypto::{PublicPoint, TrustedKeys, sha256};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart, parse_ingestion_name};
use facilitator_core::formats::record::{PacketExclusion, PacketState, Record};
use facilitator_core::formats::work::Share;
use facilitator_core::processor::MountedPacketKey;
use facilitator_core::proof::{self, PRIME};
use uuid::Uuid;

use crate::gate::Gate;
use crate::world::{Content, Place, SHARES, Setup, World, digest_of, place};

/// Something that must never be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The stores hold something wrong; otherwise a worker failed, or left something else than it should.
    pub is_of_truth: bool,
    pub detail: String,
}

impl Violation {
    pub fn of_truth(detail: String) -> Self {
        Self {
            is_of_truth: true,
            detail,
        }
    }

    /// Says where it was.
    pub fn at(self, place: impl fmt::Display) -> Self {
        let detail = format!("{place}: {}", self.detail);
        Self { detail, ..self }
    }
}

impl From<String> for Violation {
    fn from(detail: String) -> Self {
        Self {
            is_of_truth: false,
            detail,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// A packet of an ingestion batch, as one who has every key sees it.
pub struct Packet {
    pub uuid: Uuid,
    pub ephemeral: PublicPoint,
    /// Our share of the values, where it opens and is of the batch's shape.
    pub values: Option<Vec<u32>>,
    /// Only the second packet key opens it.
    needs_second_key: bool,
    /// Why it may not be answered, whatever is in other batches: none, and it must be.
    reasons: BTreeSet<PacketExclusion>,
}

/// The packets of a batch under one header: an ingestor may write another in its place.
pub struct Version {
    pub packet_digest: [u8; 32],
    pub packets: Vec<Packet>,
}

/// What is true of a world, and what was found good already.
pub struct Truth {
    pub trusted: TrustedKeys,
    /// By share, then by the digest of the ingestion header.
    versions: [HashMap<[u8; 32], Version>; 2],
    /// By share and ephemeral key, the headers' digests of all batches that hold it.
    holders: [HashMap<PublicPoint, BTreeSet<[u8; 32]>>; 2],
    /// Some worker has the first packet key alone.
    pub lacks_a_key: bool,
    /// The keys are a ring's, of both parties and all the time.
    pub marked: bool,
    /// Validation batches, sum parts and whole worlds found good already, by the digest of all that was looked at.
    pub good: HashSet<[u8; 32]>,
    /// Where a window is released again, all sums together tell of nobody or of so many.
    pub floor: usize,
    last: Content,
    /// By share, every packet key.
    pub keys: [Arc<[MountedPacketKey]>; 2],
}

impl Truth {
    pub fn of(world: &World) -> Self {
        let all_keys = |share| world.processor(&Setup::of(share), &Gate::open()).packet_keys;
        let mut truth = Self {
            trusted: world.keys.trusted.clone(),
            versions: Default::default(),
            holders: Default::default(),
            lacks_a_key: false,
            marked: false,
            good: HashSet::new(),
            floor: 1,
            last: world.content(),
            keys: SHARES.map(all_keys),
        };
        truth.learn(world);
        truth
    }

    /// Takes note of the ingestion batches that are there now, besides those that were.
    pub fn learn(&mut self, world: &World) {
        for share in SHARES {
            let there = world.places[place(share, Place::Ingestion)].snapshot();
            for (name, bytes) in &there {
                let Some((id, IngestionPart::Packets)) = parse_ingestion_name(name) else {
                    continue;
                };
                let header_bytes = &there[id.ingestion_key(IngestionPart::Header).as_str()];
                let (header, packet_digest) = (IngestionHeader::read(header_bytes).unwrap(), sha256(bytes));
                // Caught while it is replaced, it is no batch.
                if header.packet_file_digest == packet_digest {
                    let bins = header.parameters.check().unwrap();
                    let packets = DataSharePacket::read_all(bytes).unwrap();
                    let version = self.version(share, bins, packet_digest, &packets);
                    let digest = sha256(header_bytes);
                    for packet in &version.packets {
                        let holders = self.holders[usize::from(share.index())].entry(packet.ephemeral);
                        holders.or_default().insert(digest);
                    }
                    self.versions[usize::from(share.index())].insert(digest, version);
                }
            }
        }
    }

    fn version(&self, share: Share, bins: u32, packet_digest: [u8; 32], packets: &[DataSharePacket]) -> Version {
        let (mut uuids, mut ephemeral_keys) = (HashSet::new(), HashSet::new());
        let see = |packet: &DataSharePacket| {
            let ephemeral = *ephemeral_point(&packet.encrypted_payload).unwrap();
            let mut reasons = BTreeSet::new();
            let mut excluded_if = |is: bool, reason| {
                if is {
                    reasons.insert(reason);
                }
            };
            excluded_if(!uuids.insert(packet.uuid), PacketExclusion::DuplicateUuid);
            excluded_if(
                !ephemeral_keys.insert(ephemeral),
                PacketExclusion::DuplicateEphemeralKey,
            );
            let keys = self.keys[usize::from(share.index())].iter().enumerate();
            let opened = keys
                .filter_map(|(index, key)| Some((index, key.key.decrypt(&packet.encrypted_payload).ok()?)))
                .next();
            excluded_if(opened.is_none(), PacketExclusion::Undecryptable);
            let values = opened.as_ref().and_then(|(_, plaintext)| {
                let elements = match share {
                    Share::First => proof::parse_first_share(plaintext, bins),
                    Share::Second => proof::parse_second_share(plaintext, bins),
                };
                Some(elements.ok()?[..bins as usize].to_vec())
            });
            let is_misshapen = opened.is_some() && values.is_none();
            excluded_if(is_misshapen, PacketExclusion::WrongDimension);
            excluded_if(is_misshapen, PacketExclusion::ElementOutOfField);
            match u32::try_from(packet.r_pit) {
                Ok(r_pit) => excluded_if(is_root_of_unity(r_pit, bins), PacketExclusion::QueryPointRefused),
                Err(_) => excluded_if(true, PacketExclusion::QueryPointOutOfRange),
            }
            Packet {
                uuid: packet.uuid,
                ephemeral,
                values,
                needs_second_key: opened.is_some_and(|(index, _)| index > 0),
                reasons,
            }
        };
        Version {
            packet_digest,
            packets: packets.iter().map(see).collect(),
        }
    }

    /// The ingestion batch that a record is of.
    pub fn version_of(&self, share: Share, record: &Record) -> Result<&Version, String> {
        let head = &record.plain.head;
        let version = self.versions[usize::from(share.index())].get(&head.header_digest);
        version
            .filter(|version| version.packet_digest == head.packet_digest)
            .ok_or_else(|| format!("the record of {} is of a batch that never was", head.batch.path()))
    }

    /// A record has every packet of its batch, and answers those that must be answered, and no other.
    pub fn check_record(&self, share: Share, record: &Record) -> Result<(), String> {
        let head = &record.plain.head;
        let version = self.version_of(share, record)?;
        let wrong = |detail: String| format!("record of {}: {detail}", head.batch.path());
        let named = record.plain.packets.iter().map(|packet| packet.uuid);
        if named.ne(version.packets.iter().map(|packet| packet.uuid)) {
            return Err(wrong("not every packet once, in the batch's order".into()));
        }
        for (index, (recorded, packet)) in record.plain.packets.iter().zip(&version.packets).enumerate() {
            let is_right = match recorded.state {
                PacketState::In { .. } => packet.reasons.is_empty(),
                PacketState::Excluded(reason) => {
                    packet.reasons.contains(&reason)
                        || reason == PacketExclusion::Undecryptable && self.may_stay_closed(packet)
                        || reason == PacketExclusion::Replay && self.is_elsewhere(share, &head.header_digest, packet)
                }
            };
            if !is_right {
                let state = recorded.state;
                return Err(wrong(format!(
                    "packet {index} is {state:?}, and there is {:?}",
                    packet.reasons
                )));
            }
        }
        Ok(())
    }

    fn may_stay_closed(&self, packet: &Packet) -> bool {
        self.lacks_a_key && packet.needs_second_key
    }

    fn is_elsewhere(&self, share: Share, header_digest: &[u8; 32], packet: &Packet) -> bool {
        let holders = &self.holders[usize::from(share.index())][&packet.ephemeral];
        holders.iter().any(|holder| holder != header_digest)
    }

    /// Whether a batch's packets may all be refused: of none that is as an ingestor should make it, unless it was claimed
    /// elsewhere.
    pub fn is_unusable(&self, share: Share, header_digest: &[u8; 32]) -> bool {
        let version = self.versions[usize::from(share.index())].get(header_digest);
        version.is_none_or(|version| {
            let is_out =
                |packet: &Packet| !packet.reasons.is_empty() || self.is_elsewhere(share, header_digest, packet);
            version.packets.iter().all(is_out)
        })
    }

    /// Every packet that may be answered is answered in some batch, where every batch that holds it has a record: what must
    /// hold as long as nothing goes wrong.
    pub fn check_nobody_is_lost(&self, world: &World) -> Result<(), Violation> {
        for share in SHARES {
            let ledger = world.places[place(share, Place::Ledger)].snapshot();
            let mut answers: BTreeMap<&PublicPoint, (usize, usize)> = BTreeMap::new();
            for (name, bytes) in ledger.iter().filter(|(name, _)| name.starts_with("records/")) {
                let record = Record::decode(bytes).map_err(|error| format!("{name}: {error}"))?;
                let version = self.version_of(share, &record)?;
                for (packet, recorded) in version.packets.iter().zip(&record.plain.packets) {
                    if packet.reasons.is_empty() && !self.may_stay_closed(packet) {
                        let (there, answered) = answers.entry(&packet.ephemeral).or_default();
                        *there += 1;
                        *answered += usize::from(matches!(recorded.state, PacketState::In { .. }));
                    }
                }
            }
            for (ephemeral, (there, answered)) in answers {
                let everywhere = self.holders[usize::from(share.index())][ephemeral].len() == there;
                if everywhere && answered != 1 {
                    let detail = format!("{share:?}: a packet of {there} batches is answered in {answered}");
                    return Err(Violation::of_truth(detail));
                }
            }
        }
        Ok(())
    }

    /// Forgets what was there: the world was set back.
    pub fn restart(&mut self, content: &Content) {
        self.last.clone_from(content);
    }

    /// Checks everything that must hold at any moment.
    pub fn check(&mut self, world: &World) -> Result<(), Violation> {
        let now = world.content();
        for (number, (before, after)) in self.last.iter().zip(&now).enumerate() {
            if number % 4 == Place::Ingestion as usize {
                continue;
            }
            for (name, bytes) in before {
                match after.get(name) {
                    Some(there) if there == bytes => {}
                    Some(_) => return Err(Violation::of_truth(format!("{name} was overwritten"))),
                    None => return Err(Violation::of_truth(format!("{name} was deleted"))),
                }
            }
        }
        let digest = digest_of(&now);
        if !self.good.contains(&digest) {
            for share in SHARES {
                self.check_party(share, &now)
                    .map_err(|detail| Violation::of_truth(format!("{share:?}: {detail}")))?;
            }
            self.good.insert(digest);
        }
        self.last = now;
        Ok(())
    }
}

/// Whether r^(2n) = 1, as rule 8 has it.
fn is_root_of_unity(r_pit: u32, bins: u32) -> bool {
    let p = u64::from(PRIME);
    let doublings = (2 * (u64::from(bins) + 1).next_power_of_two()).trailing_zeros();
    (0..doublings).fold(u64::from(r_pit) % p, |power, _| power * power % p) == 1
}

/// The path of a batch whose objects are under that name in a folder of the ledger.
pub fn batch_in(name: &str, folder: &str) -> Result<BatchId, String> {
    BatchId::parse(&name[folder.len() + 1..]).map_err(|error| format!("{name}: {error}"))
}
