//! Mutations that formats are afraid of: lengths, cuts, repetitions, and pieces of other inputs.

use facilitator_core::formats::avro::Encoder;
use rand::Rng;
use rand::rngs::StdRng;

/// Numbers at which something changes.
const NUMBERS: [i64; 18] = [
    0,
    1,
    -1,
    2,
    63,
    64,
    127,
    128,
    255,
    65_535,
    65_536,
    4_293_918_720,
    4_293_918_721,
    4_294_967_295,
    1 << 32,
    1 << 60,
    i64::MAX,
    i64::MIN,
];

/// Words of the formats.
const WORDS: [&[u8]; 24] = [
    b"Obj\x01",
    b"avro.schema",
    b"avro.codec",
    b"deflate",
    b"snappy",
    b"null",
    b"\"type\":\"array\",\"items\":",
    b"{\"type\":\"record\"",
    b"\"long\"",
    b"\"string\"",
    b"\"bytes\"",
    b"\"fixed\",\"size\":1000000000",
    b"\"logicalType\":\"decimal\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"revision\":1",
    b"-----BEGIN PUBLIC KEY-----",
    b"-----END PUBLIC KEY-----",
    b"PRIOREC1",
    b"/../",
    b".batch.sig",
    b"=",
];

/// `input` with one to four changes; `other` gives pieces.
pub fn mutated(input: &[u8], other: &[u8], rng: &mut StdRng, limit: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.random_range(1..5) {
        change(&mut bytes, other, rng);
    }
    bytes.truncate(limit);
    bytes
}

fn place(bytes: &[u8], rng: &mut StdRng) -> usize {
    rng.random_range(0..=bytes.len())
}

fn range(bytes: &[u8], rng: &mut StdRng) -> std::ops::Range<usize> {
    let begin = place(bytes, rng);
    begin..(begin + rng.random_range(0..64)).min(bytes.len())
}

fn change(bytes: &mut Vec<u8>, other: &[u8], rng: &mut StdRng) {
    let at = place(bytes, rng);
    let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
    match rng.random_range(0..11) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.random();
            }
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(range(bytes, rng))),
        5 => {
            let piece = bytes[range(bytes, rng)].to_vec();
            let piece = piece.repeat(rng.random_range(1..20));
            drop(bytes.splice(at..at, piece));
        }
        6 => {
            let piece = other[range(other, rng)].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        7 => {
            // A tail of the other's.
            bytes.truncate(at);
            bytes.extend_from_slice(&other[place(other, rng)..]);
        }
        8 => {
            let mut piece = Vec::new();
            Encoder::new(&mut piece).long(number);
            let end = (at + rng.random_range(0..3)).min(bytes.len());
            drop(bytes.splice(at..end, piece));
        }
        9 => {
            let piece = number.to_le_bytes();
            let length = [4, 8][rng.random_range(0..2)];
            let end = (at + length).min(bytes.len());
            drop(bytes.splice(at..end, piece[..length].iter().copied()));
        }
        _ => drop(bytes.splice(at..at, WORDS[rng.random_range(0..WORDS.len())].iter().copied())),
    }
}
