//! A processor for tests.
#![allow(clippy::unwrap_used)]

use crds::DataShareProcessor;

/// A processor as the API server would give it.
pub fn processor() -> DataShareProcessor {
    let mailbox =
        |name: &str| serde_json::json!({"url": format!("file:///mailboxes/{name}"), "volume": {"claimName": name}});
    let party = serde_json::json!({"inline": {"batchSigningKeys": [{"id": "k", "publicKey": "p"}]}});
    serde_json::from_value(serde_json::json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "DataShareProcessor",
        "metadata": {
            "name": "example", "namespace": "prio", "uid": "uid-1", "generation": 3,
            "creationTimestamp": "2026-11-20T00:00:00Z",
        },
        "spec": {
            "share": "First",
            "instance": "example",
            "ingestor": party,
            "peer": party,
            "portal": {"inline": {}},
            "mailboxes": {
                "ingestion": mailbox("ingestion"), "peerValidation": mailbox("peer-validation"), "ledger": mailbox("ledger"),
                "outgoing": {"peer": mailbox("outgoing-peer"), "portal": mailbox("portal")},
            },
            "keys": {
                "batchSigning": {"secretRef": {"name": "signing"}},
                "packetDecryption": [{"secretRef": {"name": "packet"}}],
            },
            "windows": {"startAt": "2026-11-20T00:00:00Z"},
            "workers": {"intake": {"serviceAccountName": "intake"}, "aggregate": {"serviceAccountName": "aggregate"}},
        },
    }))
    .unwrap()
}
