//! HTTP clients: who is trusted, and how long a connection may take.

use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::error::chain;
use crate::{Access, MailboxError, MailboxErrorKind, MailboxUrl, Patience};

/// The client of the AWS SDK. `plain`: only `http://` is called, so that no authority is needed.
pub(crate) fn for_aws(url: &MailboxUrl, access: &Access, plain: bool) -> Result<SharedHttpClient, MailboxError> {
    let mut trusted = if plain {
        TrustStore::empty()
    } else {
        TrustStore::default()
    };
    if let Some(bundle) = bundle(url, access)? {
        trusted.add_pem_certificate(bundle);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| configuration(url, &error.to_string()))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https())
}

/// The client for everything else.
pub(crate) fn client(
    url: &MailboxUrl,
    access: &Access,
    patience: &Patience,
    plain: bool,
) -> Result<reqwest::Client, MailboxError> {
    let certificates = match bundle(url, access)? {
        Some(bundle) => certificates(&bundle).map_err(|error| configuration(url, &chain(&error)))?,
        None => Vec::new(),
    };
    let builder = reqwest::Client::builder();
    let builder = if plain {
        builder.tls_certs_only(certificates)
    } else {
        builder.tls_certs_merge(certificates)
    };
    let client = builder
        .connect_timeout(patience.connect)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build();
    client.map_err(|error| configuration(url, &chain(&error)))
}

fn certificates(bundle: &[u8]) -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
    reqwest::Certificate::from_pem_bundle(bundle)
}

/// The bundle's content, where one is named: read and parsed here, because the AWS SDK panics at one that it can't use.
fn bundle(url: &MailboxUrl, access: &Access) -> Result<Option<Vec<u8>>, MailboxError> {
    let Some(file) = &access.ca_bundle else {
        return Ok(None);
    };
    let fail = |what: &str| configuration(url, &format!("the CA bundle {}: {what}", file.display()));
    let content = std::fs::read(file).map_err(|error| fail(&error.to_string()))?;
    let parsed = certificates(&content).map_err(|error| fail(&chain(&error)))?;
    if parsed.is_empty() {
        return Err(fail("it holds no certificate"));
    }
    let usable = reqwest::Client::builder().tls_certs_only(parsed).build();
    usable.map_err(|error| fail(&chain(&error)))?;
    Ok(Some(content))
}

fn configuration(url: &MailboxUrl, detail: &str) -> MailboxError {
    MailboxError::of_mailbox(MailboxErrorKind::Configuration, url, detail)
}
