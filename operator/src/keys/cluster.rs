//! The API server as the vault of a ring's keys. Of Secrets this process may only create: it reads none and deletes none.

use std::collections::BTreeMap;

use crds::KeyRing;
use crds::key_ring::BackupMethod;
use facilitator_core::crypto::new_key::NewKey;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use snafu::{ResultExt, Snafu};

use super::act::Vault;
use super::objects::{self, RECORD_FIELD, WrapError, read_public};
use super::version::{PublicKeys, Record, RecordError, public_name, record_name};
use crate::status::FIELD_MANAGER;

/// A hundred years of 365 days, as the original writes; nobody looks at it.
const EXPIRES_AFTER: SignedDuration = SignedDuration::from_hours(100 * 365 * 24);

/// Why the vault couldn't be read or written.
#[derive(Debug, Snafu)]
pub enum VaultError {
    /// The API server refused or didn't answer.
    #[snafu(display("{verb} {what}: {source}"))]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        what: String,
        /// Why it failed.
        source: kube::Error,
    },
    /// The second copy can't be made.
    #[snafu(display("{source}"))]
    Wrap {
        /// Why.
        source: WrapError,
    },
    /// The record can't be written as JSON: a fault of ours.
    #[snafu(display("the record of versions: {source}"))]
    Json {
        /// Why.
        source: serde_json::Error,
    },
    /// The ConfigMap holds what isn't ours.
    #[snafu(display(
        "ConfigMap {name}: {detail}; take it out, or delete the ConfigMap: the ring writes its own again"
    ))]
    Foreign {
        /// Its name.
        name: String,
        /// What is wrong.
        detail: String,
    },
}

/// What is kept of a ring.
pub struct ClusterVault<'a> {
    client: &'a Client,
    ring: &'a KeyRing,
    namespace: String,
    name: String,
    /// The version of the record that was read; `None`: there was none.
    record: Option<String>,
    public: Option<String>,
    expirations: BTreeMap<String, String>,
}

impl<'a> ClusterVault<'a> {
    /// Of a ring as it was read.
    #[must_use]
    pub fn new(client: &'a Client, ring: &'a KeyRing) -> Self {
        Self {
            client,
            ring,
            namespace: ring.namespace().unwrap_or_default(),
            name: ring.name_any(),
            record: None,
            public: None,
            expirations: BTreeMap::new(),
        }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reads the record; `None`: there is none.
    ///
    /// # Errors
    /// [`VaultError::Api`]; within, [`RecordError`] for a record that can't be believed.
    pub async fn read_record(&mut self) -> Result<Result<Option<Record>, RecordError>, VaultError> {
        let name = record_name(&self.name);
        let read = self.config_maps().get_opt(&name).await.with_context(|_| ApiSnafu {
            verb: "get ConfigMap",
            what: &name,
        })?;
        let Some(config_map) = read else {
            self.record = None;
            return Ok(Ok(None));
        };
        self.record = config_map.resource_version();
        let text = config_map.data.as_ref().and_then(|data| data.get(RECORD_FIELD));
        Ok(Record::read(&self.name, text.map_or("", String::as_str), &self.ring.spec).map(Some))
    }

    /// Takes in what the record says of each key, for what is published of it.
    pub fn know(&mut self, record: &Record) {
        let versions = record.versions.iter();
        self.expirations = versions
            .filter_map(|version| Some((version.id.clone(), expiration(version.created)?)))
            .collect();
    }

    /// Reads what the ring has published; `None`: nothing yet.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn read_public(&mut self) -> Result<Option<PublicKeys>, VaultError> {
        let name = public_name(&self.name);
        let read = self.config_maps().get_opt(&name).await.with_context(|_| ApiSnafu {
            verb: "get ConfigMap",
            what: &name,
        })?;
        let Some(config_map) = read else {
            self.public = None;
            return Ok(None);
        };
        self.public = config_map.resource_version();
        match read_public(&config_map, self.ring.spec.purpose) {
            Ok(keys) => Ok(Some(keys)),
            Err(detail) => ForeignSnafu { name, detail }.fail(),
        }
    }

    /// Creates a ConfigMap, or replaces the version that was read. Returns the new version.
    async fn put(&self, mut config_map: ConfigMap, before: Option<&String>) -> Result<Option<String>, VaultError> {
        let (name, api) = (config_map.name_any(), self.config_maps());
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = match before {
            None => api.create(&parameters, &config_map).await,
            Some(version) => {
                config_map.metadata.resource_version = Some(version.clone());
                api.replace(&name, &parameters, &config_map).await
            }
        };
        let written = written.with_context(|_| ApiSnafu {
            verb: "write ConfigMap",
            what: &name,
        })?;
        Ok(written.resource_version())
    }

    async fn create_secret(&self, secret: &Secret) -> Result<(), VaultError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        // One that is there already isn't the key that was made now.
        api.create(&PostParams::default(), secret)
            .await
            .map(drop)
            .with_context(|_| ApiSnafu {
                verb: "create Secret",
                what: secret.name_any(),
            })
    }
}

/// When partners may forget a key that was made then.
fn expiration(created: Timestamp) -> Option<String> {
    Some(
        created
            .checked_add(EXPIRES_AFTER)
            .ok()?
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
    )
}

impl Vault for ClusterVault<'_> {
    type Error = VaultError;

    async fn write_record(&mut self, record: &Record) -> Result<(), VaultError> {
        let text = record.to_text().context(JsonSnafu)?;
        let written = self
            .put(objects::record(&self.name, text), self.record.as_ref())
            .await?;
        self.record = written;
        self.know(record);
        Ok(())
    }

    async fn write_backup(&mut self, number: i64, key: &NewKey) -> Result<bool, VaultError> {
        let backup = &self.ring.spec.backup;
        if backup.method == BackupMethod::None {
            return Ok(false);
        }
        let secret =
            objects::backup(&self.name, number, key, &self.namespace, &backup.recipients).context(WrapSnafu)?;
        self.create_secret(&secret).await?;
        Ok(true)
    }

    async fn write_secret(&mut self, number: i64, key: &NewKey) -> Result<(), VaultError> {
        self.create_secret(&objects::secret(&self.name, number, key)).await
    }

    async fn publish(&mut self, keys: &PublicKeys) -> Result<(), VaultError> {
        let config_map = objects::public(&self.name, self.ring.spec.purpose, keys, &self.expirations);
        self.public = self.put(config_map, self.public.as_ref()).await?;
        Ok(())
    }
}
