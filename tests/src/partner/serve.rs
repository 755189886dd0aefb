//! Serves the manifests of a ConfigMap by https, as a party's web server does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use facilitator_core::crypto::sha256;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::callers::Call;
use crate::output::say;

const HANDSHAKE: Duration = Duration::from_secs(2);

/// Serves until the process ends. `tls` is a folder with `tls.crt` and `tls.key`.
///
/// # Errors
/// When the certificate can't be used, or the address isn't free.
pub async fn serve(namespace: &str, config_map: &str, tls: &Path, address: SocketAddr) -> Result<()> {
    let client = kube::Client::try_default().await.context("the API server")?;
    let source = Source {
        api: Api::namespaced(client, namespace),
        name: config_map.to_owned(),
    };
    let read = |name: &str| std::fs::read(tls.join(name)).with_context(|| format!("{name} can't be read"));
    let certificates = CertificateDer::pem_slice_iter(&read("tls.crt")?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key")?)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    let listener = TlsListener {
        tcp: TcpListener::bind(address).await?,
        tls: TlsAcceptor::from(Arc::new(config)),
    };
    say(format!("serves ConfigMap {namespace}/{config_map} at {address}"));
    let router = Router::new().fallback(answer).with_state(source);
    axum::serve(listener, router).await?;
    Ok(())
}

/// Where manifests are read at each request.
#[derive(Clone)]
struct Source {
    api: Api<ConfigMap>,
    name: String,
}

async fn answer(State(source): State<Source>, request: Request) -> Response {
    let Some(name) = manifest_name(request.uri().path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if request.method() != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let found = match source.api.get_opt(&source.name).await {
        Ok(found) => found.and_then(|found| found.data?.remove(name)),
        Err(error) => {
            say(format!("{name}: {error}"));
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    let Some(text) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let digest: String = sha256(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{digest}\"");
    let fresh = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
    let known = request.headers().get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, fresh).into_response();
    }
    (fresh, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
}

/// The manifest that a path names.
fn manifest_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?;
    (name.ends_with("-manifest.json") && !name.contains('/')).then_some(name)
}

struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else {
                continue;
            };
            // Tests read it, whatever comes of it.
            say(Call::now(address));
            // Who doesn't trust us hangs up, and so does the kubelet's probe; who says nothing keeps nobody waiting.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, self.tls.accept(stream)).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::manifest_name;

    #[test]
    fn only_manifests_are_served() {
        for (path, name) in [
            ("/global-manifest.json", Some("global-manifest.json")),
            ("/demo-manifest.json", Some("demo-manifest.json")),
            ("/other.json", None),
            ("/folder/demo-manifest.json", None),
            ("/", None),
        ] {
            assert_eq!(manifest_name(path), name, "{path}");
        }
    }
}
