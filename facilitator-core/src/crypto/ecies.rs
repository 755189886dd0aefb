//! Encryption of packets: ECDH on P-256, ANSI X9.63 key derivation with SHA-256, AES-128-GCM with a 16-byte nonce.
//!
//! A payload is the 65-byte ephemeral point, the ciphertext and a 16-byte tag. Facts: the protocol reference §3.

use std::fmt;

use aes_gcm::aead::consts::U16;
use aes_gcm::aes::Aes128;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use rand::CryptoRng;
use snafu::{OptionExt, Snafu, ensure};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::encoding::decode_base64;
use super::{KeyError, PublicPoint, gcm};

const POINT: usize = 65;
const SCALAR: usize = 32;
const TAG: usize = 16;
/// What encryption adds to a plaintext, in bytes.
pub const OVERHEAD: usize = POINT + TAG;

type PacketCipher = AesGcm<Aes128, U16>;

/// No key or no payload of ours: the same for every cause, and never retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Snafu)]
#[snafu(display("the payload can't be decrypted with this packet decryption key"))]
pub struct DecryptionError;

impl DecryptionError {
    /// Whether the same key may open the payload later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// The recipient's point isn't one. Never retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Snafu)]
#[snafu(display("the packet can't be encrypted: the recipient's key is no point on P-256"))]
pub struct EncryptionError;

/// A private key that opens packets. Debug shows its public point alone; the scalar is wiped on drop.
pub struct PacketDecryptionKey {
    point: PublicPoint,
    scalar: Zeroizing<[u8; SCALAR]>,
    private: PrivateKey,
}

impl fmt::Debug for PacketDecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = crate::formats::batch::hex(&self.point);
        f.debug_struct("PacketDecryptionKey")
            .field("public_point", &point)
            .finish_non_exhaustive()
    }
}

impl PacketDecryptionKey {
    /// Decodes one key: base64 of the 65-byte point and the 32-byte scalar, which must belong together.
    ///
    /// # Errors
    /// [`KeyError`]. A scalar without its leading zeros (a fault of old key tools, 1 key in 256) is refused by length.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        ensure!(!text.trim().is_empty(), super::EmptySnafu);
        let bytes = decode_base64(text)?;
        ensure!(
            bytes.len() == POINT + SCALAR,
            super::PacketKeyLengthSnafu { length: bytes.len() }
        );
        let mut scalar = Zeroizing::new([0; SCALAR]);
        scalar.copy_from_slice(&bytes[POINT..]);
        let key = Self::from_scalar(scalar)?;
        let same = key.point.as_slice().ct_eq(&bytes[..POINT]);
        ensure!(bool::from(same), super::PointOfOtherScalarSnafu);
        Ok(key)
    }

    /// Decodes several keys joined by commas, in order.
    ///
    /// # Errors
    /// [`KeyError`] of the first that can't be used.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, KeyError> {
        text.split(',').map(Self::parse).collect()
    }

    /// The key of a scalar, big-endian.
    ///
    /// # Errors
    /// [`KeyError::Scalar`] outside 1 to n − 1.
    pub fn from_scalar(scalar: Zeroizing<[u8; SCALAR]>) -> Result<Self, KeyError> {
        let private = PrivateKey::from_private_key(&ECDH_P256, scalar.as_slice()).map_err(|_| KeyError::Scalar)?;
        let public = private.compute_public_key().map_err(|_| KeyError::Scalar)?;
        let point = PublicPoint::try_from(public.as_ref()).map_err(|_| KeyError::Scalar)?;
        Ok(Self { point, scalar, private })
    }

    /// A new random key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        loop {
            let mut scalar = Zeroizing::new([0; SCALAR]);
            rng.fill_bytes(scalar.as_mut_slice());
            if let Ok(key) = Self::from_scalar(scalar) {
                return key;
            }
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_point(&self) -> &PublicPoint {
        &self.point
    }

    /// The key as Secrets hold it: base64 of point and scalar.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        use base64::Engine;
        let bytes = Zeroizing::new([self.point.as_slice(), self.scalar.as_slice()].concat());
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*bytes))
    }

    /// The private half, padded to 32 bytes: what seals are derived from.
    pub(super) fn scalar(&self) -> &[u8; SCALAR] {
        &self.scalar
    }

    /// Opens a packet's payload.
    ///
    /// # Errors
    /// [`DecryptionError`] for whatever is wrong: another key, a damaged or short payload, a point off the curve.
    pub fn decrypt(&self, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, DecryptionError> {
        let mut plaintext = Zeroizing::new(Vec::new());
        self.decrypt_into(payload, &mut plaintext)?;
        Ok(plaintext)
    }

    /// As [`PacketDecryptionKey::decrypt`], into a buffer that is used again and again.
    ///
    /// # Errors
    /// [`DecryptionError`]; nothing of use is in the buffer then.
    pub fn decrypt_into(&self, payload: &[u8], plaintext: &mut Zeroizing<Vec<u8>>) -> Result<(), DecryptionError> {
        let ephemeral = ephemeral_point(payload).context(DecryptionSnafu)?;
        let sealed = &payload[POINT..];
        ensure!(sealed.len() >= TAG, DecryptionSnafu);
        let okm = shared_key(&self.private, ephemeral, ephemeral).ok_or(DecryptionError)?;
        let (key, nonce) = halves(&okm);
        gcm::open(key, nonce, sealed, plaintext).map_err(|_| DecryptionError)
    }
}

/// The ephemeral point in front of a payload, uncompressed; `None` where the payload is too short or begins otherwise.
/// Not checked to be on the curve. Two packets of one point are duplicates (ledger rule 1).
#[must_use]
pub fn ephemeral_point(payload: &[u8]) -> Option<&PublicPoint> {
    payload.first_chunk::<POINT>().filter(|point| point[0] == 4)
}

