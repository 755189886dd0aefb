#![allow(clippy::unwrap_used)]
mod batches;
mod broken;

use std::collections::BTreeMap;

use mailbox::{Access, MailboxErrorKind, MemoryMailbox, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::crypto::csr::signing_request;
use crate::crypto::{BatchSigningKey, PacketDecryptionKey};
use crate::formats::manifest::{BatchSigningPublicKey, DataShareProcessorSpecificManifest, PacketEncryptionKey};
use crate::formats::work::{
    MailboxParameter, MailboxParameters, ProcessorParameter, PublicKeyParameter, REVISION, ReplayGuardParameters,
    Share, WindowParameters,
};

/// A processor before its first batch, and all that can be broken of it.
struct World {
    parameters: Parameters,
    keys: OwnKeys,
    manifest: Option<String>,
    mailboxes: BTreeMap<Place, MemoryMailbox>,
    closed: Vec<Place>,
    now: Timestamp,
    time: Duration,
    ingestor: BatchSigningKey,
    peer: BatchSigningKey,
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
            time: Duration::from_secs(50),
            ingestor,
            peer,
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
            time: self.time,
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

    /// From now on every call on that mailbox ends so.
    fn refuse(&self, place: Place, kind: MailboxErrorKind, detail: &str, of_identity: bool) {
        let mailbox = &self.mailboxes[&place];
        let error = MailboxError::of_mailbox(kind, mailbox.url(), detail).of_identity(of_identity);
        mailbox.fail_with(Some(error));
    }

    /// The one line of that check.
    async fn line(&self, stage: PreflightStage, check: Check, place: Place) -> Line {
        let lines = self.lines(stage).await;
        let mut of = lines
            .into_iter()
            .filter(|line| (line.check, line.mailbox) == (check, Some(place)));
        let line = of.next().unwrap();
        assert_eq!(of.next(), None);
        line
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
    let unread = world_of(|w| {
        w.mailboxes[&Place::Peer].refuse_reads(true);
        w.mailboxes[&Place::Peer].refuse_listing(true);
    });
    assert_eq!(unread.failed(PreflightStage::Aggregate).await, []);
    let unknown = unread.ending(PreflightStage::Aggregate, Outcome::NotCheckable).await;
    assert!(unknown.contains(&(Check::List, Some(Place::Peer))), "{unknown:?}");
    // Nothing is there, and stores tell that only to whom they would list it.
    let unlisted = world_of(|w| {
        w.mailboxes[&Place::Ingestion].refuse_reads(true);
        w.mailboxes[&Place::Ingestion].refuse_listing(true);
    });
    let ingestion = Some(Place::Ingestion);
    assert_eq!(
        unlisted.failed(PreflightStage::Intake).await,
        [(Check::List, ingestion)]
    );
    let unknown = unlisted.ending(PreflightStage::Intake, Outcome::NotCheckable).await;
    assert_eq!(unknown, [(Check::Read, ingestion)]);
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

/// Who might keep a probe: an upload is begun there, and no content sent.
#[tokio::test]
async fn no_probe_goes_into_a_partners_store_that_may_keep_it() {
    type Change = fn(&mut World);
    const STORE: &str = "https://store:9000";
    fn endpoints(world: &mut World, ledger: Option<&str>, portal: Option<&str>) {
        world.parameters.mailboxes.ledger.access.endpoint = ledger.map(Into::into);
        world.parameters.mailboxes.portal.access.endpoint = portal.map(Into::into);
    }
    let cases: [(&str, Change, bool); 5] = [
        ("the cloud's own", |w| endpoints(w, Some(STORE), None), true),
        (
            "a compatible one, our ledger in the cloud's own",
            |w| endpoints(w, None, Some(STORE)),
            false,
        ),
        (
            "a compatible one that our ledger isn't in",
            |w| endpoints(w, Some(STORE), Some("https://other:9000")),
            false,
        ),
        (
            "one that refused wrong content in our ledger",
            |w| endpoints(w, Some(STORE), Some("https://store:9000/")),
            true,
        ),
        (
            "one that took it there",
            |w| {
                endpoints(w, Some(STORE), Some(STORE));
                w.mailboxes[&Place::Ledger].take_everything();
            },
            false,
        ),
    ];
    for (what, change, by_content) in cases {
        let mut world = World::new();
        change(&mut world);
        let portal = &world.mailboxes[&Place::Portal];
        // It would keep a probe, so that one shows that was sent.
        portal.take_everything();
        let line = world.line(PreflightStage::Aggregate, Check::Write, Place::Portal).await;
        let expected = if by_content { Outcome::Failed } else { Outcome::Passed };
        assert_eq!(line.outcome, expected, "{what}: {line:?}");
        assert_eq!(portal.snapshot().len(), usize::from(by_content), "{what}");
        assert_eq!(portal.open_uploads(), 0, "{what}");
        portal.refuse_writes(true);
        let line = world.line(PreflightStage::Aggregate, Check::Write, Place::Portal).await;
        assert_eq!(line.outcome, Outcome::Failed, "{what}: {line:?}");
        assert!(line.remedy.starts_with("ask the portal's owner to give"), "{line:?}");
    }
}

#[tokio::test]
async fn what_a_partners_store_answers_to_the_begin_of_an_upload_is_told() {
    use MailboxErrorKind::{Denied, Io, NoSuchMailbox, Unavailable, Unsupported};
    use PreflightStage::{Aggregate, Intake};
    let cases = [
        (Unsupported, false, Outcome::NotCheckable, ""),
        (Io, false, Outcome::NotCheckable, ""),
        (
            Denied,
            false,
            Outcome::Failed,
            "workers' identity the right to put objects",
        ),
        (Denied, true, Outcome::Failed, "mend the mailbox's credentials"),
        (NoSuchMailbox, false, Outcome::Failed, "check the mailbox's URL"),
        (Unavailable, false, Outcome::Failed, "try again later"),
    ];
    for (kind, of_identity, expected, remedy) in cases {
        for (stage, place) in [(Intake, Place::Peer), (Aggregate, Place::Portal)] {
            let mut world = World::new();
            for mailbox in [
                &mut world.parameters.mailboxes.peer,
                &mut world.parameters.mailboxes.portal,
            ] {
                mailbox.access.endpoint = Some("https://store:9000".into());
            }
            world.refuse(place, kind, "told", of_identity);
            let line = world.line(stage, Check::Write, place).await;
            assert_eq!(line.outcome, expected, "{line:?}");
            assert!(line.remedy.contains(remedy) && line.detail.contains("told"), "{line:?}");
        }
    }
}

#[tokio::test]
async fn a_store_that_goes_silent_takes_no_more_than_the_time_and_no_other_line() {
    let mut world = World::new();
    world.time = Duration::from_millis(300);
    world.mailboxes[&Place::Ledger].fall_silent();
    let lines = world.lines(PreflightStage::Intake).await;
    let of_ledger: Vec<_> = lines
        .iter()
        .filter(|line| line.mailbox == Some(Place::Ledger))
        .collect();
    assert_eq!(
        of_ledger.iter().map(|line| line.check).collect::<Vec<_>>(),
        OF_LEDGER,
        "{lines:?}"
    );
    for line in of_ledger {
        let expected = match line.check {
            Check::List | Check::Clock => Outcome::Passed,
            _ => Outcome::NotCheckable,
        };
        assert_eq!(line.outcome, expected, "{line:?}");
    }
    let others = lines.iter().filter(|line| line.mailbox != Some(Place::Ledger));
    let unmade: Vec<_> = others.filter(|line| line.outcome != Outcome::Passed).collect();
    assert_eq!(unmade.len(), 1, "the signer of no batch: {unmade:?}");
}
