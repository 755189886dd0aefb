//! From `parameters.json` and mounted Secrets to a processor. Whatever is wrong there is wrong for the whole Job.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use facilitator_core::claims::ReplayGuard;
use facilitator_core::crypto::{BatchSigningKey, BatchVerifyingKey, PacketDecryptionKey, TrustedKeys};
use facilitator_core::formats::ledger::LedgerIdentity;
use facilitator_core::formats::names::InstanceName;
use facilitator_core::formats::work::{KeyPins, MailboxParameter, Parameters, PublicKeyParameter, REVISION};
use facilitator_core::identity::{ExpectedLedger, IdentityError, establish};
use facilitator_core::preflight::OwnKeys;
use facilitator_core::processor::{InMemory, Mailboxes, MountedPacketKey, Processor, REREAD_PAUSE};
use facilitator_core::uses::UseMarks;
use mailbox::{ConditionalWrites, Mailbox, MailboxError, MailboxErrorKind};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::exit::{ExitClass, Failure};
use crate::places;
use crate::worker::retry::Budget;

/// The names of a key's file in a Secret: ours and the original's.
const KEY_FILES: [&str; 2] = ["key", "secret_key"];
/// The names of its id's file.
const ID_FILES: [&str; 2] = ["id", "primary_kid"];
/// How often a Secret that changes under our hands is read.
const SECRET_READS: usize = 10;
/// A record numbers its packet keys with one byte.
const MAX_PACKET_KEYS: usize = 254;

pub(super) fn configuration(message: impl Display, advice: impl Display) -> Failure {
    Failure::new(ExitClass::Configuration, message, advice)
}

/// Reads and checks `parameters.json`.
///
/// # Errors
/// [`ExitClass::Configuration`], whatever is wrong with it.
pub fn parameters(file: &Path) -> Result<Parameters, Failure> {
    let parameters: Parameters = json(file)?;
    if parameters.revision != REVISION {
        let message = format!(
            "{} has revision {}, this build knows {REVISION}",
            file.display(),
            parameters.revision
        );
        return Err(configuration(message, "use the facilitator of the operator's version"));
    }
    Ok(parameters)
}

/// Reads a JSON file that the operator wrote.
///
/// # Errors
/// [`ExitClass::Configuration`].
pub fn json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let text = places::read_text(file).map_err(|error| Failure {
        exit: ExitClass::Configuration,
        ..error
    })?;
    serde_json::from_str(&text).map_err(|error| {
        configuration(
            format_args!("{} can't be used: {error}", file.display()),
            "use the facilitator of the version that wrote it",
        )
    })
}

/// Opens the mailboxes and loads the keys.
///
/// # Errors
/// [`ExitClass::Configuration`], naming the file, the URL or the key id; never a key.
pub fn processor(parameters: &Parameters, keys: &Path) -> Result<Processor, Failure> {
    let all = &parameters.mailboxes;
    let mailboxes = Mailboxes {
        ingestion: open(&all.ingestion)?,
        peer_validation: open(&all.peer_validation)?,
        ledger: ledger_mailbox(parameters)?,
        peer: open(&all.peer)?,
        portal: open(&all.portal)?,
    };
    let MountedKeys {
        signing_key,
        other_signing_keys,
        packet_keys,
    } = mounted_keys(parameters, keys)?;
    Ok(Processor {
        instance: instance(parameters)?,
        share: parameters.share,
        legacy_peer: parameters.legacy_peer,
        validation_format: parameters.validation_format,
        min_clients: parameters.windows.min_clients,
        mailboxes,
        ingestor_keys: trusted("the ingestor", &parameters.ingestor_keys)?,
        peer_keys: trusted("the peer", &parameters.peer_keys)?,
        signing_key,
        other_signing_keys,
        use_marks: None,
        packet_keys: packet_keys.into(),
        replay_guard: parameters.replay_guard.enabled.then_some(ReplayGuard {
            horizon_days: parameters.replay_guard.horizon_days,
        }),
        clock: jiff::Timestamp::now,
        reread_pause: REREAD_PAUSE,
        in_memory: InMemory::default(),
    })
}

