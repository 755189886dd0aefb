//! Sealing of accumulators in records and of partial sums: `docs/formats.md` §3.2 and §3.11, ledger rule 9.

use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use snafu::{Snafu, ensure};
use zeroize::Zeroizing;

use super::PacketDecryptionKey;
use crate::formats::work::Share;
use crate::proof::PRIME;

/// Tells these keys from all others derived of the same scalar.
const CONTEXT: &[u8] = b"prio-operator record v1";
/// The same of partial sums.
const PARTIAL_CONTEXT: &[u8] = b"prio-operator partial v1";
const TAG: usize = 16;

/// A sealed part that can't be opened. Never retryable: it is another record's, damaged, or of another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Snafu)]
pub enum SealError {
    /// Damaged, moved from another record, or of another key.
    #[snafu(display(
        "the sealed accumulator can't be opened: it is damaged, another record's, or of another packet key"
    ))]
    Refused,
    /// Opened, and not an accumulator.
    #[snafu(display("the sealed part opens, but isn't an accumulator of field elements"))]
    NotAnAccumulator,
}

impl SealError {
    /// Whether the same bytes may open later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// The sealed form's length in bytes, for that many bins.
#[must_use]
pub fn sealed_length(bins: usize) -> usize {
    4 * bins + TAG
}

/// Seals an accumulator with the packet key whose packets it sums.
///
/// The key is unique to the record by `header_digest` (SHA-256 of the ingestion header's bytes), so the nonce may be
/// zero; `plain_digest` (SHA-256 of the record's whole plain part) binds the seal to the record.
#[must_use]
pub fn seal(
    key: &PacketDecryptionKey,
    header_digest: &[u8; 32],
    share: Share,
    plain_digest: &[u8; 32],
    accumulator: &[u32],
) -> Vec<u8> {
    encrypt(
        &cipher(&[key], CONTEXT, header_digest, share, ""),
        plain_digest,
        accumulator,
    )
}

/// Opens a sealed accumulator.
///
/// # Errors
/// [`SealError`].
pub fn open(
    key: &PacketDecryptionKey,
    header_digest: &[u8; 32],
    share: Share,
    plain_digest: &[u8; 32],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u32>>, SealError> {
    decrypt(&cipher(&[key], CONTEXT, header_digest, share, ""), plain_digest, sealed)
}

/// Seals the partial sum of a range of a plan's members, under all packet keys whose packets it sums: whoever lacks one of them
/// can't open it, and so learns no more than the records tell.
///
/// The key is unique to plan and range, which decide the sum, so the nonce may be zero; `plain_digest`
/// ([`crate::formats::partial::PartialPlain::digest`]) binds the seal to what is said beside it.
#[must_use]
pub fn seal_partial(
    keys: &[&PacketDecryptionKey],
    plan_digest: &[u8; 32],
    share: Share,
    range: &str,
    plain_digest: &[u8; 32],
    sum: &[u32],
) -> Vec<u8> {
    encrypt(
        &cipher(keys, PARTIAL_CONTEXT, plan_digest, share, range),
        plain_digest,
        sum,
    )
}

/// Opens a sealed partial sum with the same keys in the same order.
///
/// # Errors
/// [`SealError`].
pub fn open_partial(
    keys: &[&PacketDecryptionKey],
    plan_digest: &[u8; 32],
    share: Share,
    range: &str,
    plain_digest: &[u8; 32],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u32>>, SealError> {
    decrypt(
        &cipher(keys, PARTIAL_CONTEXT, plan_digest, share, range),
        plain_digest,
        sealed,
    )
}

fn encrypt(cipher: &Aes256GcmSiv, plain_digest: &[u8; 32], accumulator: &[u32]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(sealed_length(accumulator.len()));
    sealed.extend(accumulator.iter().flat_map(|element| element.to_le_bytes()));
    let tag = cipher
        .encrypt_inout_detached(&[0; 12].into(), plain_digest, sealed.as_mut_slice().into())
        .expect("an accumulator is far below the cipher's 64 GiB");
    sealed.extend_from_slice(&tag);
    sealed
}

fn decrypt(cipher: &Aes256GcmSiv, plain_digest: &[u8; 32], sealed: &[u8]) -> Result<Zeroizing<Vec<u32>>, SealError> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(SealError::Refused)?;
    let mut bytes = Zeroizing::new(ciphertext.to_vec());
    cipher
        .decrypt_inout_detached(
            &[0; 12].into(),
            plain_digest,
            bytes.as_mut_slice().into(),
            &(*tag).into(),
        )
        .map_err(|_| SealError::Refused)?;
    let (elements, rest) = bytes.as_chunks::<4>();
    let elements: Zeroizing<Vec<u32>> =
        Zeroizing::new(elements.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect());
    ensure!(
        rest.is_empty() && elements.iter().all(|element| *element < PRIME),
        NotAnAccumulatorSnafu
    );
    Ok(elements)
}

/// The input is the keys' scalars, one after another. `label` is the last of the info, of any length; all before it are of fixed
/// lengths but the context, which tells them apart, and the points, whose number the input's length gives.
fn cipher(keys: &[&PacketDecryptionKey], context: &[u8], digest: &[u8; 32], share: Share, label: &str) -> Aes256GcmSiv {
    let mut scalars = Zeroizing::new(Vec::with_capacity(32 * keys.len()));
    let mut points = Vec::with_capacity(65 * keys.len());
    for key in keys {
        scalars.extend_from_slice(key.scalar());
        points.extend_from_slice(key.public_point());
    }
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, &scalars)
        .expand_multi_info(
            &[context, &points, digest, &[share.index()], label.as_bytes()],
            derived.as_mut_slice(),
        )
        .expect("32 bytes are one block of HKDF-SHA-256");
    Aes256GcmSiv::new((&*derived).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn opens_only_with_everything_the_same() {
        let mut rng = StdRng::seed_from_u64(5);
        let (key, other) = (
            PacketDecryptionKey::generate(&mut rng),
            PacketDecryptionKey::generate(&mut rng),
        );
        let accumulator = [0, 1, PRIME - 1, 7];
        let sealed = seal(&key, &[1; 32], Share::First, &[2; 32], &accumulator);
        assert_eq!(sealed.len(), sealed_length(4));
        assert_eq!(
            sealed,
            seal(&key, &[1; 32], Share::First, &[2; 32], &accumulator),
            "deterministic"
        );
        assert_eq!(
            **open(&key, &[1; 32], Share::First, &[2; 32], &sealed).unwrap(),
            accumulator
        );
        let mut damaged = sealed.clone();
        damaged[0] ^= 1;
        let attempts = [
            open(&other, &[1; 32], Share::First, &[2; 32], &sealed),
            open(&key, &[0; 32], Share::First, &[2; 32], &sealed),
            open(&key, &[1; 32], Share::Second, &[2; 32], &sealed),
            open(&key, &[1; 32], Share::First, &[0; 32], &sealed),
            open(&key, &[1; 32], Share::First, &[2; 32], &damaged),
            open(&key, &[1; 32], Share::First, &[2; 32], &sealed[..15]),
        ];
        for attempt in attempts {
            assert_eq!(attempt.unwrap_err(), SealError::Refused);
        }
        let beyond = seal(&key, &[1; 32], Share::First, &[2; 32], &[PRIME]);
        assert_eq!(
            open(&key, &[1; 32], Share::First, &[2; 32], &beyond).unwrap_err(),
            SealError::NotAnAccumulator
        );
    }

    #[test]
    fn seals_stay_readable_for_later_versions() {
        let mut scalar = Zeroizing::new([0; 32]);
        scalar[31] = 1;
        let key = PacketDecryptionKey::from_scalar(scalar).unwrap();
        let sealed = seal(&key, &[3; 32], Share::Second, &[4; 32], &[1, 2, 3]);
        assert_eq!(crate::formats::batch::hex(&sealed), GOLDEN);
    }

    #[test]
    fn a_partial_sum_opens_only_as_that_of_its_range_and_plan() {
        let mut rng = StdRng::seed_from_u64(6);
        let [key, other] = [(); 2].map(|()| PacketDecryptionKey::generate(&mut rng));
        let both = [&key, &other];
        let (one, two) = ("202611200000-202611200100", "202611200100-202611200200");
        let sealed = seal_partial(&both, &[1; 32], Share::First, one, &[2; 32], &[1, 2]);
        let with = |keys: &[&PacketDecryptionKey]| open_partial(keys, &[1; 32], Share::First, one, &[2; 32], &sealed);
        for fewer in [&[&key][..], &[&other], &[&other, &key], &[]] {
            assert_eq!(with(fewer).unwrap_err(), SealError::Refused);
        }
        let open =
            |plan: u8, share, range, plain: u8| open_partial(&both, &[plan; 32], share, range, &[plain; 32], &sealed);
        assert_eq!(**open(1, Share::First, one, 2).unwrap(), [1, 2]);
        for refused in [
            open(0, Share::First, one, 2),
            open(1, Share::Second, one, 2),
            open(1, Share::First, two, 2),
            open(1, Share::First, one, 0),
            super::open(&key, &[1; 32], Share::First, &[2; 32], &sealed),
        ] {
            assert_eq!(refused.unwrap_err(), SealError::Refused);
        }
    }

    const GOLDEN: &str = "b06b69e26debff310abaf5b9f4ed964a5fed51c4c929b0be7e549bc7";
}
