//! Parts of schemas that derives can't say: bounds of embedded Kubernetes types, condition lists, default statuses.

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The most conditions that a status holds.
const MAX_CONDITIONS: u32 = 16;
/// The longest string inside an embedded Kubernetes type; longer ones have no meaning there.
const MAX_EMBEDDED_STRING: u32 = 1024;
/// The longest list inside an embedded Kubernetes type.
const MAX_EMBEDDED_ITEMS: u32 = 64;
/// The largest embedded map.
const MAX_EMBEDDED_PROPERTIES: u32 = 64;

/// A list of conditions, one of each type. Bounds are those of `metav1.Condition`'s own validation.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One thing that is so, isn't so, or isn't known.",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "What it speaks of; see docs/operations.md.",
                    "minLength": 1,
                    "maxLength": 63,
                    "pattern": "^[A-Za-z][A-Za-z0-9]*$",
                },
                "status": {
                    "type": "string",
                    "description": "`True`, `False` or `Unknown`.",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The generation of the object that it speaks of.",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "Since when `status` is what it is.",
                    "maxLength": 40,
                },
                "reason": {
                    "type": "string",
                    "description": "Why, one word of a closed set; see docs/operations.md.",
                    "minLength": 1,
                    "maxLength": 63,
                    "pattern": "^[A-Za-z][A-Za-z0-9]*$",
                },
                "message": {
                    "type": "string",
                    "description": "Why, for people, and what to do.",
                    "maxLength": 4096,
                },
            },
        },
    })
}

/// The status of an object that nobody has looked at: `Ready=Unknown`, so that tools wait for it.
pub fn pending_status() -> Value {
    json!({
        "conditions": [{
            "type": crate::conditions::READY,
            "status": "Unknown",
            "reason": crate::conditions::reasons::PENDING,
            "message": "the operator has not looked at it yet",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]
    })
}

/// A pod's tolerations, bounded.
pub fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    embedded::<Vec<Toleration>>(generator)
}

/// A pod's affinity, bounded.
pub fn affinity(generator: &mut SchemaGenerator) -> Schema {
    embedded::<Option<Affinity>>(generator)
}

/// A container's resources, bounded.
pub fn resources(generator: &mut SchemaGenerator) -> Schema {
    embedded::<Option<ResourceRequirements>>(generator)
}

/// A pod's pull Secrets: few, because the admission policies look at each.
pub fn image_pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = embedded::<Vec<LocalObjectReference>>(generator);
    schema.insert("maxItems".into(), json!(crate::processor::MAX_PULL_SECRETS));
    if let Some(name) = schema.pointer_mut("/items/properties/name") {
        name["minLength"] = json!(1);
        name["maxLength"] = json!(253);
        name["description"] = json!("Name of a Secret in the same namespace.");
        if let Some(name) = name.as_object_mut() {
            name.remove("default");
        }
    }
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        items.insert("required".into(), json!(["name"]));
        items.insert(
            "description".into(),
            json!("A Secret that can pull the worker's image."),
        );
    }
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["name"]));
    schema
}

fn embedded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut value = generator.subschema_for::<T>().to_value();
    bound(&mut value);
    Schema::try_from(value).unwrap_or_default()
}

/// Gives every list, string and map of `schema` a bound where it has none, and takes Kubernetes' long descriptions away:
/// its own reference has them.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let kinds: Vec<String> = match object.get("type") {
                Some(Value::String(kind)) => vec![kind.clone()],
                Some(Value::Array(kinds)) => kinds
                    .iter()
                    .filter_map(|kind| kind.as_str().map(str::to_owned))
                    .collect(),
                _ => Vec::new(),
            };
            let closed = object.contains_key("enum");
            for kind in &kinds {
                let (keyword, most) = match kind.as_str() {
                    "string" if !closed => ("maxLength", MAX_EMBEDDED_STRING),
                    "array" => ("maxItems", MAX_EMBEDDED_ITEMS),
                    "object" if object.contains_key("additionalProperties") => {
                        ("maxProperties", MAX_EMBEDDED_PROPERTIES)
                    }
                    _ => continue,
                };
                object.entry(keyword).or_insert_with(|| json!(most));
            }
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            object.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}
