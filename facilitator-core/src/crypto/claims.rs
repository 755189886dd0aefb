//! What packets are known by in claims: `docs/formats.md` §3.10. Without the packet key a claim says nothing of a packet.

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{PacketDecryptionKey, sha256};
use crate::formats::claims::PacketKeyName;
use crate::formats::names::BatchId;

/// Tell these keys from all others derived of the same scalar.
const FINGERPRINT_CONTEXT: &[u8] = b"prio-operator claims v1 fingerprint";
const OWNER_CONTEXT: &[u8] = b"prio-operator claims v1 owner";

/// Makes the claims on packets that one packet key opens. Its `Debug` shows no secret.
pub struct ClaimKey {
    name: PacketKeyName,
    /// Boxed, so that no copy stays where the whole is moved from.
    fingerprint: Box<Zeroizing<[u8; 16]>>,
    owner: Box<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClaimKey {
    /// Derives it from a packet key.
    #[must_use]
    pub fn of(key: &PacketDecryptionKey) -> Self {
        let point = key.public_point();
        let mut derived = Self {
            name: PacketKeyName::of(&sha256(point)),
            fingerprint: Box::new(Zeroizing::new([0; 16])),
            owner: Box::new(Zeroizing::new([0; 32])),
        };
        let source = Hkdf::<Sha256>::new(None, key.scalar());
        let expand = |context: &[u8], output: &mut [u8]| {
            source
                .expand_multi_info(&[context, point], output)
                .expect("at most one block of HKDF-SHA-256");
        };
        expand(FINGERPRINT_CONTEXT, derived.fingerprint.as_mut_slice());
        expand(OWNER_CONTEXT, derived.owner.as_mut_slice());
        derived
    }

    /// The folder of its claims.
    #[must_use]
    pub fn name(&self) -> PacketKeyName {
        self.name
    }

    /// A packet's fingerprint: of the ephemeral key's x-coordinate alone, so that another UUID doesn't hide a packet. The
    /// point takes part in the packet's encryption: nobody who can't make the packet anew can change it.
    ///
    /// `ephemeral` is the first half of x ([`super::ecies::ephemeral_name`]): one block of AES-128, whose first 8 bytes count.
    /// Two packets have one fingerprint by chance with probability 2^-64.
    #[must_use]
    pub fn fingerprint(&self, ephemeral: &[u8; 16]) -> u64 {
        let mut block = aes::Block::from(*ephemeral);
        Aes128::new((&**self.fingerprint).into()).encrypt_block(&mut block);
        let mut first = [0; 8];
        first.copy_from_slice(&block[..8]);
        u64::from_le_bytes(first)
    }

    /// Who claims: a batch, by its path alone. Whatever its header says by now, it has one record, which is put once and says
    /// what is answered: a claim of the same path is never in its way.
    #[must_use]
    pub fn owner(&self, batch: &BatchId) -> u64 {
        let mut owner = [0; 8];
        Hkdf::<Sha256>::from_prk(self.owner.as_slice())
            .expect("32 bytes are a key of HKDF-SHA-256")
            .expand(batch.path().as_bytes(), &mut owner)
            .expect("8 bytes are one block of HKDF-SHA-256");
        u64::from_le_bytes(owner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypto::ecies::ephemeral_name;

    fn key(scalar: u8) -> ClaimKey {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes[31] = scalar;
        ClaimKey::of(&PacketDecryptionKey::from_scalar(bytes).unwrap())
    }

    fn batch(path: &str) -> BatchId {
        BatchId::parse(path).unwrap()
    }

    #[test]
    fn fingerprints_are_of_x_alone_and_of_the_key() {
        let mut payload = vec![7; 90];
        let of = |key: ClaimKey, payload: &[u8]| key.fingerprint(&ephemeral_name(payload).unwrap());
        let there = of(key(1), &payload);
        payload[33..].fill(9);
        assert_eq!(of(key(1), &payload), there, "neither y nor what follows matters");
        assert_ne!(of(key(2), &payload), there);
        payload[1] ^= 1;
        assert_ne!(of(key(1), &payload), there);
    }

    #[test]
    fn owners_are_of_path_and_key() {
        let first = batch("a/2026/11/20/00/01/00000000-0000-0000-0000-000000000001");
        let owner = key(1).owner(&first);
        assert_eq!(owner, key(1).owner(&first));
        let others = [
            key(2).owner(&first),
            key(1).owner(&batch("b/2026/11/20/00/01/00000000-0000-0000-0000-000000000001")),
        ];
        assert!(others.iter().all(|other| *other != owner));
    }

    #[test]
    fn claims_stay_findable_for_later_versions() {
        let first = batch("a/2026/11/20/00/01/00000000-0000-0000-0000-000000000001");
        let key = key(1);
        let made = (key.name().to_string(), key.fingerprint(&[7; 16]), key.owner(&first));
        let expected = (
            "698bea63dc44a344663ff1429aea1084".to_owned(),
            2_041_071_797_377_543_301,
            3_177_873_693_623_737_330,
        );
        assert_eq!(made, expected);
    }
}
