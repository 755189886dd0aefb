//! `kubectl prio keys import`: a Secret of a key that is in use becomes the Secrets and the record of a KeyRing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crds::key_ring::KeyPurpose;
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::crypto::new_key::NewKey;
use facilitator_core::crypto::original::{OriginalVersion, read_versions};
use facilitator_core::crypto::{BatchSigningKey, BatchVerifyingKey, KeyError, PacketDecryptionKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use operator::keys::objects;
use operator::keys::version::{REVISION, Record, Version, key_id};
use serde_json::{Value, json};

use crate::Failure;
use crate::connect::Connection;
use crate::output::line;

/// Examples for the help.
pub const AFTER: &str = "\
The Secret is read as `kubectl get secret -o json` shows it: its key_versions,
or else its one key with `key` and `id` (`secret_key` and `primary_kid`), as in
secretRef. Such a key keeps its id, which must be the key-id prefix.
`secret_key` alone, as before there was a key rotator, tells no id: the key-id
prefix is to be its id in the manifest. As with the rotator it is of 1970, so
that a KeyRing makes its successor at once.
What is written is secret (mode 0600): apply it, then delete it.

Example:
  kubectl -n old get secret prod-us-ct-ingestion-packet-decryption-key -o json |
    kubectl prio keys import -n us-ct-workers --ring us-ct-packets \\
      --purpose packet-encryption --common-name us-ct.prod.certificates.example.org \\
      --key-id-prefix prod-us-ct-ingestion-packet-decryption-key \\
      --recipient age1... --manifest us-ct-g-enpa-manifest.json --into imported
  kubectl apply --server-side -f imported
  rm -r imported

Then apply the KeyRing, with the same purpose and key-id prefix: it finds its
versions, uses the primary one and renews it when its age says so.";

/// Make the Secrets and the record of a KeyRing from a Secret of the original's key rotator, or one of `secretRef`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Secret as JSON; `-` is the standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    from: PathBuf,
    /// Name of the KeyRing that is to have the keys.
    #[arg(long, value_parser = ring_name)]
    ring: String,
    /// What the keys are for.
    #[arg(long, value_enum)]
    purpose: Purpose,
    /// What the keys' ids begin with, as in the manifest; the time of creation follows. The whole id of a key that is
    /// alone in its Secret.
    #[arg(long)]
    key_id_prefix: String,
    /// The common name of certificate signing requests; packet-encryption keys only.
    #[arg(long, required_if_eq("purpose", "packet-encryption"))]
    common_name: Option<String>,
    /// An age recipient that second copies are wrapped to; may be given again.
    #[arg(long = "recipient", value_name = "age1...")]
    recipients: Vec<String>,
    /// The manifest that is published now: certificate signing requests are taken from it, keys that it holds count as
    /// published, and all of them must be in the Secret.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The folder that gets the files.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

/// What keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// They sign batches.
    BatchSigning,
    /// Clients encrypt packets to them.
    PacketEncryption,
}

fn ring_name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > 40 || edges || !text.chars().all(fine) {
        return Err("a KeyRing's name has at most 40 lower-case letters, digits and hyphens".to_owned());
    }
    Ok(text.to_owned())
}

/// Runs it.
///
/// # Errors
/// A Secret or a manifest that can't be read, a folder that can't be written.
pub fn run(connection: &Connection, args: &Args) -> Result<(), Failure> {
    let namespace = connection.namespace.clone();
    let namespace =
        namespace.ok_or_else(|| Failure::data("give --namespace: second copies say where their Secret belongs"))?;
    let text = read(&args.from)?;
    let secret: Secret = serde_json::from_str(&text).map_err(|_| {
        Failure::data(format!(
            "{} is no Secret as `kubectl get secret -o json` shows it",
            args.from.display()
        ))
    })?;
    let manifest = args
        .manifest
        .as_ref()
        .map(|file| published(file, args.purpose))
        .transpose()?;
    let imported = import(args, &namespace, &secret, manifest.as_ref(), Timestamp::now())?;
    fs::create_dir_all(&args.into).map_err(|error| Failure::missing(format!("{}: {error}", args.into.display())))?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": imported.secrets});
    write(&args.into.join("secrets.json"), &list)?;
    write(&args.into.join("versions.json"), &json!(imported.record))?;
    for told in &imported.told {
        line(told);
    }
    line(format_args!(
        "\nkubectl apply --server-side -f {0} && rm -r {0}\nThen apply KeyRing {1} with purpose {2:?} and keyIdPrefix {3}.",
        args.into.display(),
        args.ring,
        purpose(args.purpose),
        args.key_id_prefix
    ));
    Ok(())
}

