//! The ways to get a token, one request each.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::RequestBuilder;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::asking::Asking;
use super::{AccessTokens, IAM, IdentityTokens, Secret, Token};
use crate::credentials::aws;
use crate::error::chain;
use crate::{MailboxError, MailboxErrorKind};

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// An answer with a token, as OAuth has it.
#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret")]
    access_token: Secret,
    expires_in: u64,
}

impl From<Granted> for Token {
    fn from(granted: Granted) -> Self {
        Self::new(granted.access_token, Duration::from_secs(granted.expires_in))
    }
}

/// The metadata server: what a pod is by GKE's workload identity, or its node.
#[derive(Clone, Debug)]
pub(super) struct Metadata(pub Asking);

impl Metadata {
    fn request(&self, what: &str) -> RequestBuilder {
        let base = &self.0.endpoints.metadata;
        let url = format!("{base}/computeMetadata/v1/instance/service-accounts/default/{what}");
        self.0.http.get(url).header("Metadata-Flavor", "Google")
    }
}

const METADATA: &str = "the metadata server";

#[async_trait]
impl AccessTokens for Metadata {
    /// The scopes are those of the node or of the workload identity.
    async fn access(&self, _scope: &str) -> Result<Token, MailboxError> {
        self.0
            .json::<Granted>(METADATA, self.request("token"))
            .await
            .map(Token::from)
    }
}

#[async_trait]
impl IdentityTokens for Metadata {
    async fn identity(&self, audience: &str) -> Result<Secret, MailboxError> {
        let request = self
            .request("identity")
            .query(&[("audience", audience), ("format", "full")]);
        let token = self.0.text(METADATA, request).await?;
        Ok(Secret::new(token.trim().to_owned()))
    }
}

/// A service account's key in a file, read at each use.
#[derive(Debug)]
pub(super) struct KeyFile {
    pub asking: Asking,
    pub file: PathBuf,
}

#[derive(Deserialize)]
struct Key {
    client_email: String,
    #[serde(deserialize_with = "secret")]
    private_key: Secret,
    private_key_id: String,
    token_uri: String,
}

impl KeyFile {
    fn fault(&self, what: &str) -> MailboxError {
        let detail = format!("the service account's key {}: {what}", self.file.display());
        self.asking.error(MailboxErrorKind::Configuration, &detail)
    }

    /// The assertion that is exchanged for a token.
    fn assertion(&self, key: &Key, scope: &str) -> Result<Secret, MailboxError> {
        let now = (self.asking.clock)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": key.private_key_id});
        let claims = json!({
            "iss": key.client_email, "scope": scope, "aud": key.token_uri, "iat": now, "exp": now + 3600,
        });
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let der = PrivatePkcs8KeyDer::from_pem_slice(key.private_key.as_bytes());
        let der = der.map_err(|_| self.fault("its private_key is no PKCS#8 in PEM"))?;
        let pair =
            RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| self.fault("its private_key is no RSA key"))?;
        let mut signature = vec![0; pair.public_modulus_len()];
        let done = pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        );
        done.map_err(|_| self.fault("its private_key doesn't sign"))?;
        Ok(Secret::new(format!("{signed}.{}", encode(&signature))))
    }
}

#[async_trait]
impl AccessTokens for KeyFile {
    async fn access(&self, scope: &str) -> Result<Token, MailboxError> {
        let text = tokio::fs::read_to_string(&self.file).await.map(Secret::new);
        let text = text.map_err(|error| self.fault(&error.to_string()))?;
        let key: Key = serde_json::from_str(&text)
            .map_err(|_| self.fault("it lacks client_email, private_key, private_key_id or token_uri"))?;
        let assertion = self.assertion(&key, scope)?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &assertion),
        ];
        let request = self.asking.http.post(&key.token_uri).form(&form);
        self.asking
            .json::<Granted>("Google's token service", request)
            .await
            .map(Token::from)
    }
}

/// A service account that another identity may act as.
#[derive(Debug)]
pub(super) struct Impersonated<S> {
    pub asking: Asking,
    pub base: S,
    pub email: String,
}

const ACCOUNTS: &str = "the service account credentials service";

impl<S: AccessTokens> Impersonated<S> {
    async fn request(&self, verb: &str, body: serde_json::Value) -> Result<RequestBuilder, MailboxError> {
        let (base, email) = (&self.asking.endpoints.iam, &self.email);
        let url = format!("{base}/v1/projects/-/serviceAccounts/{email}:{verb}");
        let token = self.base.access(IAM).await?;
        Ok(self.asking.http.post(url).bearer_auth(&*token.value).json(&body))
    }
}

#[async_trait]
impl<S: AccessTokens> AccessTokens for Impersonated<S> {
    async fn access(&self, scope: &str) -> Result<Token, MailboxError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            #[serde(deserialize_with = "secret")]
            access_token: Secret,
            expire_time: Timestamp,
        }
        let request = self.request("generateAccessToken", json!({"scope": [scope]})).await?;
        let answer: Answer = self.asking.json(ACCOUNTS, request).await?;
        let left = answer.expire_time.duration_since(Timestamp::now());
        Ok(Token::new(
            answer.access_token,
            Duration::try_from(left).unwrap_or_default(),
        ))
    }
}

#[async_trait]
impl<S: AccessTokens> IdentityTokens for Impersonated<S> {
    async fn identity(&self, audience: &str) -> Result<Secret, MailboxError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(deserialize_with = "secret")]
            token: Secret,
        }
        let body = json!({"audience": audience, "includeEmail": true});
        let request = self.request("generateIdToken", body).await?;
        Ok(self.asking.json::<Answer>(ACCOUNTS, request).await?.token)
    }
}

/// A workload identity pool that takes an AWS role's signature of a request to AWS's token service for its identity.
#[derive(Debug)]
pub(super) struct Pool {
    pub asking: Asking,
    pub aws: SharedCredentialsProvider,
    pub region: String,
    pub provider: String,
}

impl Pool {
    /// The signed request that Google will make, as JSON in percent-encoding.
    async fn subject(&self) -> Result<Secret, MailboxError> {
        let refused = |what: String| self.asking.error(MailboxErrorKind::Denied, &what);
        let keys = self.aws.provide_credentials().await;
        let keys = keys.map_err(|error| {
            let kind = aws::kind_of(&error, &chain(&error));
            self.asking.error(kind, &format!("the AWS identity: {}", chain(&error)))
        })?;
        let signed = aws::sign_identity_request(keys, &self.region, &self.provider, (self.asking.clock)());
        let signed = signed.map_err(|error| refused(format!("the AWS identity's request can't be signed: {error}")))?;
        let headers: Vec<_> = signed
            .headers
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let subject = json!({"url": signed.url, "method": "POST", "headers": headers}).to_string();
        Ok(Secret::new(utf8_percent_encode(&subject, NON_ALPHANUMERIC).to_string()))
    }
}

#[async_trait]
impl AccessTokens for Pool {
    async fn access(&self, scope: &str) -> Result<Token, MailboxError> {
        let subject = self.subject().await?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", self.provider.as_str()),
            ("scope", scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", &subject),
            ("subject_token_type", "urn:ietf:params:aws:token-type:aws4_request"),
        ];
        let request = self
            .asking
            .http
            .post(format!("{}/v1/token", self.asking.endpoints.sts))
            .form(&form);
        self.asking
            .json::<Granted>("Google's security token service", request)
            .await
            .map(Token::from)
    }
}
