//! This party's own manifests: built from the spec, checked by the validator that readers use, written where a web server
//! takes them from, and read back, there and where partners fetch them.

use std::collections::{BTreeMap, BTreeSet};

use crds::DataShareProcessor;
use crds::conditions::{MANIFEST_PUBLISHED, reasons};
use crds::names::{MANAGED_BY, PROCESSOR_LABEL};
use crds::processor::{Manifest, ServedAt};
use facilitator_core::crypto::BatchVerifyingKey;
use facilitator_core::formats::manifest::{
    BatchSigningPublicKey, DataShareProcessorGlobalManifest, DataShareProcessorIdentity,
    DataShareProcessorSpecificManifest, GLOBAL_OBJECT, ManifestKind, PacketEncryptionKey, Purpose, StorageUrl,
    specific_object, validate,
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::keys::PublicParts;
use super::parameters;
use super::served::{Documents, Expected, LookedFor, SERVED_LAG, Served, missed_before, served, verdict};
use crate::peer::{self, Fetcher, Limits};
use crate::status::{FIELD_MANAGER, Verdict, refusal};

/// What partners get is looked at so often.
const SERVED_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// And so often while it isn't what was written: a web server's volume may lag a minute behind.
const SERVED_RETRY: SignedDuration = SignedDuration::from_secs(15);
/// And so often while partners get that, in a way that somebody is to mend.
const SERVED_TO_MEND: SignedDuration = SignedDuration::from_secs(45);

/// What came of publishing.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// `ManifestPublished`.
    pub verdict: Verdict,
    /// Ids of the keys that partners get; `None`: not known, what was published before stays.
    pub keys: Option<BTreeSet<String>>,
    /// The specific manifest as it was written; `None`: nothing was.
    pub specific: Option<String>,
}

/// Publishes one processor's manifests.
pub(super) struct Publisher<'a> {
    pub(super) client: &'a Client,
    pub(super) processor: &'a DataShareProcessor,
    pub(super) namespace: &'a str,
    pub(super) now: Timestamp,
}

