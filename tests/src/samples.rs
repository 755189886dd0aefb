//! Ingestion batches of our own with known totals, some of them damaged on purpose.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use facilitator_core::crypto::{BatchSigningKey, PublicPoint, encrypt, sha256};
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::BatchTime;
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::proof::{PRIME, ShareSplitter, query_point_refused};
use facilitator_core::window::Window;
use rand::Rng;
use uuid::Uuid;

use crate::fixtures::{Truth, TruthBatch, put};
use crate::flow::Expected;
use crate::party::Pair;

/// What is wrong with a batch. A party is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// At one party the packet object isn't the one that was signed.
    DigestAt(usize),
    /// One packet more, which nobody can decrypt.
    JunkPacket,
    /// Only one party has it.
    OnlyAt(usize),
}

/// One ingestion batch.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The aggregation id.
    pub aggregation: String,
    /// `YYYY/MM/DD/HH/mm`.
    pub time: String,
    /// Values of a packet.
    pub bins: u32,
    /// Clients.
    pub packets: usize,
    /// What is wrong with it.
    pub damage: Damage,
}

impl Sample {
    /// Whether that party takes it in.
    fn taken_by(&self, party: usize) -> bool {
        match self.damage {
            Damage::None | Damage::JunkPacket => true,
            Damage::DigestAt(at) => party != at,
            Damage::OnlyAt(at) => party == at,
        }
    }
}

/// Writes batches of one window into both ingestion mailboxes; gives what the window's sum must be, of the batches that
/// both parties take in.
///
/// # Errors
/// When a batch can't be made or written.
pub fn write_window(pair: &Pair, samples: &[Sample]) -> Result<Expected> {
    let first = samples.first().context("a window without batches")?;
    let time = BatchTime::parse_path(&first.time)?;
    let window = Window::holding(time.timestamp(), pair.settings.period_seconds)?;
    let compact = |time| {
        BatchTime::from_timestamp(time)
            .map(BatchTime::to_compact)
            .context("a time out of the calendar")
    };
    let mut truth = Truth {
        aggregation: first.aggregation.clone(),
        start: compact(window.start())?,
        end: compact(window.end())?,
        batches: Vec::new(),
        clients: 0,
        totals: vec![0; first.bins as usize],
    };
    let (mut delivered, mut rejected) = ([0; 2], [0; 2]);
    for sample in samples {
        let (id, totals) = write(pair, sample)?;
        for party in 0..2 {
            delivered[party] += usize::from(sample.taken_by(party));
            rejected[party] += usize::from(sample.damage == Damage::DigestAt(party));
        }
        if sample.taken_by(0) && sample.taken_by(1) {
            truth.clients += sample.packets as u64;
            truth
                .totals
                .iter_mut()
                .zip(&totals)
                .for_each(|(total, more)| *total += more);
            truth.batches.push(TruthBatch {
                id: id.to_string(),
                time: sample.time.clone(),
            });
        }
    }
    Ok(Expected {
        truth,
        delivered,
        rejected,
    })
}

/// The same for several windows, each in a thread of its own.
///
/// # Errors
/// As [`write_window`].
pub fn write_windows(pair: &Pair, windows: &[Vec<Sample>]) -> Result<Vec<Expected>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = windows
            .iter()
            .map(|samples| scope.spawn(|| write_window(pair, samples)))
            .collect();
        let written = threads.into_iter().map(|thread| {
            let written = thread.join();
            written.map_err(|_| anyhow::anyhow!("a thread that writes batches panicked"))?
        });
        written.collect()
    })
}

/// Writes one batch; gives its UUID and totals.
fn write(pair: &Pair, sample: &Sample) -> Result<(Uuid, Vec<u64>)> {
    let id = Uuid::new_v4();
    let (mut packets, totals) = make_packets(pair, sample)?;
    if sample.damage == Damage::JunkPacket {
        let uuid = Uuid::new_v4();
        for share in &mut packets {
            let mut junk = share[0].clone();
            junk.uuid = uuid;
            // Another ephemeral point than the packet's that it was copied from would do; a broken tag does as well.
            junk.encrypted_payload = rand::rng()
                .random_iter()
                .take(share[0].encrypted_payload.len())
                .collect();
            share.push(junk);
        }
    }
    let key = &pair.keys.ingestor;
    let key = BatchSigningKey::parse(&key.id, &key.secret)?;
    for (party, packets) in packets.iter().enumerate() {
        if matches!(sample.damage, Damage::OnlyAt(at) if at != party) {
            continue;
        }
        let mut bytes = DataSharePacket::write_all(packets);
        let header = header(sample, id, &bytes)?.write();
        let signature = BatchSignature::sign(&key, &header)?.write();
        if sample.damage == Damage::DigestAt(party) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let mailbox = pair.mailbox(party, "ingestion");
        let name = format!("{}/{}/{id}", sample.aggregation, sample.time);
        put(&mailbox, &format!("{name}.batch.avro"), &bytes)?;
        put(&mailbox, &format!("{name}.batch"), &header)?;
        put(&mailbox, &format!("{name}.batch.sig"), &signature)?;
    }
    Ok((id, totals))
}

fn header(sample: &Sample, id: Uuid, packets: &[u8]) -> Result<IngestionHeader> {
    let start = BatchTime::parse_path(&sample.time)?.as_millis();
    Ok(IngestionHeader {
        parameters: BatchParameters {
            batch_uuid: id,
            name: sample.aggregation.clone(),
            bins: i32::try_from(sample.bins)?,
            epsilon: 1.5,
            prime: i64::from(PRIME),
            number_of_servers: 2,
            hamming_weight: None,
        },
        batch_start_time: start,
        batch_end_time: start + 60_000,
        packet_file_digest: sha256(packets).to_vec(),
    })
}

/// Each client says yes or no to each bin; its answer becomes two shares, each encrypted to one party.
fn make_packets(pair: &Pair, sample: &Sample) -> Result<([Vec<DataSharePacket>; 2], Vec<u64>)> {
    let mut rng = rand::rng();
    let splitter = ShareSplitter::new(sample.bins);
    let points = [point(pair, 0)?, point(pair, 1)?];
    let mut totals = vec![0; sample.bins as usize];
    let mut packets = [Vec::new(), Vec::new()];
    for _ in 0..sample.packets {
        let values: Vec<u32> = (0..sample.bins)
            .map(|bin| u32::from(rng.random_ratio(1, 2 + bin % 5)))
            .collect();
        totals
            .iter_mut()
            .zip(&values)
            .for_each(|(total, value)| *total += u64::from(*value));
        let shares = splitter.split(&values, &mut rng);
        let uuid = Uuid::new_v4();
        let r_pit = loop {
            let r_pit: u32 = rng.random();
            if !query_point_refused(r_pit, sample.bins) {
                break i64::from(r_pit);
            }
        };
        for (party, plaintext) in [shares.first.as_slice(), shares.second.as_slice()]
            .into_iter()
            .enumerate()
        {
            packets[party].push(DataSharePacket {
                uuid,
                encrypted_payload: encrypt(&points[party], plaintext, &mut rng)?,
                encryption_key_id: Some(pair.keys.parties[party].packet.id.clone()),
                r_pit,
                version_configuration: None,
                device_nonce: None,
            });
        }
    }
    Ok((packets, totals))
}

fn point(pair: &Pair, party: usize) -> Result<PublicPoint> {
    let point = STANDARD.decode(pair.keys.parties[party].packet.public()?)?;
    PublicPoint::try_from(point.as_slice()).context("a public point has 65 bytes")
}
