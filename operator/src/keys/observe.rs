//! What others say of a ring's keys: the processors that refer to it, and annotations that people write. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::DataShareProcessor;
use crds::conditions::{KEYS_LOADED, MANIFEST_PUBLISHED, WORKERS_READY, reasons};
use crds::key_ring::{MAX_ANSWER, PublicationMethod};
use crds::names::{CERTIFICATE_ISSUED_ANNOTATION, PUBLISHED_ANNOTATION, ROTATE_ANNOTATION};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::decide::{Observed, ProcessorView};
use super::version::{PublicKeys, Record};

/// Whether a processor refers to the ring.
#[must_use]
pub fn refers_to(processor: &DataShareProcessor, ring: &str) -> bool {
    let keys = &processor.spec.keys;
    let mut references = std::iter::once(&keys.batch_signing).chain(&keys.packet_decryption);
    references.any(|reference| reference.key_ring_ref.as_ref().is_some_and(|named| named.name == ring))
}

/// A processor that doesn't decode.
#[derive(Debug)]
pub struct Undecodable {
    /// Its name.
    pub name: String,
    /// Why.
    pub detail: String,
}

/// The processors of a namespace, once all decode: one that doesn't may refer to any ring.
///
/// # Errors
/// The first that doesn't.
pub fn decoded(listed: Vec<DeserializeGuard<DataShareProcessor>>) -> Result<Vec<DataShareProcessor>, Undecodable> {
    let decoded = |DeserializeGuard(processor): DeserializeGuard<DataShareProcessor>| {
        processor.map_err(|invalid| Undecodable {
            name: invalid.metadata.name.unwrap_or_default(),
            detail: invalid.error,
        })
    };
    listed.into_iter().map(decoded).collect()
}

/// The value of an annotation, as far as it is remembered with its answer.
#[must_use]
pub fn bounded(value: &str) -> String {
    value.chars().take(MAX_ANSWER).collect()
}

/// What a processor's status says of the ring's keys. Times that can't be read are taken as not said.
#[must_use]
pub fn processor_view(ring: &str, processor: &DataShareProcessor) -> ProcessorView {
    let manifest = processor.spec.manifest.as_ref();
    let status = processor.status.as_ref();
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    let is_false = |kind: &str| conditions.iter().find(|one| one.type_ == kind && one.status == "False");
    let inline = manifest.and_then(|manifest| manifest.packet_encryption_key.as_ref());
    let mut view = ProcessorView {
        name: processor.name_any(),
        trouble: [KEYS_LOADED, WORKERS_READY]
            .into_iter()
            .filter_map(is_false)
            .find_map(|condition| trouble(processor, condition)),
        published: manifest.map(|_| BTreeMap::new()),
        unserved: is_false(MANIFEST_PUBLISHED).is_some(),
        inline: inline.map(|key| key.id.clone()),
        ..ProcessorView::default()
    };
    let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
    for key in status
        .and_then(|status| status.keys.as_ref())
        .iter()
        .flat_map(|status| &status.versions)
        .filter(|key| key.key_ring == ring)
    {
        let id = &key.id;
        view.known.insert(id.clone());
        if let (Some(published), Some(since)) = (&mut view.published, time(&key.published)) {
            published.insert(id.clone(), since);
        }
        view.loaded.extend(time(&key.loaded).map(|time| (id.clone(), time)));
        view.last_used
            .extend(time(&key.last_used).map(|time| (id.clone(), time)));
        view.observed_until
            .extend(time(&key.observed_until).map(|time| (id.clone(), time)));
        view.needed_by
            .extend(key.needed_by.clone().map(|window| (id.clone(), window)));
    }
    view
}

/// Why nothing new is to be told to partners. That a ring's first key isn't used yet, or another key is on its way, is none.
fn trouble(processor: &DataShareProcessor, condition: &Condition) -> Option<String> {
    let is_usual = [reasons::NO_KEY_YET, reasons::PROBING].contains(&condition.reason.as_str());
    (!is_usual).then(|| {
        format!(
            "{} of {} to be True ({})",
            condition.type_,
            processor.name_any(),
            condition.reason
        )
    })
}

/// All that is observed of a ring, of what was read.
#[must_use]
pub fn observed(
    ring: &crds::KeyRing,
    record: &Record,
    processors: &[DataShareProcessor],
    written: Option<PublicKeys>,
) -> Observed {
    let name = ring.name_any();
    let annotation = |key: &str| ring.annotations().get(key).map(String::as_str);
    let ids = |key: &str| -> Option<BTreeSet<String>> {
        let ids = annotation(key)?.split(',').map(|id| id.trim().to_owned());
        Some(ids.filter(|id| !id.is_empty()).collect())
    };
    let referring = processors.iter().filter(|processor| refers_to(processor, &name));
    let mut observed = Observed {
        processors: referring.map(|processor| processor_view(&name, processor)).collect(),
        published: None,
        written,
        certified: ids(CERTIFICATE_ISSUED_ANNOTATION).unwrap_or_default(),
        rotate: annotation(ROTATE_ANNOTATION).map(bounded),
    };
    let is_seen = ring.spec.publication.method == PublicationMethod::ConfigMap && observed.is_in_manifests();
    observed.published = if is_seen {
        observed.written.clone()
    } else {
        // A person names keys, and what the manifest holds of them can't be seen from here.
        ids(PUBLISHED_ANNOTATION).map(|ids| {
            let text = |id: String| {
                let known = record.version(&id).map(|version| version.public_text().to_owned());
                (id, known.unwrap_or_default())
            };
            ids.into_iter().map(text).collect()
        })
    };
    observed
}
