//! Asks a web server for one object: by https alone, bounded in time and size, never sent on to another host.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use snafu::Snafu;
use url::Url;

/// The most of a long answer to a question that nobody asked that ends up in a message.
const SHOWN: usize = 200;
/// The longest `ETag` that is sent back.
const MAX_ETAG_BYTES: usize = 1_024;

/// How much is spent on one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first look at the name server to the last byte.
    pub time: Duration,
    /// Bytes of the object.
    pub bytes: usize,
    /// Redirects inside of the host.
    pub redirects: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // As the original.
            time: Duration::from_secs(10),
            bytes: facilitator_core::formats::manifest::MAX_MANIFEST_BYTES,
            redirects: 3,
        }
    }
}

/// Why an object wasn't fetched.
#[derive(Debug, Snafu)]
pub enum FetchError {
    /// The address can't be one.
    #[snafu(display("{url:?} is no address: {source}"))]
    Address {
        /// What was given.
        url: String,
        /// Why.
        source: url::ParseError,
    },
    /// Not https.
    #[snafu(display("{url} isn't https: anybody on the way could swap keys"))]
    NotHttps {
        /// The address.
        url: Url,
    },
    /// The authorities to trust can't be read.
    #[snafu(display("the authorities to trust: {message}"))]
    Authorities {
        /// What is wrong with them.
        message: String,
    },
    /// No connection, or it broke.
    #[snafu(display("{url}: {message}"))]
    Connection {
        /// The address.
        url: Url,
        /// Why, with all causes.
        message: String,
    },
    /// Not done in time.
    #[snafu(display("{url}: no whole answer within {} s", limit.as_secs_f32()))]
    TimedOut {
        /// The address.
        url: Url,
        /// The time that it had.
        limit: Duration,
    },
    /// An answer that isn't the object.
    #[snafu(display("{url}: the server answers {status}"))]
    Status {
        /// The address.
        url: Url,
        /// The answer.
        status: StatusCode,
    },
    /// Sent on to where we don't go.
    #[snafu(display("{url}: redirected to {to:?}; only addresses of the same host are followed, a few at most"))]
    Redirected {
        /// The address.
        url: Url,
        /// Where to.
        to: String,
    },
    /// Longer than any manifest.
    #[snafu(display("{url}: longer than {limit} bytes"))]
    TooLong {
        /// The address.
        url: Url,
        /// The limit.
        limit: usize,
    },
}

impl FetchError {
    /// Whether the server says that there is no such object. Stores that don't let strangers list answer 403.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        let missing = [StatusCode::NOT_FOUND, StatusCode::GONE, StatusCode::FORBIDDEN];
        matches!(self, Self::Status { status, .. } if missing.contains(status))
    }
}

/// An object as it was got before, to be asked for only if it is another by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    etag: String,
    bytes: Bytes,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Bytes,
    /// What to ask with the next time.
    pub copy: Option<Copy>,
    /// The server says that it is the copy that we had.
    pub unchanged: bool,
    /// The `Cache-Control` header.
    pub cache_control: Option<String>,
}

/// A client that trusts some authorities.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    limits: Limits,
}

