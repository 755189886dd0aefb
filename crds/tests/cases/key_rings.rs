//! Key rings: one that is good, and changes to it.

use serde_json::{Value, json};

use super::{Case, create, update};

/// A ring that has all that is needed.
pub fn key_ring() -> Value {
    json!({
        "apiVersion": "prio-operator.io/v1alpha1",
        "kind": "KeyRing",
        "metadata": {"name": "us-ct-packets", "namespace": "default"},
        "spec": {
            "purpose": "PacketEncryption",
            "keyIdPrefix": "prod-us-ct-ingestion-packet-decryption-key",
            "rotation": {"primaryMinAgeSeconds": 82800, "createMinAgeSeconds": 23328000, "retireMinAgeSeconds": 33696000},
            "certificate": {"commonName": "us-ct.prod.certificates.example.org"},
            "backup": {"method": "Age", "recipients": [recipient()]},
        },
    })
}

fn recipient() -> String {
    format!("age1{}", "q".repeat(58))
}

/// Cases that a CEL rule refuses.
pub fn refused_by_rule() -> Vec<Case> {
    vec![
        create(
            "a ring's dots",
            key_ring(),
            vec![("/metadata/name", json!("us.ct"))],
            "a KeyRing's name has at most 40",
        ),
        update(
            "a ring's purpose",
            key_ring(),
            vec![
                ("/spec/purpose", json!("BatchSigning")),
                ("/spec/certificate", Value::Null),
            ],
            "spec.purpose is immutable",
        ),
        update(
            "a ring's prefix",
            key_ring(),
            vec![("/spec/keyIdPrefix", json!("other"))],
            "spec.keyIdPrefix is immutable",
        ),
        create(
            "packet keys without a common name",
            key_ring(),
            vec![("/spec/certificate", Value::Null)],
            "spec.certificate belongs to",
        ),
        create(
            "signing keys with a common name",
            key_ring(),
            vec![("/spec/purpose", json!("BatchSigning"))],
            "spec.certificate belongs to",
        ),
        create(
            "followed before it is used",
            key_ring(),
            vec![("/spec/rotation/primaryMinAgeSeconds", json!(23_328_001))],
            "primaryMinAgeSeconds must not exceed",
        ),
        create(
            "retired before it is followed",
            key_ring(),
            vec![("/spec/rotation/createMinAgeSeconds", json!(33_696_001))],
            "createMinAgeSeconds must not exceed",
        ),
        create(
            "nobody to restore",
            key_ring(),
            vec![("/spec/backup", json!({"method": "Age"}))],
            "recipients belong to method Age",
        ),
        create(
            "a recipient of nothing",
            key_ring(),
            vec![("/spec/backup/method", json!("None"))],
            "recipients belong to method Age",
        ),
        create(
            "an identity",
            key_ring(),
            vec![(
                "/spec/backup/recipients",
                json!([format!("AGE-SECRET-KEY-1{}", "Q".repeat(58))]),
            )],
            "recipients holds an age identity",
        ),
    ]
}

/// Cases that the schema refuses.
pub fn refused_by_schema() -> Vec<Case> {
    vec![
        create(
            "a ring's purpose",
            key_ring(),
            vec![("/spec/purpose", json!("Signing"))],
            "supported values: \"BatchSigning\", \"PacketEncryption\"",
        ),
        create(
            "no word on backups",
            key_ring(),
            vec![("/spec/backup", Value::Null)],
            "spec.backup",
        ),
        create(
            "age of zero",
            key_ring(),
            vec![("/spec/rotation/createMinAgeSeconds", json!(0))],
            "greater than or equal to 1",
        ),
    ]
}
