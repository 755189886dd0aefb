//! What others say of a ring's keys: the processors that refer to it, and annotations that people write. Pure.

use std::collections::BTreeSet;

use crds::DataShareProcessor;
use crds::key_ring::PublicationMethod;
use crds::names::{CERTIFICATE_ISSUED_ANNOTATION, PUBLISHED_ANNOTATION, ROTATE_ANNOTATION};
use crds::processor::KeysStatus;
use jiff::Timestamp;
use kube::ResourceExt;

use super::decide::{Observed, ProcessorView};
use super::version::{PublicKeys, Record};

/// Whether a processor refers to the ring.
#[must_use]
pub fn refers_to(processor: &DataShareProcessor, ring: &str) -> bool {
    let keys = &processor.spec.keys;
    let mut references = std::iter::once(&keys.batch_signing).chain(&keys.packet_decryption);
    references.any(|reference| reference.key_ring_ref.as_ref().is_some_and(|named| named.name == ring))
}

/// What a processor's status says of the ring's keys. Times that can't be read are taken as not said. `publishes`: it has a
/// manifest of its own.
#[must_use]
pub fn processor_view(name: &str, ring: &str, publishes: bool, status: Option<&KeysStatus>) -> ProcessorView {
    let mut view = ProcessorView {
        name: name.to_owned(),
        published: publishes.then(BTreeSet::new),
        ..ProcessorView::default()
    };
    let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
    for key in status
        .iter()
        .flat_map(|status| &status.versions)
        .filter(|key| key.key_ring == ring)
    {
        let id = &key.id;
        if let (Some(published), Some(_)) = (&mut view.published, time(&key.published)) {
            published.insert(id.clone());
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
    let published = match ring.spec.publication.method {
        PublicationMethod::ConfigMap => written,
        // A person names keys, and what the manifest holds of them can't be seen from here.
        PublicationMethod::Manual => ids(PUBLISHED_ANNOTATION).map(|ids| {
            let text = |id: String| {
                let known = record.version(&id).map(|version| version.public_text().to_owned());
                (id, known.unwrap_or_default())
            };
            ids.into_iter().map(text).collect()
        }),
    };
    Observed {
        processors: referring
            .map(|processor| {
                let status = processor.status.as_ref().and_then(|status| status.keys.as_ref());
                processor_view(&processor.name_any(), &name, processor.spec.manifest.is_some(), status)
            })
            .collect(),
        published,
        certified: ids(CERTIFICATE_ISSUED_ANNOTATION).unwrap_or_default(),
        rotate: annotation(ROTATE_ANNOTATION).map(str::to_owned),
    }
}
