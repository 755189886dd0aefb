//! Encryption of packets, signatures of batches, sealing of accumulators: the protocol's cryptography, by libraries.

pub mod claims;
pub mod csr;
pub mod ecies;
mod encoding;
pub mod gcm;
pub mod new_key;
pub mod original;
pub mod seal;
pub mod signing;

pub use claims::ClaimKey;
pub use ecies::{DecryptionError, EncryptionError, PacketDecryptionKey, encrypt};
pub use seal::{SealError, open, open_partial, seal, seal_partial};
pub use signing::{BatchSigningKey, BatchVerifyingKey, SignatureError, SigningError, TrustedKeys};

use snafu::Snafu;

/// A P-256 point as ANSI X9.62 writes it: 0x04 ‖ x ‖ y.
pub type PublicPoint = [u8; 65];

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// A key that can't be used. Says what is wrong with its form, never what it holds. Never retryable by itself: the key
/// must be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum KeyError {
    /// No base64.
    #[snafu(display("the key is no standard base64"))]
    Base64,
    /// Longer than keys are.
    #[snafu(display("the text is longer than {limit} bytes: no key is"))]
    TooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A packet decryption key of another length.
    #[snafu(display(
        "a packet decryption key is 97 bytes, a 65-byte point and a 32-byte scalar (padded with zeros), and this has {length}"
    ))]
    PacketKeyLength {
        /// Bytes after base64.
        length: usize,
    },
    /// The two halves of a packet decryption key belong to different keys.
    #[snafu(display("the point of the packet decryption key doesn't belong to its scalar"))]
    PointOfOtherScalar,
    /// A scalar outside 1 to n − 1.
    #[snafu(display("the scalar of the packet decryption key is out of range"))]
    Scalar,
    /// No key in the text.
    #[snafu(display("there is no key: the text is empty"))]
    Empty,
    /// Not PKCS#8 of a P-256 key.
    #[snafu(display("the key is no PKCS#8 private key on P-256"))]
    Pkcs8,
    /// Not a point on the curve.
    #[snafu(display("the public key is no uncompressed point on P-256"))]
    Point,
    /// Not PEM with the label expected.
    #[snafu(display("this is no PEM block {label:?}"))]
    Pem {
        /// The label, as in `-----BEGIN label-----`.
        label: &'static str,
    },
    /// Not the DER that manifests hold.
    #[snafu(display("the public key's DER isn't the 91 bytes of a P-256 key"))]
    PublicKeyDer,
    /// Not the original's list of versions.
    #[snafu(display("these aren't the key versions of the original's rotator: {detail}"))]
    OriginalVersions {
        /// What is wrong, without what they hold.
        detail: String,
    },
    /// A request for a certificate can't be made.
    #[snafu(display("no certificate signing request can be made for {common_name:?}: {detail}"))]
    NoRequest {
        /// The subject.
        common_name: String,
        /// What is wrong.
        detail: String,
    },
    /// Not a usable certificate signing request.
    #[snafu(display("the certificate signing request can't be used: {detail}"))]
    SigningRequest {
        /// What is wrong.
        detail: String,
    },
}

impl KeyError {
    /// Whether the same text may be a key later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}
