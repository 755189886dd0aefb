//! Claims: chunks and runs of our own ledger, whose counts and places can lie.

use bytes::Bytes;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::claims::{
    Chunk, ChunkName, Claim, ClaimDay, MAX_CHUNK_ENTRIES, RUN_PREFIX_BYTES, RunHeader, RunIndex, encode_run,
    entries_of, header_length,
};

use crate::{Case, case, said};

const NUMBER: u32 = 3;
const PREFIX: usize = RUN_PREFIX_BYTES as usize;

fn claims(count: u64) -> Vec<Claim> {
    let claim = |n: u64| Claim {
        fingerprint: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        owner: n,
    };
    let mut claims: Vec<_> = (0..count).map(claim).collect();
    claims.sort_unstable();
    claims
}

/// A chunk of the name that its bytes ask for.
fn chunk(name: &str, expected: &str, bytes: Vec<u8>) -> Case {
    case(format!("a chunk of claims {name}"), expected, move || {
        let mut digest = [0; 16];
        digest.copy_from_slice(&sha256(&bytes)[..16]);
        said(Chunk::decode(&ChunkName { digest, ..good().name }, &bytes))
    })
}

fn good() -> Chunk {
    Chunk::encode(ClaimDay::parse("20261120").unwrap(), 3, &claims(3))
}

/// Runs 1 and [`NUMBER`], two covered chunks, 40 claims.
fn run() -> Bytes {
    let first = encode_run(1, Vec::new(), Vec::new(), &claims(1)).unwrap();
    let others = header(&first, 1).unwrap().runs;
    encode_run(NUMBER, others, vec![(3, [1; 16]), (3, [2; 16])], &claims(40)).unwrap()
}

fn header(bytes: &[u8], number: u32) -> Result<RunHeader, String> {
    let length = header_length(bytes).map_err(|error| error.to_string())?;
    let end = (PREFIX + usize::try_from(length).unwrap()).min(bytes.len());
    RunHeader::decode(number, &bytes[PREFIX..end]).map_err(|error| error.to_string())
}

