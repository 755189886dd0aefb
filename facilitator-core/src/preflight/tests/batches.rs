//! Partners' batches that are there.

use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::*;
use crate::crypto::{BatchSigningKey, PacketDecryptionKey};
use crate::formats::ingestion::IngestionHeader;
use crate::formats::names::{AggregationId, BatchId, BatchTime, ValidationPart};
use crate::formats::signature::BatchSignature;
use crate::formats::validation::ValidationHeader;
use crate::sample::{Recipient, Sample, SampleSpec, make};

/// In a window that is open at the tests' noon, and in one that was over long before.
pub(super) const RECENT: &str = "2026/11/20/08/00";
const OLD: &str = "2026/11/10/08/00";

fn sample(signer: &BatchSigningKey, time: &str) -> Sample {
    let mut rng = StdRng::seed_from_u64(6);
    let recipients = [(); 2].map(|()| Recipient {
        public_point: *PacketDecryptionKey::generate(&mut rng).public_point(),
        key_id: None,
    });
    let spec = SampleSpec {
        aggregation: AggregationId::parse("kittens").unwrap(),
        time: BatchTime::parse_path(time).unwrap(),
        batch_uuid: Uuid::from_u128(1),
        bins: 4,
        packets: 2,
        epsilon: 0.5,
        hamming_weight: None,
        batch_start_time: 0,
        batch_end_time: 1,
        seed: 1,
        faults: Vec::new(),
    };
    make(&spec, &recipients, signer).unwrap()
}

impl World {
    fn put_objects(&self, id: &BatchId, sample: &Sample) {
        for (part, bytes) in sample.first.in_put_order() {
            self.mailboxes[&Place::Ingestion].replace(&id.ingestion_key(part), bytes.to_vec());
        }
    }

    pub(super) fn put_batch(&self, signer: &BatchSigningKey, time: &str) {
        let sample = sample(signer, time);
        self.put_objects(&sample.id, &sample);
    }

    pub(super) fn put_batch_of_no_bins(&self, time: &str) {
        let mut sample = sample(&self.ingestor, time);
        let mut header = IngestionHeader::read(&sample.first.header).unwrap();
        header.parameters.bins = 0;
        sample.first.header = header.write();
        let signature = BatchSignature::sign(&self.ingestor, &sample.first.header).unwrap();
        sample.first.signature = signature.write();
        self.put_objects(&sample.id, &sample);
    }

    pub(super) fn put_validation(&self, signer: &BatchSigningKey, bins: i32, time: &str) {
        let sample = sample(&self.ingestor, time);
        let mut parameters = IngestionHeader::read(&sample.first.header).unwrap().parameters;
        parameters.bins = bins;
        let header = ValidationHeader {
            parameters,
            packet_file_digest: vec![0; 32],
        };
        let header = header.write();
        let signature = BatchSignature::sign(signer, &header).unwrap().write();
        let key = |part| sample.id.validation_key(Share::Second, part);
        let mailbox = &self.mailboxes[&Place::PeerValidation];
        mailbox.replace(&key(ValidationPart::Header), header);
        mailbox.replace(&key(ValidationPart::Signature), signature);
    }
}

#[tokio::test]
async fn a_batch_that_is_there_shows_its_signer_and_its_format() {
    let world = World::new();
    world.put_batch(&world.ingestor, RECENT);
    let lines = world.lines(PreflightStage::Intake).await;
    for (check, detail) in [
        (Check::Signature, "is signed by \"ingestor\""),
        (Check::Formats, "4 bins"),
    ] {
        let line = lines
            .iter()
            .find(|line| line.check == check && line.mailbox == Some(Place::Ingestion))
            .unwrap();
        assert_eq!(line.outcome, Outcome::Passed);
        assert!(line.detail.contains(detail), "{line:?}");
    }
}

#[tokio::test]
async fn a_validation_that_is_there_shows_its_signer_and_its_format() {
    let world = World::new();
    world.put_validation(&world.peer, 4, RECENT);
    let place = Place::PeerValidation;
    for (check, detail) in [(Check::Signature, "by a key that is known"), (Check::Formats, "4 bins")] {
        let line = world.line(PreflightStage::Aggregate, check, place).await;
        assert_eq!(line.outcome, Outcome::Passed);
        assert!(line.detail.contains(detail), "{line:?}");
    }
    // One that is none is no validation that we could use either.
    let id = BatchId::parse(&format!("kittens/2026/11/20/09/00/{}", Uuid::from_u128(2))).unwrap();
    world.mailboxes[&place].replace(&id.validation_key(Share::Second, ValidationPart::Signature), "none");
    let line = world.line(PreflightStage::Aggregate, Check::Signature, place).await;
    assert_eq!(line.outcome, Outcome::Failed, "{line:?}");
}

#[tokio::test]
async fn a_key_that_only_old_batches_were_signed_with_may_be_gone() {
    let retired = BatchSigningKey::generate("retired", &mut StdRng::seed_from_u64(8));
    let (intake, aggregate) = (PreflightStage::Intake, PreflightStage::Aggregate);
    let world = World::new();
    let old = sample(&retired, OLD);
    // More than are looked at first, in names' order.
    for n in 0..100 {
        let id = BatchId {
            uuid: Uuid::from_u128(n),
            ..old.id.clone()
        };
        world.put_objects(&id, &old);
    }
    world.put_validation(&retired, 4, OLD);
    for (stage, place) in [(intake, Place::Ingestion), (aggregate, Place::PeerValidation)] {
        assert_eq!(world.failed(stage).await, []);
        let line = world.line(stage, Check::Signature, place).await;
        assert_eq!(line.outcome, Outcome::NotCheckable, "{line:?}");
        assert!(line.detail.contains("retired") && line.remedy.is_empty(), "{line:?}");
    }
    world.put_batch(&world.ingestor, RECENT);
    world.put_validation(&world.peer, 4, RECENT);
    for (stage, place) in [(intake, Place::Ingestion), (aggregate, Place::PeerValidation)] {
        let line = world.line(stage, Check::Signature, place).await;
        assert_eq!(line.outcome, Outcome::Passed, "{line:?}");
        assert!(line.detail.contains(RECENT), "{line:?}");
    }
}
