//! Proof query, seed expansion, AES-128-GCM and ECDSA, each against one ECDH.

use std::hint::black_box;

use aes_gcm::aead::consts::U16;
use aes_gcm::aes::Aes128;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use facilitator_core::crypto::gcm;
use facilitator_core::crypto::signing::{BatchSigningKey, TrustedKeys};
use facilitator_core::formats::work::Share;
use facilitator_core::proof::{PRIME, ProofQuery, expand_seed_into, proof_length};
use prio::field::FieldPrio2;
use prio::vdaf::prio2::Prio2;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::floor::Points;
use crate::measure::{Row, alternate};

/// Rounds of each row, of some milliseconds each.
const ROUNDS: usize = 41;
/// ECDHs of a round.
const AGREEMENTS: usize = 40;

fn calls(micros: f64) -> usize {
    (2_000.0 / micros).ceil() as usize
}

/// Times `work`, of about `micros` µs, against one ECDH.
fn against_ecdh(points: &mut Points, name: String, goal: Option<f64>, micros: f64, work: impl FnMut()) -> Row {
    Row::at_most(
        name,
        "µs",
        &alternate(ROUNDS, (AGREEMENTS, || points.agree()), (calls(micros), work)),
        goal,
    )
}

pub fn rows() -> anyhow::Result<Vec<Row>> {
    let mut points = Points::new()?;
    let mut rng = StdRng::seed_from_u64(7);
    let mut rows = Vec::new();
    let ecdh = crate::measure::thread_time(|| (0..200).for_each(|_| points.agree())) / 200.0;
    rows.push(Row::plain(
        "one ECDH P-256 with point decoding (aws-lc-rs)",
        "µs",
        ecdh,
        None,
    ));
    for (bins, goal) in [(16, 0.01), (256, 0.04), (1024, 0.10), (4096, 0.45)] {
        let elements: Vec<u32> = (0..proof_length(bins)).map(|_| rng.random_range(0..PRIME)).collect();
        let query = ProofQuery::new(bins);
        let mut buffer = query.buffer();
        for share in [Share::First, Share::Second] {
            let r = rng.random_range(2..PRIME);
            let name = format!("proof query, {share:?}, {bins} bins");
            rows.push(against_ecdh(
                &mut points,
                name,
                Some(goal),
                f64::from(bins) / 100.0,
                || {
                    black_box(query.message_in(&mut buffer, black_box(&elements), black_box(r), share));
                },
            ));
        }
        let prio = Prio2::new(bins as usize)?;
        let share = prio::vdaf::Share::Leader(elements.iter().map(|element| FieldPrio2::from(*element)).collect());
        let name = format!("  the prio crate's query, First, {bins} bins");
        rows.push(against_ecdh(&mut points, name, None, f64::from(bins) / 4.0, || {
            let _ = black_box(prio.verify_init_with_query_rand(FieldPrio2::from(12_345), black_box(&share), true));
        }));
    }
    for bins in [16, 256, 1024, 4096] {
        let goal = (bins == 1024).then_some(0.08);
        let (seed, mut elements) = (rng.random(), Zeroizing::new(Vec::new()));
        let name = format!("seed expansion, {bins} bins");
        rows.push(against_ecdh(&mut points, name, goal, f64::from(bins) / 400.0, || {
            expand_seed_into(black_box(&seed), bins, &mut elements);
            black_box(&elements);
        }));
    }
    for bins in [16, 256, 1024] {
        rows.extend(gcm_rows(&mut points, bins, &mut rng));
    }
    rows.extend(signature_rows(&mut points, &mut rng)?);
    Ok(rows)
}

/// What a batch takes of ECDSA: its own signature, and the check of another's.
fn signature_rows(points: &mut Points, rng: &mut StdRng) -> anyhow::Result<[Row; 2]> {
    let (key, header) = (BatchSigningKey::generate("bench", rng), [7; 256]);
    let signature = key.sign(&header)?;
    let mut trusted = TrustedKeys::default();
    trusted.insert("bench", key.verifying_key().clone());
    let sign = || {
        assert!(key.sign(black_box(&header)).is_ok(), "a key of ours");
    };
    let check = || {
        assert!(
            trusted.verify("bench", black_box(&header), &signature).is_ok(),
            "its own"
        );
    };
    Ok([
        against_ecdh(
            points,
            "  signing a header (p256, RFC 6979, and its check)".into(),
            None,
            200.0,
            sign,
        ),
        against_ecdh(points, "  checking its signature (aws-lc)".into(), None, 50.0, check),
    ])
}

/// The candidates for AES-128-GCM with a 16-byte nonce, over First's payload.
fn gcm_rows(points: &mut Points, bins: u32, rng: &mut StdRng) -> [Row; 2] {
    let (key, nonce): ([u8; 16], [u8; 16]) = (rng.random(), rng.random());
    let mut sealed = vec![0; 4 * proof_length(bins)];
    rng.fill_bytes(&mut sealed);
    let other = AesGcm::<Aes128, U16>::new(&key.into());
    let tag = other.encrypt_inout_detached(&nonce.into(), &[], sealed.as_mut_slice().into());
    let (length, tag) = (sealed.len(), tag.unwrap_or_default());
    let mut scratch = vec![0; length];
    sealed.extend_from_slice(&tag);
    let micros = 0.3 + f64::from(bins) / 100.0;
    let mut plaintext = Vec::new();
    let ours = against_ecdh(
        points,
        format!("  AES-128-GCM by aws-lc's EVP_AEAD, {length} bytes"),
        None,
        micros,
        || {
            assert!(
                gcm::open(black_box(&key), &nonce, &sealed, &mut plaintext).is_ok(),
                "its own tag"
            );
        },
    );
    let theirs = against_ecdh(
        points,
        format!("  AES-128-GCM by the aes-gcm crate, {length} bytes"),
        None,
        micros,
        || {
            // Opened in place, so that it must be sealed again: a copy is what that costs here.
            scratch.copy_from_slice(&sealed[..length]);
            let cipher = AesGcm::<Aes128, U16>::new(black_box(&key).into());
            let opened = cipher.decrypt_inout_detached(&nonce.into(), &[], scratch.as_mut_slice().into(), &tag);
            assert!(opened.is_ok(), "its own tag");
        },
    );
    [ours, theirs]
}
