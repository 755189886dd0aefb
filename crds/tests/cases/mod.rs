//! Objects that the API takes or refuses, for the validator in the library and for a real API server.
#![allow(clippy::unwrap_used, dead_code)]

pub mod key_rings;

use serde_json::{Value, json};

/// One attempt: a base object, changed at a JSON pointer, created or as an update of the base.
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// What the refusal says; empty where it is taken.
    pub message: &'static str,
    base: Value,
    changes: Vec<(&'static str, Value)>,
    update: bool,
}

impl Case {
    /// The object as it is sent.
    pub fn object(&self) -> Value {
        let mut object = self.base.clone();
        for (pointer, value) in &self.changes {
            set(&mut object, pointer, value.clone());
        }
        object
    }

    /// The object before it, for an update.
    pub fn old(&self) -> Option<Value> {
        self.update.then(|| self.base.clone())
    }
}

/// Sets what `pointer` names; null removes it.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.to_owned(), value);
    }
}

/// A point's length in base64.
pub fn public_key() -> String {
    "B".repeat(87) + "="
}

fn mailbox(name: &str) -> Value {
    json!({"url": format!("file:///mailboxes/{name}"), "volume": {"claimName": name}})
}

/// A processor that has all that is needed.
pub fn processor() -> Value {
    let party = json!({"batchSigningKeys": [{"id": "key-1", "publicKey": public_key()}]});
    json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "DataShareProcessor",
        "metadata": {"name": "us-ct", "namespace": "default"},
        "spec": {
            "share": "First",
            "instance": "us-ct",
            "ingestor": {"inline": party},
            "peer": {"inline": party},
            "portal": {"inline": {}},
            "mailboxes": {
                "ingestion": mailbox("ingestion"),
                "peerValidation": mailbox("peer-validation"),
                "ledger": mailbox("ledger"),
                "outgoing": {"peer": mailbox("outgoing-peer"), "portal": mailbox("portal")},
            },
            "keys": {
                "batchSigning": {"secretRef": {"name": "batch-signing"}},
                "packetDecryption": [{"secretRef": {"name": "packet-decryption"}}],
            },
            "windows": {
                "periodSeconds": 28800, "gracePeriodSeconds": 14400, "settleSeconds": 600, "maxDefers": 3,
                "minClients": 100, "historyDays": 90,
            },
            "workers": {
                "intake": {"serviceAccountName": "intake"},
                "aggregate": {"serviceAccountName": "aggregate"},
            },
        },
    })
}

/// A batch.
pub fn batch() -> Value {
    json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "Batch",
        "metadata": {"name": "batch-1", "namespace": "default"},
        "spec": {
            "processor": "us-ct", "aggregation": "com.example.Exposure", "time": "2021/10/21/08/15",
            "uuid": "b8a5579a-f984-460a-a42d-2813cbf57771",
        },
    })
}

/// A window.
pub fn window() -> Value {
    json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "AggregationWindow",
        "metadata": {"name": "window-1", "namespace": "default"},
        "spec": {
            "processor": "us-ct", "aggregation": "com.example.Exposure", "start": "202110210800", "end": "202110211600",
        },
    })
}

/// A window whose override was approved.
fn overridden() -> Value {
    let mut window = window();
    set(&mut window, "/spec/override", an_override());
    window
}

fn an_override() -> Value {
    json!({
        "release": 2, "cutoff": "2026-11-28T12:00:00Z", "expiresAt": "2026-11-30T00:00:00Z", "reason": "late batches",
        "approvedBy": "privacy-officer",
    })
}

fn aws_from_google() -> Value {
    json!({"role": "arn:aws:iam::123456789012:role/prio/intake", "audience": "sts.amazonaws.com/prio"})
}

