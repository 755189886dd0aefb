//! What KeyRings publish, for our own manifest: in its own form, as their controller wrote it.

use std::collections::BTreeMap;

use crds::DataShareProcessor;
use crds::key_ring::{KeyPurpose, VersionState};
use facilitator_core::formats::manifest::{BatchSigningPublicKey, PacketEncryptionKey};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde::de::DeserializeOwned;

use crate::keys::objects::public_field;
use crate::keys::version::public_name;

/// The public halves of the keys of the KeyRings that a processor refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::processor) struct PublicParts {
    /// Keys that sign our batches.
    pub(in crate::processor) signing: BTreeMap<String, BatchSigningPublicKey>,
    /// Keys that packets are encrypted to: one of each KeyRing.
    pub(in crate::processor) packets: BTreeMap<String, PacketEncryptionKey>,
}

impl PublicParts {
    /// Reads what its KeyRings published. A KeyRing that has published nothing yet adds nothing. Inside, what is wrong.
    pub(in crate::processor) async fn read(
        config_maps: &Api<ConfigMap>,
        processor: &DataShareProcessor,
    ) -> kube::Result<Result<Self, String>> {
        let keys = &processor.spec.keys;
        let mut parts = Self::default();
        for reference in keys.batch_signing.key_ring_ref.iter() {
            match published(config_maps, &reference.name, KeyPurpose::BatchSigning).await? {
                Ok(found) => parts.signing.extend(found),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        for reference in keys
            .packet_decryption
            .iter()
            .filter_map(|key| key.key_ring_ref.as_ref())
        {
            match published(config_maps, &reference.name, KeyPurpose::PacketEncryption).await? {
                Ok(found) => parts.packets.extend(found),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        Ok(parts.check(processor).map(|()| parts))
    }

    /// A key that signs must not vanish from the manifest, whoever deleted what.
    fn check(&self, processor: &DataShareProcessor) -> Result<(), String> {
        let status = processor.status.as_ref().and_then(|status| status.keys.as_ref());
        let signs = processor.spec.keys.batch_signing.key_ring_ref.as_ref();
        let (Some(status), Some(ring)) = (status, signs) else {
            return Ok(());
        };
        let lost = status.versions.iter().find(|key| {
            key.key_ring == ring.name
                && key.state == VersionState::InUse
                && key.published.is_some()
                && !self.signing.contains_key(&key.id)
        });
        match lost {
            None => Ok(()),
            Some(key) => Err(format!(
                "{} signs, and ConfigMap {} doesn't hold it: what was published before stays until the keys controller has \
                 written it again",
                key.id,
                public_name(&ring.name)
            )),
        }
    }
}

async fn published<T: DeserializeOwned>(
    config_maps: &Api<ConfigMap>,
    ring: &str,
    purpose: KeyPurpose,
) -> kube::Result<Result<BTreeMap<String, T>, String>> {
    let name = public_name(ring);
    let data = config_maps.get_opt(&name).await?.and_then(|found| found.data);
    let Some(text) = data.and_then(|mut data| data.remove(public_field(purpose))) else {
        return Ok(Ok(BTreeMap::new()));
    };
    let parsed = serde_json::from_str(&text);
    Ok(parsed.map_err(|error| format!("ConfigMap {name} isn't what the keys controller writes: {error}")))
}
