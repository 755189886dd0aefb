//! Large ingestion batches in flat memory, of real packets that cost little to make.
//!
//! Encrypting a packet takes two multiplications on the curve. Here each ephemeral key is the one before it plus 1, so that
//! both points follow by one addition each: worthless as encryption, and to whoever opens them packets as any others.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use aes_gcm::aead::consts::U16;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use anyhow::Context as _;
use aws_lc_rs::digest::{Context, SHA256, digest};
use facilitator_core::crypto::BatchSigningKey;
use facilitator_core::formats::avro::RecordWriter;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart};
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{PRIME, ShareSplitter, query_point_refused};
use p256::elliptic_curve::BatchNormalize;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{ProjectivePoint, PublicKey};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Points that are brought to affine form together.
const TOGETHER: usize = 512;

/// Who makes batches, for the holder of one packet key.
pub struct Ingestor {
    pub share: Share,
    pub bins: u32,
    signing: BatchSigningKey,
    key_id: String,
    recipient: ProjectivePoint,
    /// The next packet's ephemeral public key, and what it has in common with the recipient.
    next: [ProjectivePoint; 2],
    splitter: ShareSplitter,
    rng: StdRng,
}

impl Ingestor {
    /// With the keys of a folder that `facilitator sample` made.
    pub fn of_world(world: &Path, party: &str, share: Share, bins: u32) -> anyhow::Result<Self> {
        let read = |name: &str| -> anyhow::Result<String> {
            let file = world.join(name);
            std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
        };
        let signing = BatchSigningKey::parse(
            read("ingestor-keys/batch-signing/id")?.trim(),
            &read("ingestor-keys/batch-signing/key")?,
        )?;
        let packet_key = format!("{party}-keys/packet-decryption/0");
        let public = facilitator_core::crypto::BatchVerifyingKey::parse(&read(&format!("{packet_key}/public.pem"))?)?;
        let recipient = PublicKey::from_sec1_bytes(public.point()).context("the packet key's point")?;
        let recipient = recipient.to_projective();
        Ok(Self {
            share,
            bins,
            signing,
            key_id: read(&format!("{packet_key}/id"))?.trim().to_owned(),
            recipient,
            next: [ProjectivePoint::GENERATOR, recipient],
            splitter: ShareSplitter::new(bins),
            rng: StdRng::seed_from_u64(9),
        })
    }

    /// Writes a batch of at least so many packets and so many bytes of packets below the mailbox's folder, in blocks that end
    /// after so many records or bytes; how many packets and bytes it has.
    pub fn write(
        &mut self,
        mailbox: &Path,
        batch: &BatchId,
        packets: usize,
        bytes: u64,
        (block_records, block_bytes): (usize, usize),
    ) -> anyhow::Result<(usize, u64)> {
        let file = |part| mailbox.join(batch.ingestion_key(part).as_str());
        std::fs::create_dir_all(file(IngestionPart::Packets).parent().context("a folder")?)?;
        let bytes_there = Cell::new(0);
        let target = Counted {
            file: BufWriter::new(File::create(file(IngestionPart::Packets))?),
            digest: Context::new(&SHA256),
            bytes: &bytes_there,
        };
        let mut writer = RecordWriter::with_blocks(target, block_records, block_bytes);
        let mut written = 0;
        while written < packets || bytes_there.get() < bytes {
            let together = match packets.saturating_sub(written) {
                0 => TOGETHER,
                left => TOGETHER.min(left),
            };
            self.append(&mut writer, together)?;
            written += together;
        }
        let mut target = writer.finish()?;
        target.file.flush()?;
        let header = IngestionHeader {
            parameters: BatchParameters {
                batch_uuid: batch.uuid,
                name: batch.aggregation.as_str().to_owned(),
                bins: self.bins.try_into()?,
                epsilon: 0.1,
                prime: PRIME.into(),
                number_of_servers: 2,
                hamming_weight: None,
            },
            batch_start_time: 0,
            batch_end_time: 1,
            packet_file_digest: target.digest.finish().as_ref().to_vec(),
        };
        let header = header.write();
        std::fs::write(file(IngestionPart::Header), &header)?;
        let signature = BatchSignature::sign(&self.signing, &header)?;
        std::fs::write(file(IngestionPart::Signature), signature.write())?;
        Ok((written, bytes_there.get()))
    }

    fn append<W: Write>(
        &mut self,
        writer: &mut RecordWriter<W, DataSharePacket>,
        packets: usize,
    ) -> anyhow::Result<()> {
        let mut points = Vec::with_capacity(2 * packets);
        for _ in 0..packets {
            points.extend(self.next);
            self.next[0] += ProjectivePoint::GENERATOR;
            self.next[1] += self.recipient;
        }
        let points = ProjectivePoint::batch_normalize(points.as_slice());
        for pair in points.chunks_exact(2) {
            let [ephemeral, common] = [pair[0], pair[1]].map(|point| point.to_sec1_point(false));
            let values: Vec<u32> = (0..self.bins).map(|_| u32::from(self.rng.random::<bool>())).collect();
            let shares = self.splitter.split(&values, &mut self.rng);
            let payload = match self.share {
                Share::First => sealed(ephemeral.as_bytes(), common.as_bytes(), &shares.first),
                Share::Second => sealed(ephemeral.as_bytes(), common.as_bytes(), shares.second.as_slice()),
            }?;
            let r_pit = loop {
                let point = self.rng.random_range(0..PRIME);
                if !query_point_refused(point, self.bins) {
                    break point;
                }
            };
            writer.write(&DataSharePacket {
                uuid: uuid::Builder::from_random_bytes(self.rng.random()).into_uuid(),
                encrypted_payload: payload,
                encryption_key_id: Some(self.key_id.clone()),
                r_pit: r_pit.into(),
                version_configuration: None,
                device_nonce: None,
            })?;
        }
        Ok(())
    }
}

/// A payload as `facilitator_core::crypto::encrypt` makes it, of points that are known.
fn sealed(ephemeral: &[u8], common: &[u8], plaintext: &[u8]) -> anyhow::Result<Vec<u8>> {
    let derived = digest(&SHA256, &[&common[1..33], &[0, 0, 0, 1], ephemeral].concat());
    let (key, nonce) = derived.as_ref().split_at(16);
    let (key, nonce): ([u8; 16], [u8; 16]) = (key.try_into()?, nonce.try_into()?);
    let mut payload = [ephemeral, plaintext].concat();
    let cipher = AesGcm::<aes_gcm::aes::Aes128, U16>::new(&key.into());
    let tag = cipher
        .encrypt_inout_detached(&nonce.into(), &[], payload[ephemeral.len()..].as_mut().into())
        .map_err(|_| anyhow::anyhow!("sealing failed"))?;
    payload.extend_from_slice(&tag);
    Ok(payload)
}

/// A file, with the digest and the number of its bytes.
struct Counted<'a> {
    file: BufWriter<File>,
    digest: Context,
    bytes: &'a Cell<u64>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes.set(self.bytes.get() + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
