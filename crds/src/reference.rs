//! The readable reference of the API, `docs/api.md`.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

/// Fields that hold one of Kubernetes' own types, which its reference describes.
const EMBEDDED: [(&str, &str); 4] = [
    (
        "affinity",
        "[Affinity](https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#scheduling)",
    ),
    (
        "tolerations",
        "list of [Toleration](https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#scheduling)",
    ),
    (
        "resources",
        "[ResourceRequirements](https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#resources)",
    ),
    ("conditions", "list of Condition, one of each type"),
];

/// The reference as Markdown: every field with its type, bounds, default and meaning, and every rule.
pub fn markdown(definitions: &[CustomResourceDefinition]) -> String {
    let mut text = String::from(
        "<!-- Generated from crds/src by `cargo run -p crds --bin generate`; don't edit. -->\n\
         # API reference\n\n\
         Group `prio-operator.io`, version `v1alpha1`. A field in **bold** is required. Conditions and their reasons: \
         [operations.md](operations.md). `…[]` is each item of a list.\n",
    );
    for definition in definitions {
        kind(&mut text, definition);
    }
    text
}

fn kind(text: &mut String, definition: &CustomResourceDefinition) {
    let names = &definition.spec.names;
    let Some(version) = definition.spec.versions.first() else {
        return;
    };
    let Some(schema) = version
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.as_ref())
    else {
        return;
    };
    let short = names.short_names.as_deref().unwrap_or_default().join(", ");
    let _ = write!(text, "\n## {}\n\n", names.kind);
    let _ = writeln!(text, "{}\n", schema.description.as_deref().unwrap_or_default());
    let _ = write!(text, "`kubectl get {}`", names.plural);
    if !short.is_empty() {
        let _ = write!(text, " (short: `{short}`)");
    }
    let columns: Vec<&str> = version
        .additional_printer_columns
        .iter()
        .flatten()
        .map(|column| column.name.as_str())
        .collect();
    let _ = writeln!(text, " shows: {}. Some only with `-o wide`.", columns.join(", "));
    for part in ["spec", "status"] {
        let Some(schema) = schema.properties.as_ref().and_then(|properties| properties.get(part)) else {
            continue;
        };
        let _ = write!(
            text,
            "\n### {}: {part}\n\n| Field | Type | Bounds | Default | Meaning |\n|---|---|---|---|---|\n",
            names.kind
        );
        fields(text, "", schema);
    }
    let mut rules = Vec::new();
    collect_rules("", schema, &mut rules);
    if !rules.is_empty() {
        let _ = write!(
            text,
            "\n### {}: rules\n\nThe API server refuses what breaks one, with this message:\n\n",
            names.kind
        );
        for (path, message) in rules {
            let place = if path.is_empty() {
                "the whole object".to_owned()
            } else {
                format!("`{path}`")
            };
            let _ = writeln!(text, "- {place}: {message}");
        }
    }
}

fn fields(text: &mut String, path: &str, schema: &JSONSchemaProps) {
    let required = schema.required.as_deref().unwrap_or_default();
    let mut properties: Vec<_> = schema.properties.iter().flatten().collect();
    properties.sort_by_key(|(name, _)| (!required.contains(name), name.as_str()));
    for (name, property) in properties {
        let place = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let shown = if required.contains(name) {
            format!("**`{place}`**")
        } else {
            format!("`{place}`")
        };
        let embedded = EMBEDDED.iter().find(|(field, _)| field == name);
        let of_items = match &property.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
            _ => None,
        };
        let kind = embedded.map_or_else(|| type_of(property), |(_, kind)| (*kind).to_owned());
        let mut bounds = bounds_of(property);
        if let (Some(items), None) = (of_items, embedded) {
            let each = bounds_of(items);
            if !each.is_empty() {
                bounds = format!("{bounds}; each: {each}");
            }
        }
        let default = match &property.default {
            Some(default) if !matches!(default.0, Value::Object(_)) => format!("`{}`", default.0),
            _ => String::new(),
        };
        let meaning = cell(property.description.as_deref().unwrap_or_default());
        let _ = writeln!(text, "| {shown} | {kind} | {} | {default} | {meaning} |", cell(&bounds));
        if embedded.is_none() {
            fields(text, &place, property);
            if let Some(items) = of_items {
                fields(text, &format!("{place}[]"), items);
            }
        }
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    let kind = schema.type_.as_deref().unwrap_or("any");
    match (&schema.items, &schema.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!("list of {}", type_of(items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => format!("map of {}", type_of(values)),
        _ if schema.format.as_deref() == Some("date-time") => "time (RFC 3339)".to_owned(),
        _ => kind.to_owned(),
    }
}

fn bounds_of(schema: &JSONSchemaProps) -> String {
    let mut bounds = Vec::new();
    if let Some(values) = &schema.enum_ {
        let values: Vec<String> = values
            .iter()
            .filter_map(|value| value.0.as_str())
            .map(|value| format!("`{value}`"))
            .collect();
        bounds.push(values.join(" or "));
    }
    match (schema.minimum, schema.maximum) {
        (Some(least), Some(most)) => bounds.push(format!("{least} to {most}")),
        (Some(least), None) => bounds.push(format!("at least {least}")),
        _ => {}
    }
    let range = |least: Option<i64>, most: Option<i64>, unit: &str| match (least, most) {
        (Some(least), Some(most)) if least == most => Some(format!("{least} {unit}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most} {unit}")),
        (None, Some(most)) => Some(format!("at most {most} {unit}")),
        _ => None,
    };
    bounds.extend(range(schema.min_length, schema.max_length, "characters"));
    bounds.extend(range(schema.min_items, schema.max_items, "items"));
    bounds.extend(schema.max_properties.map(|most| format!("at most {most} entries")));
    if let Some(pattern) = &schema.pattern {
        bounds.push(format!("`{pattern}`"));
    }
    if let Some(keys) = &schema.x_kubernetes_list_map_keys {
        bounds.push(format!("unique by {}", keys.join(" and ")));
    }
    if schema.x_kubernetes_list_type.as_deref() == Some("set") {
        bounds.push("each once".to_owned());
    }
    bounds.join(", ")
}

fn collect_rules(path: &str, schema: &JSONSchemaProps, rules: &mut Vec<(String, String)>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        rules.push((
            path.to_owned(),
            rule.message.clone().unwrap_or_else(|| format!("`{}`", rule.rule)),
        ));
    }
    for (name, property) in schema.properties.iter().flatten() {
        let place = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect_rules(&place, property, rules);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        collect_rules(&format!("{path}[]"), items, rules);
    }
}

/// One line, with the column sign escaped.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
