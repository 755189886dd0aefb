//! Google identities: access tokens for GCS, and identity tokens that AWS takes.
//!
//! Small requests of our own, for no library does all of them with endpoints, authorities and waits of our choice:
//! `gcp_auth` has no impersonation and no pools; `google-cloud-auth` waits for ever and impersonates at one host only.

mod asking;
mod sources;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use zeroize::Zeroizing;

use self::asking::Asking;
use self::sources::{Impersonated, KeyFile, Metadata, Pool};
use super::aws;
use crate::{Access, Credentials, MailboxError, MailboxErrorKind, MailboxUrl, Patience, transport};

/// What a token for a store may do, within the account's own rights: read and write objects, and read a bucket's settings.
const STORAGE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// And one that asks the service account credentials service for another.
const IAM: &str = "https://www.googleapis.com/auth/iam";
/// A token is replaced when less than this is left of it.
const FRESH: Duration = Duration::from_secs(240);
/// A token with less than this left isn't used: it could end on its way.
const USABLE: Duration = Duration::from_secs(10);

type Secret = Zeroizing<String>;

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
    /// A token for `scope`, where the source knows of scopes.
    async fn access(&self, scope: &str) -> Result<Token, MailboxError>;
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
            old => match (self.source.access(STORAGE).await, old) {
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
    async fn access(&self, scope: &str) -> Result<Token, MailboxError> {
        match self {
            Self::File(file) => file.access(scope).await,
            Self::Metadata(metadata) => metadata.access(scope).await,
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
    identity_tokens(asking(url, access, patience)?, email, of_process)
}

fn identity_tokens(
    asking: Asking,
    email: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Box<dyn IdentityTokens>, MailboxError> {
    Ok(match (email, around(asking.clone(), variable)) {
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
pub(crate) mod tests;