impl Publisher<'_> {
    /// Publishes what the spec says, if that is another than before; `None`: it says nothing. What partners should get is kept
    /// in `looked_for` even where this is given up half-way.
    ///
    /// # Errors
    /// Those of the API server that say nothing of the ConfigMap.
    pub(super) async fn publish(&self, looked_for: &mut Option<LookedFor>) -> kube::Result<Option<Published>> {
        let Some(manifest) = &self.processor.spec.manifest else {
            return Ok(None);
        };
        let failed = |reason, message: String| {
            Ok(Some(Published {
                verdict: Verdict::new(MANIFEST_PUBLISHED, Some(false), reason, message),
                keys: None,
                specific: None,
            }))
        };
        let config_maps = Api::namespaced(self.client.clone(), self.namespace);
        let parts = match PublicParts::read(&config_maps, self.processor).await? {
            Ok(parts) => parts,
            Err(problem) => return failed(reasons::KEY_RING_UNUSABLE, problem),
        };
        let keys = match Keys::of(manifest, &parts) {
            Ok(keys) => keys,
            Err(Problem::Refused(problem)) => {
                return failed(reasons::MANIFEST_REFUSED, format!("spec.manifest: {problem}."));
            }
            Err(Problem::NoneYet(field)) => {
                let message = format!(
                    "No KeyRing in keys.{field} has published a key yet: see what it waits for. What was published before \
                     stays."
                );
                return failed(reasons::NO_KEY_YET, message);
            }
        };
        let ids = keys.ids();
        let documents = match documents(self.processor, manifest, keys, self.now) {
            Ok(documents) => documents,
            Err(problems) => return failed(reasons::MANIFEST_REFUSED, format!("spec.manifest: {problems}.")),
        };
        let name = &manifest.publish_to.config_map.name;
        if let Err(problem) = self.write(name, &documents).await? {
            return failed(reasons::PUBLISH_FAILED, problem);
        }
        let specific = documents.get(&specific_object(&self.processor.spec.instance)).cloned();
        let names = documents.keys().cloned().collect::<Vec<_>>().join(" and ");
        let written = format!("ConfigMap {name} holds {names}");
        let Some(served_at) = &manifest.served_at else {
            let message = format!("{written}; without spec.manifest.servedAt nobody looks whether partners get that.");
            return Ok(Some(Published {
                verdict: Verdict::new(MANIFEST_PUBLISHED, Some(true), reasons::OK, message),
                keys: Some(ids),
                specific,
            }));
        };
        let before = looked_for.take();
        let is_first = before.is_none();
        let looked_for = looked_for.insert(LookedFor::follow(before, documents, self.now));
        if is_first {
            let status = self.processor.status.as_ref();
            looked_for.missed = status.and_then(|status| missed_before(&status.conditions));
        }
        let verdict = match &looked_for.found {
            Some((at, verdict)) if self.now.duration_since(*at) < again_after(verdict) => verdict.clone(),
            _ => {
                let served = self.look(served_at, looked_for).await?;
                let for_long = looked_for.note(&served, self.now);
                let verdict = verdict(&served, &written, &served_at.base_url, for_long);
                looked_for.found = Some((self.now, verdict.clone()));
                verdict
            }
        };
        Ok(Some(Published {
            keys: (verdict.status == Some(true)).then_some(ids),
            verdict,
            specific,
        }))
    }

    /// Writes the ConfigMap where it holds something else, and reads it back. Inside, what is in the way.
    async fn write(&self, name: &str, documents: &Documents) -> kube::Result<Result<(), String>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let wanted = self.config_map(name, documents);
        let written = match api.get_opt(name).await? {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(found) if !is_of(&found, self.processor) => {
                return Ok(Err(format!(
                    "ConfigMap {name} exists and isn't this processor's: delete it, or give another name in \
                     spec.manifest.publishTo"
                )));
            }
            Some(found) if found.data.as_ref() == Some(documents) => return Ok(Ok(())),
            Some(found) => {
                let gone = found
                    .data
                    .into_iter()
                    .flatten()
                    .filter(|(key, _)| !documents.contains_key(key));
                let gone = gone.map(|(key, _)| (key, serde_json::Value::Null));
                let data: serde_json::Map<_, _> = documents
                    .iter()
                    .map(|(key, text)| (key.clone(), text.clone().into()))
                    .chain(gone)
                    .collect();
                let parameters = PatchParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                let patch = serde_json::json!({"data": data});
                api.patch(name, &parameters, &Patch::Merge(&patch)).await
            }
        };
        match written {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Ok(Err(format!(
                    "the operator may not write ConfigMap {name}: add it to manifests.configMaps of the party chart"
                )));
            }
            Err(error) => {
                return match refusal(&error) {
                    Some(message) => Ok(Err(format!("ConfigMap {name} is refused: {message}"))),
                    None => Err(error),
                };
            }
        }
        tracing::info!(config_map = name, "own manifests written");
        let read = api.get(name).await?.data.unwrap_or_default();
        Ok(if read == *documents {
            Ok(())
        } else {
            Err(format!(
                "ConfigMap {name} doesn't hold what was written: somebody else writes it too"
            ))
        })
    }

    fn config_map(&self, name: &str, documents: &Documents) -> ConfigMap {
        let processor = self.processor.name_any();
        let labels = [
            ("app.kubernetes.io/managed-by", MANAGED_BY),
            (PROCESSOR_LABEL, &processor),
        ];
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                owner_references: Some(vec![parameters::owner(self.processor)]),
                ..ObjectMeta::default()
            },
            data: Some(documents.clone()),
            ..ConfigMap::default()
        }
    }

    /// Fetches what partners fetch.
    async fn look(&self, served_at: &ServedAt, looked_for: &LookedFor) -> kube::Result<Served> {
        let config_maps = Api::namespaced(self.client.clone(), self.namespace);
        let bundle = match peer::bundle(served_at.ca_bundle_ref.as_ref(), &config_maps).await? {
            Ok(bundle) => bundle,
            Err(missing) => return Ok(Served::Not(missing)),
        };
        let fetcher = match Fetcher::new(bundle.as_deref(), Limits::default()) {
            Ok(fetcher) => fetcher,
            Err(error) => return Ok(Served::Not(error.to_string())),
        };
        let had_time = self.now.duration_since(looked_for.since) >= SERVED_LAG;
        // At once, so that a server that doesn't answer holds a look up once.
        let all = looked_for.documents.iter().map(async |(name, ours)| {
            match fetcher.fetch(&served_at.base_url, name, None).await {
                Err(error) => Served::Not(error.to_string()),
                Ok(fetched) => {
                    let expected = Expected {
                        name,
                        ours,
                        former: looked_for.former.get(name).map(String::as_str),
                        had_time,
                    };
                    served(&expected, &fetched.bytes, fetched.cache_control.as_deref())
                }
            }
        });
        let worst = join_all(all).await.into_iter().max();
        Ok(worst.unwrap_or(Served::Same))
    }
}

pub(super) fn kind_of(name: &str) -> ManifestKind {
    if name == GLOBAL_OBJECT {
        ManifestKind::DataShareProcessorGlobal
    } else {
        ManifestKind::DataShareProcessorSpecific
    }
}

fn again_after(verdict: &Verdict) -> SignedDuration {
    match verdict.status {
        Some(true) if verdict.reason == reasons::OK => SERVED_EVERY,
        Some(true) => SERVED_TO_MEND,
        _ => SERVED_RETRY,
    }
}

fn is_of(config_map: &ConfigMap, processor: &DataShareProcessor) -> bool {
    let uid = processor.uid();
    let owners = config_map.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}