/// Mailboxes in both clouds, with every setting that there is.
fn buckets() -> Value {
    let pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/prio/providers/aws";
    json!({
        "ingestion": {"url": "s3://us-west-1/example-ingestion", "credentials": {"awsFromGoogle": aws_from_google()},
                      "operatorCredentials": {"ambient": {}}},
        "peerValidation": {"url": "gs://example-peer-validation/us-ct",
                           "credentials": {"googleServiceAccount": {"email": "work@p.iam.gserviceaccount.com"}},
                           "operatorCredentials": {"googleServiceAccount": {"email": "list@p.iam.gserviceaccount.com"}}},
        "ledger": {"url": "s3://us-west-1/example-ledger/us-ct", "endpoint": "https://store.example:8333", "pathStyle": true,
                   "caBundleRef": {"name": "store-authority"}, "credentials": {"secretRef": {"name": "store"}},
                   "encryption": {"kmsKey": "alias/prio"}, "conditionalWrites": "Required"},
        "outgoing": {
            "peer": {"url": "gs://other-peer-validation",
                     "credentials": {"googleFromAws": {"provider": pool, "region": "us-west-1", "email": "w@p.iam.gserviceaccount.com"}}},
            "portal": {"url": "s3://us-east-1/portal", "cannedACL": "bucket-owner-full-control", "conditionalWrites": "Weak"},
        },
    })
}

/// Another party.
pub fn peer() -> Value {
    json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "Peer",
        "metadata": {"name": "other", "namespace": "default"},
        "spec": {"party": "ShareProcessor", "manifestBaseUrl": "https://manifests.example/prio", "instance": "us-ct"},
    })
}

/// A processor's own manifests.
fn manifest() -> Value {
    let request = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}", "B".repeat(200));
    json!({
        "publishTo": {"configMap": {"name": "us-ct-manifests"}},
        "servedAt": {"baseUrl": "https://manifests.example:8443/prio/"},
        "serverIdentity": {"gcpServiceAccountEmail": "a@b.example", "awsAccountId": "123456789012"},
        "batchSigningPublicKeys": [{"id": "k", "publicKey": public_key()}],
        "packetEncryptionKey": {"id": "p", "certificateSigningRequest": request},
    })
}

fn manifest_without(fields: &[&str]) -> Value {
    let mut manifest = manifest();
    manifest
        .as_object_mut()
        .unwrap()
        .retain(|field, _| !fields.contains(&field.as_str()));
    manifest
}

fn create(name: &'static str, base: Value, changes: Vec<(&'static str, Value)>, message: &'static str) -> Case {
    Case {
        name,
        message,
        base,
        changes,
        update: false,
    }
}

fn update(name: &'static str, base: Value, changes: Vec<(&'static str, Value)>, message: &'static str) -> Case {
    Case {
        name,
        message,
        base,
        changes,
        update: true,
    }
}

