//! Whatever one grant, key, URL, clock or rule is broken is named by the right line.

use mailbox::{ConditionalWrites, ExpiryRule, MailboxErrorKind};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::batches::RECENT;
use super::*;
use crate::crypto::BatchSigningKey;
use crate::formats::ledger::{LedgerIdentity, LedgerObject};

fn stranger() -> BatchSigningKey {
    BatchSigningKey::generate("stranger", &mut StdRng::seed_from_u64(9))
}

fn expire(world: &World, prefix: &str, days: Option<u64>) {
    world.mailboxes[&Place::Ledger].expire(vec![ExpiryRule {
        prefix: prefix.into(),
        days,
        partly: false,
    }]);
}

/// What is broken, at which stage it shows, and the one line that must name it.
type Case = (&'static str, fn(&mut World), PreflightStage, Check, Option<Place>);

#[tokio::test]
async fn each_thing_that_is_broken_is_named_by_its_line_alone() {
    use PreflightStage::{Aggregate, Intake};
    fn bad_pem(keys: &mut [PublicKeyParameter]) {
        keys[0].public_key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into();
    }
    let cases: [Case; 44] = [
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
                expire(w, "", Some(90));
            },
            Intake,
            Check::Expiry,
            Some(Place::Ledger),
        ),
        (
            "claims that expire before the last of a day's runs may",
            |w| expire(w, "claims/", Some(14 + 6)),
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
                w.put_batch(&stranger(), RECENT);
            },
            Intake,
            Check::Signature,
            Some(Place::Ingestion),
        ),
        (
            "an ingestion batch of parameters that aren't computed with",
            |w| w.put_batch_of_no_bins(RECENT),
            Intake,
            Check::Formats,
            Some(Place::Ingestion),
        ),
        (
            "a validation of an unknown signer",
            |w| w.put_validation(&stranger(), 4, RECENT),
            Aggregate,
            Check::Signature,
            Some(Place::PeerValidation),
        ),
        (
            "a validation of parameters that aren't computed with",
            |w| w.put_validation(&w.peer, 0, RECENT),
            Aggregate,
            Check::Formats,
            Some(Place::PeerValidation),
        ),
        (
            "no peer key",
            |w| w.parameters.peer_keys.clear(),
            Aggregate,
            Check::PeerKeys,
            None,
        ),
        (
            "packet keys that can't be read",
            |w| {
                w.keys.packets = Err(Trouble {
                    detail: "the Secret lacks `key`".into(),
                    remedy: "add it".into(),
                });
            },
            Intake,
            Check::PacketKeys,
            None,
        ),
        (
            "a ledger that can't be listed",
            |w| w.mailboxes[&Place::Ledger].refuse_listing(true),
            Intake,
            Check::List,
            Some(Place::Ledger),
        ),
        (
            "a ledger that can't be read",
            |w| w.mailboxes[&Place::Ledger].refuse_reads(true),
            Aggregate,
            Check::Read,
            Some(Place::Ledger),
        ),
        (
            "a ledger whose URL is none",
            |w| w.closed.push(Place::Ledger),
            Intake,
            Check::List,
            Some(Place::Ledger),
        ),
        (
            "an ingestion mailbox whose URL is none",
            |w| w.closed.push(Place::Ingestion),
            Intake,
            Check::List,
            Some(Place::Ingestion),
        ),
        (
            "a mailbox for validations whose URL is none",
            |w| w.closed.push(Place::PeerValidation),
            Aggregate,
            Check::List,
            Some(Place::PeerValidation),
        ),
        (
            "a peer's mailbox that isn't there",
            |w| w.refuse(Place::Peer, MailboxErrorKind::NoSuchMailbox, "", false),
            Aggregate,
            Check::List,
            Some(Place::Peer),
        ),
        (
            "a peer's mailbox whose URL is none",
            |w| w.closed.push(Place::Peer),
            Intake,
            Check::Write,
            Some(Place::Peer),
        ),
        (
            "a peer's store whose clock is ahead",
            |w| w.mailboxes[&Place::Peer].tell_time(w.now + jiff::SignedDuration::from_secs(90)),
            Aggregate,
            Check::Clock,
            Some(Place::Peer),
        ),
        (
            "a store that refuses our clock",
            |w| {
                w.refuse(
                    Place::Ingestion,
                    MailboxErrorKind::Denied,
                    "HTTP 403 RequestTimeTooSkewed",
                    false,
                )
            },
            Intake,
            Check::Clock,
            Some(Place::Ingestion),
        ),
        (
            "a peer's store that refuses our clock",
            |w| {
                w.refuse(
                    Place::Peer,
                    MailboxErrorKind::Denied,
                    "HTTP 403 RequestTimeTooSkewed",
                    false,
                )
            },
            Aggregate,
            Check::Clock,
            Some(Place::Peer),
        ),
        (
            "credentials that the ledger's store doesn't know",
            |w| {
                w.refuse(
                    Place::Ledger,
                    MailboxErrorKind::Denied,
                    "HTTP 403 InvalidAccessKeyId",
                    true,
                )
            },
            Intake,
            Check::List,
            Some(Place::Ledger),
        ),
        (
            "a token that the peer's store refuses",
            |w| w.refuse(Place::Peer, MailboxErrorKind::Denied, "HTTP 401", true),
            Aggregate,
            Check::List,
            Some(Place::Peer),
        ),
    ];
    for (what, break_it, stage, check, place) in cases {
        let mut world = World::new();
        break_it(&mut world);
        assert_eq!(world.failed(stage).await, [(check, place)], "{what}");
    }
}

