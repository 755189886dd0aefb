//! Peak memory of `facilitator aggregate` on one batch of millions of packets.
//!
//! What intake leaves of such a batch is made here without decrypting anything: a record, the peer's messages that prove it,
//! and ingestion packets of which only those are real that must be opened.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest::{Context, SHA256};
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey, encrypt, seal, sha256};
use facilitator_core::formats::avro::RecordWriter;
use facilitator_core::formats::batch::hex;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::ledger::{DELIVERED, Delivered, DeliveredPut, LedgerObject, RECORDS, REVISION};
use facilitator_core::formats::names::{BatchId, IngestionPart, ValidationPart};
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::record::{Message, PacketState, RecordEncoder, RecordHead, RecordPacket, write_seals};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::proof::{PRIME, add, mul, subtract};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::measure::Row;
use crate::process::{GOAL, run, sample};

const BINS: u32 = 16;
/// The most that a batch may take, in MB, where the peer's messages come in another order than the packets: what the record has
/// of each stays in memory.
const OTHER_ORDER_GOAL: f64 = 140.0;

/// What is special about a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    AllHold,
    OtherOrder,
    OnePercentInvalid,
}

/// Rows of Second's batch of so many packets: 2.4 million have 400 MB.
pub fn rows(facilitator: &Path, packets: u64) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, name) in [
        (Kind::AllHold, "all proofs hold"),
        (Kind::OtherOrder, "the peer's messages in another order"),
        (Kind::OnePercentInvalid, "1 % invalid"),
    ] {
        let folder = tempfile::tempdir()?;
        let world = folder.path().join("world");
        // For its keys and parameters.
        sample(facilitator, folder.path(), &["--batches", "1", "--packets", "1"])?;
        let large = Large {
            world: &world,
            packets,
            kind,
        };
        large.write()?;
        let parameters = world.join("second.json").to_string_lossy().into_owned();
        let took = run(
            facilitator,
            &["aggregate", "--parameters", &parameters, "--aggregation", "large"],
        )?;
        ensure!(world.join("portal-second").read_dir()?.next().is_some(), "no sum part");
        let goal = if kind == Kind::OtherOrder {
            OTHER_ORDER_GOAL
        } else {
            GOAL
        };
        let name =
            |what: &str| format!("facilitator aggregate, second, {packets} packets, {BINS} bins, {name}: {what}");
        rows.push(Row::plain(name("peak memory"), "MB", took.peak_megabytes(), Some(goal)));
        rows.push(Row::plain(name("CPU time"), "s", took.cpu_seconds, None));
    }
    Ok(rows)
}

struct Large<'a> {
    world: &'a Path,
    packets: u64,
    kind: Kind,
}

/// One packet: its UUID, our message, and the peer's.
struct Packet {
    uuid: Uuid,
    ours: Message,
    theirs: Message,
    invalid: bool,
}

