//! What the pods of this harness have in common: they are as restricted as the namespaces ask for.

use serde_json::{Value, json};

use crate::images::Image;

pub(crate) fn pod_security() -> Value {
    json!({"runAsNonRoot": true, "runAsUser": 65_532, "runAsGroup": 65_532, "fsGroup": 65_532,
           "seccompProfile": {"type": "RuntimeDefault"}})
}

pub(crate) fn container_security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}

/// As a container names it.
pub(crate) fn reference(image: &Image) -> String {
    format!("{}:{}", image.repository, image.tag)
}
