//! Credentials for S3.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result as Provided, SharedCredentialsProvider, future};
use aws_sdk_s3::config::Region;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::google::{self, IdentityTokens};
use crate::{Access, Credentials, MailboxError, MailboxErrorKind, MailboxUrl, Patience, transport};

/// How long keys from a mounted Secret are used before they are read again.
const REREAD: Duration = Duration::from_secs(300);

/// The name of our sessions in AWS's records.
const SESSION: &str = "prio-operator";

/// The provider that `access` asks for; `None`: requests aren't signed.
pub(crate) fn for_aws(
    url: &MailboxUrl,
    region: &str,
    access: &Access,
    patience: &Patience,
) -> Result<Option<SharedCredentialsProvider>, MailboxError> {
    let identities = |email: Option<&str>| google::identities(url, access, patience, email);
    provider(url, region, access, patience, None, identities)
}

/// As [`for_aws`]. `endpoint`: AWS's token service elsewhere; `identities`: Google's tokens of the process, or of an account.
fn provider(
    url: &MailboxUrl,
    region: &str,
    access: &Access,
    patience: &Patience,
    endpoint: Option<String>,
    identities: impl FnOnce(Option<&str>) -> Result<Box<dyn IdentityTokens>, MailboxError>,
) -> Result<Option<SharedCredentialsProvider>, MailboxError> {
    Ok(Some(match &access.credentials {
        Credentials::Anonymous => return Ok(None),
        Credentials::Ambient => ambient(url, region, access, patience)?,
        Credentials::Secret { folder } => SharedCredentialsProvider::new(Mounted(folder.clone())),
        Credentials::AwsFromGoogle { role, audience, email } => SharedCredentialsProvider::new(FromGoogle {
            sts: token_service(region, endpoint, transport::for_aws(url, access, false)?, patience),
            identities: identities(email.as_deref())?,
            role: role.clone(),
            audience: audience.clone(),
        }),
        Credentials::GoogleServiceAccount { .. } | Credentials::GoogleFromAws { .. } => {
            let detail = "these credentials aren't for s3:// mailboxes";
            return Err(MailboxError::of_mailbox(MailboxErrorKind::Configuration, url, detail));
        }
    }))
}

/// The SDK's default chain: environment, profile, IRSA's web identity, pod identity, instance.
pub(super) fn ambient(
    url: &MailboxUrl,
    region: &str,
    access: &Access,
    patience: &Patience,
) -> Result<SharedCredentialsProvider, MailboxError> {
    let region = Region::new(region.to_owned());
    let config = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_http_client(transport::for_aws(url, access, false)?)
        .with_timeout_config(timeouts(patience));
    Ok(SharedCredentialsProvider::new(Chain {
        region,
        config,
        chain: OnceCell::new(),
    }))
}

/// What a provider's failure means. `chain`: its text with its causes.
pub(crate) fn kind_of(error: &CredentialsError, chain: &str) -> MailboxErrorKind {
    let refused = [
        "AccessDenied",
        "InvalidIdentityToken",
        "IDPRejectedClaim",
        "ExpiredToken",
    ];
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            MailboxErrorKind::Configuration
        }
        _ if refused.iter().any(|code| chain.contains(code)) => MailboxErrorKind::Denied,
        _ => MailboxErrorKind::Unavailable,
    }
}

/// A request to AWS's token service, signed for somebody else to make.
pub(super) struct Signed {
    pub url: String,
    /// All of them signed, the signature among them.
    pub headers: Vec<(String, String)>,
}

