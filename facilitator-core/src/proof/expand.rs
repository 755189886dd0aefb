//! Shares as packets hold them: First's is the vector itself, Second's a seed that expands to it.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use snafu::{Snafu, ensure};
use zeroize::Zeroizing;

use super::{PRIME, proof_length};

/// The counter blocks encrypted at once: what AES hardware keeps in flight.
const BLOCKS: usize = 8;

/// A decrypted share that can't be one. Never retryable: the packet is excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Snafu)]
pub enum ShareError {
    /// Not the length of the batch's bins (First), or not 32 bytes (Second).
    #[snafu(display("the share is {length} bytes, where {expected} are expected"))]
    WrongDimension {
        /// Bytes found.
        length: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// An element is p or more.
    #[snafu(display("element {index} of the share isn't below the field's prime"))]
    ElementOutOfField {
        /// Its place in the vector, from 0.
        index: usize,
    },
}

impl ShareError {
    /// Whether the same share may pass later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Reads First's share: [`proof_length`] elements of 4 bytes, least significant first, each below p.
///
/// # Errors
/// [`ShareError`]; the length is looked at first.
pub fn parse_first_share(bytes: &[u8], bins: u32) -> Result<Zeroizing<Vec<u32>>, ShareError> {
    let expected = 4 * proof_length(bins);
    ensure!(
        bytes.len() == expected,
        WrongDimensionSnafu {
            length: bytes.len(),
            expected
        }
    );
    let elements = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .collect();
    let elements: Zeroizing<Vec<u32>> = Zeroizing::new(elements);
    match elements.iter().position(|element| *element >= PRIME) {
        None => Ok(elements),
        Some(index) => Err(ShareError::ElementOutOfField { index }),
    }
}

/// Reads Second's share, a seed of 32 bytes, and expands it.
///
/// # Errors
/// [`ShareError::WrongDimension`].
pub fn parse_second_share(bytes: &[u8], bins: u32) -> Result<Zeroizing<Vec<u32>>, ShareError> {
    let seed = bytes.try_into().map_err(|_| ShareError::WrongDimension {
        length: bytes.len(),
        expected: 32,
    })?;
    Ok(expand_seed(seed, bins))
}

/// The vector of a seed: the key stream of AES-128 in counter mode (key, then the first counter block, of which the last
/// 64 bits count), as 4-byte numbers, least significant byte first; those that aren't below p are passed over.
#[must_use]
pub fn expand_seed(seed: &[u8; 32], bins: u32) -> Zeroizing<Vec<u32>> {
    let (mut key, mut prefix, mut start) = ([0; 16], [0; 8], [0; 8]);
    key.copy_from_slice(&seed[..16]);
    prefix.copy_from_slice(&seed[16..24]);
    start.copy_from_slice(&seed[24..]);
    let cipher = Aes128::new(&key.into());
    let mut counter = u64::from_be_bytes(start);
    let length = proof_length(bins);
    let mut elements = Zeroizing::new(Vec::with_capacity(length));
    let mut blocks = [aes::Block::default(); BLOCKS];
    while elements.len() < length {
        for block in &mut blocks {
            block[..8].copy_from_slice(&prefix);
            block[8..].copy_from_slice(&counter.to_be_bytes());
            counter = counter.wrapping_add(1);
        }
        cipher.encrypt_blocks(&mut blocks);
        let numbers = blocks
            .iter()
            .flat_map(|block| block.as_chunks::<4>().0)
            .map(|bytes| u32::from_le_bytes(*bytes));
        let wanted = length - elements.len();
        elements.extend(numbers.filter(|number| *number < PRIME).take(wanted));
    }
    elements
}
