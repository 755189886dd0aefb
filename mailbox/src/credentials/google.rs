//! Google identities: access tokens for GCS, and identity tokens that AWS takes.
//!
//! Small requests of our own, for no library does all of them with endpoints, authorities and waits of our choice:
//! `gcp_auth` has no impersonation and no pools; `google-cloud-auth` waits for ever and impersonates at one host only.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use zeroize::Zeroizing;

use super::aws;
use crate::error::chain;
use crate::{Access, Credentials, MailboxError, MailboxErrorKind, MailboxUrl, Patience, transport};

/// What a token may do: the service account's own rights bound it.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// A token is replaced when less than this is left of it.
const FRESH: Duration = Duration::from_secs(240);
/// A token with less than this left isn't used: it could end on its way.
const USABLE: Duration = Duration::from_secs(10);

type Secret = Zeroizing<String>;

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// Where tokens are had.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    /// The metadata server.
    pub metadata: String,
    /// The service account credentials service.
    pub iam: String,
    /// The security token service of pools.
    pub sts: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            metadata: "http://metadata.google.internal".to_owned(),
            iam: "https://iamcredentials.googleapis.com".to_owned(),
            sts: "https://sts.googleapis.com".to_owned(),
        }
    }
}

/// A token and when it ends.
#[derive(Clone)]
struct Token {
    value: Secret,
    ends: Instant,
}

impl Token {
    fn new(value: Secret, lifetime: Duration) -> Self {
        Self {
            value,
            ends: Instant::now() + lifetime,
        }
    }

    fn has(&self, left: Duration) -> bool {
        self.ends.saturating_duration_since(Instant::now()) > left
    }
}

/// A way to get an access token.
#[async_trait]
trait AccessTokens: Send + Sync + fmt::Debug {
    async fn access(&self) -> Result<Token, MailboxError>;
}

/// A way to get an identity token.
#[async_trait]
pub(crate) trait IdentityTokens: Send + Sync + fmt::Debug {
    /// A token for `audience`.
    async fn identity(&self, audience: &str) -> Result<Secret, MailboxError>;
}

