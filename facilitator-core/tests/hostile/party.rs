//! A party to which hostile batches come.

use std::sync::Arc;
use std::time::Duration;

use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::ingestion::{DataSharePacket, IngestionHeader};
use facilitator_core::formats::names::{BatchId, IngestionPart, InstanceName};
use facilitator_core::formats::parameters::BatchParameters;
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::intake::{IntakeOutcome, take_in};
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor};
use facilitator_core::proof::PRIME;
use mailbox::{Mailbox, MemoryMailbox};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::Keys;

pub const BINS: u32 = 8;

/// First, with an ingestion mailbox to put things into.
pub struct Party {
    pub runtime: Runtime,
    pub ingestion: Arc<MemoryMailbox>,
    pub processor: Processor,
    pub keys: Keys,
    pub id: BatchId,
}

impl Party {
    pub fn new() -> Self {
        let (keys, own) = (Keys::read(), Keys::read());
        let mailbox = |name: &str| Arc::new(MemoryMailbox::new(name));
        let ingestion = mailbox("ingestion");
        let processor = Processor {
            instance: InstanceName::parse("us-ct").unwrap(),
            share: Share::First,
            legacy_peer: false,
            validation_format: ValidationFormat::ThreeObjects,
            min_clients: 1,
            mailboxes: Mailboxes {
                ingestion: Arc::clone(&ingestion) as Arc<dyn Mailbox>,
                peer_validation: mailbox("peer-validation"),
                ledger: mailbox("ledger"),
                peer: mailbox("peer"),
                portal: mailbox("portal"),
            },
            ingestor_keys: own.trusted.clone(),
            peer_keys: own.trusted,
            signing_key: own.first,
            other_signing_keys: Vec::new(),
            use_marks: None,
            packet_keys: Arc::from(vec![MountedPacketKey {
                id: "one".into(),
                key: own.first_packets,
            }]),
            replay_guard: Some(ReplayGuard { horizon_days: 14 }),
            clock: jiff::Timestamp::now,
            reread_pause: Duration::ZERO,
            in_memory: InMemory::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let id = BatchId::parse("kittens-seen/2026/11/20/00/00/00000000-0000-0000-0000-000000000001").unwrap();
        Self {
            runtime,
            ingestion,
            processor,
            keys,
            id,
        }
    }

    pub fn header(&self, packets: &[u8]) -> IngestionHeader {
        IngestionHeader {
            parameters: parameters(&self.id),
            batch_start_time: 1,
            batch_end_time: 2,
            packet_file_digest: sha256(packets).to_vec(),
        }
    }

    /// What intake says of these objects; `None`: not there. Nothing may be put but a refusal.
    pub fn intake(&self, header: Option<&[u8]>, signature: Option<&[u8]>, packets: Option<&[u8]>) -> String {
        let parts = [
            (IngestionPart::Header, header),
            (IngestionPart::Signature, signature),
            (IngestionPart::Packets, packets),
        ];
        for (part, bytes) in parts {
            let key = self.id.ingestion_key(part);
            match bytes {
                Some(bytes) => self.ingestion.replace(&key, bytes.to_vec()),
                None => {
                    self.ingestion.remove(&key);
                }
            }
        }
        match self.runtime.block_on(take_in(&self.processor, &self.id, true)) {
            Err(error) => format!("error: {error}"),
            Ok(IntakeOutcome::Validated { .. }) => "accepted".into(),
            Ok(IntakeOutcome::Rejected { reason, message, .. }) => format!("Rejected {reason}: {message}"),
            Ok(IntakeOutcome::Blocked { reason, message, .. }) => format!("Blocked {reason}: {message}"),
        }
    }

    /// What intake says of a well signed header and these packets.
    pub fn signed(&self, header: &[u8], packets: &[u8]) -> String {
        let signature = BatchSignature::sign(&self.keys.ingestor, header).unwrap().write();
        self.intake(Some(header), Some(&signature), Some(packets))
    }
}

pub fn parameters(id: &BatchId) -> BatchParameters {
    BatchParameters {
        batch_uuid: id.uuid,
        name: id.aggregation.to_string(),
        bins: BINS.cast_signed(),
        epsilon: 0.1,
        prime: i64::from(PRIME),
        number_of_servers: 2,
        hamming_weight: None,
    }
}

pub fn packet(payload: Vec<u8>) -> DataSharePacket {
    DataSharePacket {
        uuid: Uuid::from_u128(9),
        encrypted_payload: payload,
        encryption_key_id: None,
        r_pit: 5,
        version_configuration: None,
        device_nonce: None,
    }
}
