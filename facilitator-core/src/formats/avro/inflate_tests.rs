#![allow(clippy::unwrap_used)]
use std::io::Read;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::formats::ingestion::DataSharePacket;

/// Bytes that come so many at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = buffer.len().min(self.1);
        self.0.read(&mut buffer[..end])
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(&self.0[..self.1.min(self.0.len())])
    }

    fn consume(&mut self, amount: usize) {
        self.0 = &self.0[amount..];
    }
}

const PIECES: [usize; 5] = [1, 7, 1_000, 8 << 10, usize::MAX];

/// What comes of a block of `size` bytes, so many asked for at a time: what is given out, what was wrong, and if nothing was,
/// how many bytes are left in the source.
fn inflated(source: &[u8], size: usize, piece: usize, asked: usize) -> (Vec<u8>, Option<String>, usize) {
    let (mut inflating, mut source) = (Inflating::new(size as u64), Pieces(source, piece));
    let mut out = Vec::new();
    loop {
        let before = out.len();
        assert!(inflating.at_most() > 0);
        match inflating.read::<DataSharePacket>(&mut source, &mut out, asked) {
            Err(error) => {
                assert_eq!(out.len(), before, "what came before is given out by itself");
                return (out, Some(error.to_string()), 0);
            }
            Ok(()) if inflating.at_most() == 0 => return (out, None, source.0.len()),
            Ok(()) => assert!(out.len() > before),
        }
    }
}

/// The same, which must not depend on the pieces.
fn in_any_pieces(source: &[u8], size: usize, asked: usize) -> (Vec<u8>, Option<String>, usize) {
    let [first, others @ ..] = PIECES.map(|piece| inflated(source, size, piece, asked));
    for (other, piece) in others.iter().zip(&PIECES[1..]) {
        assert!(first == *other, "{piece}: {:?} and {:?}", first.1, other.1);
    }
    first
}

/// Every match is nearly as far back as one may be.
fn far_matches(rng: &mut StdRng) -> Vec<u8> {
    let random: Vec<u8> = (0..WINDOW_BYTES - 300).map(|_| rng.random()).collect();
    random.repeat(16)
}

#[test]
fn all_comes_out_and_what_follows_the_block_stays_in_the_source() {
    let mut rng = StdRng::seed_from_u64(8);
    let far = far_matches(&mut rng);
    let contents = [Vec::new(), vec![7], vec![0; 300_000], far];
    for content in contents {
        let deflated = miniz_oxide::deflate::compress_to_vec(&content, 9);
        assert!(deflated.len() < 100_000, "nothing points back");
        let source = [&deflated, b"marker".as_slice()].concat();
        for asked in [1_000, 96 << 10, 128 << 10, 1 << 20] {
            let (out, wrong, left) = in_any_pieces(&source, deflated.len(), asked);
            assert!(out == content && wrong.is_none(), "{wrong:?}");
            assert_eq!(left, 6);
        }
        // Others pass over what follows the deflated bytes in a block, and so is it here.
        let (out, wrong, left) = in_any_pieces(&source, source.len() - 2, 1_000);
        assert!(out == content && wrong.is_none(), "{wrong:?}");
        assert_eq!(left, 2);
    }
}

#[test]
fn what_is_wrong_is_told_after_all_before_it_and_the_same_in_any_pieces() {
    let mut rng = StdRng::seed_from_u64(9);
    let content = far_matches(&mut rng);
    let deflated = miniz_oxide::deflate::compress_to_vec(&content, 9);
    for _ in 0..60 {
        let at = rng.random_range(0..deflated.len());
        let (out, wrong, _) = in_any_pieces(&deflated[..at], deflated.len(), 128 << 10);
        let wrong = wrong.unwrap();
        assert!(wrong.contains("it ends too early"), "{at}: {wrong}");
        assert!(content.starts_with(&out));
        let mut damaged = deflated.clone();
        damaged[at] ^= 1 << rng.random_range(0..8);
        in_any_pieces(&damaged, damaged.len(), 128 << 10);
    }
}

#[test]
fn a_block_is_no_longer_than_it_can_honestly_have_been() {
    // The limit of a block depends on its length, which depends on its content: what is left is added.
    let block = |beyond: usize| {
        let deflated = |length: usize| miniz_oxide::deflate::compress_to_vec(&vec![0; length], 9);
        let mut length = 1 << 20;
        loop {
            let block = deflated(length);
            let limit = usize::try_from(decompressed_limit(block.len() as u64)).unwrap();
            if length >= limit + beyond {
                return (deflated(limit + beyond), limit);
            }
            length = limit + beyond;
        }
    };
    for (beyond, is_refused) in [(0, false), (1, true), (40_000, true)] {
        let (deflated, limit) = block(beyond);
        assert_eq!(decompressed_limit(deflated.len() as u64), limit as u64);
        for asked in [1_000, 128 << 10] {
            let (out, wrong, _) = in_any_pieces(&deflated, deflated.len(), asked);
            assert_eq!(out.len(), limit, "{beyond}");
            let is_for_that = |wrong: String| wrong.contains("a decompressed block");
            assert_eq!(wrong.is_some_and(is_for_that), is_refused, "{beyond}");
        }
    }
}