/// Opens the ledger alone.
///
/// # Errors
/// [`ExitClass::Configuration`].
pub fn ledger_mailbox(parameters: &Parameters) -> Result<Arc<dyn Mailbox>, Failure> {
    let ledger = &parameters.mailboxes.ledger;
    if ledger.access.conditional_writes == ConditionalWrites::Weak {
        let message = format!("the ledger {} is set to conditionalWrites Weak", ledger.url);
        let advice =
            "keep the ledger in a store that honours conditional writes: two workers that race would both be right";
        return Err(configuration(message, advice));
    }
    open(ledger)
}

fn open(mailbox: &MailboxParameter) -> Result<Arc<dyn Mailbox>, Failure> {
    places::mailbox_with(&mailbox.url, &mailbox.access).map_err(|error| Failure {
        exit: ExitClass::Configuration,
        ..error
    })
}

fn instance(parameters: &Parameters) -> Result<InstanceName, Failure> {
    InstanceName::parse(&parameters.instance).map_err(|error| configuration(error, "correct the processor's instance"))
}

/// The keys of the mounted Secrets.
pub struct MountedKeys {
    /// Signs new work.
    pub signing_key: BatchSigningKey,
    /// Signed before it, or will after it.
    pub other_signing_keys: Vec<BatchSigningKey>,
    /// In the order in which they are tried.
    pub packet_keys: Vec<MountedPacketKey>,
}

/// Loads the keys.
///
/// # Errors
/// [`ExitClass::Configuration`], naming the file or the key id; never a key.
pub fn mounted_keys(parameters: &Parameters, folder: &Path) -> Result<MountedKeys, Failure> {
    Ok(MountedKeys {
        signing_key: signing_key(&folder.join("batch-signing"))?,
        other_signing_keys: other_signing_keys(parameters, folder)?,
        packet_keys: packet_keys(&folder.join("packet-decryption"), parameters.packet_decryption_keys)?,
    })
}

fn other_signing_keys(parameters: &Parameters, folder: &Path) -> Result<Vec<BatchSigningKey>, Failure> {
    let others = folder.join("batch-signing-others");
    (0..parameters.other_signing_keys)
        .map(|n| signing_key(&others.join(n.to_string())))
        .collect()
}

/// The keys of the mounted Secrets, each kind as far as it can be read.
pub fn own_keys(parameters: &Parameters, folder: &Path) -> OwnKeys {
    let signing = signing_key(&folder.join("batch-signing")).and_then(|first| {
        let mut keys = vec![first];
        keys.extend(other_signing_keys(parameters, folder)?);
        Ok(keys)
    });
    let signing = signing.map(|keys| {
        let public = |key: &BatchSigningKey| (key.id().to_owned(), *key.verifying_key().point());
        keys.iter().map(public).collect()
    });
    let packets = packet_keys(&folder.join("packet-decryption"), parameters.packet_decryption_keys);
    let packets = packets.map(|keys| {
        let public = |key: &MountedPacketKey| (key.id.clone(), *key.key.public_point());
        keys.iter().map(public).collect()
    });
    OwnKeys {
        signing: signing.map_err(Failure::into_trouble),
        packets: packets.map_err(Failure::into_trouble),
    }
}

fn trusted(whose: &str, keys: &[PublicKeyParameter]) -> Result<TrustedKeys, Failure> {
    if keys.is_empty() {
        return Err(configuration(
            format_args!("{whose} has no public key"),
            "add the keys of its manifest",
        ));
    }
    keys.iter()
        .map(|key| match BatchVerifyingKey::parse(&key.public_key) {
            Ok(parsed) => Ok((key.id.clone(), parsed)),
            Err(error) => Err(configuration(
                format_args!("the public key {:?} of {whose} can't be used: {error}", key.id),
                "copy it from the party's manifest",
            )),
        })
        .collect()
}

fn signing_key(folder: &Path) -> Result<BatchSigningKey, Failure> {
    let Secret { key, id } = secret(folder)?;
    let id = id.ok_or_else(|| lacks(folder, &ID_FILES))?;
    BatchSigningKey::parse(id.trim(), &key).map_err(|error| unusable(folder, &error))
}

