//! Whole batches: what intake makes of an ingestor's three objects, and what aggregation makes of the peer's.
//!
//! An input is a byte of flags, header and signature with their lengths before them (u16, little-endian), and packets. Nothing
//! that is changed would get behind the signature, and little behind the digest: flags say what is made right again.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use facilitator_core::crypto::{BatchSigningKey, sha256};
use facilitator_core::formats::avro::{Record, read_one, write_one};
use facilitator_core::formats::ingestion::IngestionHeader;
use facilitator_core::formats::names::{BatchId, IngestionPart, ValidationPart};
use facilitator_core::formats::record::Record as LedgerRecord;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::ValidationHeader;
use facilitator_core::formats::work::Share;
use facilitator_core::intake::{IntakeOutcome, take_in};
use facilitator_core::processor::{Mailboxes, Processor};
use facilitator_core::sample::FaultKind;
use mailbox::{Mailbox, MemoryMailbox};
use tokio::runtime::Runtime;

use super::{ACCEPTED, Target};
use crate::listener::Listener;
use crate::support::Keys;
use crate::world::World;

/// The packets' digest is put into the header, where that can be read.
const DIGEST: u8 = 1;
/// The header is signed anew.
const SIGN: u8 = 2;
/// Of an ingestion batch: Second takes it in.
const SECOND: u8 = 4;
/// Packets of a batch.
const PACKETS: usize = 3;

/// The objects of an input, and its flags.
struct Objects {
    flags: u8,
    header: Vec<u8>,
    signature: Vec<u8>,
    packets: Vec<u8>,
}

impl Objects {
    fn split(input: &[u8]) -> Self {
        fn object<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
            let Some((length, content)) = rest.split_first_chunk() else {
                return std::mem::take(rest);
            };
            let (object, after) = content.split_at(content.len().min(u16::from_le_bytes(*length).into()));
            *rest = after;
            object
        }
        let (flags, mut rest) = input.split_first().unwrap_or((&0, &[]));
        let (header, signature) = (object(&mut rest).to_vec(), object(&mut rest).to_vec());
        Self {
            flags: *flags,
            header,
            signature,
            packets: rest.to_vec(),
        }
    }

    fn joined(&self) -> Vec<u8> {
        let mut input = vec![self.flags];
        for object in [&self.header, &self.signature] {
            input.extend_from_slice(&u16::try_from(object.len()).unwrap().to_le_bytes());
            input.extend_from_slice(object);
        }
        input.extend_from_slice(&self.packets);
        input
    }

    /// Makes right what the flags say.
    fn mend<H: Record>(&mut self, key: &BatchSigningKey, set_digest: fn(&mut H, Vec<u8>)) {
        if self.flags & DIGEST != 0
            && let Ok(mut header) = read_one::<H>(&self.header)
        {
            set_digest(&mut header, sha256(&self.packets).to_vec());
            self.header = write_one(&header);
        }
        if self.flags & SIGN != 0 {
            self.signature = BatchSignature::sign(key, &self.header).unwrap().write();
        }
    }
}

/// What needs to be made once only.
struct Stage {
    runtime: Runtime,
    /// Their mailboxes are changed for each input.
    processors: [RefCell<Processor>; 2],
    batch: BatchId,
    keys: Keys,
    listener: Listener,
}

impl Stage {
    fn with<T>(work: impl FnOnce(&Self) -> T) -> T {
        thread_local! {
            static STAGE: OnceCell<Stage> = const { OnceCell::new() };
        }
        STAGE.with(|stage| work(stage.get_or_init(Self::new)))
    }

    fn new() -> Self {
        let world = World::new();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            processors: [Share::First, Share::Second].map(|share| RefCell::new(world.processor(share))),
            batch: world.sample_of(1, PACKETS, 2, &[]).id,
            keys: Keys::read(),
            listener: Listener::new(PACKETS),
        }
    }
}

/// A party's mailboxes, empty but for the objects of a batch.
struct Place {
    ledger: Arc<MemoryMailbox>,
    peer: Arc<MemoryMailbox>,
    mailboxes: Mailboxes,
}

impl Place {
    fn of(objects: &Objects, batch: &BatchId) -> Self {
        let mailbox = |name: &str| Arc::new(MemoryMailbox::new(name));
        let (ingestion, ledger, peer) = (mailbox("ingestion"), mailbox("ledger"), mailbox("peer"));
        let parts = [
            (IngestionPart::Packets, &objects.packets),
            (IngestionPart::Header, &objects.header),
            (IngestionPart::Signature, &objects.signature),
        ];
        for (part, bytes) in parts {
            ingestion.replace(&batch.ingestion_key(part), bytes.clone());
        }
        let mailboxes = Mailboxes {
            ingestion,
            peer_validation: mailbox("peer-validation"),
            ledger: Arc::clone(&ledger) as Arc<dyn Mailbox>,
            peer: Arc::clone(&peer) as Arc<dyn Mailbox>,
            portal: mailbox("portal"),
        };
        Self {
            ledger,
            peer,
            mailboxes,
        }
    }
}