/// Signs `GetCallerIdentity` for `provider`, a workload identity pool's, who will make the request to learn who we are.
pub(super) fn sign_identity_request(
    keys: Keys,
    region: &str,
    provider: &str,
    time: SystemTime,
) -> Result<Signed, Box<dyn std::error::Error + Send + Sync>> {
    let host = format!("sts.{region}.amazonaws.com");
    let url = format!("https://{host}?Action=GetCallerIdentity&Version=2011-06-15");
    let identity = keys.into();
    let settings = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(time)
        .settings(SigningSettings::default())
        .build()?;
    let headers = [("host", host.as_str()), ("x-goog-cloud-target-resource", provider)];
    let request = SignableRequest::new("POST", url.as_str(), headers.into_iter(), SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &settings.into())?.into_parts();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let headers = headers.into_iter().chain(instructions.headers()).map(owned).collect();
    Ok(Signed { url, headers })
}

fn timeouts(patience: &Patience) -> TimeoutConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(patience.connect);
    timeouts.operation_attempt_timeout(patience.answer).build()
}

fn token_service(
    region: &str,
    endpoint: Option<String>,
    http: SharedHttpClient,
    patience: &Patience,
) -> aws_sdk_sts::Client {
    let mut config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http)
        .timeout_config(timeouts(patience));
    config.set_endpoint_url(endpoint);
    aws_sdk_sts::Client::from_conf(config.build())
}

/// An AWS role, by a web identity token of Google's.
#[derive(Debug)]
struct FromGoogle {
    sts: aws_sdk_sts::Client,
    identities: Box<dyn IdentityTokens>,
    role: String,
    audience: String,
}

impl FromGoogle {
    async fn keys(&self) -> Provided {
        let token = self
            .identities
            .identity(&self.audience)
            .await
            .map_err(CredentialsError::provider_error)?;
        let request = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(&self.role)
            .role_session_name(SESSION);
        let answer = request
            .web_identity_token(&*token)
            .send()
            .await
            .map_err(CredentialsError::provider_error)?;
        let keys = answer
            .credentials
            .ok_or_else(|| CredentialsError::provider_error("AWS gave no credentials"))?;
        let ends = SystemTime::try_from(keys.expiration).map_err(CredentialsError::provider_error)?;
        Ok(Keys::new(
            keys.access_key_id,
            keys.secret_access_key,
            Some(keys.session_token),
            Some(ends),
            "role by Google identity",
        ))
    }
}

impl ProvideCredentials for FromGoogle {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.keys())
    }
}

/// What the SDK finds around the process, looked for at the first call.
struct Chain {
    region: Region,
    config: ProviderConfig,
    chain: OnceCell<DefaultCredentialsChain>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl Chain {
    async fn keys(&self) -> Provided {
        let build = || {
            DefaultCredentialsChain::builder()
                .configure(self.config.clone())
                .region(self.region.clone())
                .build()
        };
        self.chain.get_or_init(build).await.provide_credentials().await
    }
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.keys())
    }
}

/// A Secret mounted as a folder.
#[derive(Debug)]
struct Mounted(PathBuf);

impl Mounted {
    async fn read(&self, name: &str) -> Result<Option<String>, CredentialsError> {
        let file = self.0.join(name);
        match tokio::fs::read_to_string(&file).await {
            // What becomes of it the SDK wipes; the file's text is ours to wipe.
            Ok(text) => Ok(Some(Zeroizing::new(text).trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CredentialsError::invalid_configuration(format!(
                "{}: {error}",
                file.display()
            ))),
        }
    }

    async fn keys(&self) -> Provided {
        let missing = |name: &str| {
            CredentialsError::invalid_configuration(format!("{} isn't there", self.0.join(name).display()))
        };
        let id = self.read("accessKeyId").await?.ok_or_else(|| missing("accessKeyId"))?;
        let secret = self
            .read("secretAccessKey")
            .await?
            .ok_or_else(|| missing("secretAccessKey"))?;
        let token = self.read("sessionToken").await?;
        Ok(Keys::new(
            id,
            secret,
            token,
            Some(SystemTime::now() + REREAD),
            "mounted Secret",
        ))
    }
}

impl ProvideCredentials for Mounted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.keys())
    }
}

#[cfg(test)]
mod tests;
