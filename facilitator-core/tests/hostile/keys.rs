//! Keys, signing requests and manifests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::crypto::{BatchSigningKey, BatchVerifyingKey, PacketDecryptionKey};
use facilitator_core::formats::manifest::{
    DataShareProcessorGlobalManifest, DataShareProcessorSpecificManifest, IngestorManifest, PortalManifest, StorageUrl,
    check_base_url,
};
use serde_json::{Value, json};

use crate::support::{Keys, root};
use crate::{Case, case, said};

fn private_keys() -> Vec<Case> {
    let keys = Keys::read();
    let good = keys.first_packets.to_base64().to_string();
    let bytes = STANDARD.decode(&good).unwrap();
    let other = STANDARD.decode(&*keys.second_packets.to_base64()).unwrap();
    let of = |bytes: &[u8]| STANDARD.encode(bytes);
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32)
        .map(|n| u8::from_str_radix(&order[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let packet = |name: &str, expected: &str, text: String| {
        case(format!("a packet key {name}"), expected, move || {
            said(PacketDecryptionKey::parse_list(&text))
        })
    };
    let signing = |name: &str, expected: &str, text: String| {
        case(format!("a signing key {name}"), expected, move || {
            said(BatchSigningKey::parse("id", &text))
        })
    };
    let signing_text = keys.first.to_base64().unwrap().to_string();
    let der = STANDARD.decode(&signing_text).unwrap();
    vec![
        packet("of no text", "the text is empty", String::new()),
        packet("of blanks", "the text is empty", " \n\t".into()),
        packet("that isn't base64", "no standard base64", "not base64!".into()),
        packet("in URL-safe base64", "no standard base64", "_-_-".into()),
        packet(
            "without its padding",
            "no standard base64",
            good.trim_end_matches('=').into(),
        ),
        packet("of 100 KB", "the text is longer than", "A".repeat(100_000)),
        packet("without a scalar", "is 97 bytes", of(&bytes[..65])),
        packet("whose scalar lost a leading zero", "is 97 bytes", of(&bytes[..96])),
        packet("of a byte more", "is 97 bytes", of(&[bytes.as_slice(), &[0]].concat())),
        packet(
            "whose scalar is zero",
            "out of range",
            of(&[&bytes[..65], &[0; 32]].concat()),
        ),
        packet(
            "whose scalar is the group's order",
            "out of range",
            of(&[&bytes[..65], &order].concat()),
        ),
        packet(
            "whose scalar is 2^256 - 1",
            "out of range",
            of(&[&bytes[..65], &[0xff; 32]].concat()),
        ),
        packet(
            "of another key's point",
            "doesn't belong to its scalar",
            of(&[&other[..65], &bytes[65..]].concat()),
        ),
        packet("list that ends in a comma", "the text is empty", format!("{good},")),
        packet("list of a million commas", "the text is empty", ",".repeat(1_000_000)),
        signing("of no text", "the text is empty", String::new()),
        signing("that isn't base64", "no standard base64", "%%%".into()),
        signing("of 100 KB", "the text is longer than", "A".repeat(100_000)),
        signing("that is a packet key", "no PKCS#8", good.clone()),
        signing("cut off", "no PKCS#8", of(&der[..der.len() / 2])),
        signing("with a byte more", "no PKCS#8", of(&[der.as_slice(), &[0]].concat())),
        signing(
            "with a DER length of 4 GB",
            "no PKCS#8",
            of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
        signing("nested 10,000 deep", "no PKCS#8", of(&[0x30, 0x80].repeat(10_000))),
        signing(
            "in PEM",
            "no standard base64",
            format!("-----BEGIN PRIVATE KEY-----\n{signing_text}\n-----END PRIVATE KEY-----"),
        ),
    ]
}

fn public_keys() -> Vec<Case> {
    let key = Keys::read().first.verifying_key().clone();
    let pem = key.to_pem();
    let point = *key.point();
    let changed = |change: fn(&mut [u8; 65])| {
        let mut point = point;
        change(&mut point);
        STANDARD.encode(point)
    };
    let public = |name: &str, expected: &str, text: String| {
        case(format!("a public key {name}"), expected, move || {
            said(BatchVerifyingKey::parse(&text))
        })
    };
    let rsa = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----",
        STANDARD.encode([0x30; 162])
    );
    vec![
        public("of no text", "the text is empty", String::new()),
        public(
            "that isn't on the curve",
            "no uncompressed point",
            changed(|p| p[64] ^= 1),
        ),
        public(
            "that is the point at infinity",
            "no uncompressed point",
            changed(|p| p[1..].fill(0)),
        ),
        public(
            "with a compressed point's mark",
            "no uncompressed point",
            changed(|p| p[0] = 2),
        ),
        public(
            "beyond the field",
            "no uncompressed point",
            changed(|p| p[1..].fill(0xff)),
        ),
        public(
            "in PEM of another label",
            "no PEM block",
            pem.replace("PUBLIC KEY", "CERTIFICATE"),
        ),
        public("in PEM without an end", "no PEM block", pem[..pem.len() / 2].into()),
        public("in two PEM blocks", "no PEM block", format!("{pem}{pem}")),
        public(
            "in PEM of 1 MB",
            "the text is longer than",
            format!("-----BEGIN PUBLIC KEY-----\n{}", "A".repeat(1 << 20)),
        ),
        public("of RSA's length", "isn't the 91 bytes", rsa),
        public(
            "in PEM of no bytes",
            "isn't the 91 bytes",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----".into(),
        ),
    ]
}

fn manifest(name: &str) -> String {
    std::fs::read_to_string(root().join("manifests").join(name)).unwrap()
}

fn with(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_str(text).unwrap();
    change(&mut value);
    value.to_string()
}

fn requests() -> Vec<Case> {
    let processor = manifest("dsp-specific.json");
    let parsed = DataShareProcessorSpecificManifest::parse(processor.as_bytes()).unwrap();
    let good = parsed
        .packet_encryption_keys
        .values()
        .next()
        .unwrap()
        .certificate_signing_request
        .clone();
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let pem = |der: &[u8]| {
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----",
            STANDARD.encode(der)
        )
    };
    let request = |name: &str, expected: &str, text: String| {
        case(
            format!("a signing request {name}"),
            expected,
            move || match SigningRequest::parse(&text) {
                Ok(request) if !request.signature_verifies => "its signature doesn't verify".into(),
                result => said(result),
            },
        )
    };
    let point = der.windows(2).position(|window| window == [0x00, 0x04]).unwrap() + 2;
    let changed = |at: usize| {
        let mut der = der.clone();
        der[at] ^= 1;
        pem(&der)
    };
    vec![
        request("of no text", "no PEM block", String::new()),
        request("of nonsense", "no PKCS#10", pem(b"nonsense")),
        request("cut off", "no PKCS#10", pem(&der[..der.len() / 2])),
        request(
            "with a byte more",
            "bytes follow",
            pem(&[der.as_slice(), &[0]].concat()),
        ),
        request(
            "with a DER length of 4 GB",
            "no PKCS#10",
            pem(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
        request("nested 10,000 deep", "no PKCS#10", pem(&[0x30, 0x80].repeat(10_000))),
        request(
            "whose key isn't on the curve",
            "no uncompressed point",
            changed(point + 40),
        ),
        request("that another key signed", "doesn't verify", changed(der.len() - 1)),
    ]
}

pub fn manifests() -> Vec<Case> {
    let [global, processor, ingestor, portal] =
        ["dsp-global.json", "dsp-specific.json", "ingestor.json", "portal.json"].map(manifest);
    let a_processor = |name: &str, expected: &str, text: String| {
        case(format!("a processor's manifest {name}"), expected, move || {
            said(
                DataShareProcessorSpecificManifest::parse(text.as_bytes()).and_then(|manifest| {
                    manifest.trusted_keys()?;
                    manifest.packet_encryption_requests()
                }),
            )
        })
    };
    let an_ingestor = |name: &str, expected: &str, text: String| {
        case(format!("an ingestor's manifest {name}"), expected, move || {
            said(IngestorManifest::parse(text.as_bytes()).and_then(|manifest| manifest.trusted_keys()))
        })
    };
    let twice = ingestor.replacen(
        "\"ingestor-key-1\": {",
        "\"ingestor-key-1\": {\"public-key\":\"a\",\"expiration\":\"b\"}, \"ingestor-key-1\": {",
        1,
    );
    let mut cases = vec![
        a_processor("of no bytes", "EOF", String::new()),
        a_processor("that is a list", "isn't what its format says", "[]".into()),
        a_processor(
            "of 100,000 opening brackets",
            "isn't what its format says",
            "[".repeat(100_000),
        ),
        a_processor(
            "of format 0",
            "has format 0",
            with(&processor, |m| m["format"] = json!(0)),
        ),
        a_processor(
            "of format 2^64",
            "invalid type",
            with(&processor, |m| m["format"] = json!(1.8e19)),
        ),
        a_processor(
            "of format -1",
            "invalid value",
            with(&processor, |m| m["format"] = json!(-1)),
        ),
        a_processor(
            "with an unknown field",
            "unknown field",
            with(&processor, |m| m["extra"] = json!(1)),
        ),
        a_processor(
            "with null for an identity",
            "invalid type: null",
            with(&processor, |m| m["ingestion-identity"] = Value::Null),
        ),
        a_processor(
            "without a bucket",
            "missing field",
            with(&processor, |m| {
                drop(m.as_object_mut().unwrap().remove("ingestion-bucket"))
            }),
        ),
        a_processor(
            "with a bucket of no name",
            "no storage URL",
            with(&processor, |m| m["ingestion-bucket"] = json!("gs://")),
        ),
        a_processor(
            "with an S3 bucket of no region",
            "no storage URL",
            with(&processor, |m| m["ingestion-bucket"] = json!("s3://b")),
        ),
        a_processor(
            "with text after its end",
            "trailing characters",
            format!("{processor} x"),
        ),
        a_processor(
            "with a number of a million digits",
            "isn't what its format says",
            format!("{{\"format\":{}}}", "9".repeat(1_000_000)),
        ),
        a_processor(
            "with a signing request of nonsense",
            "no PEM block",
            with(&processor, |m| {
                m["packet-encryption-keys"] = json!({"k": {"certificate-signing-request": "nonsense"}});
            }),
        ),
        an_ingestor("with a key id given twice", "is given twice", twice),
        an_ingestor(
            "with a key of nonsense",
            "no PEM block",
            with(&ingestor, |m| {
                m["batch-signing-public-keys"]["k"] = json!({"public-key": "nonsense", "expiration": ""});
            }),
        ),
        an_ingestor(
            "without an identity",
            "missing field",
            with(&ingestor, |m| {
                drop(m.as_object_mut().unwrap().remove("server-identity"))
            }),
        ),
    ];
    let none = with(&global, |m| {
        m["server-identity"]["gcp-service-account-id"] = Value::Null
    });
    cases.push(case(
        "a global manifest with null for an id",
        "invalid type: null",
        move || said(DataShareProcessorGlobalManifest::parse(none.as_bytes())),
    ));
    let empty = with(&portal, |m| m["pha-sum-part-bucket"] = json!(""));
    cases.push(case(
        "a portal's manifest with an empty bucket",
        "no storage URL",
        move || said(PortalManifest::parse(empty.as_bytes())),
    ));
    for url in [
        "http://m.example",
        "https://",
        "https://u:p@m.example",
        "https://m.example?x",
        "https://m example",
        "file:///etc",
    ] {
        cases.push(case(
            format!("manifests at {url}"),
            "can't be the base URL",
            move || said(check_base_url(url)),
        ));
    }
    cases.push(case("a storage URL of no text", "no storage URL", || {
        said(StorageUrl::parse(""))
    }));
    cases
}

pub fn cases() -> Vec<Case> {
    [private_keys(), public_keys(), requests()]
        .into_iter()
        .flatten()
        .collect()
}
