//! Runs: the claims of many chunks of one day, sorted, behind an index that says where a fingerprint may be.
//!
//! The newest run of a day speaks for all: it names the runs that are to be read, and the chunks that are in them.

use std::ops::Range;

use bytes::Bytes;
use snafu::ensure;

use super::{
    CLAIM_BYTES, ChunkName, Claim, ClaimsError, MAX_RUN_NUMBER, NotClaimsSnafu, OutOfBoundsSnafu, read_sorted,
};

/// The first eight bytes of every run.
const MAGIC: &[u8; 8] = b"PRIORUN1";
/// Magic and the header's length.
pub const RUN_PREFIX_BYTES: u64 = MAGIC.len() as u64 + 4;
/// Claims of a run.
pub const MAX_RUN_ENTRIES: usize = 1 << 20;
/// The bound on a header, in bytes: close to a million chunks of a day.
pub const MAX_RUN_HEADER_BYTES: u64 = 16 << 20;
/// The bound on a run, in bytes.
pub const MAX_RUN_BYTES: u64 = RUN_PREFIX_BYTES
    + MAX_RUN_HEADER_BYTES
    + (1 << MAX_BUCKET_BITS)
    + (CLAIM_BYTES as u64 + REMAINDER_BYTES) * MAX_RUN_ENTRIES as u64;
/// Claims of a bucket, on the average, at most: a look into a bucket finds a stranger with probability 2^-12.
const BUCKET_ENTRIES: usize = 16;
const MAX_BUCKET_BITS: u8 = 20;
const REMAINDER_BYTES: u64 = 2;
/// Bytes of a run's place, and of a covered chunk, in a header.
const REFERENCE_BYTES: usize = 17;
const COVERED_BYTES: usize = 17;

/// Where a run's parts are: its index, then its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunReference {
    /// Its place in the day's runs.
    pub number: u32,
    /// How many claims it holds, at least 1.
    pub entries: u32,
    /// Its index has 2^this buckets, by the fingerprints' first bits.
    pub bucket_bits: u8,
    /// Where its index begins, in bytes.
    pub index_at: u64,
}

impl RunReference {
    /// The length of its index, in bytes: a byte a bucket with the number of claims, two bytes a claim with the bits of the
    /// fingerprint that follow those of the bucket.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        (1 << self.bucket_bits) + REMAINDER_BYTES * u64::from(self.entries)
    }

    /// Where the claim at `position` begins, in bytes.
    #[must_use]
    pub fn claim_at(&self, position: u32) -> u64 {
        self.index_at + self.index_bytes() + CLAIM_BYTES as u64 * u64::from(position)
    }
}

/// What a run says of its day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// The runs to be read, by number; the last is the run itself.
    pub runs: Vec<RunReference>,
    /// Hour and digest of every chunk that is in them, sorted.
    pub covered: Vec<(u8, [u8; 16])>,
}

impl RunHeader {
    /// Whether a chunk of the day is in the runs.
    #[must_use]
    pub fn covers(&self, chunk: &ChunkName) -> bool {
        self.covered.binary_search(&(chunk.hour, chunk.digest)).is_ok()
    }

    fn encoded_bytes(&self) -> usize {
        8 + REFERENCE_BYTES * self.runs.len() + COVERED_BYTES * self.covered.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        // Both counts are bounded by the header's length.
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&count(self.runs.len()));
        for run in &self.runs {
            out.extend_from_slice(&run.number.to_le_bytes());
            out.extend_from_slice(&run.entries.to_le_bytes());
            out.push(run.bucket_bits);
            out.extend_from_slice(&run.index_at.to_le_bytes());
        }
        out.extend_from_slice(&count(self.covered.len()));
        for (hour, digest) in &self.covered {
            out.push(*hour);
            out.extend_from_slice(digest);
        }
    }

    /// Reads the header of the run of this number: the bytes behind the run's first [`RUN_PREFIX_BYTES`], as many as those
    /// say.
    ///
    /// # Errors
    /// [`ClaimsError`].
    pub fn decode(number: u32, bytes: &[u8]) -> Result<Self, ClaimsError> {
        let (runs, rest) = items::<REFERENCE_BYTES>(bytes, "runs")?;
        let (covered, rest) = items::<COVERED_BYTES>(rest, "chunks")?;
        let runs: Vec<RunReference> = runs.iter().map(reference).collect();
        let covered: Vec<(u8, [u8; 16])> = covered.iter().map(|[hour, digest @ ..]| (*hour, *digest)).collect();
        let own = RUN_PREFIX_BYTES + bytes.len() as u64;
        let usable = |run: &RunReference| {
            (1..=MAX_RUN_NUMBER).contains(&run.number)
                && (1..=MAX_RUN_ENTRIES as u32).contains(&run.entries)
                && run.bucket_bits <= MAX_BUCKET_BITS
                && run.index_at <= RUN_PREFIX_BYTES + MAX_RUN_HEADER_BYTES
        };
        let ends_with_itself = runs
            .last()
            .is_some_and(|last| last.number == number && last.index_at == own);
        ensure!(
            ends_with_itself && runs.iter().all(usable) && runs.is_sorted_by(|one, next| one.number < next.number),
            OutOfBoundsSnafu { field: "runs" }
        );
        ensure!(
            rest.is_empty()
                && covered.iter().all(|(hour, _)| *hour < 24)
                && covered.is_sorted_by(|one, next| one < next),
            OutOfBoundsSnafu { field: "chunks" }
        );
        Ok(Self { runs, covered })
    }
}

