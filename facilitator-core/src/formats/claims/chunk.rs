//! Chunks: what one worker announced at once.

use bytes::Bytes;
use snafu::ensure;

use super::{
    CLAIM_BYTES, ChunkName, Claim, ClaimDay, ClaimsError, NotClaimsSnafu, OtherDigestSnafu, OutOfBoundsSnafu,
    first_half, read_sorted,
};
use crate::crypto::sha256;

/// The first eight bytes of every chunk.
const MAGIC: &[u8; 8] = b"PRIOCLM1";
/// Claims of a chunk: what a batch has more goes into more chunks.
pub const MAX_CHUNK_ENTRIES: usize = 1 << 18;
/// The bound on a chunk, in bytes.
pub const MAX_CHUNK_BYTES: u64 = (MAGIC.len() + CLAIM_BYTES * MAX_CHUNK_ENTRIES) as u64;

/// A chunk on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its name: the same claims have the same.
    pub name: ChunkName,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Chunk {
    /// Of 1 to [`MAX_CHUNK_ENTRIES`] claims, sorted and each once, announced in that hour.
    #[must_use]
    pub fn encode(day: ClaimDay, hour: u8, claims: &[Claim]) -> Self {
        let mut bytes = Vec::with_capacity(MAGIC.len() + CLAIM_BYTES * claims.len());
        bytes.extend_from_slice(MAGIC);
        claims.iter().for_each(|claim| claim.write(&mut bytes));
        let digest = first_half(&sha256(&bytes));
        Self {
            name: ChunkName { day, hour, digest },
            bytes: bytes.into(),
        }
    }

    /// Reads the claims of the chunk of this name.
    ///
    /// # Errors
    /// [`ClaimsError`].
    pub fn decode(name: &ChunkName, bytes: &[u8]) -> Result<Vec<Claim>, ClaimsError> {
        let (magic, claims) = bytes.split_first_chunk().ok_or(ClaimsError::NotClaims)?;
        ensure!(magic == MAGIC, NotClaimsSnafu);
        ensure!(
            claims.len() <= CLAIM_BYTES * MAX_CHUNK_ENTRIES,
            OutOfBoundsSnafu { field: "length" }
        );
        ensure!(first_half(&sha256(bytes)) == name.digest, OtherDigestSnafu);
        read_sorted(claims)
    }
}

/// How many claims a chunk of that many bytes holds.
#[must_use]
pub fn claims_in(bytes: u64) -> u64 {
    bytes.saturating_sub(MAGIC.len() as u64) / CLAIM_BYTES as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn claim(fingerprint: u64, owner: u64) -> Claim {
        Claim { fingerprint, owner }
    }

    #[test]
    fn chunks_are_read_as_written_and_refused_otherwise() {
        let day = ClaimDay::parse("20261120").unwrap();
        let claims = [claim(1, 2), claim(1, 3), claim(u64::MAX, 0)];
        let chunk = Chunk::encode(day, 3, &claims);
        assert_eq!(Chunk::decode(&chunk.name, &chunk.bytes).unwrap(), claims);
        assert_eq!(claims_in(chunk.bytes.len() as u64), 3);
        assert_ne!(chunk.name, Chunk::encode(day, 3, &claims[..2]).name);

        let refused = |bytes: &[u8]| {
            let name = ChunkName {
                digest: first_half(&sha256(bytes)),
                ..chunk.name
            };
            Chunk::decode(&name, bytes).unwrap_err()
        };
        let bad_list = ClaimsError::OutOfBounds { field: "list" };
        assert_eq!(
            Chunk::decode(&Chunk::encode(day, 3, &claims[..2]).name, &chunk.bytes).unwrap_err(),
            ClaimsError::OtherDigest
        );
        assert_eq!(refused(&chunk.bytes[..chunk.bytes.len() - 1]), bad_list);
        assert_eq!(refused(MAGIC), bad_list, "empty");
        assert_eq!(refused(&chunk.bytes[1..]), ClaimsError::NotClaims);
        assert_eq!(refused(b"PRIO"), ClaimsError::NotClaims);
        let twice = Chunk::encode(day, 3, &[claim(1, 1), claim(1, 1)]);
        assert_eq!(refused(&twice.bytes), bad_list);
        let unsorted = Chunk::encode(day, 3, &[claim(2, 1), claim(1, 1)]);
        assert_eq!(refused(&unsorted.bytes), bad_list);
    }
}
