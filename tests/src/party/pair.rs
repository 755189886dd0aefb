//! The two parties as one: what is made and installed for both.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use facilitator_core::crypto::{BatchVerifyingKey, TrustedKeys};

use super::surroundings::secret_objects;
use super::{MAILBOXES, OPERATOR_MAILBOXES, Party, Settings, make_folder, namespace_object, volume_objects};
use crate::cluster::Cluster;
use crate::images::Images;
use crate::keys::KeySet;
use crate::rings::{self, Rings};
use crate::stores::{Kind, Stores};

/// Two parties and what lies between them.
#[derive(Clone)]
pub struct Pair {
    /// The cluster that they are on.
    pub cluster: Cluster,
    /// First and Second.
    pub parties: [Party; 2],
    /// Everybody's keys.
    pub keys: KeySet,
    /// The folder of all mailboxes.
    pub folder: PathBuf,
    /// What both agreed on.
    pub settings: Settings,
    /// The clouds that mailboxes are in; `None`: mailboxes are the folders.
    pub stores: Option<Stores>,
    /// KeyRings that make the keys, and manifests that tell them; `None`: keys are made here and written into the specs.
    pub rings: Option<Rings>,
}

impl Pair {
    /// Names and keys; nothing is made yet. `names` are First's and Second's.
    pub fn new(cluster: &Cluster, names: [&str; 2], folder: &Path, keys: KeySet, settings: Settings) -> Self {
        let party = |index: usize| Party::new(cluster, names[index].to_owned(), index);
        Self {
            cluster: cluster.clone(),
            parties: [party(0), party(1)],
            keys,
            folder: folder.to_path_buf(),
            settings,
            stores: None,
            rings: None,
        }
    }

    /// The same with mailboxes in two clouds; folders are then what is copied in and out.
    #[must_use]
    pub fn in_clouds(self, kinds: [Kind; 2]) -> Self {
        let stores = Stores::new([&self.parties[0].name, &self.parties[1].name], kinds);
        Self {
            stores: Some(stores),
            ..self
        }
    }

    /// The same with keys of KeyRings, and with manifests that all serve by https; the ingestor has a namespace of that name.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn with_key_rings(self, ingestor: &str) -> Result<Self> {
        let rings = Rings::new(&self.parties, ingestor)?;
        Ok(Self {
            rings: Some(rings),
            ..self
        })
    }

    /// The folder of a party's mailbox. What one party sends is what the other receives.
    pub fn mailbox(&self, index: usize, name: &str) -> PathBuf {
        let own = ["first", "second"][index];
        let other = ["second", "first"][index];
        self.folder.join(match name {
            "outgoing-peer" => format!("peer-validation-{other}"),
            _ => format!("{name}-{own}"),
        })
    }

    /// Makes the folders, which belong to the pods' user, as a bucket belongs to its party.
    pub fn make_folders(&self) -> Result<()> {
        for index in 0..2 {
            for name in MAILBOXES {
                make_folder(&self.mailbox(index, name))?;
            }
        }
        Ok(())
    }

    /// Makes namespaces, claims and Secrets of a party.
    pub async fn apply_surroundings(&self, party: &Party) -> Result<()> {
        let mut objects = Vec::new();
        for (namespace, mailboxes) in [
            (&party.worker_namespace, &MAILBOXES[..]),
            (&party.operator_namespace, &OPERATOR_MAILBOXES[..]),
        ] {
            objects.push(namespace_object(namespace));
            // Buckets need no claims.
            for name in mailboxes.iter().filter(|_| self.stores.is_none()) {
                objects.extend(volume_objects(namespace, name, &self.mailbox(party.index, name)));
            }
        }
        let keys = &self.keys.parties[party.index];
        objects.extend(secret_objects(&party.worker_namespace, keys, self.rings.is_some()));
        if let Some(stores) = &self.stores {
            objects.extend(stores.secret_objects(party.index, &party.worker_namespace, &party.operator_namespace));
        }
        self.cluster
            .apply(&objects)
            .await
            .with_context(|| format!("namespaces and Secrets of {}", party.name))?;
        if self.stores.is_some() {
            return Ok(());
        }
        // A pod that comes before its claims are bound waits for the scheduler's next try.
        for namespace in [&party.worker_namespace, &party.operator_namespace] {
            let bound = "--for=jsonpath={.status.phase}=Bound";
            let wait = [
                "wait",
                bound,
                "persistentvolumeclaims",
                "--all",
                "--timeout=60s",
                "--namespace",
                namespace,
            ];
            self.cluster.kubectl(&wait).await?;
        }
        Ok(())
    }

    /// Installs the party's chart.
    pub async fn install(&self, party: &Party, images: &Images) -> Result<()> {
        let chart = self
            .cluster
            .repository
            .join("charts/prio-operator")
            .display()
            .to_string();
        let arguments = [
            "upgrade",
            "--install",
            "prio-operator",
            &chart,
            "--namespace",
            &party.operator_namespace,
        ];
        self.cluster.helm(&arguments, &self.chart_values(party, images)).await?;
        Ok(())
    }

    /// Whose signatures the portal believes, First's and Second's.
    ///
    /// # Errors
    /// When a key isn't one, or a KeyRing can't be read.
    pub async fn signers(&self) -> Result<[TrustedKeys; 2]> {
        let of = async |index: usize| match &self.rings {
            Some(_) => rings::signers(&self.parties[index]).await,
            None => {
                let key = &self.keys.parties[index].signing;
                Ok([(key.id.clone(), BatchVerifyingKey::parse(&key.public()?)?)]
                    .into_iter()
                    .collect())
            }
        };
        Ok([of(0).await?, of(1).await?])
    }

    /// Applies both DataShareProcessors, and before them their KeyRings and Peers where they have some.
    pub async fn apply_processors(&self) -> Result<()> {
        let mut objects = Vec::new();
        for party in &self.parties {
            objects.extend(self.rings.iter().flat_map(|rings| rings.objects(party)));
            objects.push(self.processor_object(party)?);
        }
        self.cluster.apply(&objects).await.context("the DataShareProcessors")
    }

    /// All namespaces of both parties, of their stores, their web servers and the ingestor.
    pub fn namespaces(&self) -> Vec<String> {
        let of_stores = self
            .stores
            .iter()
            .flat_map(|stores| [0, 1].map(|index| stores.namespace(index)));
        let of_webs = self.rings.iter().flat_map(|rings| rings.webs.namespaces());
        let of_webs = of_webs.map(str::to_owned);
        self.parties
            .iter()
            .flat_map(|p| [p.operator_namespace.clone(), p.worker_namespace.clone()])
            .chain(of_stores)
            .chain(of_webs)
            .collect()
    }
}
