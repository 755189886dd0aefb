#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use mailbox::{Access, ConditionalWrites, ExpiryRule, MemoryMailbox, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::crypto::csr::signing_request;
use crate::crypto::{BatchSigningKey, PacketDecryptionKey};
use crate::formats::ledger::{LedgerIdentity, LedgerObject};
use crate::formats::manifest::{BatchSigningPublicKey, DataShareProcessorSpecificManifest, PacketEncryptionKey};
use crate::formats::names::{AggregationId, BatchTime, IngestionPart};
use crate::formats::work::{
    MailboxParameter, MailboxParameters, ProcessorParameter, PublicKeyParameter, REVISION, ReplayGuardParameters,
    Share, WindowParameters,
};
use crate::sample::{Recipient, SampleSpec, make};

/// A processor before its first batch, and all that can be broken of it.
struct World {
    parameters: Parameters,
    keys: OwnKeys,
    manifest: Option<String>,
    mailboxes: BTreeMap<Place, MemoryMailbox>,
    closed: Vec<Place>,
    now: Timestamp,
    ingestor: BatchSigningKey,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn public(key: &BatchSigningKey) -> PublicKeyParameter {
    PublicKeyParameter {
        id: key.id().to_owned(),
        public_key: key.verifying_key().to_pem(),
    }
}

impl World {
    fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(5);
        let mut signs = |id| BatchSigningKey::generate(id, &mut rng);
        let (ours, ingestor, peer) = (signs("ours"), signs("ingestor"), signs("peer"));
        let packets = PacketDecryptionKey::generate(&mut rng);
        let manifest = DataShareProcessorSpecificManifest {
            format: 2,
            ingestion_bucket: "gs://ingestion".into(),
            ingestion_identity: None,
            peer_validation_bucket: "gs://validation".into(),
            peer_validation_identity: None,
            batch_signing_public_keys: BTreeMap::from([(
                "ours".to_owned(),
                BatchSigningPublicKey {
                    public_key: ours.verifying_key().to_pem(),
                    expiration: "2099-01-01T00:00:00Z".into(),
                },
            )]),
            packet_encryption_keys: BTreeMap::from([(
                "packets".to_owned(),
                PacketEncryptionKey {
                    certificate_signing_request: signing_request(&packets, "us-ct.prod.certificates.example.org")
                        .unwrap(),
                },
            )]),
        };
        let mailbox = |name: &str| MailboxParameter {
            url: format!("memory:{name}"),
            access: Access::default(),
        };
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let places = [
            Place::Ingestion,
            Place::PeerValidation,
            Place::Ledger,
            Place::Peer,
            Place::Portal,
        ];
        let mailboxes: BTreeMap<Place, MemoryMailbox> = places
            .map(|place| (place, MemoryMailbox::new(&format!("{place:?}"))))
            .into();
        for mailbox in mailboxes.values() {
            mailbox.tell_time(now);
        }
        mailboxes[&Place::Ledger].expire(Vec::new());
        Self {
            parameters: Parameters {
                revision: REVISION,
                processor: ProcessorParameter {
                    namespace: "pha".into(),
                    name: "us-ct".into(),
                    uid: "u".into(),
                },
                share: Share::First,
                instance: "us-ct".into(),
                ledger_id: None,
                start_at: "2026-11-20T00:00:00Z".into(),
                mailboxes: MailboxParameters {
                    ingestion: mailbox("ingestion"),
                    peer_validation: mailbox("peer-validation"),
                    ledger: mailbox("ledger"),
                    peer: mailbox("peer"),
                    portal: mailbox("portal"),
                },
                ingestor_keys: vec![public(&ingestor)],
                peer_keys: vec![public(&peer)],
                legacy_peer: false,
                validation_format: ValidationFormat::ThreeObjects,
                packet_decryption_keys: 1,
                other_signing_keys: 0,
                windows: WindowParameters {
                    period_seconds: 28_800,
                    min_clients: 100,
                },
                replay_guard: ReplayGuardParameters {
                    enabled: true,
                    horizon_days: 14,
                },
            },
            keys: OwnKeys {
                signing: Ok(vec![("ours".into(), *ours.verifying_key().point())]),
                packets: Ok(vec![("packets".into(), *packets.public_point())]),
            },
            manifest: Some(manifest.to_json()),
            mailboxes,
            closed: Vec::new(),
            now,
            ingestor,
        }
    }

