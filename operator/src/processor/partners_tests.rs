#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::processor::example;

fn peer(name: &str, party: &str, change: impl Fn(&mut Value)) -> Peer {
    let keys = match party {
        "Portal" => json!([]),
        _ => json!([{"id": format!("{name}-key"), "publicKey": "p", "expiration": "2123-01-01T00:00:00Z"}]),
    };
    let mut value = json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "Peer",
        "metadata": {"name": name, "namespace": "prio"},
        "spec": {"party": party, "manifestBaseUrl": "https://m.example", "instance": "us-ct"},
        "status": {"conditions": [], "manifest": {
            "digest": "d", "acceptedAt": "2026-11-20T00:00:00Z", "baseUrl": "https://m.example", "documents": [],
            "batchSigningKeys": keys,
            "fields": {
                "peer-validation-bucket": "s3://us-west-1/theirs/",
                "facilitator-sum-part-bucket": "gs://facilitator-sums",
                "pha-sum-part-bucket": "gs://pha-sums",
            },
        }},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn peers(change: impl Fn(&str, &mut Value)) -> Peers {
    let of = |name: &str, party: &str| (name.to_owned(), Ok(peer(name, party, |value| change(name, value))));
    Peers::from([
        of("apple", "Ingestor"),
        of("other", "ShareProcessor"),
        of("portal", "Portal"),
    ])
}

/// A processor that leaves all it can to its Peers.
fn processor(share: Share) -> DataShareProcessor {
    let mut processor = example::processor();
    let reference = |name: &str| Some(PeerReference { name: name.to_owned() });
    let spec = &mut processor.spec;
    spec.share = share;
    (spec.ingestor.inline, spec.ingestor.peer_ref) = (None, reference("apple"));
    (spec.peer.inline, spec.peer.peer_ref) = (None, reference("other"));
    (spec.portal.inline, spec.portal.peer_ref) = (None, reference("portal"));
    spec.mailboxes.outgoing.peer.url.clear();
    spec.mailboxes.outgoing.portal.url.clear();
    processor
}

#[test]
fn what_the_spec_leaves_to_manifests_is_filled_in() {
    for (share, portal) in [
        (Share::First, "gs://pha-sums"),
        (Share::Second, "gs://facilitator-sums"),
    ] {
        let resolved = resolve(&processor(share), &peers(|_, _| {}));
        let spec = &resolved.processor.spec;
        assert_eq!(resolved.verdict.status, Some(true), "{:?}", resolved.verdict);
        let id = |party: &Option<InlineParty>| party.as_ref().unwrap().batch_signing_keys[0].id.clone();
        assert_eq!(
            (id(&spec.ingestor.inline), id(&spec.peer.inline)),
            ("apple-key".into(), "other-key".into())
        );
        let outgoing = &spec.mailboxes.outgoing;
        assert_eq!(
            (outgoing.peer.url.as_str(), outgoing.portal.url.as_str()),
            ("s3://us-west-1/theirs", portal)
        );
        assert!(!spec.suspend);
    }
}

#[test]
fn what_is_written_in_the_spec_stays() {
    let plain = example::processor();
    let resolved = resolve(&plain, &Peers::new());
    assert_eq!(resolved.processor.spec, plain.spec);
    assert_eq!(resolved.verdict.message, "All parties are written in the spec.");
    let mut own = processor(Share::First);
    let written = plain.spec.mailboxes.outgoing.clone();
    own.spec.mailboxes.outgoing = written.clone();
    let resolved = resolve(&own, &peers(|_, _| {}));
    assert_eq!(resolved.processor.spec.mailboxes.outgoing, written);
}

#[test]
fn an_unknown_party_holds_new_work_and_is_named() {
    let without = |name: &str, field: &str| {
        let (name, field) = (name.to_owned(), field.to_owned());
        peers(move |peer, value| {
            if peer == name {
                value["status"][&field] = Value::Null;
            }
        })
    };
    let never = peers(|name, value| {
        if name == "apple" {
            value["status"] = json!({"conditions": [{
                "type": "ManifestCurrent", "status": "False", "reason": "FetchFailed", "message": "Connection refused",
                "lastTransitionTime": "2026-11-20T00:00:00Z",
            }]});
        }
    });
    let mut missing = peers(|_, _| {});
    missing.remove("other");
    let mut undecodable = peers(|_, _| {});
    undecodable.insert("portal".into(), Err("unknown party".into()));
    let mut swapped = peers(|_, _| {});
    swapped.insert("portal".into(), Ok(peer("portal", "Ingestor", |_| {})));
    let bucket = |url: &str| {
        let url = url.to_owned();
        peers(move |name, value| {
            if name == "other" {
                value["status"]["manifest"]["fields"]["peer-validation-bucket"] = json!(url);
            }
        })
    };
    let table = [
        (
            without("apple", "manifest"),
            reasons::PEER_UNKNOWN,
            "Peer apple is not known: it has not been fetched",
        ),
        (
            never,
            reasons::PEER_UNKNOWN,
            "Peer apple is not known: FetchFailed: Connection refused",
        ),
        (missing, reasons::PEER_MISSING, "spec.peer: there is no Peer other"),
        (undecodable, reasons::PEER_UNKNOWN, "unknown party"),
        (
            swapped,
            reasons::PARTY_DIFFERS,
            "Peer portal is a party of kind Ingestor, not Portal",
        ),
        (
            bucket("file:///mailboxes/ledger"),
            reasons::MAILBOX_REFUSED,
            "neither s3:// nor gs://",
        ),
        (
            bucket("/tmp/x"),
            reasons::MAILBOX_REFUSED,
            "peer-validation-bucket of Peer other can't be used",
        ),
        (
            bucket("gs://pha-sums/inner"),
            reasons::MAILBOX_REFUSED,
            "outgoing.peer (gs://pha-sums/inner) is mailbox outgoing.portal",
        ),
        (bucket("gs://pha-sums"), reasons::MAILBOX_REFUSED, "outgoing"),
    ];
    for (peers, reason, message) in table {
        let resolved = resolve(&processor(Share::First), &peers);
        let verdict = &resolved.verdict;
        assert_eq!(
            (verdict.status, verdict.reason.as_str()),
            (Some(false), reason),
            "{verdict:?}"
        );
        assert!(verdict.message.contains(message), "{verdict:?}");
        assert!(resolved.processor.spec.suspend && resolved.parties.is_none());
    }
}

#[test]
fn a_manifest_that_is_not_the_newest_is_used_and_told() {
    let stale = peers(|name, value| {
        if name == "other" {
            value["status"]["conditions"] = json!([{
                "type": "ManifestCurrent", "status": "False", "reason": "ChangeHeld", "message": "A change waits.",
                "lastTransitionTime": "2026-11-20T00:00:00Z",
            }]);
        }
    });
    let resolved = resolve(&processor(Share::First), &stale);
    assert_eq!(resolved.verdict.status, Some(true));
    assert!(
        resolved
            .verdict
            .message
            .contains("Of other it isn't the newest: ChangeHeld"),
        "{:?}",
        resolved.verdict
    );
    let fresh = resolve(&processor(Share::First), &peers(|_, _| {}));
    assert_eq!(resolved.parties, fresh.parties, "work rests on content alone");
}

#[test]
fn who_the_peer_wants_at_its_mailbox_is_compared_with_who_workers_are() {
    const ROLE: &str = "arn:aws:iam::123456789012:role/peer-validation";
    let asks = |identity: &str| {
        let identity = identity.to_owned();
        peers(move |name, value| {
            if name == "other" {
                value["status"]["manifest"]["fields"]["peer-validation-identity"] = json!(identity);
            }
        })
    };
    let said = |peers: &Peers, mailbox: Value| {
        let mut processor = processor(Share::First);
        let before = processor.spec.mailboxes.outgoing.peer.clone();
        processor.spec.mailboxes.outgoing.peer = serde_json::from_value(mailbox).unwrap();
        let resolved = resolve(&processor, peers);
        assert_eq!(resolved.verdict.status, Some(true), "work goes on: {before:?}");
        assert!(!resolved.processor.spec.suspend);
        (resolved.verdict.reason, resolved.verdict.message)
    };
    let as_role = |role: &str| json!({"credentials": {"awsFromGoogle": {"role": role, "audience": "a"}}});
    let (reason, message) = said(&asks(ROLE), as_role("arn:aws:iam::123456789012:role/old"));
    assert_eq!(reason, reasons::IDENTITY_DIFFERS);
    for part in [ROLE, "role/old", "s3://us-west-1/theirs", "peer-validation-identity"] {
        assert!(message.contains(part), "{message}");
    }
    let (reason, message) = said(&asks(ROLE), json!({"credentials": {"anonymous": {}}}));
    assert!(
        reason == reasons::IDENTITY_DIFFERS && message.contains("say nobody"),
        "{message}"
    );
    // The same; nothing asked for; a mailbox of the spec's own.
    let elsewhere = json!({"url": "s3://us-west-1/elsewhere", "credentials": as_role("x")["credentials"]});
    for (peers, mailbox) in [
        (asks(ROLE), as_role(ROLE)),
        (peers(|_, _| {}), as_role(ROLE)),
        (asks(ROLE), elsewhere),
    ] {
        let (reason, message) = said(&peers, mailbox);
        assert!(reason == reasons::OK && !message.contains("identity"), "{message}");
    }
    let email = "writer@project.iam.gserviceaccount.com";
    let account = json!({"credentials": {"googleServiceAccount": {"email": email}}});
    assert_eq!(said(&asks(email), account.clone()).0, reasons::OK);
    assert_eq!(said(&asks(ROLE), account).0, reasons::IDENTITY_DIFFERS);
    // Whose the credentials are can't be seen: told, and no trouble.
    for mailbox in [json!({}), json!({"credentials": {"secretRef": {"name": "s"}}})] {
        let (reason, message) = said(&asks(ROLE), mailbox);
        assert!(
            reason == reasons::OK && message.contains("can't be seen from here"),
            "{message}"
        );
    }
}
