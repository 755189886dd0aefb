//! What is left of processors that are gone, and what is said of those that don't decode.

use std::collections::BTreeSet;

use crds::conditions::{READY, STALLED, reasons};
use crds::names::PROCESSOR_LABEL;
use crds::{Batch, DataShareProcessor};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use kube::core::error_boundary::InvalidObject;
use kube::{Api, ResourceExt};

use super::Context;
use super::memory::Memory;
use crate::metrics::{KindLabels, ProcessorKey};
use crate::status::{FIELD_MANAGER, Verdict, set_condition};

/// Deletes the Batches of processors that are gone. They have no owner reference, so that thousands of them don't weigh on
/// tools that follow those; the ledger still holds what matters.
///
/// # Errors
/// Those of the API server.
pub async fn sweep(context: &Context, namespace: Option<&str>) -> kube::Result<()> {
    let client = context.client.clone();
    let (batches, processors): (Api<Batch>, Api<DataShareProcessor>) = match namespace {
        Some(namespace) => (
            Api::namespaced(client.clone(), namespace),
            Api::namespaced(client.clone(), namespace),
        ),
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    // Batches before processors: one whose processor came meanwhile isn't mistaken for a left-over.
    let labelled = batches
        .list_metadata(&ListParams::default().labels(PROCESSOR_LABEL))
        .await?;
    let named: BTreeSet<ProcessorKey> = labelled
        .items
        .iter()
        .filter_map(|batch| Some((batch.namespace()?, batch.labels().get(PROCESSOR_LABEL)?.clone())))
        .collect();
    let existing = processors.list_metadata(&ListParams::default()).await?;
    let existing: BTreeSet<ProcessorKey> = existing
        .items
        .iter()
        .map(|processor| (processor.namespace().unwrap_or_default(), processor.name_any()))
        .collect();
    for key in named.difference(&existing) {
        tracing::info!(
            namespace = key.0,
            processor = key.1,
            "deleting the Batches of a processor that is gone"
        );
        let of_processor = ListParams::default().labels(&format!("{PROCESSOR_LABEL}={}", key.1));
        Api::<Batch>::namespaced(client.clone(), &key.0)
            .delete_collection(&DeleteParams::background(), &of_processor)
            .await?;
    }
    let here = |key: &ProcessorKey| namespace.is_none_or(|namespace| key.0 == namespace);
    for key in context
        .memories
        .keys()
        .iter()
        .filter(|key| here(key) && !existing.contains(*key))
    {
        context.forget(key);
    }
    Ok(())
}

/// Says once in the status of a processor that it doesn't decode: its schema is another version's.
pub(super) async fn tell_undecodable(
    context: &Context,
    key: &ProcessorKey,
    invalid: &InvalidObject,
    memory: &mut Memory,
) {
    let generation = invalid.metadata.generation;
    if memory.undecodable == Some(generation) {
        return;
    }
    context
        .metrics
        .undecodable
        .get_or_create(&KindLabels {
            kind: "DataShareProcessor",
        })
        .inc();
    tracing::warn!(
        namespace = key.0,
        processor = key.1,
        error = invalid.error,
        "a DataShareProcessor doesn't decode; the others go on"
    );
    let message = format!(
        "This version of the operator can't read the object: {}. Correct it, or use the version that wrote it.",
        invalid.error
    );
    let now = (context.clock)();
    let mut conditions = Vec::new();
    set_condition(
        &mut conditions,
        &Verdict::new(READY, Some(false), reasons::INVALID_SPEC, &message),
        generation,
        now,
    );
    set_condition(
        &mut conditions,
        &Verdict::new(STALLED, Some(true), reasons::INVALID_SPEC, &message),
        generation,
        now,
    );
    let resource = ApiResource::erase::<DataShareProcessor>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &key.0, &resource);
    let patch = serde_json::json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "status": {"conditions": conditions, "observedGeneration": generation},
    });
    // A manager of its own, so that ledgerId and the rest, which the other one owns, stay.
    let manager = format!("{FIELD_MANAGER}-undecodable");
    match api
        .patch_status(&key.1, &PatchParams::apply(&manager).force(), &Patch::Apply(&patch))
        .await
    {
        Ok(_) => memory.undecodable = Some(generation),
        Err(error) => {
            tracing::warn!(namespace = key.0, processor = key.1, %error, "its status can't be written either")
        }
    }
}
