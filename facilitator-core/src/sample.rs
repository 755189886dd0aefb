//! Ingestion batches with known totals, for trying things out: a pure function of what is asked for and of the keys.
//!
//! For samples alone: whoever knows the seed knows every value.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use snafu::{ResultExt, Snafu, ensure};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::crypto::{BatchSigningKey, EncryptionError, PublicPoint, SigningError, encrypt, sha256};
use crate::formats::ingestion::{DataSharePacket, IngestionHeader};
use crate::formats::names::{AggregationId, BatchId, BatchTime, IngestionPart};
use crate::formats::parameters::BatchParameters;
use crate::formats::signature::BatchSignature;
use crate::formats::work::Share;
use crate::proof::{self, PRIME, ShareSplitter, query_point_refused};

/// The most bins of a sample.
pub const MAX_BINS: u32 = 4096;

/// What to make.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSpec {
    /// The aggregation.
    pub aggregation: AggregationId,
    /// The time of the batch's path.
    pub time: BatchTime,
    /// The batch's UUID.
    pub batch_uuid: Uuid,
    /// Values of a packet, 1 to [`MAX_BINS`].
    pub bins: u32,
    /// Packets, faulty ones included; 0 makes an empty batch.
    pub packets: usize,
    /// Passed on in the header; no noise is added.
    pub epsilon: f64,
    /// Passed on in the header.
    pub hamming_weight: Option<i32>,
    /// In the header, milliseconds since 1970.
    pub batch_start_time: i64,
    /// In the header, milliseconds since 1970.
    pub batch_end_time: i64,
    /// The same seed, aggregation, time and UUID give the same values; with the same keys, the same bytes.
    pub seed: u64,
    /// Packets to spoil; none of them counts. At most one fault a packet: the last given holds.
    pub faults: Vec<Fault>,
}

/// A packet to spoil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its place in the batch, from 0.
    pub packet: usize,
    /// How.
    pub kind: FaultKind,
}

/// How to spoil a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Neither party can decrypt it.
    Undecryptable,
    /// One party can't decrypt it.
    UndecryptableFor(Share),
    /// It is of one bin more than the header says: First sees it, Second can't.
    WrongDimension,
    /// First's share has an element beyond the field.
    ElementOutOfField,
    /// One of its values is 2.
    InvalidProof,
    /// It has the UUID of the packet before it.
    DuplicateUuid,
    /// It has the payload of the packet before it.
    DuplicatePayload,
    /// Its query point is a root of unity.
    QueryPointRefused,
    /// Its query point is 2^32.
    QueryPointOutOfRange,
}

/// Whom a party's packets are encrypted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The public half of a packet decryption key.
    pub public_point: PublicPoint,
    /// What packets name as `encryption_key_id`.
    pub key_id: Option<String>,
}

/// The bytes of one party's three objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestionObjects {
    /// Of `.batch`.
    pub header: Vec<u8>,
    /// Of `.batch.sig`; put it last.
    pub signature: Vec<u8>,
    /// Of `.batch.avro`; put it first. Without packets there are no bytes and no object.
    pub packets: Vec<u8>,
}

impl IngestionObjects {
    /// The objects in the order in which they must be put, a packet object without bytes left out.
    pub fn in_put_order(&self) -> impl Iterator<Item = (IngestionPart, &[u8])> {
        let packets = (!self.packets.is_empty()).then_some((IngestionPart::Packets, self.packets.as_slice()));
        let rest = [
            (IngestionPart::Header, self.header.as_slice()),
            (IngestionPart::Signature, self.signature.as_slice()),
        ];
        packets.into_iter().chain(rest)
    }
}

/// A batch, for both parties, and its truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The batch.
    pub id: BatchId,
    /// First's objects.
    pub first: IngestionObjects,
    /// Second's objects.
    pub second: IngestionObjects,
    /// For each bin, how many of the packets that count have it set.
    pub totals: Vec<u64>,
    /// The packets that count.
    pub clients: u64,
}

