//! The CustomResourceDefinitions, and the files that are generated from them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{AggregationWindow, Batch, DataShareProcessor, KeyRing, Peer, reference};

/// First line of every generated file.
const GENERATED: &str = "# Generated from crds/src by `cargo run -p crds --bin generate`; don't edit.\n";

/// The definitions of all kinds, as the API server is given them.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        DataShareProcessor::crd(),
        Batch::crd(),
        AggregationWindow::crd(),
        KeyRing::crd(),
        Peer::crd(),
    ];
    for definition in &mut definitions {
        for version in &mut definition.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
                drop_unknown_formats(schema);
            }
        }
    }
    definitions
}

/// The API server warns of formats that it doesn't know; schemars writes Rust's unsigned ones.
fn drop_unknown_formats(schema: &mut JSONSchemaProps) {
    if schema
        .format
        .as_deref()
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.format = None;
    }
    schema
        .properties
        .iter_mut()
        .flatten()
        .for_each(|(_, property)| drop_unknown_formats(property));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        drop_unknown_formats(items);
    }
}

/// A generated file: where it is, from the repository's root, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Path from the repository's root.
    pub path: String,
    /// The whole content.
    pub content: String,
}

/// All generated files.
///
/// # Errors
/// Where a definition can't be written as YAML: a fault of ours.
pub fn generated_files() -> Result<Vec<GeneratedFile>, serde_saphyr::ser::Error> {
    let definitions = definitions();
    let mut files = Vec::new();
    let mut raw = GENERATED.to_owned();
    for definition in &definitions {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let spec = serde_saphyr::to_string(&json!({ "spec": definition.spec }))?;
        let head = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {name}\n  \
             labels:\n    app.kubernetes.io/part-of: prio-operator\n"
        );
        let keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n";
        files.push(GeneratedFile {
            path: format!("charts/prio-operator-cluster/templates/crds/{name}.yaml"),
            content: format!("{GENERATED}{{{{- if .Values.crds.enabled }}}}\n{head}{keep}{spec}{{{{- end }}}}\n"),
        });
        raw.push_str(&format!("---\n{head}{spec}"));
    }
    files.push(GeneratedFile {
        path: "examples/crds.yaml".to_owned(),
        content: raw,
    });
    files.push(GeneratedFile {
        path: "docs/api.md".to_owned(),
        content: reference::markdown(&definitions),
    });
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    #[test]
    fn generated_files_are_fresh() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in generated_files().unwrap() {
            let found = std::fs::read_to_string(root.join(&file.path)).unwrap_or_default();
            assert!(
                found == file.content,
                "{} is stale: cargo run -p crds --bin generate",
                file.path
            );
        }
    }

    #[test]
    fn a_schema_survives_helm_templating() {
        for file in generated_files()
            .unwrap()
            .iter()
            .filter(|file| file.path.starts_with("charts/"))
        {
            assert_eq!(file.content.matches("{{").count(), 4, "{}", file.path);
        }
    }

    /// What the API server would only refuse at install, or take and never protect.
    #[test]
    fn every_list_string_number_and_map_has_a_bound() {
        let mut missing = Vec::new();
        for definition in definitions() {
            let schema = definition.spec.versions[0]
                .schema
                .clone()
                .unwrap()
                .open_api_v3_schema
                .unwrap();
            unbounded(&definition.spec.names.kind, &schema, &mut missing);
        }
        assert!(missing.is_empty(), "no bound: {missing:#?}");
    }

    fn unbounded(path: &str, schema: &JSONSchemaProps, missing: &mut Vec<String>) {
        let bounded = match schema.type_.as_deref() {
            Some("string") => schema.max_length.is_some() || schema.enum_.is_some(),
            Some("array") => schema.max_items.is_some(),
            // Kubernetes' own integers, as a toleration's seconds, have no bound there either.
            Some("integer") => schema.minimum.is_some() || path.contains(".affinity.") || path.contains(".tolerations"),
            Some("object") if schema.additional_properties.is_some() => schema.max_properties.is_some(),
            _ => true,
        };
        if !bounded {
            missing.push(path.to_owned());
        }
        if !path.contains(".affinity.")
            && !path.ends_with(".metadata")
            && schema.description.is_none()
            && !path.ends_with("[]")
            && !path.contains(".tolerations[]")
            && !path.contains(".resources.")
        {
            missing.push(format!("{path}: description"));
        }
        for (name, property) in schema.properties.iter().flatten() {
            unbounded(&format!("{path}.{name}"), property, missing);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            unbounded(&format!("{path}[]"), items, missing);
        }
    }
}