    fn opened(&self, place: Place) -> Result<Arc<dyn Mailbox>, Trouble> {
        if self.closed.contains(&place) {
            return Err(Trouble {
                detail: "its URL is none".into(),
                remedy: "mend it".into(),
            });
        }
        Ok(Arc::new(self.mailboxes[&place].clone()))
    }

    async fn lines(&self, stage: PreflightStage) -> Vec<Line> {
        let opened = Opened {
            ingestion: self.opened(Place::Ingestion),
            peer_validation: self.opened(Place::PeerValidation),
            ledger: self.opened(Place::Ledger),
            peer: self.opened(Place::Peer),
            portal: self.opened(Place::Portal),
        };
        let preflight = Preflight {
            stage,
            parameters: &self.parameters,
            keys: &self.keys,
            mailboxes: &opened,
            manifest: self.manifest.as_deref(),
            clock: &|| self.now,
        };
        preflight.run().await
    }

    async fn ending(&self, stage: PreflightStage, outcome: Outcome) -> Vec<(Check, Option<Place>)> {
        let lines = self.lines(stage).await;
        let ending = lines.iter().filter(|line| line.outcome == outcome);
        for line in ending.clone().filter(|_| outcome == Outcome::Failed) {
            assert!(!line.detail.is_empty() && !line.remedy.is_empty(), "{line:?}");
        }
        ending.map(|line| (line.check, line.mailbox)).collect()
    }

    async fn failed(&self, stage: PreflightStage) -> Vec<(Check, Option<Place>)> {
        self.ending(stage, Outcome::Failed).await
    }

    fn put_batch(&self, signer: &BatchSigningKey) {
        let mut rng = StdRng::seed_from_u64(6);
        let recipients = [(); 2].map(|()| Recipient {
            public_point: *PacketDecryptionKey::generate(&mut rng).public_point(),
            key_id: None,
        });
        let spec = SampleSpec {
            aggregation: AggregationId::parse("kittens").unwrap(),
            time: BatchTime::parse_path("2026/11/20/08/00").unwrap(),
            batch_uuid: uuid::Uuid::from_u128(1),
            bins: 4,
            packets: 2,
            epsilon: 0.5,
            hamming_weight: None,
            batch_start_time: 0,
            batch_end_time: 1,
            seed: 1,
            faults: Vec::new(),
        };
        let sample = make(&spec, &recipients, signer).unwrap();
        for (part, bytes) in sample.first.in_put_order() {
            let part: IngestionPart = part;
            self.mailboxes[&Place::Ingestion].replace(&sample.id.ingestion_key(part), bytes.to_vec());
        }
    }
}

const BOTH: [PreflightStage; 2] = [PreflightStage::Intake, PreflightStage::Aggregate];

#[tokio::test]
async fn before_its_first_batch_a_good_processor_passes_and_nothing_is_left_anywhere() {
    let world = World::new();
    for stage in BOTH {
        assert_eq!(world.failed(stage).await, []);
    }
    assert_eq!(
        world.ending(PreflightStage::Intake, Outcome::NotCheckable).await,
        [(Check::Signature, Some(Place::Ingestion))]
    );
    for (place, mailbox) in &world.mailboxes {
        assert!(mailbox.snapshot().is_empty(), "{place:?}");
        assert_eq!(mailbox.open_uploads(), 0);
    }
}

