//! What is said of an object that doesn't decode: its schema is another version's.

use crds::conditions::{READY, STALLED, reasons};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::core::{ApiResource, NamespaceResourceScope};
use kube::{Api, Resource};

use crate::metrics::{KindLabels, Metrics};
use crate::processor::Context;
use crate::status::{FIELD_MANAGER, Verdict, set_condition};

/// Counts it, and says it in the log.
pub(crate) fn count(metrics: &Metrics, kind: &'static str, invalid: &InvalidObject) {
    metrics.undecodable.get_or_create(&KindLabels { kind }).inc();
    tracing::warn!(
        kind,
        namespace = invalid.metadata.namespace,
        name = invalid.metadata.name,
        error = invalid.error,
        "an object doesn't decode; the others go on"
    );
}

/// Says it once in the object's own status. `told` holds the generation of which that was done.
pub(crate) async fn tell<K>(
    context: &Context,
    key: &(String, String),
    invalid: &InvalidObject,
    told: &mut Option<Option<i64>>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let generation = invalid.metadata.generation;
    if *told == Some(generation) {
        return;
    }
    let resource = ApiResource::erase::<K>(&());
    let kind = crate::schema::kind(&resource.kind);
    count(&context.metrics, kind, invalid);
    let message = format!(
        "This version of the operator can't read the object: {}. Correct it, or use the version that wrote it.",
        invalid.error
    );
    let now = (context.clock)();
    let mut conditions = Vec::new();
    for (condition, is_so) in [(READY, false), (STALLED, true)] {
        let verdict = Verdict::new(condition, Some(is_so), reasons::INVALID_SPEC, &message);
        set_condition(&mut conditions, &verdict, generation, now);
    }
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &key.0, &resource);
    let patch = serde_json::json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "status": {"conditions": conditions, "observedGeneration": generation},
    });
    // A manager of its own, so that what else the status holds, which the other one owns, stays.
    let manager = format!("{FIELD_MANAGER}-undecodable");
    let parameters = PatchParams::apply(&manager).force();
    match api.patch_status(&key.1, &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => *told = Some(generation),
        Err(error) => {
            tracing::warn!(kind, namespace = key.0, name = key.1, %error, "its status can't be written either");
        }
    }
}