impl Large<'_> {
    fn packet(&self, number: u64) -> Packet {
        let mut rng = StdRng::seed_from_u64(number);
        let [f, g, h, peer_f, peer_g] = [(); 5].map(|()| rng.random_range(0..PRIME));
        let invalid = self.kind == Kind::OnePercentInvalid && number % 100 == 7;
        let proving = subtract(mul(add(f, peer_f), add(g, peer_g)), h);
        Packet {
            uuid: uuid::Builder::from_random_bytes(rng.random()).into_uuid(),
            ours: Message { f, g, h },
            theirs: Message {
                f: peer_f,
                g: peer_g,
                h: add(proving, u32::from(invalid)),
            },
            invalid,
        }
    }

    fn text(&self, path: &str) -> anyhow::Result<String> {
        let file = self.world.join(path);
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    fn signing(&self, party: &str) -> anyhow::Result<BatchSigningKey> {
        let folder = format!("{party}-keys/batch-signing");
        let id = self.text(&format!("{folder}/id"))?;
        Ok(BatchSigningKey::parse(
            id.trim(),
            &self.text(&format!("{folder}/key"))?,
        )?)
    }

    fn write(&self) -> anyhow::Result<()> {
        let id = BatchId::parse("large/2026/11/20/00/01/00000000-0000-4000-8000-000000000001")?;
        let parameters = BatchParameters {
            batch_uuid: id.uuid,
            name: "large".to_owned(),
            bins: BINS.try_into()?,
            epsilon: 0.1,
            prime: PRIME.into(),
            number_of_servers: 2,
            hamming_weight: None,
        };
        let key = PacketDecryptionKey::parse(&self.text("second-keys/packet-decryption/0/key")?)?;
        let digests = self.ingestion(&id, &parameters, &key)?;
        self.record(&id, &key, digests)?;
        self.messages(&id, parameters)
    }

    fn create(&self, mailbox: &str, name: &str) -> anyhow::Result<BufWriter<File>> {
        let path = self.world.join(mailbox).join(name);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(BufWriter::new(File::create(path)?))
    }

    fn put(&self, mailbox: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut file = self.create(mailbox, name)?;
        file.write_all(bytes)?;
        Ok(file.flush()?)
    }

    /// The digests of header and packets.
    fn ingestion(
        &self,
        id: &BatchId,
        parameters: &BatchParameters,
        key: &PacketDecryptionKey,
    ) -> anyhow::Result<[[u8; 32]; 2]> {
        let name = |part| id.ingestion_key(part).into_string();
        let file = self.create("ingestion-second", &name(IngestionPart::Packets))?;
        let mut packets = RecordWriter::new(Hashing::new(file));
        let mut rng = StdRng::seed_from_u64(1);
        for number in 0..self.packets {
            let packet = self.packet(number);
            let encrypted_payload = match packet.invalid {
                true => encrypt(key.public_point(), &rng.random::<[u8; 32]>(), &mut rng)?,
                false => vec![4; 113],
            };
            packets.write(&DataSharePacket {
                uuid: packet.uuid,
                encrypted_payload,
                encryption_key_id: None,
                r_pit: 12_345,
                version_configuration: None,
                device_nonce: None,
            })?;
        }
        let packet_digest = packets.finish()?.finish()?;
        let header = IngestionHeader {
            parameters: parameters.clone(),
            batch_start_time: 0,
            batch_end_time: 1,
            packet_file_digest: packet_digest.to_vec(),
        };
        let header = header.write();
        self.put("ingestion-second", &name(IngestionPart::Header), &header)?;
        let signature = BatchSignature::sign(&self.signing("ingestor")?, &header)?;
        self.put("ingestion-second", &name(IngestionPart::Signature), &signature.write())?;
        Ok([sha256(&header), packet_digest])
    }

    fn record(
        &self,
        id: &BatchId,
        key: &PacketDecryptionKey,
        [header_digest, packet_digest]: [[u8; 32]; 2],
    ) -> anyhow::Result<()> {
        let document: serde_json::Value = serde_json::from_str(&self.text("second.json")?)?;
        let head = RecordHead {
            instance: document["instance"].as_str().context("an instance")?.to_owned(),
            share: Share::Second,
            batch: id.clone(),
            name: "large".to_owned(),
            bins: BINS,
            epsilon: 0.1,
            prime: PRIME.into(),
            number_of_servers: 2,
            hamming_weight: None,
            batch_start_time: 0,
            batch_end_time: 1,
            header_digest,
            packet_digest,
            validation_format: ValidationFormat::ThreeObjects,
            signer: self.signing("second")?.id().to_owned(),
        };
        let mut file = self.create("ledger-second", id.ledger_key(RECORDS).as_str())?;
        let mut record = RecordEncoder::begin(&head, &mut file)?;
        for number in 0..self.packets {
            let Packet { uuid, ours, .. } = self.packet(number);
            let state = PacketState::In { key: 0, message: ours };
            record.packet(&RecordPacket { uuid, state }, &mut file)?;
        }
        let digest = record.end(&[*key.public_point()], &mut file)?;
        let sealed = seal(key, &header_digest, Share::Second, &digest, &[0; BINS as usize]);
        write_seals(&[sealed], &mut file)?;
        file.flush()?;
        let signature = id
            .validation_key(Share::Second, ValidationPart::Signature)
            .into_string();
        self.put("peer-validation-first", &signature, b"ours")?;
        let delivered = Delivered {
            revision: REVISION,
            record_digest: hex(&digest),
            signature_object: signature,
            store_time_millis: Some(0),
            put: DeliveredPut::Created,
        };
        self.put(
            "ledger-second",
            id.ledger_key(DELIVERED).as_str(),
            &delivered.to_bytes()?,
        )
    }

    /// First's validation batch.
    fn messages(&self, id: &BatchId, parameters: BatchParameters) -> anyhow::Result<()> {
        let name = |part| id.validation_key(Share::First, part).into_string();
        let file = self.create("peer-validation-second", &name(ValidationPart::Packets))?;
        let mut packets = RecordWriter::new(Hashing::new(file));
        for number in 0..self.packets {
            let number = match self.kind {
                Kind::OtherOrder => self.packets - 1 - number,
                _ => number,
            };
            let Packet { uuid, theirs, .. } = self.packet(number);
            packets.write(&ValidationPacket::new(uuid, theirs))?;
        }
        let header = ValidationHeader {
            parameters,
            packet_file_digest: packets.finish()?.finish()?.to_vec(),
        };
        let header = header.write();
        self.put("peer-validation-second", &name(ValidationPart::Header), &header)?;
        let signature = BatchSignature::sign(&self.signing("first")?, &header)?;
        self.put(
            "peer-validation-second",
            &name(ValidationPart::Signature),
            &signature.write(),
        )
    }
}

/// A file, and the digest of its bytes.
struct Hashing {
    file: BufWriter<File>,
    digest: Context,
}

impl Hashing {
    fn new(file: BufWriter<File>) -> Self {
        Self {
            file,
            digest: Context::new(&SHA256),
        }
    }

    fn finish(mut self) -> anyhow::Result<[u8; 32]> {
        self.file.flush()?;
        Ok(self.digest.finish().as_ref().try_into()?)
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
