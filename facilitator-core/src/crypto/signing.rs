//! Signatures of batches: ECDSA on P-256 with SHA-256, ASN.1 DER, deterministic nonces (RFC 6979).

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use snafu::{OptionExt, Snafu, ensure};
use zeroize::Zeroizing;

use super::encoding::{decode_base64, decode_pem};
use super::{KeyError, PublicPoint};

/// What stands before the point in the DER of a P-256 public key: the manifests' fixed 26 bytes.
const PUBLIC_KEY_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A signature that isn't believed. Never retryable for the same bytes and keys.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum SignatureError {
    /// No such key is trusted.
    #[snafu(display(
        "the batch is signed with key {key_identifier:?}, which isn't among the trusted keys ({trusted})"
    ))]
    UnknownKey {
        /// The id in the signature object.
        key_identifier: String,
        /// The ids that are trusted.
        trusted: String,
    },
    /// Not a signature of these bytes by that key.
    #[snafu(display("the signature isn't one of these header bytes by key {key_identifier:?}"))]
    Invalid {
        /// The id in the signature object.
        key_identifier: String,
    },
}

impl SignatureError {
    /// Whether the same call may succeed later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// We could not sign.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
pub enum SigningError {
    /// The two implementations disagree: a faulty deterministic signature would give the key away, so it isn't shown.
    #[snafu(display(
        "the signature made with key {key_identifier:?} doesn't verify; nothing was written (a fault of this machine?)"
    ))]
    Unverified {
        /// The key's id.
        key_identifier: String,
    },
}

impl SigningError {
    /// Whether the same call may succeed later: yes, on a machine without the fault.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// A private key that signs batches, with its id. Debug shows the id alone.
pub struct BatchSigningKey {
    id: String,
    key: SigningKey,
    verifying: BatchVerifyingKey,
}

impl fmt::Debug for BatchSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchSigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl BatchSigningKey {
    /// Decodes base64 of a PKCS#8 key on P-256.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(id: &str, text: &str) -> Result<Self, KeyError> {
        ensure!(!text.trim().is_empty(), super::EmptySnafu);
        let der = decode_base64(text)?;
        let key = SigningKey::from_pkcs8_der(&der).map_err(|_| KeyError::Pkcs8)?;
        Ok(Self::from_key(id, key))
    }

    fn from_key(id: &str, key: SigningKey) -> Self {
        let point = key.verifying_key().to_sec1_point(false);
        let mut bytes = [0; 65];
        bytes.copy_from_slice(point.as_bytes());
        Self {
            id: id.to_owned(),
            key,
            verifying: BatchVerifyingKey(bytes),
        }
    }

    /// The key of a scalar, big-endian.
    ///
    /// # Errors
    /// [`KeyError::Scalar`] outside 1 to n − 1.
    pub fn from_scalar(id: &str, scalar: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_slice(scalar).map_err(|_| KeyError::Scalar)?;
        Ok(Self::from_key(id, key))
    }

    /// A new random key.
    #[must_use]
    pub fn generate(id: &str, rng: &mut impl rand::CryptoRng) -> Self {
        loop {
            let mut scalar = Zeroizing::new([0; 32]);
            rng.fill_bytes(scalar.as_mut_slice());
            if let Ok(key) = SigningKey::from_slice(scalar.as_slice()) {
                return Self::from_key(id, key);
            }
        }
    }