/// Takes the keys that the work list pins, and marks their use: they are a KeyRing's, which retires them by the marks.
///
/// # Errors
/// [`ExitClass::Configuration`], naming the key that isn't mounted.
pub fn pin(processor: &mut Processor, pins: &KeyPins, parameters: &Parameters) -> Result<(), Failure> {
    if pins.is_empty() {
        return Ok(());
    }
    let missing = |id: &str| {
        configuration(
            format_args!("the work is to be done with the key {id:?}, which isn't mounted"),
            "see whether somebody changed its Secret",
        )
    };
    if let Some(signer) = &pins.signer
        && processor.signing_key.id() != signer
    {
        let other = processor.other_signing_keys.iter_mut().find(|key| key.id() == signer);
        std::mem::swap(other.ok_or_else(|| missing(signer))?, &mut processor.signing_key);
    }
    for id in &pins.packet_keys {
        if processor.packet_keys.iter().all(|key| key.id != *id) {
            return Err(missing(id));
        }
    }
    processor.use_marks = Some(UseMarks::new(parameters.windows.period_seconds));
    Ok(())
}

fn packet_keys(folder: &Path, count: u32) -> Result<Vec<MountedPacketKey>, Failure> {
    let mut keys = Vec::new();
    for n in 0..count {
        let folder = folder.join(n.to_string());
        let Secret { key, id } = secret(&folder)?;
        // The original's packet keys have no id: an empty one is named by no packet.
        let id = id.unwrap_or_default();
        let parsed = PacketDecryptionKey::parse_list(&key).map_err(|error| unusable(&folder, &error))?;
        keys.extend(parsed.into_iter().map(|key| MountedPacketKey {
            id: id.trim().to_owned(),
            key,
        }));
    }
    if keys.is_empty() || keys.len() > MAX_PACKET_KEYS {
        let message = format!("{} packet decryption keys are mounted", keys.len());
        return Err(configuration(message, format_args!("mount 1 to {MAX_PACKET_KEYS}")));
    }
    Ok(keys)
}

fn unusable(folder: &Path, error: &dyn Display) -> Failure {
    configuration(
        format_args!("the key in {} can't be used: {error}", folder.display()),
        "correct the Secret's `key`",
    )
}

fn lacks(folder: &Path, names: &[&str]) -> Failure {
    configuration(
        format_args!("{} has neither `{}`", folder.display(), names.join("` nor `")),
        "put it into the Secret that is mounted there",
    )
}

/// A mounted Secret's texts; the key's is wiped.
struct Secret {
    key: Zeroizing<String>,
    id: Option<String>,
}

/// Reads a mounted Secret's key and id from one version of it: the kubelet renews a mount by turning the link `..data` to
/// another folder, and a key under another's id would sign what nobody can verify.
fn secret(folder: &Path) -> Result<Secret, Failure> {
    let data = folder.join("..data");
    for _ in 0..SECRET_READS {
        let version = std::fs::read_link(&data).ok();
        let place = version
            .as_ref()
            .map_or_else(|| folder.to_path_buf(), |version| folder.join(version));
        let key = text_if_there(&place, &KEY_FILES)?;
        let id = text_if_there(&place, &ID_FILES)?;
        if std::fs::read_link(&data).ok() == version {
            let key = key.ok_or_else(|| lacks(folder, &KEY_FILES))?;
            return Ok(Secret {
                key,
                id: id.map(|id| (*id).clone()),
            });
        }
    }
    Err(configuration(
        format_args!(
            "the Secret in {} changed at each of {SECRET_READS} readings",
            folder.display()
        ),
        "see what writes it again and again",
    ))
}

/// The text of the first of these files that is there.
fn text_if_there(folder: &Path, names: &[&str]) -> Result<Option<Zeroizing<String>>, Failure> {
    for name in names {
        let file = folder.join(name);
        match places::read_secret(&file) {
            Ok(text) => return Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(configuration(
                    format_args!("can't read {}: {error}", file.display()),
                    "correct the Secret that is mounted there",
                ));
            }
        }
    }
    Ok(None)
}