/// How long the header is, by a run's first [`RUN_PREFIX_BYTES`].
///
/// # Errors
/// [`ClaimsError`]: not a run, or beyond [`MAX_RUN_HEADER_BYTES`].
pub fn header_length(bytes: &[u8]) -> Result<u64, ClaimsError> {
    let (magic, rest) = bytes.split_first_chunk().ok_or(ClaimsError::NotClaims)?;
    ensure!(magic == MAGIC, NotClaimsSnafu);
    let length = rest.first_chunk().map(|length| u64::from(u32::from_le_bytes(*length)));
    length
        .filter(|length| *length <= MAX_RUN_HEADER_BYTES)
        .ok_or(ClaimsError::OutOfBounds { field: "header" })
}

/// A count and so many items of `N` bytes.
fn items<'a, const N: usize>(bytes: &'a [u8], field: &'static str) -> Result<(&'a [[u8; N]], &'a [u8]), ClaimsError> {
    let split = || {
        let (count, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(N)?;
        let (items, rest) = rest.split_at_checked(length)?;
        Some((items.as_chunks().0, rest))
    };
    split().ok_or(ClaimsError::OutOfBounds { field })
}

fn reference(bytes: &[u8; REFERENCE_BYTES]) -> RunReference {
    let number = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    RunReference {
        number: number(0),
        entries: number(4),
        bucket_bits: bytes[8],
        index_at: bytes[9..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)),
    }
}

/// Makes run `number` of a day: of 1 to [`MAX_RUN_ENTRIES`] claims, sorted and at most two of each fingerprint. `others`
/// are the runs that are to be read beside it, `covered` the chunks that are in all of them.
///
/// # Errors
/// [`ClaimsError::OutOfBounds`]: more of anything than a run may have.
pub fn encode_run(
    number: u32,
    others: Vec<RunReference>,
    mut covered: Vec<(u8, [u8; 16])>,
    claims: &[Claim],
) -> Result<Bytes, ClaimsError> {
    covered.sort_unstable();
    let (bucket_bits, buckets) = buckets(claims)?;
    let mut header = RunHeader { runs: others, covered };
    header.runs.push(RunReference {
        number,
        entries: u32::try_from(claims.len()).unwrap_or(u32::MAX),
        bucket_bits,
        index_at: 0,
    });
    let length = header.encoded_bytes() as u64;
    ensure!(
        number <= MAX_RUN_NUMBER && claims.len() <= MAX_RUN_ENTRIES && length <= MAX_RUN_HEADER_BYTES,
        OutOfBoundsSnafu { field: "length" }
    );
    let own = header.runs.len() - 1;
    header.runs[own].index_at = RUN_PREFIX_BYTES + length;

    let mut bytes =
        Vec::with_capacity(usize::try_from(header.runs[own].claim_at(header.runs[own].entries)).unwrap_or(0));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    header.encode(&mut bytes);
    bytes.extend_from_slice(&buckets);
    for claim in claims {
        bytes.extend_from_slice(&remainder(claim.fingerprint, bucket_bits).to_le_bytes());
    }
    claims.iter().for_each(|claim| claim.write(&mut bytes));
    Ok(bytes.into())
}

