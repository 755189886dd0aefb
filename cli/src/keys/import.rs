//! `kubectl prio keys import`: the original's Secret of a key becomes the Secrets and the record of a KeyRing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crds::key_ring::KeyPurpose;
use facilitator_core::crypto::csr::SigningRequest;
use facilitator_core::crypto::new_key::NewKey;
use facilitator_core::crypto::original::{OriginalVersion, read_versions};
use facilitator_core::crypto::{BatchSigningKey, PacketDecryptionKey};
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
The Secret is read as `kubectl get secret -o json` shows it: its key_versions.
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

/// Make the Secrets and the record of a KeyRing from a Secret of the original's key rotator.
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
    /// What the keys' ids begin with, as in the manifest; the time of creation follows.
    #[arg(long)]
    key_id_prefix: String,
    /// The common name of certificate signing requests; packet-encryption keys only.
    #[arg(long, required_if_eq("purpose", "packet-encryption"))]
    common_name: Option<String>,
    /// An age recipient that second copies are wrapped to; may be given again.
    #[arg(long = "recipient", value_name = "age1...")]
    recipients: Vec<String>,
    /// The manifest that is published now: requests for keys that it holds are taken from it, so that nothing changes there.
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
        .map(|file| requests(file))
        .transpose()?
        .unwrap_or_default();
    let imported = import(args, &namespace, &secret, &manifest, Timestamp::now())?;
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

/// The requests of packet keys in a manifest, by id.
fn requests(file: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let manifest: Value =
        serde_json::from_str(&read(file)?).map_err(|error| Failure::data(format!("{}: {error}", file.display())))?;
    let keys = manifest
        .get("packet-encryption-keys")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let request =
        |(id, key): (&String, &Value)| Some((id.clone(), key.get("certificate-signing-request")?.as_str()?.to_owned()));
    Ok(keys.filter_map(request).collect())
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
    published: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<Imported, Failure> {
    let data = secret.data.as_ref().and_then(|data| data.get("key_versions"));
    let text = data.and_then(|text| std::str::from_utf8(&text.0).ok());
    let text = text.ok_or_else(|| {
        Failure::data("the Secret has no key_versions: see that it is one of the original's key rotator")
    })?;
    let originals = read_versions(text).map_err(Failure::data)?;
    let primary = originals
        .iter()
        .find(|version| version.primary)
        .map_or(0, |version| version.created);
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
    for original in &originals {
        let number = original.created;
        let id = key_id(&args.key_id_prefix, number);
        let key = forms(args, &id, original)?;
        let mut made = vec![objects::secret(&args.ring, number, &key)];
        if !args.recipients.is_empty() {
            let backup = objects::backup(&args.ring, number, &key, namespace, &args.recipients);
            made.insert(0, backup.map_err(Failure::data)?);
        }
        for secret in &mut made {
            secret.metadata.namespace = Some(namespace.to_owned());
        }
        imported.secrets.extend(made);
        let mut version = version(&key, number, primary, now)?;
        version.backed_up = (!args.recipients.is_empty()).then_some(now);
        keep_request(&mut version, published)?;
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
fn version(key: &NewKey, number: i64, primary: i64, now: Timestamp) -> Result<Version, Failure> {
    let time = |second| Timestamp::from_second(second).map_err(|_| Failure::data(format!("{second} is no time")));
    let (created, primary_since) = (time(number)?, time(primary)?);
    let request = key.signing_request().map(str::to_owned);
    let mut version = Version::new(
        number,
        key.id().to_owned(),
        created,
        key.public_key().to_owned(),
        request,
    );
    version.written = Some(now);
    if number <= primary {
        (version.published, version.promoted) = (Some(created), Some(created));
        version.superseded = (number < primary).then_some(primary_since);
    }
    Ok(version)
}

/// The text that partners have, where it is of the same key.
fn keep_request(version: &mut Version, published: &BTreeMap<String, String>) -> Result<(), Failure> {
    let (Some(ours), Some(theirs)) = (&version.certificate_signing_request, published.get(&version.id)) else {
        return Ok(());
    };
    let point = |text: &str| {
        let parsed = SigningRequest::parse(text);
        parsed
            .map(|request| request.public_point)
            .map_err(|error| Failure::data(format!("{}: {error}", version.id)))
    };
    if point(ours)? != point(theirs)? {
        let id = &version.id;
        return Err(Failure::data(format!(
            "the manifest holds another key under the id {id} than the Secret"
        )));
    }
    version.certificate_signing_request = Some(theirs.clone());
    Ok(())
}

#[cfg(test)]
mod tests;