impl Fetcher {
    /// One that trusts the authorities of a PEM bundle, or the public ones: the image holds none of its own.
    ///
    /// # Errors
    /// [`FetchError::Authorities`].
    pub fn new(bundle: Option<&str>, limits: Limits) -> Result<Self, FetchError> {
        let fail = |message: String| FetchError::Authorities { message };
        let mut roots = RootCertStore::empty();
        match bundle {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate = certificate.map_err(|error| fail(format!("no PEM certificate: {error}")))?;
                    roots
                        .add(certificate)
                        .map_err(|error| fail(format!("no certificate of an authority: {error}")))?;
                }
                if roots.is_empty() {
                    return Err(fail("there is no -----BEGIN CERTIFICATE----- in them".to_owned()));
                }
            }
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(limits.time));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        // Minutes lie between two questions: no connection is kept.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, limits })
    }

    /// Fetches an object under a base URL; `copy` is the one that we have.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, base_url: &str, name: &str, copy: Option<&Copy>) -> Result<Fetched, FetchError> {
        let text = format!("{}/{name}", base_url.trim_end_matches('/'));
        let url = Url::parse(&text).map_err(|source| FetchError::Address { url: text, source })?;
        let limit = self.limits.time;
        let fetched = tokio::time::timeout(limit, self.follow(&url, copy)).await;
        fetched.unwrap_or(Err(FetchError::TimedOut { url, limit }))
    }

    async fn follow(&self, first: &Url, copy: Option<&Copy>) -> Result<Fetched, FetchError> {
        let mut url = first.clone();
        for _ in 0..=self.limits.redirects {
            if url.scheme() != "https" {
                return Err(FetchError::NotHttps { url });
            }
            let broken = |error: &dyn Error| FetchError::Connection {
                url: url.clone(),
                message: with_causes(error),
            };
            let mut request = Request::get(url.as_str())
                .header(ACCEPT, "application/json")
                .header(USER_AGENT, concat!("prio-operator/", env!("CARGO_PKG_VERSION")));
            if let Some(copy) = copy {
                request = request.header(IF_NONE_MATCH, copy.etag.as_str());
            }
            let request = request.body(Empty::new()).map_err(|error| broken(&error))?;
            let response = self.client.request(request).await.map_err(|error| broken(&error))?;
            let (head, body) = response.into_parts();
            let header = |name| text_of(&head.headers, name);
            match head.status {
                StatusCode::OK => {
                    let limit = self.limits.bytes;
                    let body = Limited::new(body, limit).collect().await;
                    let bytes = body
                        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                            Some(_) => FetchError::TooLong {
                                url: url.clone(),
                                limit,
                            },
                            None => broken(error.as_ref()),
                        })?
                        .to_bytes();
                    let etag = header(ETAG).filter(|etag| etag.len() <= MAX_ETAG_BYTES);
                    let copy = etag.map(|etag| Copy {
                        etag,
                        bytes: bytes.clone(),
                    });
                    return Ok(Fetched {
                        bytes,
                        copy,
                        unchanged: false,
                        cache_control: header(CACHE_CONTROL),
                    });
                }
                StatusCode::NOT_MODIFIED if copy.is_some() => {
                    let copy = copy.cloned();
                    return Ok(Fetched {
                        bytes: copy.as_ref().map(|copy| copy.bytes.clone()).unwrap_or_default(),
                        copy,
                        unchanged: true,
                        cache_control: header(CACHE_CONTROL),
                    });
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let to = header(LOCATION).unwrap_or_default();
                    url = same_host(&url, &to).ok_or_else(|| redirected(&url, &to))?;
                }
                status => return Err(FetchError::Status { url, status }),
            }
        }
        Err(redirected(first, url.as_str()))
    }
}

/// Where a redirect leads, if that is on the same host.
fn same_host(from: &Url, to: &str) -> Option<Url> {
    let to = from.join(to).ok()?;
    let place = |url: &Url| {
        (
            url.scheme().to_owned(),
            url.host_str().map(str::to_owned),
            url.port_or_known_default(),
        )
    };
    let plain = to.username().is_empty() && to.password().is_none();
    (place(&to) == place(from) && plain).then_some(to)
}

fn redirected(url: &Url, to: &str) -> FetchError {
    FetchError::Redirected {
        url: url.clone(),
        to: to.chars().take(SHOWN).collect(),
    }
}

fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// An error with all its causes: the client's own text only says that something failed.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn redirects_stay_on_the_host() {
        let from = Url::parse("https://manifests.example:8443/a/global-manifest.json").unwrap();
        let table = [
            ("/b/c.json", Some("https://manifests.example:8443/b/c.json")),
            ("c.json", Some("https://manifests.example:8443/a/c.json")),
            (
                "https://manifests.example:8443/x",
                Some("https://manifests.example:8443/x"),
            ),
            ("https://manifests.example/x", None),
            ("https://other.example:8443/x", None),
            ("//other.example:8443/x", None),
            ("http://manifests.example:8443/x", None),
            ("https://user@manifests.example:8443/x", None),
            ("https://[", None),
        ];
        for (to, expected) in table {
            let found = same_host(&from, to);
            assert_eq!(found.as_ref().map(Url::as_str), expected, "{to}");
        }
    }

    #[test]
    fn authorities_are_read_or_refused() {
        let refused = |bundle| Fetcher::new(Some(bundle), Limits::default()).unwrap_err().to_string();
        assert!(refused("").contains("no -----BEGIN CERTIFICATE-----"));
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused(rubbish).contains("no certificate of an authority"));
        Fetcher::new(None, Limits::default()).unwrap();
    }
}
