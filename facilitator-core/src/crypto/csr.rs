//! Certificate signing requests: the form in which manifests publish packet encryption keys (PKCS#10 in PEM).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::encoding::decode_pem;
use super::{BatchSigningKey, BatchVerifyingKey, KeyError, PacketDecryptionKey, PublicPoint};

/// Makes the request for a packet key, PEM `CERTIFICATE REQUEST`: the same text for the same key and name.
///
/// # Errors
/// [`KeyError::NoRequest`] where the name is none that a certificate may have.
pub fn signing_request(key: &PacketDecryptionKey, common_name: &str) -> Result<String, KeyError> {
    let wrong = |detail: String| KeyError::NoRequest {
        common_name: common_name.to_owned(),
        detail,
    };
    let subject = Subject(BatchSigningKey::from_scalar("request", key.scalar())?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let request = params
        .serialize_request(&subject)
        .map_err(|error| wrong(error.to_string()))?;
    request.pem().map_err(|error| wrong(error.to_string()))
}

/// The key that signs its own request.
struct Subject(BatchSigningKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        self.0.verifying_key().point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Subject {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// What a request for a certificate says of a packet encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// The key: a point that is on the curve.
    pub public_point: PublicPoint,
    /// The subject's common name, `<namespace>.<env>.certificates.<domain>`, where there is one.
    pub common_name: Option<String>,
    /// Whether the request is signed by the key that it holds.
    pub signature_verifies: bool,
}

impl SigningRequest {
    /// Decodes PEM `CERTIFICATE REQUEST`.
    ///
    /// # Errors
    /// [`KeyError`] where it is no such PEM, no PKCS#10, or its key isn't on P-256.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let wrong = |detail: &str| KeyError::SigningRequest {
            detail: detail.to_owned(),
        };
        let der = decode_pem(text, "CERTIFICATE REQUEST")?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| wrong("it is no PKCS#10"))?;
        if !rest.is_empty() {
            return Err(wrong("bytes follow the request"));
        }
        let info = &request.certification_request_info;
        let algorithm = &info.subject_pki.algorithm;
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        let is_p256 = algorithm.algorithm.to_id_string() == "1.2.840.10045.2.1"
            && curve.is_some_and(|curve| curve.to_id_string() == "1.2.840.10045.3.1.7");
        if !is_p256 {
            return Err(wrong("its key isn't on P-256"));
        }
        let point = PublicPoint::try_from(&*info.subject_pki.subject_public_key.data).map_err(|_| KeyError::Point)?;
        BatchVerifyingKey::from_point(&point)?;
        // ecdsa-with-SHA256 is what the original's tools sign with.
        let signature_verifies = request.signature_algorithm.algorithm.to_id_string() == "1.2.840.10045.4.3.2"
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(info.raw, &request.signature_value.data)
                .is_ok();
        let common_name = info
            .subject
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(str::to_owned);
        Ok(Self {
            public_point: point,
            common_name,
            signature_verifies,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_request_holds_the_key_and_the_name_and_is_signed_by_the_key() {
        let key = PacketDecryptionKey::generate(&mut StdRng::seed_from_u64(11));
        let name = "us-ct.prod.certificates.example.org";
        let text = signing_request(&key, name).unwrap();
        assert_eq!(
            SigningRequest::parse(&text).unwrap(),
            SigningRequest {
                public_point: *key.public_point(),
                common_name: Some(name.to_owned()),
                signature_verifies: true,
            }
        );
        assert_eq!(text, signing_request(&key, name).unwrap());
        assert_ne!(
            text,
            signing_request(&key, "us-ca.prod.certificates.example.org").unwrap()
        );
    }
}
