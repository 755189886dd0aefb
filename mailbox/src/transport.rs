//! HTTP clients: who is trusted, and how long a connection may take.

use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use jiff::Timestamp;

use crate::error::chain;
use crate::{Access, MailboxError, MailboxErrorKind, MailboxUrl, Patience};

/// The answer's clock, of its `Date` header.
pub(crate) fn time_of(date: Option<&str>) -> Option<Timestamp> {
    let date = DateTime::from_str(date?, Format::HttpDate).ok()?;
    Timestamp::from_second(date.secs()).ok()
}

/// The endpoint that the settings name, without a slash at its end.
pub(crate) fn endpoint(url: &MailboxUrl, access: &Access) -> Result<Option<String>, MailboxError> {
    let Some(endpoint) = &access.endpoint else {
        return Ok(None);
    };
    let plain = reqwest::Url::parse(endpoint).ok().filter(|parsed| {
        matches!(parsed.scheme(), "http" | "https")
            && parsed.has_host()
            && parsed.username().is_empty()
            && parsed.password().is_none()
            && parsed.path() == "/"
            && parsed.query().is_none()
            && parsed.fragment().is_none()
    });
    match plain {
        Some(_) => Ok(Some(endpoint.trim_end_matches('/').to_owned())),
        // Not quoted: somebody may have written a password there.
        None => Err(configuration(
            url,
            "its endpoint isn't http://host[:port] or https://host[:port]",
        )),
    }
}

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
    let place = access.ca_bundle.as_ref().map(|file| format!(" {}", file.display()));
    let fail = |what: &str| {
        configuration(
            url,
            &format!("the CA bundle{}: {what}", place.clone().unwrap_or_default()),
        )
    };
    let mut content = Vec::new();
    if let Some(file) = &access.ca_bundle {
        content = std::fs::read(file).map_err(|error| fail(&error.to_string()))?;
    }
    match &access.authorities {
        Some(authorities) => content.extend_from_slice(authorities.as_bytes()),
        None if access.ca_bundle.is_none() => return Ok(None),
        None => {}
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_hosts_and_ports() {
        let url = MailboxUrl::parse("gs://bucket").unwrap();
        let of = |text: &str| {
            let access = Access {
                endpoint: Some(text.to_owned()),
                ..Access::default()
            };
            endpoint(&url, &access)
        };
        for (text, plain) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("https://store.example/", "https://store.example"),
        ] {
            assert_eq!(of(text).unwrap().unwrap(), plain);
        }
        for text in [
            "store.example",
            "store.example:9000",
            "ftp://store.example",
            "https://",
            "https://id:hush@store.example",
            "https://store.example/bucket",
            "https://store.example/?key=hush",
        ] {
            let error = of(text).unwrap_err();
            assert_eq!(error.kind(), MailboxErrorKind::Configuration, "{text}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        assert_eq!(endpoint(&url, &Access::default()).unwrap(), None);
    }
}