#[tokio::test]
async fn who_is_refused_is_told_to_mend_what_is_refused() {
    let cases = [
        (
            "HTTP 403 AccessDenied",
            false,
            "give the intake workers' identity the right",
        ),
        ("HTTP 403 SignatureDoesNotMatch", true, "mend the mailbox's credentials"),
        ("HTTP 403 RequestTimeTooSkewed", false, "set the clock"),
    ];
    for (detail, of_identity, remedy) in cases {
        let world = World::new();
        world.refuse(Place::Ingestion, MailboxErrorKind::Denied, detail, of_identity);
        let lines = world.lines(PreflightStage::Intake).await;
        let failed: Vec<_> = lines.iter().filter(|line| line.outcome == Outcome::Failed).collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].remedy.starts_with(remedy), "{failed:?}");
        assert!(
            failed[0].detail.contains(detail) && !failed[0].detail.contains("; "),
            "{failed:?}"
        );
    }
    // A grant may be for other names than the one that is tried.
    let world = World::new();
    world.mailboxes[&Place::Portal].refuse_writes(true);
    let line = world.line(PreflightStage::Aggregate, Check::Write, Place::Portal).await;
    assert!(line.remedy.contains("prio-operator/preflight was tried"), "{line:?}");
}

#[tokio::test]
async fn only_claims_may_expire_and_only_a_week_after_the_horizon() {
    use Outcome::{Failed, NotCheckable, Passed};
    let rule = |prefix: &str, days, partly| ExpiryRule {
        prefix: prefix.into(),
        days,
        partly,
    };
    let table = [
        (vec![], Passed),
        (vec![rule("claims/", Some(14), false)], Failed),
        (vec![rule("claims/", Some(20), false)], Failed),
        (vec![rule("claims/", Some(21), false)], Passed),
        (vec![rule("claims", Some(21), false)], Passed),
        (vec![rule("claims/key/", Some(30), false)], Passed),
        (vec![rule("claims/", None, false)], Failed),
        (vec![rule("claim", Some(365), false)], Failed),
        (vec![rule("records/", Some(365), false)], Failed),
        (vec![rule("", Some(365), true)], NotCheckable),
        (vec![rule("", Some(365), true), rule("plans/", Some(1), false)], Failed),
    ];
    for (rules, expected) in table {
        let world = World::new();
        world.mailboxes[&Place::Ledger].expire(rules.clone());
        let line = world.line(PreflightStage::Intake, Check::Expiry, Place::Ledger).await;
        assert_eq!(line.outcome, expected, "{rules:?}: {line:?}");
        if expected == Failed {
            assert!(line.remedy.contains("after 21 days or more"), "{line:?}");
        }
    }
}
