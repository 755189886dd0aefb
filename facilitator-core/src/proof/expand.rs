//! Shares as packets hold them: First's is the vector itself, Second's a seed that expands to it.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use snafu::{Snafu, ensure};
use zeroize::{Zeroize, Zeroizing};

use super::lanes::{Instructions, bytes_of, first_beyond};
use super::proof_length;

/// The counter blocks encrypted at once, 4 KiB. A multiple of the 64 that the widest AES instructions take in one go, the
/// rest goes one by one; and every call spreads the key's schedule anew.
const BLOCKS: usize = 256;

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
    match first_beyond(Instructions::detect(), elements) {
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
    let instructions = Instructions::detect();
    let (mut key, mut prefix, mut start) = ([0; 16], [0; 8], [0; 8]);
    key.copy_from_slice(&seed[..16]);
    prefix.copy_from_slice(&seed[16..24]);
    start.copy_from_slice(&seed[24..]);
    let cipher = Aes128Enc::new(&key.into());
    let mut counter = u64::from_be_bytes(start);
    let length = proof_length(bins);
    // Never grown while secret: the last block's surplus has room too.
    let room = length + 3;
    if elements.capacity() < room {
        elements.zeroize();
        elements.reserve_exact(room);
    }
    elements.resize(room, 0);
    let mut filled = 0;
    while filled < length {
        let wanted = (length - filled).div_ceil(4).min(BLOCKS);
        let fresh = &mut elements[filled..filled + 4 * wanted];
        // The key stream is made where the elements will be: nothing is copied, and nothing else to be wiped.
        let blocks = Block::cast_slice_from_core_mut(bytes_of(fresh).as_chunks_mut().0);
        for block in &mut *blocks {
            let (halves, _) = block.as_chunks_mut::<8>();
            halves[0] = prefix;
            halves[1] = counter.to_be_bytes();
            counter = counter.wrapping_add(1);
        }
        cipher.encrypt_blocks(blocks);
        // Nothing to do where numbers lie least significant byte first.
        fresh.iter_mut().for_each(|number| *number = u32::from_le(*number));
        filled += keep_elements(instructions, fresh);
    }
    elements.truncate(length);
}

/// Moves the numbers below p to the front, and says how many there are.
pub(super) fn keep_elements(instructions: Instructions, numbers: &mut [u32]) -> usize {
    let (mut looked_at, mut kept) = (0, numbers.len());
    // One in 4,096 is beyond.
    while let Some(beyond) = first_beyond(instructions, &numbers[looked_at..kept]) {
        looked_at += beyond;
        numbers.copy_within(looked_at + 1..kept, looked_at);
        kept -= 1;
    }
    kept
}