/// The documents, each found good. Pure.
///
/// # Errors
/// What is wrong, for a person.
fn documents(
    processor: &DataShareProcessor,
    manifest: &Manifest,
    keys: Keys,
    now: Timestamp,
) -> Result<Documents, String> {
    let spec = &processor.spec;
    let specific = DataShareProcessorSpecificManifest {
        format: 2,
        ingestion_bucket: bucket(
            "ingestion",
            manifest.ingestion_bucket.as_ref(),
            &spec.mailboxes.ingestion.url,
        )?,
        ingestion_identity: manifest.ingestion_identity.clone(),
        peer_validation_bucket: bucket(
            "peerValidation",
            manifest.peer_validation_bucket.as_ref(),
            &spec.mailboxes.peer_validation.url,
        )?,
        peer_validation_identity: manifest.peer_validation_identity.clone(),
        batch_signing_public_keys: keys.signing,
        packet_encryption_keys: BTreeMap::from([keys.packet]),
    };
    let mut documents = Documents::from([(specific_object(&spec.instance), specific.to_json())]);
    if let Some(identity) = &manifest.server_identity {
        let account = identity.aws_account_id.as_ref().map(|id| id.parse());
        let global = DataShareProcessorGlobalManifest {
            format: 1,
            server_identity: DataShareProcessorIdentity {
                gcp_service_account_email: identity.gcp_service_account_email.clone(),
                aws_account_id: account.transpose().map_err(|error| format!("awsAccountId: {error}"))?,
                gcp_service_account_id: identity.gcp_service_account_id.clone(),
            },
        };
        documents.insert(GLOBAL_OBJECT.to_owned(), global.to_json());
    }
    for (name, text) in &documents {
        if let Err(errors) = validate(kind_of(name), text.as_bytes(), Purpose::Publish, now).accepted() {
            let errors = errors.iter().map(|error| format!("{}: {}", error.path, error.message));
            return Err(errors.collect::<Vec<_>>().join("; "));
        }
    }
    Ok(documents)
}

/// What partners are told of a mailbox: a folder of ours would mean nothing to them.
fn bucket(field: &str, told: Option<&String>, url: &str) -> Result<String, String> {
    let (told, from) = match told {
        Some(told) => (told.as_str(), format!("{field}Bucket")),
        None => (url, format!("mailboxes.{field}.url")),
    };
    match StorageUrl::parse(told) {
        Ok(StorageUrl::S3 { .. } | StorageUrl::Gcs { .. }) => Ok(told.to_owned()),
        Ok(StorageUrl::Local { .. }) => Err(format!(
            "{from} is {told}, which partners can't reach: give {field}Bucket as gs://BUCKET[/PREFIX] or \
             s3://REGION/BUCKET[/PREFIX]"
        )),
        Err(error) => Err(format!("{from}: {error}")),
    }
}

/// Why there are no keys to publish.
#[derive(Debug)]
enum Problem {
    /// The spec is wrong, so.
    Refused(String),
    /// KeyRings have none yet; the field that refers to them.
    NoneYet(&'static str),
}

/// The keys of a manifest.
struct Keys {
    signing: BTreeMap<String, BatchSigningPublicKey>,
    packet: (String, PacketEncryptionKey),
}

impl Keys {
    /// Those of the spec, and those that KeyRings publish.
    fn of(manifest: &Manifest, parts: &PublicParts) -> Result<Self, Problem> {
        let mut signing = parts.signing.clone();
        for key in &manifest.batch_signing_public_keys {
            let refused = |error: &dyn std::fmt::Display| Problem::Refused(format!("key {:?}: {error}", key.id));
            let public = BatchVerifyingKey::parse(&key.public_key).map_err(|error| refused(&error))?;
            let published = BatchSigningPublicKey {
                public_key: public.to_pem(),
                expiration: manifest.expiration.clone(),
            };
            if signing.insert(key.id.clone(), published).is_some() {
                return Err(refused(&"the KeyRing has one of that id, and publishes it by itself"));
            }
        }
        if signing.is_empty() {
            return Err(Problem::NoneYet("batchSigning"));
        }
        let inline = manifest.packet_encryption_key.as_ref().map(|key| {
            let certificate_signing_request = key.certificate_signing_request.clone();
            (
                key.id.clone(),
                PacketEncryptionKey {
                    certificate_signing_request,
                },
            )
        });
        let mut of_rings = parts.packets.iter().map(|(id, key)| (id.clone(), key.clone()));
        let packet = inline.or_else(|| of_rings.next());
        Ok(Self {
            signing,
            packet: packet.ok_or(Problem::NoneYet("packetDecryption"))?,
        })
    }

    fn ids(&self) -> BTreeSet<String> {
        self.signing.keys().chain([&self.packet.0]).cloned().collect()
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