/// What is broken, at which stage it shows, and the one line that must name it.
type Case = (&'static str, fn(&mut World), PreflightStage, Check, Option<Place>);

#[tokio::test]
async fn each_thing_that_is_broken_is_named_by_its_line_alone() {
    use PreflightStage::{Aggregate, Intake};
    fn bad_pem(keys: &mut [PublicKeyParameter]) {
        keys[0].public_key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into();
    }
    let cases: [Case; 27] = [
        (
            "no signing key",
            |w| w.keys.signing = Ok(vec![]),
            Intake,
            Check::SigningKey,
            None,
        ),
        (
            "a Secret that can't be read",
            |w| {
                w.keys.signing = Err(Trouble {
                    detail: "the Secret lacks `id`".into(),
                    remedy: "add it".into(),
                });
            },
            Aggregate,
            Check::SigningKey,
            None,
        ),
        (
            "a signing key that isn't published",
            |w| w.keys.signing.as_mut().unwrap()[0].0 = "newer".into(),
            Intake,
            Check::SigningKey,
            None,
        ),
        (
            "another signing key under the published id",
            |w| w.keys.signing.as_mut().unwrap()[0].1 = *w.ingestor.verifying_key().point(),
            Aggregate,
            Check::SigningKey,
            None,
        ),
        (
            "a packet key that isn't the published one",
            |w| w.keys.packets.as_mut().unwrap()[0].1 = *w.ingestor.verifying_key().point(),
            Intake,
            Check::PacketKeys,
            None,
        ),
        (
            "no packet key",
            |w| w.keys.packets = Ok(vec![]),
            Intake,
            Check::PacketKeys,
            None,
        ),
        (
            "a manifest that is none",
            |w| w.manifest = Some("{}".into()),
            Intake,
            Check::Manifest,
            None,
        ),
        (
            "no ingestor key",
            |w| w.parameters.ingestor_keys.clear(),
            Intake,
            Check::IngestorKeys,
            None,
        ),
        (
            "a bad ingestor key",
            |w| bad_pem(&mut w.parameters.ingestor_keys),
            Intake,
            Check::IngestorKeys,
            None,
        ),
        (
            "a bad peer key",
            |w| bad_pem(&mut w.parameters.peer_keys),
            Aggregate,
            Check::PeerKeys,
            None,
        ),
        (
            "a store that doesn't answer",
            |w| w.mailboxes[&Place::Ledger].fail_next(usize::MAX),
            Aggregate,
            Check::List,
            Some(Place::Ledger),
        ),
        (
            "an instance that is none",
            |w| w.parameters.instance = "a/b".into(),
            Intake,
            Check::Formats,
            None,
        ),
        (
            "ingestion that can't be listed",
            |w| w.mailboxes[&Place::Ingestion].refuse_listing(true),
            Intake,
            Check::List,
            Some(Place::Ingestion),
        ),
        (
            "ingestion that can't be read",
            |w| w.mailboxes[&Place::Ingestion].refuse_reads(true),
            Intake,
            Check::Read,
            Some(Place::Ingestion),
        ),
        (
            "the peer's validations can't be listed",
            |w| w.mailboxes[&Place::PeerValidation].refuse_listing(true),
            Aggregate,
            Check::List,
            Some(Place::PeerValidation),
        ),
        (
            "the peer's validations can't be read",
            |w| w.mailboxes[&Place::PeerValidation].refuse_reads(true),
            Aggregate,
            Check::Read,
            Some(Place::PeerValidation),
        ),
        (
            "the peer lets us not put",
            |w| w.mailboxes[&Place::Peer].refuse_writes(true),
            Intake,
            Check::Write,
            Some(Place::Peer),
        ),
        (
            "the portal lets us not put",
            |w| w.mailboxes[&Place::Portal].refuse_writes(true),
            Aggregate,
            Check::Write,
            Some(Place::Portal),
        ),
        (
            "a ledger that can't be written",
            |w| w.mailboxes[&Place::Ledger].refuse_writes(true),
            Aggregate,
            Check::Write,
            Some(Place::Ledger),
        ),
        (
            "a mailbox whose URL is none",
            |w| w.closed.push(Place::Portal),
            Aggregate,
            Check::Write,
            Some(Place::Portal),
        ),
        (
            "a weak ledger",
            |w| w.parameters.mailboxes.ledger.access.conditional_writes = ConditionalWrites::Weak,
            Intake,
            Check::ConditionalWrites,
            Some(Place::Ledger),
        ),
        (
            "a ledger that was emptied",
            |w| w.parameters.ledger_id = Some(uuid::Uuid::from_u128(7)),
            Intake,
            Check::Identity,
            Some(Place::Ledger),
        ),
        (
            "another's ledger",
            |w| {
                let identity = LedgerIdentity {
                    revision: 1,
                    id: uuid::Uuid::from_u128(8),
                    instance: "us-ca".into(),
                    share: Share::First,
                    start_at: "2026-11-20T00:00:00Z".into(),
                };
                w.mailboxes[&Place::Ledger].replace(&key("ledger.json"), identity.to_bytes().unwrap());
            },
            Aggregate,
            Check::Identity,
            Some(Place::Ledger),
        ),
        (
            "a ledger that expires",
            |w| {
                w.mailboxes[&Place::Ledger].expire(vec![ExpiryRule {
                    prefix: String::new(),
                    days: Some(90),
                }])
            },
            Intake,
            Check::Expiry,
            Some(Place::Ledger),
        ),
        (
            "claims that expire within the horizon",
            |w| {
                w.mailboxes[&Place::Ledger].expire(vec![ExpiryRule {
                    prefix: "claims/".into(),
                    days: Some(14),
                }])
            },
            Intake,
            Check::Expiry,
            Some(Place::Ledger),
        ),
        (
            "a store's clock that is behind",
            |w| w.mailboxes[&Place::Ingestion].tell_time(w.now - jiff::SignedDuration::from_secs(61)),
            Intake,
            Check::Clock,
            Some(Place::Ingestion),
        ),
        (
            "a batch of an unknown signer",
            |w| {
                let mut rng = StdRng::seed_from_u64(9);
                w.put_batch(&BatchSigningKey::generate("stranger", &mut rng));
            },
            Intake,
            Check::Signature,
            Some(Place::Ingestion),
        ),
    ];
    for (what, break_it, stage, check, place) in cases {
        let mut world = World::new();
        break_it(&mut world);
        assert_eq!(world.failed(stage).await, [(check, place)], "{what}");
    }
}

#[tokio::test]
async fn a_batch_that_is_there_shows_its_signer_and_its_format() {
    let world = World::new();
    world.put_batch(&world.ingestor);
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
async fn what_a_stage_has_no_right_to_is_not_tried_and_what_cannot_be_known_is_said() {
    let mut world = World::new();
    world.mailboxes[&Place::Portal].refuse_writes(true);
    world.mailboxes[&Place::PeerValidation].refuse_listing(true);
    assert_eq!(world.failed(PreflightStage::Intake).await, []);
    let world_of = |change: fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world
    };
    let unread = world_of(|w| w.mailboxes[&Place::Peer].refuse_reads(true));
    assert_eq!(unread.failed(PreflightStage::Aggregate).await, []);
    let unknown = unread.ending(PreflightStage::Aggregate, Outcome::NotCheckable).await;
    assert!(unknown.contains(&(Check::Read, Some(Place::Peer))), "{unknown:?}");
    world = world_of(|w| w.manifest = None);
    let unknown = world.ending(PreflightStage::Intake, Outcome::NotCheckable).await;
    assert!(unknown.contains(&(Check::Manifest, None)), "{unknown:?}");
}

#[test]
fn clocks_are_compared_within_the_time_that_an_answer_took() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let table = [
        (100, 100, 100, 0),
        (100, 130, 110, 0),
        (100, 130, 40, 60),
        (100, 130, 191, -61),
    ];
    for (before, after, store, ahead) in table {
        assert_eq!(
            seconds_ahead(at(before), at(after), at(store)),
            ahead,
            "{before} {after} {store}"
        );
    }
}