/// The number of bits by which claims are told into buckets, and how many are in each.
fn buckets(claims: &[Claim]) -> Result<(u8, Vec<u8>), ClaimsError> {
    let fewest = (0..MAX_BUCKET_BITS).find(|bits| claims.len() >> bits <= BUCKET_ENTRIES);
    // Fingerprints are as good as random, and each is there at most twice: the first try fits.
    for bits in fewest.unwrap_or(MAX_BUCKET_BITS)..=MAX_BUCKET_BITS {
        let mut counts = vec![0_u8; 1 << bits];
        let fits = claims.iter().all(|claim| {
            let count = &mut counts[bucket(claim.fingerprint, bits)];
            *count = count.saturating_add(1);
            *count < u8::MAX
        });
        if fits {
            return Ok((bits, counts));
        }
    }
    OutOfBoundsSnafu { field: "bucket" }.fail()
}

fn bucket(fingerprint: u64, bits: u8) -> usize {
    // At most 20 bits are left.
    usize::try_from(fingerprint.checked_shr(64 - u32::from(bits)).unwrap_or(0)).unwrap_or(0)
}

fn remainder(fingerprint: u64, bits: u8) -> u16 {
    let [.., low, high] = (fingerprint << bits).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Says where in a run a fingerprint may be.
#[derive(Clone, Debug)]
pub struct RunIndex {
    bucket_bits: u8,
    /// Where each bucket begins; one more at the end.
    starts: Vec<u32>,
    remainders: Bytes,
}

impl RunIndex {
    /// Reads a run's index.
    ///
    /// # Errors
    /// [`ClaimsError::OutOfBounds`]: it isn't the one of that run.
    pub fn decode(run: &RunReference, bytes: &Bytes) -> Result<Self, ClaimsError> {
        ensure!(
            bytes.len() as u64 == run.index_bytes(),
            OutOfBoundsSnafu { field: "index" }
        );
        let (counts, _) = bytes.split_at(1 << run.bucket_bits);
        let mut starts = Vec::with_capacity(counts.len() + 1);
        let mut start = 0_u32;
        starts.push(start);
        for count in counts {
            start += u32::from(*count);
            starts.push(start);
        }
        ensure!(start == run.entries, OutOfBoundsSnafu { field: "index" });
        Ok(Self {
            bucket_bits: run.bucket_bits,
            remainders: bytes.slice(counts.len()..),
            starts,
        })
    }

    /// Positions of the claims that may be of this fingerprint; mostly none.
    #[must_use]
    pub fn may_be_at(&self, fingerprint: u64) -> Range<u32> {
        let bucket = bucket(fingerprint, self.bucket_bits);
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let wanted = remainder(fingerprint, self.bucket_bits);
        let (remainders, _) = self.remainders[2 * start..2 * end].as_chunks();
        let at = |found: usize| u32::try_from(start + found).unwrap_or(u32::MAX);
        let from = remainders.partition_point(|there| u16::from_le_bytes(*there) < wanted);
        let to = remainders.partition_point(|there| u16::from_le_bytes(*there) <= wanted);
        // In a damaged index the order may be another.
        at(from)..at(to.max(from))
    }
}

/// Reads claims of a run, all or a stretch of them.
///
/// # Errors
/// [`ClaimsError::OutOfBounds`]: not so many, or not sorted.
pub fn entries_of(bytes: &[u8], expected: usize) -> Result<Vec<Claim>, ClaimsError> {
    ensure!(
        bytes.len() == CLAIM_BYTES * expected,
        OutOfBoundsSnafu { field: "length" }
    );
    read_sorted(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn claims(count: usize, seed: u64) -> Vec<Claim> {
        let mut rng = StdRng::seed_from_u64(seed);
        let claim = |_| Claim {
            fingerprint: rng.random(),
            owner: 1,
        };
        let mut claims: Vec<_> = (0..count).map(claim).collect();
        claims.sort_unstable();
        claims
    }

    fn parts(number: u32, bytes: &Bytes) -> (RunHeader, RunIndex) {
        let length = usize::try_from(header_length(bytes).unwrap()).unwrap();
        let header = RunHeader::decode(number, &bytes[12..12 + length]).unwrap();
        let own = *header.runs.last().unwrap();
        let index_at = usize::try_from(own.index_at).unwrap();
        let claims_at = usize::try_from(own.claim_at(0)).unwrap();
        let index = RunIndex::decode(&own, &bytes.slice(index_at..claims_at)).unwrap();
        (header, index)
    }

    #[test]
    fn every_claim_is_found_where_it_is_and_few_others_seem_to_be_there() {
        for count in [1, 2, 16, 17, 1_000, 100_000] {
            let claims = claims(count, 3);
            let bytes = encode_run(7, Vec::new(), Vec::new(), &claims).unwrap();
            let (header, index) = parts(7, &bytes);
            let own = header.runs[0];
            for (position, claim) in claims.iter().enumerate() {
                let position = u32::try_from(position).unwrap();
                let found = index.may_be_at(claim.fingerprint);
                assert!(found.contains(&position), "{count}: {position} not in {found:?}");
                let at = usize::try_from(own.claim_at(position)).unwrap();
                assert_eq!(entries_of(&bytes[at..at + 16], 1).unwrap(), [*claim]);
            }
            let strangers = self::claims(10_000, 4);
            let seem_there = strangers
                .iter()
                .filter(|claim| !index.may_be_at(claim.fingerprint).is_empty());
            assert!(seem_there.count() < 20, "{count}");
            assert_eq!(bytes.len() as u64, own.claim_at(own.entries));
        }
    }

    #[test]
    fn a_header_names_the_runs_and_the_chunks_that_are_in_them() {
        let earlier = RunReference {
            number: 3,
            entries: 9,
            bucket_bits: 0,
            index_at: 100,
        };
        let covered = vec![(4, [2; 16]), (3, [9; 16])];
        let bytes = encode_run(7, vec![earlier], covered, &claims(5, 1)).unwrap();
        let (header, _) = parts(7, &bytes);
        assert_eq!((header.runs.len(), header.runs[0]), (2, earlier));
        let chunk = |hour, digest| ChunkName {
            day: super::super::ClaimDay::parse("20261120").unwrap(),
            hour,
            digest: [digest; 16],
        };
        assert!(header.covers(&chunk(3, 9)) && header.covers(&chunk(4, 2)));
        assert!(!header.covers(&chunk(3, 2)) && !header.covers(&chunk(5, 9)));
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let claims = claims(40, 2);
        let bytes = encode_run(7, Vec::new(), vec![(1, [1; 16])], &claims).unwrap();
        let length = usize::try_from(header_length(&bytes).unwrap()).unwrap();
        let header = &bytes[12..12 + length];
        let runs = ClaimsError::OutOfBounds { field: "runs" };
        let chunks = ClaimsError::OutOfBounds { field: "chunks" };
        assert_eq!(header_length(b"PRIOREC1....").unwrap_err(), ClaimsError::NotClaims);
        assert_eq!(
            header_length(b"PRIORUN1\xff\xff\xff\xff").unwrap_err(),
            ClaimsError::OutOfBounds { field: "header" }
        );
        assert_eq!(RunHeader::decode(8, header).unwrap_err(), runs, "another number");
        assert_eq!(RunHeader::decode(7, &header[..header.len() - 1]).unwrap_err(), chunks);
        assert_eq!(RunHeader::decode(7, b"\xff\xff\xff\xff").unwrap_err(), runs);
        let mut late = header.to_vec();
        *late.iter_mut().nth_back(16).unwrap() = 24;
        assert_eq!(RunHeader::decode(7, &late).unwrap_err(), chunks, "hour 24");
        let own = parts(7, &bytes).0.runs[0];
        let index = bytes.slice(12 + length..usize::try_from(own.claim_at(0)).unwrap());
        let wrong = ClaimsError::OutOfBounds { field: "index" };
        assert_eq!(RunIndex::decode(&own, &index.slice(1..)).unwrap_err(), wrong);
        let mut other = index.to_vec();
        other[0] += 1;
        assert_eq!(RunIndex::decode(&own, &other.into()).unwrap_err(), wrong);
        let at = usize::try_from(own.claim_at(0)).unwrap();
        assert!(entries_of(&bytes[at..], 40).is_ok() && entries_of(&bytes[at..], 41).is_err());
        let same = vec![claims[0]; 1_000];
        assert_eq!(
            encode_run(1, Vec::new(), Vec::new(), &same).unwrap_err(),
            ClaimsError::OutOfBounds { field: "bucket" }
        );
    }
}
