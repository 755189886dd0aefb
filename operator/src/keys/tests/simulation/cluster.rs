//! What the API server holds, and writes to it that fail or whose answer is lost.

use std::collections::{BTreeMap, BTreeSet};

use facilitator_core::crypto::new_key::NewKey;
use rand::Rng;
use rand::rngs::StdRng;

use super::parties::Processor;
use crate::keys::act::Vault;
use crate::keys::version::{PublicKeys, Record};

/// What happens to a write.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fault {
    None,
    /// It isn't done.
    Before,
    /// It is done, and nobody hears of it.
    Lost,
}

#[derive(Debug, snafu::Snafu)]
#[snafu(display("no answer"))]
pub(super) struct NoAnswer;

/// What the API server holds.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) record: Option<(String, u64)>,
    pub(super) secrets: BTreeSet<i64>,
    pub(super) backups: BTreeSet<i64>,
    pub(super) published: Option<PublicKeys>,
    pub(super) published_since: BTreeMap<String, i64>,
    /// `status.versions` of the KeyRing; `None`: there is no KeyRing.
    pub(super) status: Option<Vec<crds::key_ring::KeyVersion>>,
}

pub(super) struct Faulty<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) rng: &'a mut StdRng,
    pub(super) rate: f64,
    pub(super) read: u64,
    pub(super) now: i64,
    pub(super) workers: &'a [Processor],
}

impl Faulty<'_> {
    fn fault(&mut self) -> Fault {
        match self.rng.random_bool(self.rate) {
            false => Fault::None,
            true if self.rng.random_bool(0.5) => Fault::Before,
            true => Fault::Lost,
        }
    }

    fn write(&mut self, change: impl FnOnce(&mut Self) -> Result<(), NoAnswer>) -> Result<(), NoAnswer> {
        let fault = self.fault();
        if fault != Fault::Before {
            change(self)?;
        }
        if fault == Fault::None { Ok(()) } else { Err(NoAnswer) }
    }
}

impl Vault for Faulty<'_> {
    type Error = NoAnswer;

    async fn write_record(&mut self, record: &Record) -> Result<(), NoAnswer> {
        let text = record.to_text().unwrap();
        self.write(|vault| {
            let there = vault.cluster.record.as_ref().map_or(0, |(_, version)| *version);
            if there != vault.read {
                return Err(NoAnswer);
            }
            vault.read += 1;
            vault.cluster.record = Some((text, vault.read));
            Ok(())
        })
    }

    async fn write_backup(&mut self, number: i64, _: &NewKey) -> Result<bool, NoAnswer> {
        self.write(|vault| vault.cluster.backups.insert(number).then_some(()).ok_or(NoAnswer))?;
        Ok(true)
    }

    async fn write_secret(&mut self, number: i64, _: &NewKey) -> Result<(), NoAnswer> {
        self.write(|vault| {
            assert!(
                vault.cluster.backups.contains(&number),
                "a Secret is written before its second copy"
            );
            // A name that is taken is refused.
            vault.cluster.secrets.insert(number).then_some(()).ok_or(NoAnswer)
        })
    }

    async fn publish(&mut self, keys: &PublicKeys) -> Result<(), NoAnswer> {
        self.write(|vault| {
            for id in keys.keys() {
                let is_new = vault
                    .cluster
                    .published
                    .as_ref()
                    .is_none_or(|before| !before.contains_key(id));
                for processor in vault.workers.iter().filter(|_| is_new) {
                    for job in &processor.jobs {
                        assert!(
                            job.mounts.contains(id),
                            "{id} is published before a Job of {} has it",
                            processor.name
                        );
                    }
                }
                if is_new {
                    vault.cluster.published_since.insert(id.clone(), vault.now);
                }
            }
            vault.cluster.published = Some(keys.clone());
            Ok(())
        })
    }
}
