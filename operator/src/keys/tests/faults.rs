//! What is left where a step fails, and a record that is gone.

use crds::key_ring::{KeyPurpose, KeyRingStatus};
use facilitator_core::crypto::new_key::NewKey;
use futures::FutureExt;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::keys::act::{Vault, act};
use crate::keys::decide::Step;
use crate::keys::status::versions;
use crate::keys::version::{PublicKeys, number_of};

use KeyPurpose::{BatchSigning, PacketEncryption};

/// Writes nothing to a place that refuses Secrets.
#[derive(Default)]
struct Refusing {
    writes: Vec<&'static str>,
}

#[derive(Debug, snafu::Snafu)]
#[snafu(display("refused"))]
struct Refused;

impl Vault for Refusing {
    type Error = Refused;

    async fn write_record(&mut self, _: &Record) -> Result<(), Refused> {
        self.writes.push("record");
        Ok(())
    }

    async fn rehearse(&mut self, _: i64, _: &NewKey) -> Result<(), Refused> {
        Err(Refused)
    }

    async fn write_backup(&mut self, _: i64, _: &NewKey) -> Result<bool, Refused> {
        self.writes.push("backup");
        Ok(true)
    }

    async fn write_secret(&mut self, _: i64, _: &NewKey) -> Result<(), Refused> {
        self.writes.push("secret");
        Err(Refused)
    }

    async fn publish(&mut self, _: &PublicKeys) -> Result<(), Refused> {
        Err(Refused)
    }
}

#[test]
fn a_key_whose_secrets_would_be_refused_leaves_nothing() {
    let ring = Ring::new(BatchSigning);
    let (mut vault, mut record) = (Refusing::default(), ring.record.clone());
    let make = |id: &str| NewKey::batch_signing(id, &mut StdRng::seed_from_u64(1));
    let step = Step::Create { number: 1_700_000_000 };
    let done = act(&mut vault, &mut record, &step, &ring.observed, make, at(0)).now_or_never();
    assert!(done.unwrap().unwrap_err().to_string().contains("refused"));
    assert_eq!((vault.writes, record), (Vec::new(), ring.record));
}

#[test]
fn a_status_stands_in_for_a_record_and_says_what_it_cannot_stand_in_for() {
    for purpose in [BatchSigning, PacketEncryption] {
        let mut ring = Ring::in_use(purpose);
        ring.add(100, |version| version.loaded = Some(at(101)));
        ring.record.rotation_answered = Some("now".into());
        let status = KeyRingStatus {
            versions: versions("ring", &ring.record, &[]),
            rotation_answered: Some("now".into()),
            ..KeyRingStatus::default()
        };
        let read = |status: &KeyRingStatus| Record::from_status("ring", &ring.spec, Some(status));
        assert_eq!(read(&status).unwrap(), ring.record, "the rotation isn't answered twice");
        assert_eq!(
            Record::from_status("ring", &ring.spec, None).unwrap(),
            Record::new(&ring.spec)
        );

        let changed = |change: fn(&mut KeyRingStatus)| {
            let mut status = status.clone();
            change(&mut status);
            read(&status).unwrap_err().to_string()
        };
        let two = changed(|status| {
            let promoted = status.versions[1].promoted.clone();
            (status.versions[0].published, status.versions[0].promoted) = (promoted.clone(), promoted);
        });
        assert!(two.contains("2 versions are in use"), "{two}");
        assert!(changed(|status| status.versions[0].secret = "other.1".into()).contains("no version has"));
        assert!(changed(|status| status.versions[0].created = "yesterday".into()).contains("no version has"));
    }
}

#[test]
fn only_one_name_is_a_versions() {
    let table = [
        ("ring.17", Some(17)),
        ("ring.0", Some(0)),
        ("ring.017", None),
        ("ring.+17", None),
        ("ring.-17", None),
        ("ring.", None),
        ("ring.17.backup", None),
        ("rings.17", None),
        ("admin-password", None),
        ("ring.99999999999999999999", None),
    ];
    for (secret, expected) in table {
        assert_eq!(number_of("ring", secret), expected, "{secret}");
    }
}
