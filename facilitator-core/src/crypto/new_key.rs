//! A new key of a processor, in the forms in which it is kept and published.

use std::fmt;

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::csr::signing_request;
use super::{BatchSigningKey, BatchVerifyingKey, KeyError, PacketDecryptionKey};

/// A key that was just made. Debug shows its id and public half alone; the secret half is wiped on drop.
pub struct NewKey {
    id: String,
    public_key: String,
    signing_request: Option<String>,
    secret: Zeroizing<String>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("id", &self.id)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes a key that signs batches.
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`], where the library can't encode it.
    pub fn batch_signing(id: &str, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        Self::of_batch_signing(&BatchSigningKey::generate(id, rng))
    }

    /// The forms of a signing key that is there.
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`], where the library can't encode it.
    pub fn of_batch_signing(key: &BatchSigningKey) -> Result<Self, KeyError> {
        Ok(Self {
            id: key.id().to_owned(),
            public_key: key.verifying_key().to_pem(),
            signing_request: None,
            secret: key.to_base64()?,
        })
    }

    /// Makes a key that packets are encrypted to, with a request for a certificate of that common name.
    ///
    /// # Errors
    /// [`KeyError::NoRequest`] where no certificate may have the name.
    pub fn packet_encryption(id: &str, common_name: &str, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        Self::of_packet_encryption(id, &PacketDecryptionKey::generate(rng), common_name)
    }

    /// The forms of a packet key that is there.
    ///
    /// # Errors
    /// [`KeyError::NoRequest`] where no certificate may have the name.
    pub fn of_packet_encryption(id: &str, key: &PacketDecryptionKey, common_name: &str) -> Result<Self, KeyError> {
        Ok(Self {
            id: id.to_owned(),
            public_key: BatchVerifyingKey::from_point(key.public_point())?.to_pem(),
            signing_request: Some(signing_request(key, common_name)?),
            secret: key.to_base64(),
        })
    }

    /// The id that manifests and signatures name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// PEM `PUBLIC KEY`.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// PEM `CERTIFICATE REQUEST`, of packet keys.
    #[must_use]
    pub fn signing_request(&self) -> Option<&str> {
        self.signing_request.as_deref()
    }

    /// The private half, as the Secret's `key` holds it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::crypto::csr::SigningRequest;

    #[test]
    fn what_is_kept_and_what_is_published_are_one_key() {
        let mut rng = StdRng::seed_from_u64(12);
        let signing = NewKey::batch_signing("s-1", &mut rng).unwrap();
        let kept = BatchSigningKey::parse("s-1", signing.secret()).unwrap();
        assert_eq!(
            BatchVerifyingKey::from_pem(signing.public_key()).unwrap(),
            *kept.verifying_key()
        );
        assert_eq!(signing.signing_request(), None);

        let packet = NewKey::packet_encryption("p-1", "a.example", &mut rng).unwrap();
        let kept = PacketDecryptionKey::parse(packet.secret()).unwrap();
        let request = SigningRequest::parse(packet.signing_request().unwrap()).unwrap();
        assert_eq!(request.public_point, *kept.public_point());
        assert_eq!(
            BatchVerifyingKey::from_pem(packet.public_key()).unwrap().point(),
            kept.public_point()
        );
        let shown = format!("{signing:?}{packet:?}");
        assert!(
            !shown.contains(signing.secret()) && !shown.contains(packet.secret()),
            "{shown}"
        );
    }
}
