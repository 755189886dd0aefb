//! A party's https server on loopback, with an authority of its own, that does what a test tells it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What is answered at a path.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An object, with its `ETag` and `Cache-Control: no-cache`.
    Object(String),
    /// An object with another `Cache-Control`.
    Cached(String, &'static str),
    /// A bare status.
    Status(u16),
    /// A redirect.
    Redirect(String),
    /// Bytes without end.
    Endless,
    /// A first byte, and never a second.
    Hanging,
}

#[derive(Debug, Default)]
struct Told {
    answers: BTreeMap<String, Answer>,
    asked: BTreeMap<String, usize>,
    unchanged: usize,
}

/// The server.
pub struct Web {
    pub address: SocketAddr,
    /// The authority's certificate, in PEM.
    pub authority: String,
    tls: TlsAcceptor,
    told: Arc<Mutex<Told>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.down();
    }
}

impl Web {
    pub async fn start() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut web = Self {
            address: listener.local_addr().unwrap(),
            authority: authority.pem(),
            tls: TlsAcceptor::from(Arc::new(config)),
            told: Arc::default(),
            task: None,
        };
        web.serve(listener);
        web
    }

    fn serve(&mut self, tcp: TcpListener) {
        let listener = TlsListener {
            tcp,
            tls: self.tls.clone(),
        };
        let router = Router::new().fallback(answer).with_state(self.told.clone());
        self.task = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }

    /// Nothing listens any more.
    pub fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Listens again at the same address.
    pub async fn up(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        self.serve(listener);
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, path: &str, answer: Answer) {
        self.told().answers.insert(path.to_owned(), answer);
    }

    pub fn object(&self, path: &str, text: impl Into<String>) {
        self.set(path, Answer::Object(text.into()));
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.told().asked.get(path).copied().unwrap_or_default()
    }

    /// How often it was enough to say that nothing changed.
    pub fn unchanged(&self) -> usize {
        self.told().unchanged
    }
}

async fn answer(State(told): State<Arc<Mutex<Told>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    *told.asked.entry(path.clone()).or_default() += 1;
    match told.answers.get(&path).cloned().unwrap_or(Answer::Status(404)) {
        Answer::Object(text) => {
            let tag = format!("\"{}-{}\"", text.len(), text.bytes().map(u64::from).sum::<u64>());
            let known = request.headers().get(header::IF_NONE_MATCH);
            if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
                told.unchanged += 1;
                return StatusCode::NOT_MODIFIED.into_response();
            }
            (
                [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")],
                text,
            )
                .into_response()
        }
        Answer::Cached(text, header) => ([(header::CACHE_CONTROL, header)], text).into_response(),
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Answer::Endless => {
            let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65_536])));
            Body::from_stream(chunks).into_response()
        }
        Answer::Hanging => {
            let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
            Body::from_stream(first.chain(stream::pending())).into_response()
        }
    }
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
            if let Ok((stream, address)) = self.tcp.accept().await
                // Who doesn't trust us hangs up.
                && let Ok(stream) = self.tls.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