/// Taken in, and taken in again: what was refused isn't answered, what waits is left alone, and what was answered is
/// answered alike.
fn ingested(input: &[u8]) -> Result<Vec<String>, String> {
    Stage::with(|stage| {
        let mut objects = Objects::split(input);
        objects.mend(&stage.keys.ingestor, |header: &mut IngestionHeader, digest| {
            header.packet_file_digest = digest;
        });
        let place = Place::of(&objects, &stage.batch);
        let mut ended = vec![String::new(); 2];
        let second = usize::from(objects.flags & SECOND != 0);
        let mut processor = stage.processors[second].borrow_mut();
        processor.mailboxes = place.mailboxes.clone();
        let run = || {
            let taken = stage.runtime.block_on(take_in(&processor, &stage.batch, true));
            taken.map_err(|error| format!("no outcome: {error}"))
        };
        let outcome = run()?;
        let (ledger, peer) = (place.ledger.snapshot(), place.peer.snapshot());
        ended[second] = match &outcome {
            IntakeOutcome::Validated { packets, excluded, .. } => {
                let key = stage.batch.ledger_key("records");
                let record = ledger.get(key.as_str()).ok_or("it is answered without a record")?;
                let record = LedgerRecord::decode(record).map_err(|error| error.to_string())?;
                if record.plain.packets.len() as u64 != *packets || record.plain.excluded() != *excluded {
                    return Err("the record says something else".into());
                }
                format!("{ACCEPTED} {} {}", (*packets).min(3), (*excluded).min(3))
            }
            IntakeOutcome::Rejected { reason, message, .. } => {
                if !peer.is_empty() || ledger.len() != 1 {
                    return Err(format!(
                        "it is refused, and there is more: {:?} {:?}",
                        ledger.keys(),
                        peer.keys()
                    ));
                }
                format!("{reason} {message}")
            }
            IntakeOutcome::Blocked { reason, message, .. } => {
                if !peer.is_empty() || !ledger.is_empty() {
                    return Err(format!("it waits, and there is: {:?} {:?}", ledger.keys(), peer.keys()));
                }
                format!("{reason} {message}")
            }
        };
        let once_more = match (outcome, run()?) {
            (
                IntakeOutcome::Validated { packets, excluded, .. },
                IntakeOutcome::Validated {
                    packets: p,
                    excluded: e,
                    already,
                    ..
                },
            ) => already && (packets, excluded) == (p, e),
            (IntakeOutcome::Rejected { reason, .. }, IntakeOutcome::Rejected { reason: r, already, .. }) => {
                already && reason == r
            }
            (first, second) => first == second,
        };
        if !once_more || ledger != place.ledger.snapshot() || peer != place.peer.snapshot() {
            return Err("once more, it ends otherwise".into());
        }
        Ok(ended)
    })
}

/// Planned and summed with three objects of the peer and with one: the same comes of it.
fn validated(input: &[u8]) -> Result<Vec<String>, String> {
    Stage::with(|stage| {
        let listener = &stage.listener;
        let mut objects = Objects::split(input);
        objects.mend(&stage.keys.second, |header: &mut ValidationHeader, digest| {
            header.packet_file_digest = digest;
        });
        let signature = BatchSignature::read(&objects.signature);
        let three: [(_, Bytes); 3] = [
            (ValidationPart::Packets, objects.packets.clone().into()),
            (ValidationPart::Header, objects.header.clone().into()),
            (ValidationPart::Signature, objects.signature.into()),
        ];
        let of_three = listener.aggregated(&three)?;
        let mut ended = vec![listener.explained(&of_three, &three)?, String::new()];
        if let Ok(signature) = signature
            && signature.inline().is_none()
        {
            let one = BatchSignature {
                batch_header: Some(objects.header),
                packets: Some(objects.packets),
                ..signature
            };
            let of_one = listener.aggregated(&[(ValidationPart::Signature, one.write().into())])?;
            if of_one != of_three {
                return Err(format!(
                    "in three objects {}, in one {}",
                    of_three.said(),
                    of_one.said()
                ));
            }
            ended[1] = of_one.said();
        }
        Ok(ended)
    })
}

fn ingestion_seeds() -> Vec<Vec<u8>> {
    let faults: [&[(usize, FaultKind)]; 4] = [
        &[],
        &[(1, FaultKind::WrongDimension)],
        &[(1, FaultKind::DuplicateUuid)],
        &[(1, FaultKind::QueryPointRefused)],
    ];
    let mut seeds = Vec::new();
    for faults in faults {
        let sample = World::new().sample_of(1, PACKETS, 2, faults);
        for (flags, objects) in [(DIGEST | SIGN, sample.first), (DIGEST | SIGN | SECOND, sample.second)] {
            let objects = Objects {
                flags,
                header: objects.header,
                signature: objects.signature,
                packets: objects.packets,
            };
            seeds.push(objects.joined());
        }
    }
    seeds
}

fn validation_seeds() -> Vec<Vec<u8>> {
    let seed = |flags| {
        let object = |part| Stage::with(|stage| stage.listener.honest(part).to_vec());
        let objects = Objects {
            flags,
            header: object(ValidationPart::Header),
            signature: object(ValidationPart::Signature),
            packets: object(ValidationPart::Packets),
        };
        objects.joined()
    };
    vec![seed(0), seed(SIGN), seed(DIGEST | SIGN)]
}

pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "ingestion-batch",
            parts: &["by First", "by Second"],
            seeds: ingestion_seeds,
            run: ingested,
        },
        Target {
            name: "validation-batch",
            parts: &["in three objects", "in one"],
            seeds: validation_seeds,
            run: validated,
        },
    ]
}
