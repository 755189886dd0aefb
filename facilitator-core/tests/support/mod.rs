//! The original's objects and keys.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey, TrustedKeys};
use facilitator_core::formats::FormatError;
use facilitator_core::formats::avro::{Record, RecordReader, read_all};
use facilitator_core::formats::ingestion::DataSharePacket;
use facilitator_core::formats::names::{BatchId, IngestionPart, ValidationPart};
use facilitator_core::formats::record::PacketState;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{Accumulated, Known, Pass, accumulate};
use facilitator_core::processor::MountedPacketKey;
use serde::Deserialize;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prio-server")
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PartyKeys {
    signing: String,
    key_identifier: String,
    packet_decryption: Option<String>,
}

/// The keys of `keys.json`.
pub struct Keys {
    pub ingestor: BatchSigningKey,
    pub first: BatchSigningKey,
    pub second: BatchSigningKey,
    pub first_packets: PacketDecryptionKey,
    pub second_packets: PacketDecryptionKey,
    pub trusted: TrustedKeys,
}

impl Keys {
    pub fn read() -> Self {
        let mut file: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&fs::read(root().join("keys.json")).unwrap()).unwrap();
        let mut party = |name: &str| -> PartyKeys { serde_json::from_value(file.remove(name).unwrap()).unwrap() };
        let (ingestor, first, second) = (party("ingestor"), party("first"), party("second"));
        let signing = |keys: &PartyKeys| BatchSigningKey::parse(&keys.key_identifier, &keys.signing).unwrap();
        let packets = |keys: &PartyKeys| PacketDecryptionKey::parse(keys.packet_decryption.as_ref().unwrap()).unwrap();
        let (first_packets, second_packets) = (packets(&first), packets(&second));
        let (ingestor, first, second) = (signing(&ingestor), signing(&first), signing(&second));
        let trusted = [&ingestor, &first, &second]
            .map(|key| (key.id().to_owned(), key.verifying_key().clone()))
            .into_iter()
            .collect();
        Self {
            ingestor,
            first,
            second,
            first_packets,
            second_packets,
            trusted,
        }
    }

    pub fn packets(&self, share: Share) -> &PacketDecryptionKey {
        match share {
            Share::First => &self.first_packets,
            Share::Second => &self.second_packets,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct TruthBatch {
    pub id: uuid::Uuid,
    pub time: String,
    pub packets: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    pub aggregation: String,
    pub bins: u32,
    pub epsilon: f64,
    pub start: String,
    pub end: String,
    pub batches: Vec<TruthBatch>,
    pub clients: u64,
    pub totals: Vec<u64>,
}

impl Truth {
    pub fn read() -> Vec<Self> {
        serde_json::from_slice(&fs::read(root().join("truth.json")).unwrap()).unwrap()
    }

    pub fn batch_ids(&self) -> Vec<BatchId> {
        let parse =
            |batch: &TruthBatch| BatchId::parse(&format!("{}/{}/{}", self.aggregation, batch.time, batch.id)).unwrap();
        self.batches.iter().map(parse).collect()
    }
}

fn party(share: Share) -> &'static str {
    match share {
        Share::First => "first",
        Share::Second => "second",
    }
}

/// An object of the ingestion batch that `share` was given.
pub fn ingestion(share: Share, id: &BatchId, part: IngestionPart) -> Vec<u8> {
    fs::read(
        root()
            .join(party(share))
            .join("ingestion")
            .join(id.ingestion_key(part).as_str()),
    )
    .unwrap()
}

/// An object of the validation batch that `writer` wrote, in its peer's mailbox.
pub fn validation(writer: Share, id: &BatchId, part: ValidationPart) -> Vec<u8> {
    let mailbox = root().join(party(writer.peer())).join("peer-validation");
    fs::read(mailbox.join(id.validation_key(writer, part).as_str())).unwrap()
}

/// The signature object of the single-object validation that `writer` wrote.
pub fn single_object(writer: Share, id: &BatchId) -> Vec<u8> {
    let mailbox = root()
        .join("single-object")
        .join(party(writer.peer()))
        .join("peer-validation");
    fs::read(mailbox.join(id.validation_key(writer, ValidationPart::Signature).as_str())).unwrap()
}

/// Every file under a folder, by its name relative to it.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    names
}

/// A folder of this name in Cargo's target folder, for what tests report.
pub fn report_folder(name: &str) -> PathBuf {
    // Where builds are for a named target, its temporary folder is one level further down. Cargo marks a target folder that
    // it makes by the tag, and any by what it knows of the compiler.
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let is_target = |folder: &&Path| {
        ["CACHEDIR.TAG", ".rustc_info.json"]
            .iter()
            .any(|mark| folder.join(mark).exists())
    };
    let target = temporary.ancestors().filter(is_target).last();
    let folder = target.unwrap_or(temporary).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Decides one packet as intake does.
pub fn decide(
    packet: DataSharePacket,
    bins: u32,
    share: Share,
    keys: &[MountedPacketKey],
) -> Result<(Accumulated, PacketState), FormatError> {
    let pass = Pass {
        bins,
        share,
        keys,
        remembered: 1,
        known: &Known::default(),
    };
    let mut state = None;
    let accumulated = accumulate([Ok(packet)].into_iter(), &pass, |decided| {
        state = Some(decided.packet.state);
        Ok(())
    })?;
    Ok((accumulated, state.unwrap()))
}

/// Records as they were read, or what is wrong with them.
pub type Records<T> = Result<Vec<T>, FormatError>;

/// What is read of bytes that are all there, and of the same bytes as they come, so many at a time. `Err`: something else.
pub fn read_both_ways<T: Record + PartialEq>(bytes: &[u8], at_a_time: usize) -> Result<[Records<T>; 2], String> {
    struct Pieces<'a>(&'a [u8], usize);
    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(self.1);
            self.0.read(&mut buffer[..end])
        }
    }
    let whole = read_all::<T>(bytes);
    let streamed: Records<T> = RecordReader::<_, T>::new(Pieces(bytes, at_a_time)).collect();
    let is_same = match (&whole, &streamed) {
        (Ok(whole), Ok(streamed)) => whole == streamed,
        (Err(whole), Err(streamed)) => {
            let (whole, streamed) = (whole.to_string(), streamed.to_string());
            // A stream doesn't know how much comes, and may stumble before it ends.
            whole == streamed || whole.contains("a block is beyond the bound")
        }
        _ => false,
    };
    let said = |read: &Records<T>| {
        read.as_ref()
            .map_or_else(ToString::to_string, |_| "accepted".to_owned())
    };
    match is_same {
        true => Ok([whole, streamed]),
        false => Err(format!("at once {}, streamed {}", said(&whole), said(&streamed))),
    }
}