    /// The id that signatures name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> &BatchVerifyingKey {
        &self.verifying
    }

    /// The key as Secrets hold it: base64 of PKCS#8.
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`], where the library can't encode it.
    pub fn to_base64(&self) -> Result<Zeroizing<String>, KeyError> {
        use base64::Engine;
        let der = p256::SecretKey::from(&self.key)
            .to_pkcs8_der()
            .map_err(|_| KeyError::Pkcs8)?;
        Ok(Zeroizing::new(
            base64::engine::general_purpose::STANDARD.encode(der.as_bytes()),
        ))
    }

    /// Signs a header's bytes: ASN.1 DER, the same for the same bytes. Verified by another implementation first.
    ///
    /// # Errors
    /// [`SigningError::Unverified`].
    pub fn sign(&self, header: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature: DerSignature = self.key.sign(header);
        let signature = signature.as_bytes().to_vec();
        ensure!(
            self.verifying.verifies(header, &signature),
            UnverifiedSnafu {
                key_identifier: &self.id
            }
        );
        Ok(signature)
    }
}

/// A public key that verifies batches: a point that is known to be on the curve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchVerifyingKey(PublicPoint);

impl BatchVerifyingKey {
    /// Decodes any of the forms in use: PEM `PUBLIC KEY`; base64 of the 65-byte point; base64 PKCS#8 (of which only
    /// the public part is kept).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        ensure!(!text.trim().is_empty(), super::EmptySnafu);
        if text.trim_start().starts_with("-----BEGIN") {
            return Self::from_pem(text);
        }
        let bytes = decode_base64(text)?;
        match PublicPoint::try_from(bytes.as_slice()) {
            Ok(point) => Self::from_point(&point),
            Err(_) => BatchSigningKey::parse("", text).map(|key| key.verifying),
        }
    }

    /// Decodes PEM whose DER is exactly the 91 bytes of a P-256 key: the only form that manifests may hold.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = decode_pem(text, "PUBLIC KEY")?;
        let point = der
            .strip_prefix(&PUBLIC_KEY_PREFIX)
            .and_then(|point| PublicPoint::try_from(point).ok());
        Self::from_point(&point.context(super::PublicKeyDerSnafu)?)
    }

    /// Takes a point that is on the curve.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn from_point(point: &PublicPoint) -> Result<Self, KeyError> {
        ensure!(
            point[0] == 4 && p256::PublicKey::from_sec1_bytes(point).is_ok(),
            super::PointSnafu
        );
        Ok(Self(*point))
    }

    /// The point.
    #[must_use]
    pub fn point(&self) -> &PublicPoint {
        &self.0
    }

    /// PEM `PUBLIC KEY`, as manifests hold it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        use base64::Engine;
        let der = [PUBLIC_KEY_PREFIX.as_slice(), &self.0].concat();
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let (first, second) = body.split_at(64.min(body.len()));
        format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n")
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// Keys whose signatures are believed, by id.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(BTreeMap<String, BatchVerifyingKey>);

impl TrustedKeys {
    /// Adds a key; a second one of the same id replaces the first.
    pub fn insert(&mut self, id: impl Into<String>, key: BatchVerifyingKey) {
        self.0.insert(id.into(), key);
    }

    /// The key of an id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&BatchVerifyingKey> {
        self.0.get(id)
    }

    /// Their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies a signature over a header's bytes by the key that it names.
    ///
    /// # Errors
    /// [`SignatureError::UnknownKey`], [`SignatureError::Invalid`].
    pub fn verify(&self, key_identifier: &str, header: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let key = self.0.get(key_identifier).with_context(|| UnknownKeySnafu {
            key_identifier,
            trusted: self.names(),
        })?;
        ensure!(key.verifies(header, signature), InvalidSnafu { key_identifier });
        Ok(())
    }

    fn names(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<(String, BatchVerifyingKey)> for TrustedKeys {
    fn from_iter<I: IntoIterator<Item = (String, BatchVerifyingKey)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_signature_that_the_other_implementation_refuses_is_not_shown() {
        let mut rng = StdRng::seed_from_u64(4);
        let other = BatchSigningKey::generate("b", &mut rng);
        // As if the machine had computed wrongly: what comes out isn't this key's signature.
        let faulty = BatchSigningKey {
            verifying: other.verifying,
            ..BatchSigningKey::generate("a", &mut rng)
        };
        let error = faulty.sign(b"header").unwrap_err();
        assert_eq!(
            error,
            SigningError::Unverified {
                key_identifier: "a".into()
            }
        );
        assert!(error.is_retryable(), "on a machine without the fault");
    }

    #[test]
    fn signs_the_same_bytes_the_same_way_and_verifies_only_them() {
        let mut rng = StdRng::seed_from_u64(3);
        let (key, other) = (
            BatchSigningKey::generate("a", &mut rng),
            BatchSigningKey::generate("b", &mut rng),
        );
        let keys: TrustedKeys = [&key, &other]
            .into_iter()
            .map(|key| (key.id().to_owned(), key.verifying_key().clone()))
            .collect();
        let signature = key.sign(b"header").unwrap();
        assert_eq!(signature, key.sign(b"header").unwrap());
        keys.verify("a", b"header", &signature).unwrap();
        let invalid = |id: &str| SignatureError::Invalid {
            key_identifier: id.to_owned(),
        };
        assert_eq!(keys.verify("a", b"headed", &signature), Err(invalid("a")));
        assert_eq!(keys.verify("b", b"header", &signature), Err(invalid("b")));
        assert_eq!(keys.verify("a", b"header", &signature[1..]), Err(invalid("a")));
        let error = keys.verify("c", b"header", &signature).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the batch is signed with key \"c\", which isn't among the trusted keys (a, b)"
        );
    }

    /// RFC 6979, appendix A.2.5: P-256 with SHA-256, message "sample".
    #[test]
    fn nonces_are_those_of_rfc_6979() {
        let scalar = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
        let bytes: Vec<u8> = (0..32)
            .map(|i| u8::from_str_radix(&scalar[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let key = BatchSigningKey::from_key("rfc", SigningKey::from_slice(&bytes).unwrap());
        let hex = crate::formats::batch::hex(&key.sign(b"sample").unwrap());
        assert!(
            hex.contains("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"),
            "{hex}"
        );
        assert!(
            hex.contains("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"),
            "{hex}"
        );
    }

    #[test]
    fn takes_every_form_of_a_public_key_in_use() {
        let key = BatchSigningKey::generate("a", &mut StdRng::seed_from_u64(4));
        let public = key.verifying_key();
        let pem = public.to_pem();
        let forms = [
            pem.clone(),
            STANDARD.encode(public.point()),
            key.to_base64().unwrap().to_string(),
            format!("\n{pem}\n\n"),
        ];
        for form in forms {
            assert_eq!(BatchVerifyingKey::parse(&form).unwrap(), *public);
        }
        let mut off_curve = *public.point();
        off_curve[64] ^= 1;
        let cases = [
            (STANDARD.encode(off_curve), KeyError::Point),
            (STANDARD.encode([4; 10]), KeyError::Pkcs8),
            (String::new(), KeyError::Empty),
            (
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".to_owned(),
                KeyError::PublicKeyDer,
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(),
                KeyError::Pem { label: "PUBLIC KEY" },
            ),
        ];
        for (text, error) in cases {
            assert_eq!(BatchVerifyingKey::parse(&text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = BatchSigningKey::from_key("a", SigningKey::from_slice(&[0x5a; 32]).unwrap());
        let shown = format!("{key:?}");
        assert!(
            !shown.to_lowercase().contains("5a5a") && !shown.contains("90, 90"),
            "{shown}"
        );
    }
}
