//! Ingestion batches of our own with known totals, some of them damaged on purpose.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
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
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fixtures::{INGESTION_SUFFIXES, Truth, TruthBatch, put};
use crate::flow::Expected;
use crate::party::Pair;

/// What is wrong with a batch. A party is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What an ingestor knows of a party: the key that packets for it are encrypted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The key's id.
    pub key_id: String,
    /// The key.
    pub point: PublicPoint,
}

/// A batch as it is put into the two ingestion mailboxes, objects in the order of writing: the signature is the commit.
pub struct Made {
    /// What is remembered of it.
    pub written: Written,
    /// For each party, objects' names and contents; none: it doesn't get the batch.
    pub objects: [Vec<(String, Vec<u8>)>; 2],
}

/// A batch that was written, and the truth about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// What it was to be.
    pub sample: Sample,
    /// Its UUID.
    pub id: Uuid,
    /// Yeses of its clients, by bin.
    pub totals: Vec<u64>,
    /// Ids of the keys that its packets are encrypted to, First's and Second's.
    pub packet_keys: [String; 2],
}

/// Writes batches of one window into both ingestion mailboxes; gives what the window's sum must be, of the batches that
/// both parties take in.
///
/// # Errors
/// When a batch can't be made or written.
pub fn write_window(pair: &Pair, samples: &[Sample]) -> Result<Expected> {
    let key = &pair.keys.ingestor;
    let key = BatchSigningKey::parse(&key.id, &key.secret)?;
    let recipients = [recipient(pair, 0)?, recipient(pair, 1)?];
    let mut written = Vec::new();
    for sample in samples {
        let made = make(sample, &key, &recipients)?;
        for (party, objects) in made.objects.iter().enumerate() {
            for (name, bytes) in objects {
                put(&pair.mailbox(party, "ingestion"), name, bytes)?;
            }
        }
        written.push(made.written);
    }
    let mut windows = expected(&written, pair.settings.period_seconds)?;
    ensure!(windows.len() == 1, "batches of {} windows", windows.len());
    windows.pop().context("a window without batches")
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

fn recipient(pair: &Pair, party: usize) -> Result<Recipient> {
    let key = &pair.keys.parties[party].packet;
    let point = STANDARD.decode(key.public()?)?;
    Ok(Recipient {
        key_id: key.id.clone(),
        point: PublicPoint::try_from(point.as_slice()).context("a public point has 65 bytes")?,
    })
}

/// What the sums of windows must be, of the batches that both parties take in; windows by aggregation and time.
///
/// # Errors
/// When a batch's time is none.
pub fn expected(batches: &[Written], period_seconds: u32) -> Result<Vec<Expected>> {
    let compact = |time| {
        BatchTime::from_timestamp(time)
            .map(BatchTime::to_compact)
            .context("a time out of the calendar")
    };
    let mut windows: BTreeMap<(String, String), Expected> = BTreeMap::new();
    for batch in batches {
        let sample = &batch.sample;
        let window = Window::holding(BatchTime::parse_path(&sample.time)?.timestamp(), period_seconds)?;
        let (start, end) = (compact(window.start())?, compact(window.end())?);
        let window = windows
            .entry((sample.aggregation.clone(), start.clone()))
            .or_insert_with(|| {
                let totals = vec![0; sample.bins as usize];
                let aggregation = sample.aggregation.clone();
                Expected::from(Truth {
                    aggregation,
                    start,
                    end,
                    batches: Vec::new(),
                    clients: 0,
                    totals,
                })
            });
        for party in 0..2 {
            window.delivered[party] += usize::from(sample.taken_by(party));
            window.rejected[party] += usize::from(sample.damage == Damage::DigestAt(party));
        }
        if sample.taken_by(0) && sample.taken_by(1) {
            let truth = &mut window.truth;
            truth.clients += sample.packets as u64;
            let totals = truth.totals.iter_mut().zip(&batch.totals);
            totals.for_each(|(total, more)| *total += more);
            truth.batches.push(TruthBatch {
                id: batch.id.to_string(),
                time: sample.time.clone(),
            });
        }
    }
    Ok(windows.into_values().collect())
}

/// Makes one batch.
///
/// # Errors
/// When its name or a key can't be used.
pub fn make(sample: &Sample, signer: &BatchSigningKey, recipients: &[Recipient; 2]) -> Result<Made> {
    let id = Uuid::new_v4();
    let (mut packets, totals) = make_packets(sample, recipients)?;
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
    let mut objects = [Vec::new(), Vec::new()];
    for (party, packets) in packets.iter().enumerate() {
        if matches!(sample.damage, Damage::OnlyAt(at) if at != party) {
            continue;
        }
        let mut bytes = DataSharePacket::write_all(packets);
        let header = header(sample, id, &bytes)?.write();
        let signature = BatchSignature::sign(signer, &header)?.write();
        if sample.damage == Damage::DigestAt(party) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let name = format!("{}/{}/{id}", sample.aggregation, sample.time);
        let contents = [bytes, header, signature];
        let named = INGESTION_SUFFIXES.map(|suffix| format!("{name}{suffix}")).into_iter();
        objects[party] = named.zip(contents).collect();
    }
    let written = Written {
        sample: sample.clone(),
        id,
        totals,
        packet_keys: recipients.each_ref().map(|recipient| recipient.key_id.clone()),
    };
    Ok(Made { written, objects })
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
fn make_packets(sample: &Sample, recipients: &[Recipient; 2]) -> Result<([Vec<DataSharePacket>; 2], Vec<u64>)> {
    let mut rng = rand::rng();
    let splitter = ShareSplitter::new(sample.bins);
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
                encrypted_payload: encrypt(&recipients[party].point, plaintext, &mut rng)?,
                encryption_key_id: Some(recipients[party].key_id.clone()),
                r_pit,
                version_configuration: None,
                device_nonce: None,
            });
        }
    }
    Ok((packets, totals))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_batch_counts_where_both_parties_take_it_in() {
        let written = |time: &str, damage| Written {
            sample: Sample {
                aggregation: "a".into(),
                time: time.into(),
                bins: 2,
                packets: 3,
                damage,
            },
            id: Uuid::new_v4(),
            totals: vec![1, 2],
            packet_keys: ["p".into(), "q".into()],
        };
        let batches = [
            written("2026/11/20/04/00", Damage::None),
            written("2026/11/20/00/10", Damage::None),
            written("2026/11/20/00/20", Damage::JunkPacket),
            written("2026/11/20/02/59", Damage::DigestAt(0)),
            written("2026/11/20/01/00", Damage::OnlyAt(1)),
        ];
        let windows = expected(&batches, 10_800).unwrap();
        let [first, second] = windows.as_slice() else {
            panic!("{windows:?}");
        };
        assert_eq!((first.delivered, first.rejected), ([2, 4], [1, 0]));
        assert_eq!((first.truth.clients, &first.truth.totals), (6, &vec![2, 4]));
        assert_eq!(first.truth.batches.len(), 2);
        assert_eq!(first.truth.name(), "a 202611200000-202611200300");
        assert_eq!((second.delivered, second.truth.clients), ([1, 1], 3));
        assert_eq!(second.truth.start, "202611200300");
    }
}
