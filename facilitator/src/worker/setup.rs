//! From `parameters.json` and mounted Secrets to a processor. Whatever is wrong there is wrong for the whole Job.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use facilitator_core::crypto::{
    BatchSigningKey, BatchVerifyingKey, PacketDecryptionKey, TrustedKeys,
};
use facilitator_core::formats::ledger::LedgerIdentity;
use facilitator_core::formats::names::InstanceName;
use facilitator_core::formats::work::{Parameters, PublicKeyParameter, REVISION};
use facilitator_core::identity::{ExpectedLedger, IdentityError, establish};
use facilitator_core::processor::{Mailboxes, MountedPacketKey, Processor, REREAD_PAUSE};
use mailbox::MailboxErrorKind;
use uuid::Uuid;

use crate::exit::{ExitClass, Failure};
use crate::places;
use crate::worker::retry::Budget;

/// The names of a key's file in a Secret: ours and the original's.
const KEY_FILES: [&str; 2] = ["key", "secret_key"];
/// The names of its id's file.
const ID_FILES: [&str; 2] = ["id", "primary_kid"];
/// A record numbers its packet keys with one byte.
const MAX_PACKET_KEYS: usize = 254;

fn configuration(message: impl Display, advice: impl Display) -> Failure {
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
        return Err(configuration(
            message,
            "use the facilitator of the operator's version",
        ));
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
    let instance = InstanceName::parse(&parameters.instance)
        .map_err(|error| configuration(error, "correct the processor's instance"))?;
    let open = |url: &str| {
        places::mailbox(url).map_err(|error| Failure {
            exit: ExitClass::Configuration,
            ..error
        })
    };
    let urls = &parameters.mailboxes;
    let mailboxes = Mailboxes {
        ingestion: open(&urls.ingestion)?,
        peer_validation: open(&urls.peer_validation)?,
        ledger: open(&urls.ledger)?,
        peer: open(&urls.peer)?,
        portal: open(&urls.portal)?,
    };
    Ok(Processor {
        instance,
        share: parameters.share,
        legacy_peer: parameters.legacy_peer,
        validation_format: parameters.validation_format,
        min_clients: parameters.windows.min_clients,
        mailboxes,
        ingestor_keys: trusted("the ingestor", &parameters.ingestor_keys)?,
        peer_keys: trusted("the peer", &parameters.peer_keys)?,
        signing_key: signing_key(&keys.join("batch-signing"))?,
        packet_keys: packet_keys(
            &keys.join("packet-decryption"),
            parameters.packet_decryption_keys,
        )?
        .into(),
        reread_pause: REREAD_PAUSE,
    })
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
                format_args!(
                    "the public key {:?} of {whose} can't be used: {error}",
                    key.id
                ),
                "copy it from the party's manifest",
            )),
        })
        .collect()
}

fn signing_key(folder: &Path) -> Result<BatchSigningKey, Failure> {
    let text = secret_file(folder, &KEY_FILES)?;
    let id = secret_file(folder, &ID_FILES)?;
    BatchSigningKey::parse(id.trim(), &text).map_err(|error| unusable(folder, &error))
}

fn packet_keys(folder: &Path, count: u32) -> Result<Vec<MountedPacketKey>, Failure> {
    let mut keys = Vec::new();
    for n in 0..count {
        let folder = folder.join(n.to_string());
        let text = secret_file(&folder, &KEY_FILES)?;
        // The original's packet keys have no id: an empty one is named by no packet.
        let id = secret_file(&folder, &ID_FILES).unwrap_or_default();
        let parsed =
            PacketDecryptionKey::parse_list(&text).map_err(|error| unusable(&folder, &error))?;
        keys.extend(parsed.into_iter().map(|key| MountedPacketKey {
            id: id.trim().to_owned(),
            key,
        }));
    }
    if keys.is_empty() || keys.len() > MAX_PACKET_KEYS {
        let message = format!("{} packet decryption keys are mounted", keys.len());
        return Err(configuration(
            message,
            format_args!("mount 1 to {MAX_PACKET_KEYS}"),
        ));
    }
    Ok(keys)
}

fn unusable(folder: &Path, error: &dyn Display) -> Failure {
    configuration(
        format_args!("the key in {} can't be used: {error}", folder.display()),
        "correct the Secret's `key`",
    )
}

/// The first of these files that is there.
fn secret_file(folder: &Path, names: &[&str]) -> Result<String, Failure> {
    let there: Option<PathBuf> = names
        .iter()
        .map(|name| folder.join(name))
        .find(|file| file.exists());
    let Some(file) = there else {
        let message = format!(
            "{} has neither `{}`",
            folder.display(),
            names.join("` nor `")
        );
        return Err(configuration(
            message,
            "put it into the Secret that is mounted there",
        ));
    };
    places::read_text(&file).map_err(|error| Failure {
        exit: ExitClass::Configuration,
        ..error
    })
}

/// Checks that the ledger is this processor's, or gives a new one an identity.
///
/// # Errors
/// [`ExitClass::Configuration`] for another ledger: nothing may be done then; otherwise the store's class.
pub async fn ledger(
    parameters: &Parameters,
    processor: &Processor,
    budget: &mut Budget,
) -> Result<LedgerIdentity, Failure> {
    let expected = ExpectedLedger {
        id: parameters.ledger_id,
        instance: &processor.instance,
        share: processor.share,
        start_at: &parameters.start_at,
    };
    loop {
        let error = match establish(&*processor.mailboxes.ledger, &expected, Uuid::new_v4()).await {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let retryable = error
            .mailbox_error()
            .is_some_and(mailbox::MailboxError::is_retryable);
        if !(retryable && budget.wait().await) {
            return Err(ledger_failure(error));
        }
    }
}

fn ledger_failure(error: IdentityError) -> Failure {
    match error {
        IdentityError::Mailbox { source } if source.kind() != MailboxErrorKind::NotFound => {
            source.into()
        }
        other => configuration(other, ""),
    }
}
