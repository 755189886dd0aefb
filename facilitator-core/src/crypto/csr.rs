//! Certificate signing requests: the form in which manifests publish packet encryption keys (PKCS#10 in PEM).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::encoding::decode_pem;
use super::{BatchVerifyingKey, KeyError, PublicPoint};

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