/// What stands for a payload's ephemeral key where packets are compared: the first half of its x-coordinate. To make two
/// keys that share it takes 2^64 tries, and wins an exclusion. `None` where the payload is too short for a point.
#[must_use]
pub fn ephemeral_name(payload: &[u8]) -> Option<[u8; 16]> {
    payload.first_chunk::<POINT>()?[1..].first_chunk().copied()
}

/// Encrypts a packet for the holder of `public_point`.
///
/// # Errors
/// [`EncryptionError`] where the point is not on the curve.
pub fn encrypt(
    public_point: &PublicPoint,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, EncryptionError> {
    let ephemeral = PacketDecryptionKey::generate(rng);
    let okm = shared_key(&ephemeral.private, public_point, &ephemeral.point).ok_or(EncryptionError)?;
    let (cipher, nonce) = cipher(&okm);
    let mut payload = Vec::with_capacity(plaintext.len() + OVERHEAD);
    payload.extend_from_slice(&ephemeral.point);
    payload.extend_from_slice(plaintext);
    let tag = cipher
        .encrypt_inout_detached(&nonce.into(), &[], payload[POINT..].as_mut().into())
        .map_err(|_| EncryptionError)?;
    payload.extend_from_slice(&tag);
    Ok(payload)
}

/// X9.63: SHA-256(Z ‖ 00000001 ‖ ephemeral point).
fn shared_key(private: &PrivateKey, peer: &PublicPoint, ephemeral: &PublicPoint) -> Option<Zeroizing<[u8; 32]>> {
    agree(
        private,
        UnparsedPublicKey::new(&ECDH_P256, peer.as_slice()),
        (),
        |secret| {
            let mut input = Zeroizing::new([0; SCALAR + 4 + POINT]);
            input[..SCALAR].copy_from_slice(secret);
            input[SCALAR + 3] = 1;
            input[SCALAR + 4..].copy_from_slice(ephemeral);
            Ok(Zeroizing::new(super::sha256(input.as_slice())))
        },
    )
    .ok()
}

/// Key and nonce.
fn halves(okm: &[u8; 32]) -> (&[u8; 16], &[u8; 16]) {
    let (halves, _) = okm.as_chunks::<16>();
    (&halves[0], &halves[1])
}

/// The cipher that samples are sealed with: of another library than the one that opens.
fn cipher(okm: &[u8; 32]) -> (PacketCipher, [u8; 16]) {
    let (key, nonce) = halves(okm);
    (PacketCipher::new(key.into()), *nonce)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn opens_what_was_encrypted_for_it_and_nothing_else() {
        let mut rng = StdRng::seed_from_u64(1);
        let (key, other) = (
            PacketDecryptionKey::generate(&mut rng),
            PacketDecryptionKey::generate(&mut rng),
        );
        for length in [0, 1, 16, 32, 1000] {
            let plaintext = vec![7; length];
            let payload = encrypt(key.public_point(), &plaintext, &mut rng).unwrap();
            assert_eq!(payload.len(), length + OVERHEAD);
            assert_eq!(*key.decrypt(&payload).unwrap(), plaintext);
            assert!(other.decrypt(&payload).is_err());
            for i in [0, 1, 64, payload.len() - 1, payload.len() - 16] {
                let mut damaged = payload.clone();
                damaged[i] ^= 1;
                assert!(key.decrypt(&damaged).is_err(), "byte {i}");
            }
        }
        for short in [0, 1, 64, 65, 80] {
            assert!(key.decrypt(&vec![4; short]).is_err());
        }
    }

    #[test]
    fn keys_decode_only_whole() {
        let mut rng = StdRng::seed_from_u64(2);
        let (key, other) = (
            PacketDecryptionKey::generate(&mut rng),
            PacketDecryptionKey::generate(&mut rng),
        );
        let text = key.to_base64();
        assert_eq!(
            PacketDecryptionKey::parse(&format!(" {}\n", *text))
                .unwrap()
                .public_point(),
            key.public_point()
        );
        let both = format!("{},{}", *text, *other.to_base64());
        assert_eq!(
            PacketDecryptionKey::parse_list(&both).unwrap()[1].public_point(),
            other.public_point()
        );
        let mixed = STANDARD.encode([key.point.as_slice(), other.scalar.as_slice()].concat());
        let short = STANDARD.encode([key.point.as_slice(), &key.scalar[1..]].concat());
        let zero = STANDARD.encode([key.point.as_slice(), &[0; 32]].concat());
        let cases = [
            (mixed.as_str(), KeyError::PointOfOtherScalar),
            (&short, KeyError::PacketKeyLength { length: 96 }),
            (&zero, KeyError::Scalar),
            ("", KeyError::Empty),
            ("not base64!", KeyError::Base64),
        ];
        for (text, error) in cases {
            assert_eq!(PacketDecryptionKey::parse(text).unwrap_err(), error);
        }
        assert_eq!(
            PacketDecryptionKey::parse_list(&format!("{},", *text)).unwrap_err(),
            KeyError::Empty
        );
    }

    #[test]
    fn scalars_with_leading_zeros_stay_32_bytes() {
        let mut scalar = Zeroizing::new([0; 32]);
        scalar[31] = 5;
        let key = PacketDecryptionKey::from_scalar(scalar).unwrap();
        let again = PacketDecryptionKey::parse(&key.to_base64()).unwrap();
        assert_eq!(again.public_point(), key.public_point());
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = PacketDecryptionKey::from_scalar(Zeroizing::new([0x5a; 32])).unwrap();
        let shown = format!("{key:?}");
        assert!(!shown.contains("5a5a5a") && !shown.contains("90, 90"), "{shown}");
    }
}