/// A sample that can't be made.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
pub enum SampleError {
    /// Bins out of bounds.
    #[snafu(display("{bins} bins: a sample has 1 to {MAX_BINS}"))]
    Bins {
        /// As asked for.
        bins: u32,
    },
    /// A fault of a packet that isn't there, or that needs one before it.
    #[snafu(display("packet {packet} can't be spoilt so: the sample doesn't hold it, or no packet before it"))]
    Fault {
        /// As asked for.
        packet: usize,
    },
    /// A recipient's key.
    #[snafu(display("{share:?}: {source}"))]
    Recipient {
        /// Whose.
        share: Share,
        /// What is wrong.
        source: EncryptionError,
    },
    /// The ingestor's key.
    #[snafu(transparent)]
    Signing {
        /// What is wrong.
        source: SigningError,
    },
}

impl SampleError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Signing { source } if source.is_retryable())
    }
}

/// Makes a batch for First and Second, in this order of `recipients`.
///
/// # Errors
/// [`SampleError`].
pub fn make(spec: &SampleSpec, recipients: &[Recipient; 2], ingestor: &BatchSigningKey) -> Result<Sample, SampleError> {
    ensure!((1..=MAX_BINS).contains(&spec.bins), BinsSnafu { bins: spec.bins });
    let mut faults = vec![None; spec.packets];
    for Fault { packet, kind } in &spec.faults {
        let needs_previous = matches!(kind, FaultKind::DuplicateUuid | FaultKind::DuplicatePayload);
        ensure!(
            *packet < spec.packets && (*packet > 0 || !needs_previous),
            FaultSnafu { packet: *packet }
        );
        faults[*packet] = Some(*kind);
    }
    let id = BatchId {
        aggregation: spec.aggregation.clone(),
        time: spec.time,
        uuid: spec.batch_uuid,
    };
    let mut maker = Maker::new(spec, &id);
    let mut packets = [Vec::with_capacity(spec.packets), Vec::with_capacity(spec.packets)];
    for fault in faults {
        let [first, second] = maker.packet(fault, recipients, [packets[0].last(), packets[1].last()])?;
        packets[0].push(first);
        packets[1].push(second);
    }
    let [first, second] = packets;
    Ok(Sample {
        id,
        first: objects(spec, &first, ingestor)?,
        second: objects(spec, &second, ingestor)?,
        totals: maker.totals,
        clients: maker.clients,
    })
}

struct Maker<'a> {
    spec: &'a SampleSpec,
    splitter: ShareSplitter,
    /// How likely each bin is set.
    likelihood: Vec<f64>,
    /// Values don't depend on keys, so each has a source of its own.
    values: StdRng,
    encryption: [StdRng; 2],
    totals: Vec<u64>,
    clients: u64,
}

impl<'a> Maker<'a> {
    fn new(spec: &'a SampleSpec, id: &BatchId) -> Self {
        let source =
            |purpose: &str| StdRng::from_seed(sha256(format!("sample {} {id} {purpose}", spec.seed).as_bytes()));
        // Of the aggregation alone: a bin means the same in each of its batches.
        let name = format!("sample {} {} bins", spec.seed, spec.aggregation);
        let mut bins = StdRng::from_seed(sha256(name.as_bytes()));
        let likelihood = (0..spec.bins)
            .map(|_| 0.02 + 0.6 * bins.random::<f64>().powi(2))
            .collect();
        Self {
            spec,
            splitter: ShareSplitter::new(spec.bins),
            likelihood,
            values: source("values"),
            encryption: [source("first"), source("second")],
            totals: vec![0; spec.bins as usize],
            clients: 0,
        }
    }