fn purpose(of: Purpose) -> KeyPurpose {
    match of {
        Purpose::BatchSigning => KeyPurpose::BatchSigning,
        Purpose::PacketEncryption => KeyPurpose::PacketEncryption,
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|read| text = read)
    };
    read.map_err(|error| Failure::missing(format!("{}: {error}", file.display())))?;
    Ok(text)
}

/// The keys of a purpose in a manifest, by id: public keys, or requests of packet keys.
fn published(file: &Path, of: Purpose) -> Result<BTreeMap<String, String>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::data(format!("{}: {error}", file.display()));
    let manifest: Value = serde_json::from_str(&read(file)?).map_err(|error| wrong(&error))?;
    let member = match of {
        Purpose::BatchSigning => "public-key",
        Purpose::PacketEncryption => "certificate-signing-request",
    };
    let field = objects::public_field(purpose(of));
    let keys = manifest.get(field).and_then(Value::as_object);
    let keys = keys.ok_or_else(|| {
        wrong(&format_args!(
            "no manifest of a data share processor, as it has no {field}"
        ))
    })?;
    let key = |(id, key): (&String, &Value)| match key.get(member).and_then(Value::as_str) {
        Some(text) => Ok((id.clone(), text.to_owned())),
        None => Err(wrong(&format_args!("{field}: {id} has no {member}"))),
    };
    keys.iter().map(key).collect()
}

/// Written whole, readable by its owner alone; one that is there is not written over.
fn write(file: &Path, content: &Value) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| file.write_all(content.to_string().as_bytes()));
    written.map_err(|error| Failure::data(format!("{}: {error}", file.display())))
}

/// What is to be applied.
#[derive(Debug)]
struct Imported {
    secrets: Vec<Secret>,
    record: ConfigMap,
    /// One line a key.
    told: Vec<String>,
}

fn import(
    args: &Args,
    namespace: &str,
    secret: &Secret,
    published: Option<&BTreeMap<String, String>>,
    now: Timestamp,
) -> Result<Imported, Failure> {
    let existing = existing(args, secret, now)?;
    let ids = |id: &&String| existing.iter().all(|one| one.key.id() != *id);
    if let Some(id) = published.and_then(|published| published.keys().find(ids)) {
        return Err(Failure::data(format!(
            "the manifest holds the key {id}, and the Secret doesn't: a KeyRing must have all keys that are published"
        )));
    }
    let mut imported = Imported {
        secrets: Vec::new(),
        record: ConfigMap::default(),
        told: Vec::new(),
    };
    let mut record = Record {
        revision: REVISION,
        purpose: purpose(args.purpose),
        key_id_prefix: args.key_id_prefix.clone(),
        rotation_answered: None,
        versions: Vec::new(),
    };
    let primary = existing.iter().find(|one| one.primary);
    let primary = primary.ok_or_else(|| Failure::data("no version is primary"))?;
    for one in &existing {
        let (number, id) = (one.number, one.key.id());
        let mut made = vec![objects::secret(&args.ring, number, &one.key)];
        if !args.recipients.is_empty() {
            let backup = objects::backup(&args.ring, number, &one.key, namespace, &args.recipients);
            made.insert(0, backup.map_err(Failure::data)?);
        }
        for secret in &mut made {
            secret.metadata.namespace = Some(namespace.to_owned());
        }
        imported.secrets.extend(made);
        let mut version = version(one, primary, now);
        version.backed_up = (!args.recipients.is_empty()).then_some(now);
        if let Some(theirs) = published.and_then(|published| published.get(id)) {
            note_published(&mut version, theirs, now)?;
        }
        let state = version.state().map_or_else(String::new, |state| format!("{state:?}"));
        imported
            .told
            .push(format!("{id}: Secret {}, {state}", objects_name(&args.ring, number)));
        record.versions.push(version);
    }
    let text = record.to_text().map_err(Failure::data)?;
    imported.record = objects::record(&args.ring, text);
    imported.record.metadata.namespace = Some(namespace.to_owned());
    Ok(imported)
}

fn objects_name(ring: &str, number: i64) -> String {
    operator::keys::version::secret_name(ring, number)
}

/// A key that is there.
struct Existing {
    number: i64,
    created: Timestamp,
    /// Whether it is used for new work.
    primary: bool,
    key: NewKey,
}

