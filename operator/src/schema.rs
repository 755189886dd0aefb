//! Compares the served schema of each kind with the one that this operator was built with.
//!
//! A CustomResourceDefinition that was left behind by an upgrade drops fields without a word, or has whole statuses refused.

use crds::definitions::definitions;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::metrics::{KindLabels, Metrics};

/// The kinds, as metrics name them.
const KINDS: [&str; 5] = ["DataShareProcessor", "Batch", "AggregationWindow", "Peer", "KeyRing"];

/// A kind as metrics name it.
#[must_use]
pub fn kind(name: &str) -> &'static str {
    KINDS.into_iter().find(|kind| *kind == name).unwrap_or("other")
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Same,
    /// Another, first seen at this path.
    Differs(String),
}

/// Compares the schemas of our version.
#[must_use]
pub fn compare(served: &CustomResourceDefinition, own: &CustomResourceDefinition) -> Comparison {
    let schema = |definition: &CustomResourceDefinition| {
        let version = definition
            .spec
            .versions
            .iter()
            .find(|version| version.name == crds::VERSION)?;
        serde_json::to_value(version.schema.as_ref()?.open_api_v3_schema.as_ref()?).ok()
    };
    match (schema(served), schema(own)) {
        (Some(served), Some(own)) => {
            difference(&served, &own, String::new()).map_or(Comparison::Same, Comparison::Differs)
        }
        _ => Comparison::Differs(format!("version {} isn't served", crds::VERSION)),
    }
}

/// The first path at which two values differ. Descriptions are for people and don't count.
fn difference(served: &Value, own: &Value, path: String) -> Option<String> {
    match (served, own) {
        (Value::Object(served), Value::Object(own)) => {
            let keys = served
                .keys()
                .chain(own.keys())
                .filter(|key| *key != "description" || path.ends_with("/properties"));
            let mut keys: Vec<_> = keys.collect();
            keys.sort_unstable();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                let path = format!("{path}/{key}");
                difference(
                    served.get(key).unwrap_or(&Value::Null),
                    own.get(key).unwrap_or(&Value::Null),
                    path,
                )
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .find_map(|(index, (one, other))| difference(one, other, format!("{path}/{index}"))),
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => None,
        (one, other) => (one != other).then_some(path),
    }
}

/// Compares all kinds and tells by log and metric. Without the right to read definitions it says so in one line.
pub async fn check(client: &Client, metrics: &Metrics) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for own in definitions() {
        let Some(kind) = KINDS.into_iter().find(|kind| *kind == own.spec.names.kind) else {
            continue;
        };
        let served = match api.get(&own.name_any()).await {
            Ok(served) => served,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::info!(
                    "may not read CustomResourceDefinitions: the served schemas aren't compared with this version's"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(kind, %error, "the served schema can't be read");
                continue;
            }
        };
        let comparison = compare(&served, &own);
        metrics
            .schema_differs
            .get_or_create(&KindLabels { kind })
            .set(i64::from(comparison != Comparison::Same));
        if let Comparison::Differs(path) = comparison {
            tracing::warn!(
                kind,
                path,
                "the served schema isn't this version's: upgrade the chart prio-operator-cluster"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_is_compared() {
        let mut kinds: Vec<_> = definitions().into_iter().map(|own| own.spec.names.kind).collect();
        kinds.sort();
        let mut known = KINDS;
        known.sort_unstable();
        assert_eq!(kinds, known);
    }

    #[test]
    fn a_dropped_field_is_found_and_another_wording_is_none() {
        let own = definitions()
            .into_iter()
            .find(|own| own.spec.names.kind == "DataShareProcessor")
            .unwrap();
        assert_eq!(compare(&own.clone(), &own), Comparison::Same);
        let changed = |pointer: &str, value: Option<Value>| {
            let mut json = serde_json::to_value(&own).unwrap();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            match value {
                Some(value) => parent.insert(key.to_owned(), value),
                None => parent.remove(key),
            };
            compare(&serde_json::from_value(json).unwrap(), &own)
        };
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        assert_eq!(
            changed(&format!("{spec}/description"), Some("other words".into())),
            Comparison::Same
        );
        let dropped = changed(&format!("{spec}/properties/suspend"), None);
        assert_eq!(
            dropped,
            Comparison::Differs("/properties/spec/properties/suspend".to_owned())
        );
    }
}
