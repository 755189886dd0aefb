//! Ingestion batches, as an ingestor writes them, and as a careless one writes over them or sends packets again.

use facilitator_core::crypto::sha256;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{AggregationId, BatchId, BatchTime, IngestionPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::Share;
use facilitator_core::sample::{Fault as SampleFault, FaultKind, Recipient, Sample, SampleSpec, make};
use uuid::Uuid;

use crate::world::{Place, SHARES, World, place, second_key};

/// A batch's objects in the order in which they are put.
pub const INGESTION_PARTS: [IngestionPart; 3] =
    [IngestionPart::Packets, IngestionPart::Header, IngestionPart::Signature];

impl World {
    fn recipients(&self, second: bool) -> [Recipient; 2] {
        SHARES.map(|share| {
            let (point, id) = if second {
                (*second_key(share).public_point(), "two")
            } else {
                (*self.keys.packets(share).public_point(), "one")
            };
            Recipient {
                public_point: point,
                key_id: Some(id.into()),
            }
        })
    }

    fn made(&self, number: u8, packets: usize, second_key: bool, faults: &[(usize, FaultKind)]) -> Sample {
        let (minute, batch_uuid) = (self.name)(number);
        let spec = SampleSpec {
            aggregation: AggregationId::parse("kittens-seen").unwrap(),
            time: BatchTime::parse_path(&format!("2026/11/20/00/{minute:02}")).unwrap(),
            batch_uuid,
            bins: self.bins,
            packets,
            epsilon: 0.23,
            hamming_weight: None,
            batch_start_time: 1,
            batch_end_time: 2,
            seed: 1 + u64::from(second_key),
            faults: faults
                .iter()
                .map(|(packet, kind)| SampleFault {
                    packet: *packet,
                    kind: *kind,
                })
                .collect(),
        };
        make(&spec, &self.recipients(second_key), &self.keys.ingestor).unwrap()
    }

    pub fn put_ingestion(&self, share: Share, id: &BatchId, header: &[u8], signature: &[u8], packets: &[u8]) {
        let mailbox = &self.places[place(share, Place::Ingestion)];
        for (part, bytes) in [
            (IngestionPart::Packets, packets),
            (IngestionPart::Header, header),
            (IngestionPart::Signature, signature),
        ] {
            mailbox.replace(&id.ingestion_key(part), bytes.to_vec());
        }
    }

    /// An ingestion batch for both parties; its number is its minute, unless the world names it otherwise.
    pub fn batch(&self, number: u8, packets: usize, faults: &[(usize, FaultKind)]) -> BatchId {
        let sample = self.made(number, packets, false, faults);
        for (share, objects) in SHARES.into_iter().zip([&sample.first, &sample.second]) {
            self.put_ingestion(share, &sample.id, &objects.header, &objects.signature, &objects.packets);
        }
        sample.id
    }

    /// An ingestion batch of which `packets` are for the first packet key and as many, behind them, for the second. Faults are
    /// given by the place in the whole.
    pub fn batch_of_two_keys(&self, number: u8, packets: usize, faults: &[(usize, FaultKind)]) -> BatchId {
        let half = |second: bool| {
            let faults = faults.iter().filter(|(packet, _)| (*packet >= packets) == second);
            let faults: Vec<_> = faults.map(|(packet, kind)| (packet % packets, *kind)).collect();
            self.made(number, packets, second, &faults)
        };
        let halves = [half(false), half(true)];
        for share in SHARES {
            let of = |sample: &Sample| {
                if share == Share::First {
                    sample.first.clone()
                } else {
                    sample.second.clone()
                }
            };
            let [one, two] = halves.each_ref().map(of);
            let packets = [one.packets, two.packets]
                .map(|bytes| DataSharePacket::read_all(&bytes).unwrap())
                .concat();
            let packets = DataSharePacket::write_all(&packets);
            let mut header = IngestionHeader::read(&one.header).unwrap();
            header.packet_file_digest = sha256(&packets).to_vec();
            let header = header.write();
            let signature = BatchSignature::sign(&self.keys.ingestor, &header).unwrap().write();
            self.put_ingestion(share, &halves[0].id, &header, &signature, &packets);
        }
        halves[0].id.clone()
    }

    fn packets(&self, share: Share, id: &BatchId) -> Vec<DataSharePacket> {
        let there = self.places[place(share, Place::Ingestion)].snapshot();
        DataSharePacket::read_all(&there[id.ingestion_key(IngestionPart::Packets).as_str()]).unwrap()
    }

    /// The batch with other packets, signed: its objects in the order of [`INGESTION_PARTS`].
    fn signed_anew(&self, share: Share, id: &BatchId, packets: &[DataSharePacket]) -> [Vec<u8>; 3] {
        let there = self.places[place(share, Place::Ingestion)].snapshot();
        let packets = DataSharePacket::write_all(packets);
        let mut header = IngestionHeader::read(&there[id.ingestion_key(IngestionPart::Header).as_str()]).unwrap();
        header.packet_file_digest = sha256(&packets).to_vec();
        let header = header.write();
        let signature = BatchSignature::sign(&self.keys.ingestor, &header).unwrap().write();
        [packets, header, signature]
    }

    /// The objects of another batch of the same name, as a careless ingestor makes it: the same packets in another order.
    pub fn reordered(&self, share: Share, id: &BatchId) -> [Vec<u8>; 3] {
        let mut packets = self.packets(share, id);
        packets.reverse();
        self.signed_anew(share, id, &packets)
    }

    /// Puts some objects of a batch in place of those that are there.
    pub fn overwrite_parts(&self, share: Share, id: &BatchId, objects: &[Vec<u8>; 3], parts: &[IngestionPart]) {
        let mailbox = &self.places[place(share, Place::Ingestion)];
        for (part, bytes) in INGESTION_PARTS.iter().zip(objects) {
            if parts.contains(part) {
                mailbox.replace(&id.ingestion_key(*part), bytes.clone());
            }
        }
    }

    /// All of [`World::reordered`] in place of the batch that is there.
    pub fn overwrite(&self, share: Share, id: &BatchId) {
        self.overwrite_parts(share, id, &self.reordered(share, id), &INGESTION_PARTS);
    }

    /// Adds the packets of one batch to another that is there, under other UUIDs and query points, for both parties.
    pub fn replay(&self, of: &BatchId, into: &BatchId) {
        for share in SHARES {
            let mut all = self.packets(share, into);
            for packet in self.packets(share, of) {
                let n = all.len() as u64;
                all.push(DataSharePacket {
                    uuid: Uuid::from_u64_pair(into.time.as_millis().unsigned_abs(), n),
                    r_pit: packet.r_pit + 1,
                    ..packet
                });
            }
            let objects = self.signed_anew(share, into, &all);
            self.overwrite_parts(share, into, &objects, &INGESTION_PARTS);
        }
    }
}
