//! Carries one step out. A key is in this process's memory only from its making to the writing of its Secret; whatever
//! fails in between leaves a version that was never proven, published or used, and that the next look forgets.

use std::future::Future;

use facilitator_core::crypto::KeyError;
use facilitator_core::crypto::new_key::NewKey;
use jiff::Timestamp;
use snafu::{ResultExt, Snafu};

use super::decide::{Observed, Step, apply};
use super::version::{PublicKeys, Record, Version, key_id};

/// Where a ring's keys and the record of them are kept. There is no way to delete or to read a key.
pub trait Vault {
    /// Why a write failed. It may be done all the same.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Writes the record, unless somebody else wrote it since it was read here.
    fn write_record(&mut self, record: &Record) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes a key's second copy; `false`: the spec wants none.
    fn write_backup(&mut self, number: i64, key: &NewKey) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Writes a key's Secret.
    fn write_secret(&mut self, number: i64, key: &NewKey) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Publishes just these keys, unless somebody else published since that was read here.
    fn publish(&mut self, keys: &PublicKeys) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a step wasn't done, or isn't known to be.
#[derive(Debug, Snafu)]
pub enum ActError<E: std::error::Error + 'static> {
    /// No key can be made.
    #[snafu(display("no key can be made: {source}"))]
    Make {
        /// Why.
        source: KeyError,
    },
    /// A write failed.
    #[snafu(display("{doing}: {source}"))]
    Write {
        /// What was written.
        doing: &'static str,
        /// Why.
        source: E,
    },
}

/// Does one step, and changes the record as far as it is written. `make` makes the key of an id.
///
/// # Errors
/// [`ActError`]; look again and decide anew.
pub async fn act<V: Vault>(
    vault: &mut V,
    record: &mut Record,
    step: &Step,
    observed: &Observed,
    make: impl FnOnce(&str) -> Result<NewKey, KeyError>,
    now: Timestamp,
) -> Result<(), ActError<V::Error>> {
    match step {
        Step::Create { number } => create(vault, record, *number, observed, make, now).await,
        Step::Publish(keys) => {
            // As it is: refused where another controller has gone on, whose keys this one must not put back.
            let same = record.clone();
            write(vault, record, same).await?;
            vault.publish(keys).await.context(WriteSnafu {
                doing: "publishing the public keys",
            })
        }
        _ => {
            let mut next = record.clone();
            apply(&mut next, step, now);
            write(vault, record, next).await
        }
    }
}

/// The intention first, so that a key that is written half is known for what it is; then the second copy, then the Secret.
async fn create<V: Vault>(
    vault: &mut V,
    record: &mut Record,
    number: i64,
    observed: &Observed,
    make: impl FnOnce(&str) -> Result<NewKey, KeyError>,
    now: Timestamp,
) -> Result<(), ActError<V::Error>> {
    let id = key_id(&record.key_id_prefix, number);
    let key = make(&id).context(MakeSnafu)?;
    let request = key.signing_request().map(str::to_owned);
    let mut next = record.clone();
    next.versions.push(Version::new(
        number,
        id.clone(),
        now,
        key.public_key().to_owned(),
        request,
    ));
    write(vault, record, next).await?;
    let has_backup = vault.write_backup(number, &key).await.context(WriteSnafu {
        doing: "writing a key's second copy",
    })?;
    vault.write_secret(number, &key).await.context(WriteSnafu {
        doing: "writing a key's Secret",
    })?;
    let mut next = record.clone();
    if let Some(version) = next.version_mut(&id) {
        version.written = Some(now);
        version.backed_up = has_backup.then_some(now);
    }
    next.rotation_answered.clone_from(&observed.rotate);
    write(vault, record, next).await
}

async fn write<V: Vault>(vault: &mut V, record: &mut Record, next: Record) -> Result<(), ActError<V::Error>> {
    vault.write_record(&next).await.context(WriteSnafu {
        doing: "writing the record of versions",
    })?;
    *record = next;
    Ok(())
}