    fn packet(
        &mut self,
        fault: Option<FaultKind>,
        recipients: &[Recipient; 2],
        previous: [Option<&DataSharePacket>; 2],
    ) -> Result<[DataSharePacket; 2], SampleError> {
        let mut uuid = uuid::Builder::from_random_bytes(self.values.random()).into_uuid();
        let mut values: Vec<u32> = self
            .likelihood
            .iter()
            .map(|likelihood| u32::from(self.values.random_bool(*likelihood)))
            .collect();
        let mut r_pit = i64::from(self.query_point());
        match fault {
            None => {
                self.clients += 1;
                self.totals
                    .iter_mut()
                    .zip(&values)
                    .for_each(|(total, value)| *total += u64::from(*value));
            }
            Some(FaultKind::InvalidProof) => values[0] = 2,
            Some(FaultKind::QueryPointRefused) => r_pit = 1,
            Some(FaultKind::QueryPointOutOfRange) => r_pit = 1 << 32,
            Some(FaultKind::DuplicateUuid) => uuid = previous[0].map_or(uuid, |packet| packet.uuid),
            Some(_) => {}
        }
        let mut shares = if fault == Some(FaultKind::WrongDimension) {
            values.push(0);
            ShareSplitter::new(self.spec.bins + 1).split(&values, &mut self.values)
        } else {
            self.splitter.split(&values, &mut self.values)
        };
        if fault == Some(FaultKind::ElementOutOfField) {
            shares.first[..4].copy_from_slice(&PRIME.to_le_bytes());
        }
        let first = self.encrypted(Share::First, &shares.first, fault, &recipients[0], previous[0])?;
        let second_plain = Zeroizing::new(shares.second.to_vec());
        let second = self.encrypted(Share::Second, &second_plain, fault, &recipients[1], previous[1])?;
        let device_nonce = self.values.random::<[u8; 16]>().to_vec();
        let packet = |payload: Vec<u8>, recipient: &Recipient| DataSharePacket {
            uuid,
            encrypted_payload: payload,
            encryption_key_id: recipient.key_id.clone(),
            r_pit,
            version_configuration: Some("sample-1".to_owned()),
            device_nonce: Some(device_nonce.clone()),
        };
        Ok([packet(first, &recipients[0]), packet(second, &recipients[1])])
    }

    fn query_point(&mut self) -> u32 {
        loop {
            let point = self.values.random_range(0..PRIME);
            if !query_point_refused(point, self.spec.bins) {
                return point;
            }
        }
    }

    fn encrypted(
        &mut self,
        share: Share,
        plaintext: &[u8],
        fault: Option<FaultKind>,
        recipient: &Recipient,
        previous: Option<&DataSharePacket>,
    ) -> Result<Vec<u8>, SampleError> {
        let rng = &mut self.encryption[usize::from(share.index())];
        let mut payload = encrypt(&recipient.public_point, plaintext, rng).context(RecipientSnafu { share })?;
        match (fault, previous) {
            (Some(FaultKind::DuplicatePayload), Some(previous)) => payload.clone_from(&previous.encrypted_payload),
            (Some(FaultKind::Undecryptable), _) => spoil(&mut payload),
            (Some(FaultKind::UndecryptableFor(party)), _) if party == share => spoil(&mut payload),
            _ => {}
        }
        Ok(payload)
    }
}

fn spoil(payload: &mut [u8]) {
    if let Some(last) = payload.last_mut() {
        *last ^= 1;
    }
}

fn objects(
    spec: &SampleSpec,
    packets: &[DataSharePacket],
    ingestor: &BatchSigningKey,
) -> Result<IngestionObjects, SampleError> {
    let packets = DataSharePacket::write_all(packets);
    let header = IngestionHeader {
        parameters: BatchParameters {
            batch_uuid: spec.batch_uuid,
            name: spec.aggregation.to_string(),
            bins: spec.bins.cast_signed(),
            epsilon: spec.epsilon,
            prime: i64::from(proof::PRIME),
            number_of_servers: 2,
            hamming_weight: spec.hamming_weight,
        },
        batch_start_time: spec.batch_start_time,
        batch_end_time: spec.batch_end_time,
        packet_file_digest: sha256(&packets).to_vec(),
    }
    .write();
    let signature = BatchSignature::sign(ingestor, &header)?.write();
    Ok(IngestionObjects {
        header,
        signature,
        packets,
    })
}
