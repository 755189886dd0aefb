//! Shares as packets hold them: First's is the vector itself, Second's a seed that expands to it.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use snafu::{Snafu, ensure};
use zeroize::{Zeroize, Zeroizing};

use super::lanes::first_beyond;
use super::{PRIME, proof_length};

/// The counter blocks encrypted at once: many times the eight that AES hardware keeps in flight.
const BLOCKS: usize = 32;

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
    let mut elements = Zeroizing::default();
    parse_first_share_into(bytes, bins, &mut elements)?;
    Ok(elements)
}

/// As [`parse_first_share`], into a vector that is used again and again.
///
/// # Errors
/// As [`parse_first_share`]; what is in the vector then means nothing.
pub fn parse_first_share_into(bytes: &[u8], bins: u32, elements: &mut Zeroizing<Vec<u32>>) -> Result<(), ShareError> {
    let expected = 4 * proof_length(bins);
    ensure!(
        bytes.len() == expected,
        WrongDimensionSnafu {
            length: bytes.len(),
            expected
        }
    );
    if elements.capacity() < expected / 4 {
        elements.zeroize();
    }
    elements.clear();
    elements.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)));
    match first_beyond(elements) {
        None => Ok(()),
        Some(index) => Err(ShareError::ElementOutOfField { index }),
    }
}

/// Reads Second's share, a seed of 32 bytes, and expands it.
///
/// # Errors
/// [`ShareError::WrongDimension`].
pub fn parse_second_share(bytes: &[u8], bins: u32) -> Result<Zeroizing<Vec<u32>>, ShareError> {
    let mut elements = Zeroizing::default();
    parse_second_share_into(bytes, bins, &mut elements)?;
    Ok(elements)
}

/// As [`parse_second_share`], into a vector that is used again and again.
///
/// # Errors
/// As [`parse_second_share`].
pub fn parse_second_share_into(bytes: &[u8], bins: u32, elements: &mut Zeroizing<Vec<u32>>) -> Result<(), ShareError> {
    let seed = bytes.try_into().map_err(|_| ShareError::WrongDimension {
        length: bytes.len(),
        expected: 32,
    })?;
    expand_seed_into(seed, bins, elements);
    Ok(())
}

/// The vector of a seed: the key stream of AES-128 in counter mode (key, then the first counter block, of which the last
/// 64 bits count), as 4-byte numbers, least significant byte first; those that aren't below p are passed over.
#[must_use]
pub fn expand_seed(seed: &[u8; 32], bins: u32) -> Zeroizing<Vec<u32>> {
    let mut elements = Zeroizing::new(Vec::new());
    expand_seed_into(seed, bins, &mut elements);
    elements
}

/// As [`expand_seed`], into a vector that is used again and again.
pub fn expand_seed_into(seed: &[u8; 32], bins: u32, elements: &mut Zeroizing<Vec<u32>>) {
    let (mut key, mut prefix, mut start) = ([0; 16], [0; 8], [0; 8]);
    key.copy_from_slice(&seed[..16]);
    prefix.copy_from_slice(&seed[16..24]);
    start.copy_from_slice(&seed[24..]);
    let cipher = Aes128::new(&key.into());
    let mut counter = u64::from_be_bytes(start);
    let length = proof_length(bins);
    let mut blocks = [aes::Block::default(); BLOCKS];
    // Never grown while secret: the last round's surplus has room too.
    let room = length + 4 * BLOCKS;
    if elements.capacity() < room {
        elements.zeroize();
        elements.reserve_exact(room);
    }
    elements.resize(room, 0);
    let mut filled = 0;
    while filled < length {
        let wanted = (length - filled).div_ceil(4).min(BLOCKS);
        let blocks = &mut blocks[..wanted];
        for block in &mut *blocks {
            let (halves, _) = block.as_chunks_mut::<8>();
            halves[0] = prefix;
            halves[1] = counter.to_be_bytes();
            counter = counter.wrapping_add(1);
        }
        cipher.encrypt_blocks(blocks);
        let fresh = &mut elements[filled..filled + 4 * wanted];
        for (four, block) in fresh.as_chunks_mut::<4>().0.iter_mut().zip(blocks) {
            let (bytes, _) = block.as_chunks::<4>();
            for (number, bytes) in four.iter_mut().zip(bytes) {
                *number = u32::from_le_bytes(*bytes);
            }
        }
        filled += keep_elements(fresh);
    }
    elements.truncate(length);
    blocks.iter_mut().for_each(|block| block.as_mut_slice().zeroize());
}

/// Moves the numbers below p to the front, and says how many there are.
fn keep_elements(numbers: &mut [u32]) -> usize {
    // One in 4,096 is none.
    let Some(first) = first_beyond(numbers) else {
        return numbers.len();
    };
    let mut kept = first;
    for i in first..numbers.len() {
        if numbers[i] < PRIME {
            numbers[kept] = numbers[i];
            kept += 1;
        }
    }
    kept
}
