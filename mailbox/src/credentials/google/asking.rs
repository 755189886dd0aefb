//! Requests to token services.

use std::time::{Duration, SystemTime};

use reqwest::RequestBuilder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Endpoints, Secret};
use crate::error::chain;
use crate::{MailboxError, MailboxErrorKind, MailboxUrl};

/// How token services are asked.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub url: MailboxUrl,
    pub http: reqwest::Client,
    pub patience: Duration,
    pub endpoints: Endpoints,
    pub clock: fn() -> SystemTime,
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
    pub fn error(&self, kind: MailboxErrorKind, detail: &str) -> MailboxError {
        MailboxError::of_mailbox(kind, &self.url, detail)
    }

    /// The answer's text. `of`: who is asked, for messages.
    pub async fn text(&self, of: &str, request: RequestBuilder) -> Result<Secret, MailboxError> {
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

    pub async fn json<T: DeserializeOwned>(&self, of: &str, request: RequestBuilder) -> Result<T, MailboxError> {
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
