//! Looks at a party's web server: which documents to ask for, and what they say.

use std::collections::BTreeMap;

use crds::peer::Party;
use crds::{Peer, PeerSpec};
use facilitator_core::formats::manifest::{GLOBAL_OBJECT, ManifestKind, check_base_url, specific_object};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::decide::{Sight, falls_back};
use super::fetch::{Copy, FetchError, Fetcher, Limits};
use super::publication::{Document, Publication, WithoutGlobal};
use crate::told::Told;

/// What is remembered of one Peer between looks. All of it may be lost.
#[derive(Debug, Default)]
pub struct Memory {
    uid: String,
    /// Documents as they were got last, by their addresses.
    copies: BTreeMap<String, Copy>,
    /// Since when the global manifest doesn't come.
    global_fails: Option<Timestamp>,
    /// Looks that failed since the last one that didn't.
    pub failures: u32,
    /// What Events told of its conditions.
    pub told: Told,
    /// The generation that doesn't decode and of which that was told.
    pub undecodable: Option<Option<i64>>,
}

impl Memory {
    /// Forgets what was of another Peer of the same name.
    pub fn belong_to(&mut self, uid: &str) {
        if self.uid != uid {
            *self = Self {
                uid: uid.to_owned(),
                ..Self::default()
            };
        }
    }
}

/// One look at one party's web server.
pub(super) struct Observer<'a> {
    pub(super) peer: &'a Peer,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
}

impl Observer<'_> {
    /// Fetches and checks what the party publishes.
    ///
    /// # Errors
    /// Those of the API server, where the authorities to trust couldn't be asked for.
    pub(super) async fn look(&self, config_maps: &Api<ConfigMap>, memory: &mut Memory) -> kube::Result<Sight> {
        let spec = &self.peer.spec;
        if spec.suspend {
            return Ok(Sight::Suspended);
        }
        // The API server asks the same; a definition that was left behind may not.
        if let Err(error) = check_base_url(&spec.manifest_base_url) {
            return Ok(Sight::Invalid(error.to_string()));
        }
        let bundle = match bundle(spec.ca_bundle_ref.as_ref(), config_maps).await? {
            Ok(bundle) => bundle,
            Err(missing) => return Ok(Sight::Failed(missing)),
        };
        let fetcher = match Fetcher::new(bundle.as_deref(), self.limits) {
            Ok(fetcher) => fetcher,
            Err(error) => return Ok(Sight::Failed(error.to_string())),
        };
        let mut source = Source {
            fetcher: &fetcher,
            base_url: &spec.manifest_base_url,
            copies: &mut memory.copies,
            seen: BTreeMap::new(),
        };
        let fetched = match spec.party {
            Party::Portal => {
                let global = source.get(GLOBAL_OBJECT, ManifestKind::Portal).await;
                global.map(|one| (vec![one], None)).map_err(|error| error.to_string())
            }
            Party::ShareProcessor => share_processor(&mut source, spec)
                .await
                .map_err(|error| error.to_string()),
            Party::Ingestor => {
                let one = self.ingestor(&mut source, &mut memory.global_fails).await;
                one.map(|one| (vec![one], None))
            }
        };
        // Only what was asked for this time is kept.
        *source.copies = source.seen;
        Ok(match fetched {
            Err(why) => Sight::Failed(why),
            Ok((documents, without)) => match Publication::read(self.peer, &documents, without, self.now) {
                Ok(publication) => Sight::Published(publication),
                Err(problems) => Sight::Refused(problems),
            },
        })
    }

    /// The global manifest, or the specific one where there is no global one.
    async fn ingestor(
        &self,
        source: &mut Source<'_>,
        global_fails: &mut Option<Timestamp>,
    ) -> Result<Document, String> {
        let error = match source.get(GLOBAL_OBJECT, ManifestKind::Ingestor).await {
            Ok(document) => {
                *global_fails = None;
                return Ok(document);
            }
            Err(error) => error,
        };
        let since = *global_fails.get_or_insert(self.now);
        let failing = self.now.duration_since(since).max(SignedDuration::ZERO);
        let in_use = self.peer.status.as_ref().and_then(|status| status.manifest.as_ref());
        match &self.peer.spec.instance {
            Some(instance) if falls_back(error.is_missing(), in_use, GLOBAL_OBJECT, failing) => {
                let specific = source.get(&specific_object(instance), ManifestKind::Ingestor).await;
                specific.map_err(|second| format!("{error}; and {second}"))
            }
            _ => Err(error.to_string()),
        }
    }
}

/// Its keys and buckets; and who it is, where it says so: that keeps no key from use.
async fn share_processor(
    source: &mut Source<'_>,
    spec: &PeerSpec,
) -> Result<(Vec<Document>, Option<WithoutGlobal>), FetchError> {
    let name = specific_object(spec.instance.as_deref().unwrap_or_default());
    let specific = source.get(&name, ManifestKind::DataShareProcessorSpecific).await?;
    let global = source.get(GLOBAL_OBJECT, ManifestKind::DataShareProcessorGlobal).await;
    Ok(match global {
        Ok(global) => (vec![global, specific], None),
        Err(error) => {
            let without = WithoutGlobal {
                is_gone: error.is_missing(),
                why: error.to_string(),
            };
            (vec![specific], Some(without))
        }
    })
}

/// Documents under one base URL.
struct Source<'a> {
    fetcher: &'a Fetcher,
    base_url: &'a str,
    copies: &'a mut BTreeMap<String, Copy>,
    seen: BTreeMap<String, Copy>,
}

impl Source<'_> {
    async fn get(&mut self, name: &str, kind: ManifestKind) -> Result<Document, FetchError> {
        let address = format!("{}/{name}", self.base_url);
        let fetched = self
            .fetcher
            .fetch(self.base_url, name, self.copies.get(&address))
            .await?;
        tracing::debug!(
            address,
            unchanged = fetched.unchanged,
            bytes = fetched.bytes.len(),
            "fetched"
        );
        if let Some(copy) = fetched.copy {
            self.seen.insert(address, copy);
        }
        Ok(Document {
            name: name.to_owned(),
            kind,
            bytes: fetched.bytes,
        })
    }
}

/// The certificates that a reference names; inside, what is missing.
pub(crate) async fn bundle(
    reference: Option<&crds::peer::CaBundleReference>,
    config_maps: &Api<ConfigMap>,
) -> kube::Result<Result<Option<String>, String>> {
    let Some(reference) = reference else {
        return Ok(Ok(None));
    };
    let (name, key) = (&reference.name, &reference.key);
    let Some(config_map) = config_maps.get_opt(name).await? else {
        return Ok(Err(format!("caBundleRef: there is no ConfigMap {name}")));
    };
    let found = config_map.data.and_then(|mut data| data.remove(key));
    Ok(found
        .map(Some)
        .ok_or_else(|| format!("caBundleRef: ConfigMap {name} has no {key}")))
}