/// Checks that the ledger is this processor's, or gives a new one an identity.
///
/// # Errors
/// [`ExitClass::Configuration`] for another ledger: nothing may be done then; otherwise the store's class.
pub async fn ledger(
    parameters: &Parameters,
    ledger: &dyn Mailbox,
    budget: &mut Budget,
) -> Result<LedgerIdentity, Failure> {
    let instance = instance(parameters)?;
    let expected = ExpectedLedger {
        id: parameters.ledger_id,
        instance: &instance,
        share: parameters.share,
        start_at: &parameters.start_at,
    };
    loop {
        let error = match establish(ledger, &expected, Uuid::new_v4()).await {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let retryable = error.mailbox_error().is_some_and(mailbox::MailboxError::is_retryable);
        if !(retryable && budget.wait().await) {
            return Err(ledger_failure(error));
        }
    }
}

fn ledger_failure(error: IdentityError) -> Failure {
    match error {
        IdentityError::Mailbox { source } if source.kind() != MailboxErrorKind::NotFound => of_ledger(source),
        other => configuration(other, ""),
    }
}

/// Who is kept out of the ledger can do nothing at all: no other pod would do better.
pub fn of_ledger(error: MailboxError) -> Failure {
    if error.kind() == MailboxErrorKind::Denied {
        return configuration(error, "");
    }
    error.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::scanning::{self, left_behind_of};

    fn version(folder: &Path, name: &str) {
        fs::create_dir(folder.join(name)).unwrap();
        for file in ["key", "id"] {
            fs::write(folder.join(name).join(file), name).unwrap();
        }
    }

    fn turn(folder: &Path, name: &str) {
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    #[test]
    fn key_and_id_are_of_one_version_of_the_secret_while_it_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        version(folder, "..one");
        version(folder, "..two");
        turn(folder, "..one");
        for file in ["key", "id"] {
            symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for name in ["..two", "..one"] {
                        turn(folder, name);
                        std::thread::sleep(std::time::Duration::from_micros(300));
                    }
                }
            });
            for _ in 0..2_000 {
                if let Ok(Secret { key, id }) = secret(folder) {
                    assert_eq!(Some(&*key), id.as_ref());
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        assert_eq!(
            secret(folder).ok().and_then(|secret| secret.id).as_deref(),
            Some("..one")
        );
    }

    #[test]
    fn mounted_keys_leave_nothing_behind() {
        let _turn = scanning::turn();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let packets = PacketDecryptionKey::generate(&mut rand::rng()).to_base64();
        let signing = BatchSigningKey::generate("id", &mut rand::rng()).to_base64().unwrap();
        for (name, key) in [("batch-signing", &signing), ("packet-decryption/0", &packets)] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("key"), key.as_bytes()).unwrap();
            fs::write(folder.join(name).join("id"), "id").unwrap();
        }
        // The scalars are the last 32 bytes of one, and bytes 36 to 67 of the other.
        let secrets = [&packets.as_bytes()[packets.len() - 40..], &signing.as_bytes()[52..84]];
        let plain = || drop(fs::read_to_string(folder.join("batch-signing/key")).unwrap());
        assert_eq!(left_behind_of(&secrets, plain), 1, "what isn't wiped is found");
        let mounted = || {
            assert!(signing_key(&folder.join("batch-signing")).is_ok());
            assert_eq!(packet_keys(&folder.join("packet-decryption"), 1).ok().unwrap().len(), 1);
        };
        assert_eq!(left_behind_of(&secrets, mounted), 0);
    }

    #[test]
    fn only_a_file_that_is_not_there_may_be_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(secret(folder).is_err());
        fs::write(folder.join("secret_key"), "k").unwrap();
        assert_eq!(
            secret(folder).ok().map(|secret| ((*secret.key).clone(), secret.id)),
            Some(("k".into(), None))
        );
        fs::write(folder.join("id"), [0xff]).unwrap();
        let failure = secret(folder).err().unwrap();
        assert_eq!(failure.exit, ExitClass::Configuration);
        assert!(failure.message.contains("/id"), "{}", failure.message);
    }
}