/// Access tokens, kept as long as they are fresh.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: Box<dyn AccessTokens>,
    kept: tokio::sync::Mutex<Option<Token>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Tokens {
    fn new(source: impl AccessTokens + 'static) -> Self {
        Self {
            source: Box::new(source),
            kept: tokio::sync::Mutex::new(None),
        }
    }

    /// The `Authorization` header's value. Whoever comes while another asks waits for its token.
    pub async fn bearer(&self) -> Result<reqwest::header::HeaderValue, MailboxError> {
        let mut kept = self.kept.lock().await;
        let token = match &*kept {
            Some(token) if token.has(FRESH) => token.clone(),
            old => match (self.source.access().await, old) {
                (Ok(token), _) => kept.insert(token).clone(),
                // The token service is away; what we have still holds.
                (Err(_), Some(old)) if old.has(USABLE) => old.clone(),
                (Err(error), _) => return Err(error),
            },
        };
        let mut value = reqwest::header::HeaderValue::try_from(format!("Bearer {}", *token.value)).map_err(|_| {
            let url = MailboxUrl::memory("token");
            MailboxError::of_mailbox(MailboxErrorKind::Denied, &url, "the token holds what no header may")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Drops the kept token: the store refused it.
    pub fn forget(&self) {
        // Whoever holds the lock gets a new one anyway.
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
    }
}

/// How token services are asked.
#[derive(Clone, Debug)]
struct Asking {
    url: MailboxUrl,
    http: reqwest::Client,
    patience: Duration,
    endpoints: Endpoints,
    clock: fn() -> SystemTime,
}

/// What token services say when they refuse.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    error_description: String,
}

impl Asking {
    fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        MailboxError::of_mailbox(kind, &self.url, detail)
    }

    /// The answer's text. `of`: who is asked, for messages.
    async fn text(&self, of: &str, request: RequestBuilder) -> Result<Secret, MailboxError> {
        use MailboxErrorKind as Kind;
        let call = async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), Secret::new(answer.text().await?)))
        };
        let (status, body) = match tokio::time::timeout(self.patience, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let detail = chain(&error.without_url());
                let kind = if detail.contains("certificate") {
                    Kind::Configuration
                } else {
                    Kind::Unavailable
                };
                return Err(self.error(kind, &format!("{of}: {detail}")));
            }
            Err(_) => {
                let detail = format!("{of}: no answer within {} s", self.patience.as_secs_f32());
                return Err(self.error(Kind::Unavailable, &detail));
            }
        };
        let kind = match status {
            200..=299 => return Ok(body),
            400..=403 => Kind::Denied,
            // The metadata server of a pod that has just started.
            404 | 408 | 429 | 500..=599 => Kind::Unavailable,
            _ => Kind::Configuration,
        };
        let why = serde_json::from_str::<Refusal>(&body).map_or_else(
            |_| String::new(),
            |refusal| {
                let message = refusal
                    .error
                    .get("message")
                    .or(Some(&refusal.error))
                    .and_then(|message| message.as_str());
                let why = format!(": {} {}", message.unwrap_or_default(), refusal.error_description);
                why.trim_end().chars().filter(|c| !c.is_control()).take(300).collect()
            },
        );
        Err(self.error(kind, &format!("{of} answers HTTP {status}{why}")))
    }

    async fn json<T: DeserializeOwned>(&self, of: &str, request: RequestBuilder) -> Result<T, MailboxError> {
        let body = self.text(of, request).await?;
        // serde's message may quote the answer, and so a token.
        let unreadable = |_| {
            self.error(
                MailboxErrorKind::Unavailable,
                &format!("{of}: its answer can't be read"),
            )
        };
        serde_json::from_str(&body).map_err(unreadable)
    }
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
struct Metadata(Asking);

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
    async fn access(&self) -> Result<Token, MailboxError> {
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
struct KeyFile {
    asking: Asking,
    file: PathBuf,
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
    fn assertion(&self, key: &Key) -> Result<Secret, MailboxError> {
        let now = (self.asking.clock)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": key.private_key_id});
        let claims = json!({
            "iss": key.client_email, "scope": SCOPE, "aud": key.token_uri, "iat": now, "exp": now + 3600,
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
    async fn access(&self) -> Result<Token, MailboxError> {
        let text = tokio::fs::read_to_string(&self.file).await.map(Secret::new);
        let text = text.map_err(|error| self.fault(&error.to_string()))?;
        let key: Key = serde_json::from_str(&text)
            .map_err(|_| self.fault("it lacks client_email, private_key, private_key_id or token_uri"))?;
        let assertion = self.assertion(&key)?;
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
struct Impersonated<S> {
    asking: Asking,
    base: S,
    email: String,
}

const IAM: &str = "the service account credentials service";

impl<S: AccessTokens> Impersonated<S> {
    async fn request(&self, verb: &str, body: serde_json::Value) -> Result<RequestBuilder, MailboxError> {
        let (base, email) = (&self.asking.endpoints.iam, &self.email);
        let url = format!("{base}/v1/projects/-/serviceAccounts/{email}:{verb}");
        let token = self.base.access().await?;
        Ok(self.asking.http.post(url).bearer_auth(&*token.value).json(&body))
    }
}

#[async_trait]
impl<S: AccessTokens> AccessTokens for Impersonated<S> {
    async fn access(&self) -> Result<Token, MailboxError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            #[serde(deserialize_with = "secret")]
            access_token: Secret,
            expire_time: Timestamp,
        }
        let request = self.request("generateAccessToken", json!({"scope": [SCOPE]})).await?;
        let answer: Answer = self.asking.json(IAM, request).await?;
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
        Ok(self.asking.json::<Answer>(IAM, request).await?.token)
    }
}

/// A workload identity pool that takes an AWS role's signature of a request to AWS's token service for its identity.
#[derive(Debug)]
struct Pool {
    asking: Asking,
    aws: SharedCredentialsProvider,
    region: String,
    provider: String,
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
    async fn access(&self) -> Result<Token, MailboxError> {
        let subject = self.subject().await?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", self.provider.as_str()),
            ("scope", SCOPE),
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

/// What the process finds around it: a key in the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else the metadata
/// server, at `GCE_METADATA_HOST` where that is set. Google's libraries read the same variables.
fn around(mut asking: Asking, variable: impl Fn(&str) -> Option<String>) -> Around {
    if let Some(file) = variable("GOOGLE_APPLICATION_CREDENTIALS").filter(|file| !file.is_empty()) {
        return Around::File(key_file(asking, Path::new(&file)));
    }
    if let Some(host) = variable("GCE_METADATA_HOST").filter(|host| !host.is_empty()) {
        asking.endpoints.metadata = format!("http://{host}");
    }
    Around::Metadata(Metadata(asking))
}

#[derive(Debug)]
enum Around {
    File(KeyFile),
    Metadata(Metadata),
}

#[async_trait]
impl AccessTokens for Around {
    async fn access(&self) -> Result<Token, MailboxError> {
        match self {
            Self::File(file) => file.access().await,
            Self::Metadata(metadata) => metadata.access().await,
        }
    }
}

fn key_file(asking: Asking, file: &Path) -> KeyFile {
    KeyFile {
        asking,
        file: file.to_owned(),
    }
}

fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn asking(url: &MailboxUrl, access: &Access, patience: &Patience) -> Result<Asking, MailboxError> {
    Ok(Asking {
        url: url.clone(),
        http: transport::client(url, access, patience, false)?,
        patience: patience.answer,
        endpoints: Endpoints::default(),
        clock: SystemTime::now,
    })
}

/// The tokens that `access` asks for; `None`: requests carry none.
pub(crate) fn for_gcs(url: &MailboxUrl, access: &Access, patience: &Patience) -> Result<Option<Tokens>, MailboxError> {
    if let Credentials::Anonymous = access.credentials {
        return Ok(None);
    }
    tokens(asking(url, access, patience)?, access, patience, of_process).map(Some)
}

fn tokens(
    asking: Asking,
    access: &Access,
    patience: &Patience,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Tokens, MailboxError> {
    Ok(match &access.credentials {
        Credentials::Ambient => Tokens::new(around(asking, variable)),
        Credentials::Secret { folder } => Tokens::new(key_file(asking, &folder.join("key.json"))),
        Credentials::GoogleServiceAccount { email } => Tokens::new(Impersonated {
            base: around(asking.clone(), variable),
            asking,
            email: email.clone(),
        }),
        Credentials::GoogleFromAws {
            provider,
            region,
            email,
        } => {
            let pool = Pool {
                aws: aws::ambient(&asking.url, region, access, patience)?,
                asking: asking.clone(),
                region: region.clone(),
                provider: provider.clone(),
            };
            match email.clone() {
                Some(email) => Tokens::new(Impersonated {
                    asking,
                    base: pool,
                    email,
                }),
                None => Tokens::new(pool),
            }
        }
        Credentials::Anonymous | Credentials::AwsFromGoogle { .. } => {
            let detail = "these credentials aren't for gs:// mailboxes";
            return Err(asking.error(MailboxErrorKind::Configuration, detail));
        }
    })
}

/// The identity tokens of the process's own service account, or of `email`.
pub(super) fn identities(
    url: &MailboxUrl,
    access: &Access,
    patience: &Patience,
    email: Option<&str>,
) -> Result<Box<dyn IdentityTokens>, MailboxError> {
    let asking = asking(url, access, patience)?;
    Ok(match (email, around(asking.clone(), of_process)) {
        (Some(email), base) => Box::new(Impersonated {
            asking,
            base,
            email: email.to_owned(),
        }),
        (None, Around::Metadata(metadata)) => Box::new(metadata),
        (None, Around::File(_)) => {
            let detail = "a key file gives no identity tokens: name the service account to act as";
            return Err(asking.error(MailboxErrorKind::Configuration, detail));
        }
    })
}

#[cfg(test)]
mod tests;