/// Objects that are taken.
pub fn good() -> Vec<Case> {
    let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n".repeat(2);
    let cutoffs = json!([
        {"aggregation": "a", "start": "202110210800", "cutoff": "2026-01-01T00:00:15Z"},
        {"aggregation": "a", "start": "202110211600", "cutoff": "2026-01-01T00:00:15Z"},
        {"aggregation": "b", "start": "202110210800", "cutoff": "2026-01-01T00:00:15Z"},
    ]);
    vec![
        create("plain", processor(), vec![], ""),
        create(
            "windows by default",
            processor(),
            vec![("/spec/windows", Value::Null)],
            "",
        ),
        create(
            "PEM",
            processor(),
            vec![("/spec/peer/inline/batchSigningKeys/0/publicKey", json!(pem))],
            "",
        ),
        create("old windows", processor(), vec![("/spec/windows/cutoffs", cutoffs)], ""),
        create(
            "replays let through",
            processor(),
            vec![("/spec/replayGuard", json!({"enabled": false}))],
            "",
        ),
        create(
            "a start",
            processor(),
            vec![("/spec/windows/startAt", json!("2021-10-21T08:00:00Z"))],
            "",
        ),
        create(
            "pod labels",
            processor(),
            vec![("/spec/workers/podLabels", json!({"team": "prio"}))],
            "",
        ),
        create(
            "rings, and a Secret of a ring's name",
            processor(),
            vec![
                ("/spec/keys/batchSigning", json!({"keyRingRef": {"name": "signing"}})),
                (
                    "/spec/keys/packetDecryption",
                    json!([{"keyRingRef": {"name": "packets"}}, {"secretRef": {"name": "packets"}}]),
                ),
            ],
            "",
        ),
        update("suspend", processor(), vec![("/spec/suspend", json!(true))], ""),
        update(
            "another peer",
            processor(),
            vec![("/spec/peer/legacy", json!(true))],
            "",
        ),
        create("batch", batch(), vec![], ""),
        update(
            "a batch's annotation",
            batch(),
            vec![("/metadata/annotations", json!({"prio-operator.io/retry": "1"}))],
            "",
        ),
        create("window", window(), vec![], ""),
        update("an override", window(), vec![("/spec/override", an_override())], ""),
        update(
            "no override any more",
            overridden(),
            vec![("/spec/override", Value::Null)],
            "",
        ),
        update(
            "a label",
            overridden(),
            vec![("/metadata/labels", json!({"team": "prio"}))],
            "",
        ),
        update(
            "a later override, not approved yet",
            overridden(),
            vec![
                ("/spec/override/release", json!(3)),
                ("/spec/override/approvedBy", Value::Null),
            ],
            "",
        ),
        update(
            "an approval",
            {
                let mut window = overridden();
                set(&mut window, "/spec/override/approvedBy", Value::Null);
                window
            },
            vec![
                ("/spec/override/approvedBy", json!("somebody")),
                ("/spec/override/reason", json!("other")),
            ],
            "",
        ),
        create(
            "an override of 30 days",
            overridden(),
            vec![("/spec/override/expiresAt", json!("2026-12-28T12:00:00Z"))],
            "",
        ),
        create("peer", peer(), vec![], ""),
        create(
            "an ingestor of one manifest",
            peer(),
            vec![("/spec/party", json!("Ingestor")), ("/spec/instance", Value::Null)],
            "",
        ),
        update(
            "approval",
            peer(),
            vec![(
                "/metadata/annotations",
                json!({"prio-operator.io/approve-manifest": "00"}),
            )],
            "",
        ),
        create(
            "parties by reference",
            processor(),
            vec![
                ("/spec/ingestor", json!({"peerRef": {"name": "apple"}})),
                ("/spec/peer", json!({"peerRef": {"name": "other"}, "legacy": true})),
                ("/spec/portal", json!({"peerRef": {"name": "portal"}})),
                ("/spec/mailboxes/outgoing", json!({"peer": {}, "portal": {}})),
            ],
            "",
        ),
        create("buckets", processor(), vec![("/spec/mailboxes", buckets())], ""),
        create("own manifests", processor(), vec![("/spec/manifest", manifest())], ""),
        create(
            "own manifests of rings' keys",
            processor(),
            vec![
                (
                    "/spec/manifest",
                    manifest_without(&["batchSigningPublicKeys", "packetEncryptionKey"]),
                ),
                ("/spec/keys/batchSigning", json!({"keyRingRef": {"name": "signing"}})),
                (
                    "/spec/keys/packetDecryption",
                    json!([{"keyRingRef": {"name": "packets"}}]),
                ),
            ],
            "",
        ),
    ]
}

