//! Whether the admission policy stands that keeps this process from any Secret but its KeyRings': tried by a server-side dry
//! run that it must refuse.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::processor::guard::{Answer, Probe, dry_run, is_due, judge, probe_metadata};
use crate::status::Verdict;

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
        if !is_due(known.as_ref(), now) {
            return known.map(|(_, verdict)| verdict);
        }
        let secret = Secret {
            metadata: probe_metadata(),
            ..Secret::default()
        };
        let tried = Api::<Secret>::namespaced(client.clone(), namespace)
            .create(&dry_run(), &secret)
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
