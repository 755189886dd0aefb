//! What is left of processors that are gone.

use std::collections::BTreeSet;

use crds::names::PROCESSOR_LABEL;
use crds::{Batch, DataShareProcessor};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};

use super::Context;
use crate::metrics::ProcessorKey;

/// Deletes the Batches of processors that are gone. They have no owner reference, so that thousands of them don't weigh on
/// tools that follow those; the ledger still holds what matters.
///
/// # Errors
/// Those of the API server.
pub async fn sweep(context: &Context, namespace: Option<&str>) -> kube::Result<()> {
    let client = context.client.clone();
    let processors: Api<DataShareProcessor> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    // Batches before processors: one whose processor came meanwhile isn't mistaken for a left-over.
    let named = context.batches.processors(namespace).await;
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
        // By the spec, and by the label those whose spec is another version's.
        for of_processor in [
            ListParams::default().fields(&format!("spec.processor={}", key.1)),
            ListParams::default().labels(&format!("{PROCESSOR_LABEL}={}", key.1)),
        ] {
            Api::<Batch>::namespaced(client.clone(), &key.0)
                .delete_collection(&DeleteParams::background(), &of_processor)
                .await?;
        }
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
