//! Keys, signing requests, and what is opened with keys.

use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::crypto::original::read_versions;
use facilitator_core::crypto::{BatchSigningKey, BatchVerifyingKey, PacketDecryptionKey, encrypt, open, seal};
use facilitator_core::formats::ingestion::DataSharePacket;
use facilitator_core::formats::manifest::DataShareProcessorSpecificManifest;
use facilitator_core::formats::record::PacketState;
use facilitator_core::formats::work::Share;
use facilitator_core::processor::MountedPacketKey;
use facilitator_core::proof::{PRIME, ShareSplitter, parse_first_share, parse_second_share};
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::{ACCEPTED, Target, said};
use crate::support::{Keys, decide, root};

fn keys(input: &[u8]) -> Result<Vec<String>, String> {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok(vec!["not text".into(); 3]);
    };
    if let Ok(keys) = PacketDecryptionKey::parse_list(text) {
        for key in &keys {
            let again =
                PacketDecryptionKey::parse(&key.to_base64()).map_err(|error| format!("not read again: {error}"))?;
            if again.public_point() != key.public_point() {
                return Err("another key".into());
            }
        }
    }
    Ok(vec![
        said(PacketDecryptionKey::parse_list(text)),
        said(BatchSigningKey::parse("id", text)),
        said(BatchVerifyingKey::parse(text)),
    ])
}

fn key_texts() -> Vec<Vec<u8>> {
    let keys = Keys::read();
    let packet = keys.first_packets.to_base64().to_string();
    let signing = keys.first.to_base64().unwrap().to_string();
    vec![
        format!("{packet},{packet}").into(),
        packet.into(),
        signing.into(),
        keys.first.verifying_key().to_pem().into(),
    ]
}

/// What the original's rotator keeps.
fn key_versions(input: &[u8]) -> Result<Vec<String>, String> {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok(vec!["not text".into()]);
    };
    let versions = read_versions(text);
    if let Ok(versions) = &versions {
        let oldest_first = versions.windows(2).all(|pair| pair[0].created < pair[1].created);
        let primary = versions.iter().filter(|version| version.primary).count();
        if !oldest_first || primary != 1 {
            return Err(format!("not in order, or {primary} are primary: {versions:?}"));
        }
    }
    Ok(vec![said(versions)])
}

fn key_version_lists() -> Vec<Vec<u8>> {
    let keys = Keys::read();
    let [one, other] = [&keys.first_packets, &keys.second_packets].map(|key| {
        let uncompressed = STANDARD.decode(&*key.to_base64()).unwrap();
        let (x, y, scalar) = (&uncompressed[1..33], &uncompressed[33..65], &uncompressed[65..]);
        STANDARD_NO_PAD.encode([&[1, 2 + y[31] % 2], x, scalar].concat())
    });
    vec![
        format!(r#"[{{"key":"{one}","creation_time":"1600000000","primary":true}}]"#).into(),
        format!(
            r#"[{{"key":"{one}","creation_time":"0"}},{{"key":"{}","creation_time":"1700000000","primary":true}}]"#,
            other.replace('/', r"\/")
        )
        .into(),
        b"not-a-real-key".to_vec(),
    ]
}

fn requests() -> Vec<Vec<u8>> {
    let manifest = std::fs::read(root().join("manifests/dsp-specific.json")).unwrap();
    let manifest = DataShareProcessorSpecificManifest::parse(&manifest).unwrap();
    let der = |text: &str| {
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(body).unwrap()
    };
    manifest
        .packet_encryption_keys
        .values()
        .map(|key| der(&key.certificate_signing_request))
        .collect()
}

/// The DER, so that mutations get behind base64.
fn request(input: &[u8]) -> Result<Vec<String>, String> {
    let body = STANDARD.encode(input);
    let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----");
    Ok(vec![match SigningRequest::parse(&text) {
        Ok(request) if !request.signature_verifies => "its signature doesn't verify".into(),
        result => said(result),
    }])
}

const BINS: u32 = 8;

thread_local! {
    static MOUNTED: OnceCell<[[MountedPacketKey; 1]; 2]> = const { OnceCell::new() };
}

/// A payload as a packet carries it, for First or Second.
fn ciphertexts(input: &[u8]) -> Result<Vec<String>, String> {
    MOUNTED.with(|mounted| {
        let mounted = mounted.get_or_init(|| {
            let keys = Keys::read();
            [keys.first_packets, keys.second_packets].map(|key| [MountedPacketKey { id: "one".into(), key }])
        });
        let packet = DataSharePacket {
            uuid: Uuid::from_u128(1),
            encrypted_payload: input.to_vec(),
            encryption_key_id: None,
            r_pit: 7,
            version_configuration: None,
            device_nonce: None,
        };
        let state = |share: Share| {
            let keys = &mounted[usize::from(share.index())];
            match decide(packet.clone(), BINS, share, keys) {
                Ok((_, PacketState::In { .. })) => Ok(ACCEPTED.to_owned()),
                Ok((_, PacketState::Excluded(reason))) => Ok(format!("{reason:?}")),
                Err(error) => Err(error.to_string()),
            }
        };
        Ok(vec![state(Share::First)?, state(Share::Second)?])
    })
}

fn payloads() -> Vec<Vec<u8>> {
    let keys = Keys::read();
    let mut rng = StdRng::seed_from_u64(5);
    let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
    let first = encrypt(keys.first_packets.public_point(), &shares.first, &mut rng).unwrap();
    let second = encrypt(keys.second_packets.public_point(), &*shares.second, &mut rng).unwrap();
    vec![first, second, vec![4; 81]]
}

/// A decrypted share, and a sealed accumulator.
fn shares(input: &[u8]) -> Result<Vec<String>, String> {
    if let Ok(elements) = parse_first_share(input, BINS)
        && elements.iter().any(|element| *element >= PRIME)
    {
        return Err("an element is beyond the field".into());
    }
    let key = PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(6));
    let opened = open(&key, &[1; 32], Share::First, &[2; 32], input);
    Ok(vec![
        said(parse_first_share(input, BINS)),
        said(parse_second_share(input, BINS)),
        said(opened),
    ])
}

fn share_seeds() -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(5);
    let shares = ShareSplitter::new(BINS).split(&[1; BINS as usize], &mut rng);
    let key = PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(6));
    vec![
        shares.first.to_vec(),
        shares.second.to_vec(),
        seal(&key, &[1; 32], Share::First, &[2; 32], &[1, 2, 3]),
    ]
}

pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "key",
            parts: &["packet keys", "signing key", "public key"],
            seeds: key_texts,
            run: keys,
        },
        Target {
            name: "key-versions",
            parts: &["versions"],
            seeds: key_version_lists,
            run: key_versions,
        },
        Target {
            name: "signing-request",
            parts: &["request"],
            seeds: requests,
            run: request,
        },
        Target {
            name: "ciphertext",
            parts: &["for First", "for Second"],
            seeds: payloads,
            run: ciphertexts,
        },
        Target {
            name: "share",
            parts: &["First's", "Second's", "sealed"],
            seeds: share_seeds,
            run: shares,
        },
    ]
}