/// Objects that a CEL rule refuses, with a part of the rule's message.
pub fn refused_by_rule() -> Vec<Case> {
    let p = processor;
    let ingestion = "/spec/mailboxes/ingestion/url";
    [
        create(
            "own manifests without a key that signs",
            p(),
            vec![("/spec/manifest", manifest_without(&["batchSigningPublicKeys"]))],
            "manifest needs batchSigningPublicKeys",
        ),
        create(
            "own manifests without a packet key",
            p(),
            vec![("/spec/manifest", manifest_without(&["packetEncryptionKey"]))],
            "manifest needs packetEncryptionKey",
        ),
        create(
            "long name",
            p(),
            vec![("/metadata/name", json!("n".repeat(41)))],
            "at most 40 lower-case letters",
        ),
        create(
            "dots in the name",
            p(),
            vec![("/metadata/name", json!("us.ct"))],
            "at most 40 lower-case letters",
        ),
        update(
            "share",
            p(),
            vec![("/spec/share", json!("Second"))],
            "spec.share is immutable",
        ),
        update(
            "instance",
            p(),
            vec![("/spec/instance", json!("other"))],
            "spec.instance is immutable",
        ),
        update(
            "ledger",
            p(),
            vec![("/spec/mailboxes/ledger/url", json!("file:///mailboxes/other"))],
            "spec.mailboxes.ledger.url is immutable",
        ),
        create(
            "reserved aggregation",
            p(),
            vec![("/spec/aggregations", json!({"names": ["a", "task-markers"]}))],
            "are reserved names",
        ),
        create(
            "private key",
            p(),
            vec![(
                "/spec/peer/inline/batchSigningKeys/0/publicKey",
                json!(format!("-----BEGIN PRIVATE KEY-----\n{}", public_key())),
            )],
            "publicKey holds a private key",
        ),
        create(
            "no key",
            p(),
            vec![("/spec/peer/inline/batchSigningKeys/0/publicKey", json!("?".repeat(88)))],
            "publicKey must be PEM",
        ),
        create(
            "a Secret twice",
            p(),
            vec![(
                "/spec/keys/packetDecryption",
                json!([{"secretRef": {"name": "a"}}, {"secretRef": {"name": "a"}}]),
            )],
            "names a Secret or a KeyRing twice",
        ),
        create(
            "a ring twice",
            p(),
            vec![(
                "/spec/keys/packetDecryption",
                json!([{"keyRingRef": {"name": "a"}}, {"secretRef": {"name": "a"}}, {"keyRingRef": {"name": "a"}}]),
            )],
            "names a Secret or a KeyRing twice",
        ),
        create(
            "one ring for both uses",
            p(),
            vec![
                ("/spec/keys/batchSigning", json!({"keyRingRef": {"name": "a"}})),
                ("/spec/keys/packetDecryption", json!([{"keyRingRef": {"name": "a"}}])),
            ],
            "name the same Secret or KeyRing",
        ),
        create(
            "a Secret and a ring",
            p(),
            vec![("/spec/keys/batchSigning/keyRingRef", json!({"name": "a"}))],
            "exactly one of secretRef and keyRingRef",
        ),
        create(
            "no key at all",
            p(),
            vec![("/spec/keys/batchSigning", json!({}))],
            "exactly one of secretRef and keyRingRef",
        ),
        create(
            "one Secret for both uses",
            p(),
            vec![("/spec/keys/batchSigning/secretRef/name", json!("packet-decryption"))],
            "name the same Secret or KeyRing",
        ),
        create(
            "same url",
            p(),
            vec![(ingestion, json!("file:///mailboxes/ledger"))],
            "have the same url",
        ),
        create(
            "nested url",
            p(),
            vec![(ingestion, json!("file:///mailboxes/ledger/in"))],
            "inside another's",
        ),
        create(
            "another scheme",
            p(),
            vec![(ingestion, json!("https://us-west-1/bucket"))],
            "must begin with file://",
        ),
        create(
            "a bucket without its region",
            p(),
            vec![("/spec/mailboxes/ingestion", json!({"url": "s3://bucket"}))],
            "s3://REGION/BUCKET",
        ),
        create(
            "a bucket in capitals",
            p(),
            vec![("/spec/mailboxes/ingestion", json!({"url": "gs://Bucket"}))],
            "gs://BUCKET",
        ),
        create(
            "a volume of a bucket",
            p(),
            vec![(ingestion, json!("s3://us-west-1/bucket"))],
            "volume is for file:// mailboxes only",
        ),
        create(
            "an endpoint of a folder",
            p(),
            vec![("/spec/mailboxes/ingestion/endpoint", json!("http://store:9000"))],
            "are for s3:// and gs:// mailboxes only",
        ),
        create(
            "credentials of a folder",
            p(),
            vec![("/spec/mailboxes/ledger/credentials", json!({"ambient": {}}))],
            "are for s3:// and gs:// mailboxes only",
        ),
        create(
            "paths in Google's cloud",
            p(),
            vec![(
                "/spec/mailboxes/ingestion",
                json!({"url": "gs://bucket", "pathStyle": true}),
            )],
            "pathStyle and cannedACL are for s3://",
        ),
        create(
            "an AWS role in Google's cloud",
            p(),
            vec![(
                "/spec/mailboxes/ingestion",
                json!({"url": "gs://bucket", "credentials": {"awsFromGoogle": aws_from_google()}}),
            )],
            "awsFromGoogle gives an AWS role",
        ),
        create(
            "a Google account in AWS",
            p(),
            vec![(
                "/spec/mailboxes/ingestion",
                json!({"url": "s3://us-west-1/bucket",
                       "operatorCredentials": {"googleServiceAccount": {"email": "list@p.iam.gserviceaccount.com"}}}),
            )],
            "give Google identities, for gs://",
        ),
        create(
            "two kinds of credentials",
            p(),
            vec![(
                "/spec/mailboxes/ingestion",
                json!({"url": "gs://bucket", "credentials": {"ambient": {}, "secretRef": {"name": "a"}}}),
            )],
            "exactly one kind of credentials",
        ),
        create(
            "credentials of no kind",
            p(),
            vec![(
                "/spec/mailboxes/ingestion",
                json!({"url": "gs://bucket", "credentials": {}}),
            )],
            "exactly one kind of credentials",
        ),
        create(
            "a ledger that may be overwritten",
            p(),
            vec![("/spec/mailboxes/ledger/conditionalWrites", json!("Weak"))],
            "the ledger needs a store that honours conditional writes",
        ),
        create(
            "an outgoing mailbox that the operator is to list",
            p(),
            vec![(
                "/spec/mailboxes/outgoing/peer",
                json!({"url": "gs://bucket", "operatorCredentials": {"ambient": {}}}),
            )],
            "operatorCredentials are for the mailboxes that the operator lists",
        ),
        create(
            "relative",
            p(),
            vec![(ingestion, json!("file://mailboxes/in"))],
            "an absolute folder",
        ),
        create(
            "parent folder",
            p(),
            vec![(ingestion, json!("file:///mailboxes/../etc"))],
            "an absolute folder",
        ),
        create(
            "slash at the end",
            p(),
            vec![(ingestion, json!("file:///mailboxes/in/"))],
            "an absolute folder",
        ),
        create(
            "system folder",
            p(),
            vec![(ingestion, json!("file:///etc/prio-operator"))],
            "a folder of the system",
        ),
        create(
            "no volume",
            p(),
            vec![("/spec/mailboxes/ledger/volume", Value::Null)],
            "needs volume.claimName",
        ),
        create(
            "odd period",
            p(),
            vec![("/spec/windows/periodSeconds", json!(90))],
            "whole minutes",
        ),
        create(
            "long settle",
            p(),
            vec![("/spec/windows/settleSeconds", json!(14_401))],
            "must not exceed gracePeriodSeconds",
        ),
        create(
            "cutoff of no window",
            p(),
            vec![(
                "/spec/windows/cutoffs",
                json!([{"aggregation": "a", "start": "202110210801", "cutoff": "2026-01-01T00:00:15Z"}]),
            )],
            "first minute of a window",
        ),
        create(
            "one account for both stages",
            p(),
            vec![("/spec/workers/aggregate/serviceAccountName", json!("intake"))],
            "service accounts of their own",
        ),
        create(
            "reserved label",
            p(),
            vec![("/spec/workers/podLabels", json!({"prio-operator.io/stage": "other"}))],
            "podLabels may not hold",
        ),
        update(
            "a batch's uuid",
            batch(),
            vec![("/spec/uuid", json!("00000000-0000-4000-8000-000000000000"))],
            "Batch's spec is immutable",
        ),
        update(
            "a window's end",
            window(),
            vec![("/spec/end", json!("202110211700"))],
            "AggregationWindow's spec is immutable",
        ),
        update(
            "a window's start beside its override",
            overridden(),
            vec![("/spec/start", json!("202110210700"))],
            "AggregationWindow's spec is immutable",
        ),
        update(
            "an approved override's reason",
            overridden(),
            vec![("/spec/override/reason", json!("other"))],
            "an approved override can't be changed",
        ),
        update(
            "an approval that is taken back by another",
            overridden(),
            vec![("/spec/override/approvedBy", json!("somebody"))],
            "an approved override can't be changed",
        ),
        create(
            "an override that expires at its cutoff",
            overridden(),
            vec![("/spec/override/expiresAt", json!("2026-11-28T12:00:00Z"))],
            "must come after override.cutoff",
        ),
        create(
            "an override that lasts",
            overridden(),
            vec![("/spec/override/expiresAt", json!("2026-12-28T12:00:01Z"))],
            "within 30 days",
        ),
        create(
            "an instance named as a further release",
            p(),
            vec![("/spec/instance", json!("us-ct.release-2"))],
            "may not end in .release-",
        ),
        create(
            "ingestor twice",
            p(),
            vec![("/spec/ingestor/peerRef", json!({"name": "apple"}))],
            "exactly one of ingestor.inline and ingestor.peerRef",
        ),
        create(
            "no ingestor",
            p(),
            vec![("/spec/ingestor", json!({}))],
            "exactly one of ingestor.inline and ingestor.peerRef",
        ),
        create(
            "no peer",
            p(),
            vec![("/spec/peer", json!({"legacy": true}))],
            "exactly one of peer.inline and peer.peerRef",
        ),
        create(
            "portal twice",
            p(),
            vec![("/spec/portal", json!({"inline": {}, "peerRef": {"name": "portal"}}))],
            "exactly one of portal.inline and portal.peerRef",
        ),
        create(
            "nowhere to put validations",
            p(),
            vec![("/spec/mailboxes/outgoing/peer", json!({}))],
            "outgoing.peer needs a url",
        ),
        create(
            "nowhere to put sum parts",
            p(),
            vec![("/spec/mailboxes/outgoing/portal", json!({}))],
            "outgoing.portal needs a url",
        ),
        create(
            "no url of our own",
            p(),
            vec![("/spec/mailboxes/peerValidation", json!({}))],
            "are ours: each needs a url",
        ),
        create(
            "served over http",
            p(),
            vec![
                ("/spec/manifest", manifest()),
                ("/spec/manifest/servedAt/baseUrl", json!("http://manifests.example")),
            ],
            "partners take manifests over nothing else",
        ),
        create(
            "two identities",
            p(),
            vec![
                ("/spec/manifest", manifest()),
                ("/spec/manifest/serverIdentity/gcpServiceAccountId", json!("1")),
            ],
            "the original refuses a manifest with both",
        ),
        create(
            "no signing request",
            p(),
            vec![
                ("/spec/manifest", manifest()),
                (
                    "/spec/manifest/packetEncryptionKey/certificateSigningRequest",
                    json!("?".repeat(200)),
                ),
            ],
            "certificateSigningRequest must be PEM",
        ),
        update(
            "another party",
            peer(),
            vec![("/spec/party", json!("Ingestor"))],
            "spec.party is immutable",
        ),
        create(
            "a share processor of no instance",
            peer(),
            vec![("/spec/instance", Value::Null)],
            "give instance",
        ),
        create(
            "a portal's instance",
            peer(),
            vec![("/spec/party", json!("Portal"))],
            "leave instance out",
        ),
        create(
            "http",
            peer(),
            vec![("/spec/manifestBaseUrl", json!("http://manifests.example"))],
            "must begin with https://",
        ),
        create(
            "a user in the URL",
            peer(),
            vec![("/spec/manifestBaseUrl", json!("https://user@manifests.example/a"))],
            "without user, query or fragment",
        ),
        create(
            "a query in the URL",
            peer(),
            vec![("/spec/manifestBaseUrl", json!("https://manifests.example/a?b"))],
            "without user, query or fragment",
        ),
        create(
            "backward window",
            window(),
            vec![("/spec/end", json!("202110210700"))],
            "must come after",
        ),
    ]
    .into_iter()
    .chain(key_rings::refused_by_rule())
    .collect()
}