/// The keys of the Secret, oldest first.
fn existing(args: &Args, secret: &Secret, now: Timestamp) -> Result<Vec<Existing>, Failure> {
    let text = |names: [&str; 2]| {
        let data = secret.data.as_ref()?;
        let text = names.iter().find_map(|name| data.get(*name))?;
        std::str::from_utf8(&text.0).ok()
    };
    if let Some(versions) = text(["key_versions"; 2]) {
        let existing = |original: &OriginalVersion| -> Result<Existing, Failure> {
            let number = original.created;
            Ok(Existing {
                number,
                created: Timestamp::from_second(number).map_err(|_| Failure::data(format!("{number} is no time")))?,
                primary: original.primary,
                key: forms(args, &key_id(&args.key_id_prefix, number), original)?,
            })
        };
        return read_versions(versions)
            .map_err(Failure::data)?
            .iter()
            .map(existing)
            .collect();
    }
    let prefix = args.key_id_prefix.as_str();
    let (key, id, created) = match (text(["key", "secret_key"]), text(["id", "primary_kid"])) {
        (Some(key), Some(id)) => {
            let made = secret.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
            (key, id.trim(), made.min(now))
        }
        (Some(_), None) if is_legacy(secret) && prefix.is_empty() => {
            return Err(Failure::data(
                "the Secret has secret_key alone: give the key's id in the manifest as --key-id-prefix",
            ));
        }
        // Its age isn't known either: the original's rotator says 0.
        (Some(key), None) if is_legacy(secret) => (key, prefix, Timestamp::UNIX_EPOCH),
        _ => {
            return Err(Failure::data(
                "the Secret has neither key_versions, as the original's key rotator makes them, nor key and id, nor \
                 secret_key alone",
            ));
        }
    };
    if id != prefix {
        return Err(Failure::data(format!(
            "the key's id is {id}: it stays, so that --key-id-prefix must be {id}, and the ids of later versions begin with it"
        )));
    }
    let wrong = |error: KeyError| Failure::data(format!("{id}: {error}"));
    let key = match args.purpose {
        Purpose::BatchSigning => BatchSigningKey::parse(id, key).and_then(|key| NewKey::of_batch_signing(&key)),
        Purpose::PacketEncryption => {
            let name = args.common_name.as_deref().unwrap_or_default();
            PacketDecryptionKey::parse(key).and_then(|key| NewKey::of_packet_encryption(id, &key, name))
        }
    };
    Ok(vec![Existing {
        number: 0,
        created,
        primary: true,
        key: key.map_err(wrong)?,
    }])
}

/// Whether it is of before the original's key rotator: `secret_key`, and nothing that tells its id or its age.
fn is_legacy(secret: &Secret) -> bool {
    let has = |name: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(name));
    let others = ["key_versions", "primary_kid", "key", "id"];
    has("secret_key") && !others.iter().any(|name| has(name))
}

fn forms(args: &Args, id: &str, original: &OriginalVersion) -> Result<NewKey, Failure> {
    let key = match args.purpose {
        Purpose::BatchSigning => {
            BatchSigningKey::from_scalar(id, &original.scalar).and_then(|key| NewKey::of_batch_signing(&key))
        }
        Purpose::PacketEncryption => {
            let name = args.common_name.as_deref().unwrap_or_default();
            PacketDecryptionKey::from_scalar(original.scalar.clone())
                .and_then(|key| NewKey::of_packet_encryption(id, &key, name))
        }
    };
    key.map_err(|error| Failure::data(format!("{id}: {error}")))
}

/// As the original had it: the primary one is in use, older ones were.
fn version(one: &Existing, primary: &Existing, now: Timestamp) -> Version {
    let (key, created) = (&one.key, one.created);
    let request = key.signing_request().map(str::to_owned);
    let mut version = Version::new(
        one.number,
        key.id().to_owned(),
        created,
        key.public_key().to_owned(),
        request,
    );
    version.written = Some(now);
    if one.number <= primary.number {
        (version.published, version.promoted) = (Some(created), Some(created));
        version.superseded = (one.number < primary.number).then_some(primary.created);
    }
    version
}

/// The manifest holds it: partners know it since now at the latest, and a request keeps its text.
fn note_published(version: &mut Version, theirs: &str, now: Timestamp) -> Result<(), Failure> {
    let id = version.id.clone();
    let point = |text: &str| {
        let point = match version.certificate_signing_request {
            Some(_) => SigningRequest::parse(text).map(|request| request.public_point),
            None => BatchVerifyingKey::parse(text).map(|key| *key.point()),
        };
        point.map_err(|error| Failure::data(format!("{id}: {error}")))
    };
    if point(version.public_text())? != point(theirs)? {
        return Err(Failure::data(format!(
            "the manifest holds another key under the id {id} than the Secret"
        )));
    }
    if let Some(request) = &mut version.certificate_signing_request {
        *request = theirs.to_owned();
    }
    version.published.get_or_insert(now);
    Ok(())
}

#[cfg(test)]
mod tests;
