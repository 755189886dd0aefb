//! A front of a store whose clock is ahead: it passes everything on as it came, signatures and all, and only the time that the
//! store tells is another.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, DATE, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use axum::http::uri::PathAndQuery;
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use tokio::net::TcpListener;

use crate::output::say;

/// The longest content that it passes on.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Serves until the process ends. `store` is the store's endpoint, by http.
///
/// # Errors
/// When the address isn't free.
pub async fn front(store: &str, ahead_seconds: u32, address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    say(format!("{store}, {ahead_seconds} s ahead, at {address}"));
    axum::serve(listener, router(store, ahead_seconds)?).await?;
    Ok(())
}

fn router(store: &str, ahead_seconds: u32) -> Result<Router> {
    let client = reqwest::Client::builder()
        // None is needed, and the image has none.
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let front = Front {
        client,
        store: store.to_owned(),
        ahead: SignedDuration::from_secs(ahead_seconds.into()),
    };
    Ok(Router::new().fallback(answer).with_state(front))
}

#[derive(Clone)]
struct Front {
    client: reqwest::Client,
    store: String,
    ahead: SignedDuration,
}

async fn answer(State(front): State<Front>, request: Request) -> Response {
    front.pass(request).await.unwrap_or_else(|error| {
        say(format!("error: {error:#}"));
        StatusCode::BAD_GATEWAY.into_response()
    })
}

impl Front {
    /// `Host` is passed on, too: it is signed.
    async fn pass(&self, request: Request) -> Result<Response> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, MAX_BYTES).await?;
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let passed = self.client.request(head.method, format!("{}{path}", self.store));
        let answer = passed.headers(of_content(head.headers)).body(body).send().await?;
        let status = answer.status();
        let mut headers = of_content(answer.headers().clone());
        let date = later(headers.get(DATE).context("the store tells no time")?, self.ahead)?;
        headers.insert(DATE, date);
        Ok((status, headers, Body::from(answer.bytes().await?)).into_response())
    }
}

/// Without what is said of the connection.
fn of_content(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}

fn later(date: &HeaderValue, by: SignedDuration) -> Result<HeaderValue> {
    let time = DateTimeParser::new().parse_timestamp(date.as_bytes())?;
    let later = DateTimePrinter::new().timestamp_to_rfc9110_string(&time.checked_add(by)?)?;
    Ok(HeaderValue::from_str(&later)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DATE_OF_STORE: &str = "Thu, 26 Nov 2026 23:59:00 GMT";

    async fn serve(router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn only_the_time_is_another() {
        let store = Router::new().fallback(|request: Request| async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let said = format!("{} {host} {}", request.method(), request.uri());
            (
                StatusCode::FORBIDDEN,
                [("date", DATE_OF_STORE), ("x-amz-id-2", "kept")],
                said,
            )
        });
        let store = format!("http://{}", serve(store).await);
        let front = serve(router(&store, 120).unwrap()).await;
        let path = "/bucket/?list-type=2&prefix=a%2Fb&start-after=%F4%8F%BF%BF";
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked = client
            .put(format!("http://{front}{path}"))
            .header("host", "front.store.svc:8333")
            .body("content");
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers()["date"], "Fri, 27 Nov 2026 00:01:00 GMT");
        assert_eq!(answer.headers()["x-amz-id-2"], "kept");
        assert_eq!(answer.text().await.unwrap(), format!("PUT front.store.svc:8333 {path}"));
    }
}
