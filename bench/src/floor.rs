//! The floor of intake: what the cryptography alone takes, over the same bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::digest::{Context, SHA256};
use facilitator_core::crypto::gcm;
use facilitator_core::formats::ingestion::DataSharePacket;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One P-256 agreement with a point that comes as bytes, by aws-lc-rs.
pub fn ecdh(private: &PrivateKey, point: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let agreed = agree(private, UnparsedPublicKey::new(&ECDH_P256, point), (), |secret| {
        out.copy_from_slice(secret);
        Ok(())
    });
    assert!(agreed.is_ok(), "the point is on the curve");
    out
}

/// A private key and points to agree with.
pub struct Points {
    pub private: PrivateKey,
    points: Vec<Vec<u8>>,
    next: usize,
}

impl Points {
    pub fn new() -> anyhow::Result<Self> {
        let private = PrivateKey::generate(&ECDH_P256)?;
        let points = (0..64).map(|_| {
            Ok(PrivateKey::generate(&ECDH_P256)?
                .compute_public_key()?
                .as_ref()
                .to_vec())
        });
        let points = points.collect::<Result<_, aws_lc_rs::error::Unspecified>>()?;
        Ok(Self {
            private,
            points,
            next: 0,
        })
    }

    /// One agreement with the next point.
    pub fn agree(&mut self) {
        self.next = (self.next + 1) % self.points.len();
        std::hint::black_box(ecdh(&self.private, &self.points[self.next]));
    }
}

/// Packets that a core takes at a time: few, so that all end together.
const PIECE: usize = 16;

/// A point, what is sealed under a key that we know, that key, its nonce.
type Sealed = ([u8; 65], Vec<u8>, [u8; 16], [u8; 16]);

/// One batch's floor. The payloads' keys are others than the real ones, so that sealing stands for opening: both
/// encrypt and hash every byte once.
pub struct IntakeFloor {
    private: PrivateKey,
    object: Vec<u8>,
    packets: Vec<Sealed>,
}

impl IntakeFloor {
    pub fn new(object: &[u8]) -> anyhow::Result<Self> {
        use aes_gcm::aead::consts::U16;
        use aes_gcm::{AeadInOut, AesGcm, KeyInit};
        let mut rng = StdRng::seed_from_u64(5);
        let mut packets = Vec::new();
        for packet in DataSharePacket::read_all(object)? {
            let mut point = [0; 65];
            point.copy_from_slice(&packet.encrypted_payload[..65]);
            let (key, nonce): ([u8; 16], [u8; 16]) = (rng.random(), rng.random());
            let mut sealed = packet.encrypted_payload[65..].to_vec();
            let length = sealed.len() - 16;
            let cipher = AesGcm::<aes_gcm::aes::Aes128, U16>::new(&key.into());
            let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], (&mut sealed[..length]).into());
            let tag = tag.map_err(|_| anyhow::anyhow!("sealing failed"))?;
            sealed[length..].copy_from_slice(&tag);
            packets.push((point, sealed, key, nonce));
        }
        Ok(Self {
            private: PrivateKey::generate(&ECDH_P256)?,
            object: object.to_vec(),
            packets,
        })
    }

    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    /// The work itself, on one core, or on several: each takes packets until none is left, the first after the digest.
    pub fn run(&self, cores: usize) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 1..cores {
                scope.spawn(|| self.open_from(&next));
            }
            let mut digest = Context::new(&SHA256);
            self.object.chunks(256 << 10).for_each(|chunk| digest.update(chunk));
            std::hint::black_box(digest.finish());
            self.open_from(&next);
        });
    }

    /// Opens one piece after another; `next` is the first that nobody has taken.
    fn open_from(&self, next: &AtomicUsize) {
        let mut plaintext = Vec::new();
        while let Some(packets) = self.packets.chunks(PIECE).nth(next.fetch_add(1, Ordering::Relaxed)) {
            for (point, sealed, key, nonce) in packets {
                std::hint::black_box(ecdh(&self.private, point));
                assert!(
                    gcm::open(key, nonce, sealed, &mut plaintext).is_ok(),
                    "sealed with this key"
                );
                std::hint::black_box(&plaintext);
            }
        }
    }
}
