//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;

use crate::metrics::Metrics;

/// What the endpoints speak of.
#[derive(Clone, Debug)]
pub struct Health {
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    clock: fn() -> Timestamp,
}

impl Health {
    /// Not ready yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: fn() -> Timestamp) -> Self {
        Self {
            metrics,
            ready: Arc::new(AtomicBool::new(false)),
            clock,
        }
    }

    /// The API server answers: this process leads or may lead.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The endpoints.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    if health.ready.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server has not answered yet, or the process is stopping\n",
        )
            .into_response()
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.encode((health.clock)()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_process_is_alive_at_once_and_ready_once_the_api_server_answered() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new(Arc::new(Metrics::default()), || Timestamp::UNIX_EPOCH);
        tokio::spawn(axum::serve(listener, health.clone().router()).into_future());
        assert!(ask(address, "/healthz").await.contains(" 200 "));
        assert!(ask(address, "/readyz").await.contains(" 503 "));
        health.set_ready(true);
        assert!(ask(address, "/readyz").await.contains(" 200 "));
        let metrics = ask(address, "/metrics").await;
        assert!(
            metrics.contains("prio_operator_leader 0") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
    }
}