/// Reads a run as a look does.
fn read(bytes: &Bytes) -> Result<(), String> {
    let header = header(bytes, NUMBER)?;
    let own = header.runs.last().unwrap();
    let within = |at: u64| usize::try_from(at).unwrap().min(bytes.len());
    let index = bytes.slice(within(own.index_at)..within(own.claim_at(0)));
    RunIndex::decode(own, &index).map_err(|error| error.to_string())?;
    entries_of(&bytes[within(own.claim_at(0))..], own.entries as usize)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// A run with other bytes at a place.
fn with(name: &str, expected: &str, at: usize, bytes: &[u8]) -> Case {
    let mut run = run().to_vec();
    run[at..at + bytes.len()].copy_from_slice(bytes);
    let run = Bytes::from(run);
    case(format!("a run of claims {name}"), expected, move || said(read(&run)))
}

pub fn cases() -> Vec<Case> {
    assert!(read(&run()).is_ok() && Chunk::decode(&good().name, &good().bytes).is_ok());
    let bytes = good().bytes.to_vec();
    let claim = |n: usize| bytes[8 + 16 * n..24 + 16 * n].to_vec();
    let other = good().name;
    let all = u32::MAX.to_le_bytes();
    let mut cases = vec![
        chunk("of no bytes", "are no claims", Vec::new()),
        chunk("of half its mark", "are no claims", bytes[..4].to_vec()),
        chunk("of another mark", "are no claims", [b"PRIORUN1", &bytes[8..]].concat()),
        chunk("of its mark alone", "list is out of bounds", bytes[..8].to_vec()),
        chunk(
            "cut in a claim",
            "list is out of bounds",
            bytes[..bytes.len() - 1].to_vec(),
        ),
        chunk(
            "that come twice",
            "list is out of bounds",
            [&bytes[..24], &claim(0)].concat(),
        ),
        chunk(
            "out of order",
            "list is out of bounds",
            [&bytes[..8], &claim(1), &claim(0)].concat(),
        ),
        case(
            "a chunk of claims of another name",
            "digest isn't their name",
            move || {
                let bytes = Chunk::encode(other.day, other.hour, &claims(4)).bytes;
                said(Chunk::decode(&other, &bytes))
            },
        ),
    ];
    let many = Chunk::encode(other.day, other.hour, &claims(MAX_CHUNK_ENTRIES as u64 + 1));
    cases.push(case(
        "a chunk of 2^18 + 1 claims",
        "length is out of bounds",
        move || said(Chunk::decode(&many.name, &many.bytes)),
    ));

    let bytes = run();
    let cut = |name: &str, expected: &str, length: usize| {
        let bytes = bytes.slice(..length);
        case(format!("a run of claims {name}"), expected, move || said(read(&bytes)))
    };
    // 17 bytes of each run, the counts before the runs and the chunks.
    let (runs, chunks) = (PREFIX + 4, PREFIX + 4 + 2 * 17 + 4);
    let index = chunks + 2 * 17;
    let own = header(&bytes, NUMBER).unwrap().runs[1];
    let claims = usize::try_from(own.claim_at(0)).unwrap();
    let first: Vec<u8> = bytes[claims..claims + 16].to_vec();
    cases.extend([
        cut("of no bytes", "are no claims", 0),
        cut("of its mark alone", "header is out of bounds", 8),
        cut("cut in its runs", "runs is out of bounds", runs + 20),
        cut("cut in its chunks", "chunks is out of bounds", chunks + 20),
        cut("cut in its index", "index is out of bounds", index + 1),
        cut("cut in its claims", "length is out of bounds", bytes.len() - 1),
        with("of another mark", "are no claims", 0, b"PRIOCLM1"),
        with("with a header of 2^32 - 1 bytes", "header is out of bounds", 8, &all),
        with(
            "with a header of 16 MiB that don't come",
            "runs is out of bounds",
            8,
            &(16_u32 << 20).to_le_bytes(),
        ),
        with("of 2^32 - 1 runs", "runs is out of bounds", PREFIX, &all),
        with("of no runs", "runs is out of bounds", PREFIX, &[0; 4]),
        with(
            "of another number",
            "runs is out of bounds",
            runs + 17,
            &4_u32.to_le_bytes(),
        ),
        with("beside a run of number 0", "runs is out of bounds", runs, &[0; 4]),
        with(
            "beside a later run",
            "runs is out of bounds",
            runs,
            &9_u32.to_le_bytes(),
        ),
        with("of 2^32 - 1 claims", "runs is out of bounds", runs + 17 + 4, &all),
        with("of no claims", "runs is out of bounds", runs + 17 + 4, &[0; 4]),
        with(
            "of a claim less",
            "index is out of bounds",
            runs + 17 + 4,
            &39_u32.to_le_bytes(),
        ),
        with("of 2^255 buckets", "runs is out of bounds", runs + 17 + 8, &[255]),
        with(
            "of 2^20 buckets that don't come",
            "index is out of bounds",
            runs + 17 + 8,
            &[20],
        ),
        with(
            "whose index begins at 2^64 - 1",
            "runs is out of bounds",
            runs + 17 + 9,
            &[255; 8],
        ),
        with(
            "beside a run whose index begins at 2^63",
            "runs is out of bounds",
            runs + 9,
            &(1_u64 << 63).to_le_bytes(),
        ),
        with("of 2^32 - 1 chunks", "chunks is out of bounds", chunks - 4, &all),
        with("of a chunk of hour 24", "chunks is out of bounds", chunks + 17, &[24]),
        with(
            "of a chunk that comes twice",
            "chunks is out of bounds",
            chunks + 18,
            &[1; 16],
        ),
        with("whose buckets hold more", "index is out of bounds", index, &[255; 4]),
        with("whose buckets hold less", "index is out of bounds", index, &[0; 4]),
        with(
            "whose claims are out of order",
            "list is out of bounds",
            claims + 16,
            &first,
        ),
    ]);
    cases
}
