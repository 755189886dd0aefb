//! Whether the admission policy stands that keeps this process from any Secret but its KeyRings': tried by a server-side dry
//! run that it must refuse.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::processor::guard::{Answer, Probe, judge};
use crate::status::Verdict;

/// Name of the Secret that is only tried: no KeyRing's.
const PROBE: &str = "prio-operator-guard-probe";
/// The policy is tried so often while it stands.
const EVERY: SignedDuration = SignedDuration::from_mins(10);
/// And so often while it doesn't.
const RETRY: SignedDuration = SignedDuration::from_mins(1);

/// What was found out, by namespace.
#[derive(Debug, Default)]
pub struct Guard(Mutex<BTreeMap<String, (Timestamp, Verdict)>>);

impl Guard {
    /// Whether the policy stands; `None`: it can't be told.
    pub async fn verdict(&self, client: &Client, namespace: &str, policy: &str, now: Timestamp) -> Option<Verdict> {
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .cloned();
        if let Some((tried, verdict)) = known {
            let every = if verdict.status == Some(true) { EVERY } else { RETRY };
            if now.duration_since(tried) < every {
                return Some(verdict);
            }
        }
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(PROBE.to_owned()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        let tried = Api::<Secret>::namespaced(client.clone(), namespace)
            .create(&dry_run, &secret)
            .await;
        let answer = match Answer::of(tried) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "the admission policy could not be tried");
                return None;
            }
        };
        let verdict = judge(&[Probe {
            policy: policy.to_owned(),
            tried: "a Secret that is no KeyRing's",
            answer,
        }]);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(namespace.to_owned(), (now, verdict.clone()));
        Some(verdict)
    }
}