/// Objects that the schema refuses before any rule; only an API server shows it.
pub fn refused_by_schema() -> Vec<Case> {
    let p = processor;
    let cutoff = json!({"aggregation": "a", "start": "202110210800", "cutoff": "2026-01-01T00:00:15Z"});
    [
        create(
            "share",
            p(),
            vec![("/spec/share", json!("Third"))],
            "supported values: \"First\", \"Second\"",
        ),
        create(
            "party",
            peer(),
            vec![("/spec/party", json!("Bank"))],
            "supported values: \"Ingestor\", \"ShareProcessor\", \"Portal\"",
        ),
        create(
            "an endpoint with a password",
            p(),
            vec![(
                "/spec/mailboxes/ingestion",
                json!({"url": "gs://bucket", "endpoint": "https://id:hush@store.example"}),
            )],
            "spec.mailboxes.ingestion.endpoint in body should match",
        ),
        create(
            "always asking",
            peer(),
            vec![("/spec/refreshSeconds", json!(1))],
            "greater than or equal to 10",
        ),
        create(
            "no packet key",
            p(),
            vec![("/spec/keys/packetDecryption", json!([]))],
            "should have at least 1 items",
        ),
        create(
            "a key id twice",
            p(),
            vec![(
                "/spec/peer/inline/batchSigningKeys",
                json!([{"id": "k", "publicKey": public_key()}, {"id": "k", "publicKey": public_key()}]),
            )],
            "Duplicate value",
        ),
        create(
            "a cutoff twice",
            p(),
            vec![("/spec/windows/cutoffs", json!([cutoff, cutoff]))],
            "Duplicate value",
        ),
        create(
            "period of zero",
            p(),
            vec![("/spec/windows/periodSeconds", json!(0))],
            "greater than or equal to 60",
        ),
        create(
            "floor of zero",
            p(),
            vec![("/spec/windows/minClients", json!(0))],
            "greater than or equal to 1",
        ),
        create(
            "horizon of no days",
            p(),
            vec![("/spec/replayGuard", json!({"horizonDays": 0}))],
            "greater than or equal to 1",
        ),
        create(
            "horizon of a century",
            p(),
            vec![("/spec/replayGuard", json!({"horizonDays": 36_500}))],
            "less than or equal to 90",
        ),
        create(
            "start",
            p(),
            vec![("/spec/windows/startAt", json!("yesterday"))],
            "date-time",
        ),
        create(
            "an override for the first release",
            overridden(),
            vec![("/spec/override/release", json!(1))],
            "greater than or equal to 2",
        ),
        create(
            "an override without a reason",
            overridden(),
            vec![("/spec/override/reason", json!(""))],
            "at least 1 chars",
        ),
        create(
            "an override's cutoff",
            overridden(),
            vec![("/spec/override/cutoff", json!("soon"))],
            "date-time",
        ),
        create(
            "uuid",
            batch(),
            vec![("/spec/uuid", json!("B8A5579A-F984-460A-A42D-2813CBF57771"))],
            "should match",
        ),
    ]
    .into_iter()
    .chain(key_rings::refused_by_schema())
    .collect()
}
