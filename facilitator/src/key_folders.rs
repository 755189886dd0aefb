//! Keys in folders, one folder a key, in the form of the Secrets that worker pods mount: `key` is secret, `id` its name.
//! Beside them `public.pem`, for the partners.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use facilitator_core::crypto::{BatchSigningKey, BatchVerifyingKey, KeyError, PacketDecryptionKey};
use facilitator_core::formats::work::Share;

use crate::exit::{ExitClass, Failure};
use crate::places;
use crate::world::party;

/// The key folders below one folder.
pub struct KeyFolders {
    root: PathBuf,
}

impl KeyFolders {
    /// Those below `root`.
    pub fn of(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The ingestor's signing key.
    pub fn ingestor(&self) -> PathBuf {
        self.root.join("ingestor-keys/batch-signing")
    }

    /// A processor's signing key.
    pub fn signing(&self, share: Share) -> PathBuf {
        self.root.join(format!("{}-keys/batch-signing", party(share)))
    }

    /// A processor's packet-decryption key.
    pub fn packet(&self, share: Share) -> PathBuf {
        self.root.join(format!("{}-keys/packet-decryption/0", party(share)))
    }
}

/// Makes the keys that aren't there yet. Each folder, and whether its key was made.
///
/// # Errors
/// The file system's.
pub fn make(root: &Path) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let folders = KeyFolders::of(root);
    let mut made = vec![make_signing_key(folders.ingestor(), "ingestor")?];
    for share in [Share::First, Share::Second] {
        made.push(make_signing_key(folders.signing(share), party(share))?);
        made.push(make_packet_key(folders.packet(share), party(share))?);
    }
    Ok(made)
}

fn make_signing_key(folder: PathBuf, party: &str) -> Result<(PathBuf, bool), Failure> {
    if folder.join("public.pem").exists() {
        return Ok((folder, false));
    }
    let id = format!("{party}-batch-signing-key");
    let key = BatchSigningKey::generate(&id, &mut rand::rng());
    let secret = key
        .to_base64()
        .map_err(|error| Failure::new(ExitClass::Internal, error, "run it again"))?;
    write_key(&folder, &secret, &id, key.verifying_key())?;
    Ok((folder, true))
}

fn make_packet_key(folder: PathBuf, party: &str) -> Result<(PathBuf, bool), Failure> {
    if folder.join("public.pem").exists() {
        return Ok((folder, false));
    }
    let key = PacketDecryptionKey::generate(&mut rand::rng());
    let public = BatchVerifyingKey::from_point(key.public_point()).map_err(|error| malformed(&folder, &error))?;
    write_key(
        &folder,
        &key.to_base64(),
        &format!("{party}-packet-decryption-key"),
        &public,
    )?;
    Ok((folder, true))
}

/// Writes the public key last: where it is, the key is whole.
fn write_key(folder: &Path, secret: &str, id: &str, public: &BatchVerifyingKey) -> Result<(), Failure> {
    places::make_folder(folder)?;
    write_new(&folder.join("key"), secret, 0o600)?;
    write_new(&folder.join("id"), id, 0o644)?;
    write_new(&folder.join("public.pem"), &public.to_pem(), 0o644)
}

/// Writes a file of that mode; one of an interrupted run is replaced, never written through with its own mode.
fn write_new(file: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    let fail = |error| Failure::of_file(format_args!("can't write {}", file.display()), &error);
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .map_err(fail)?;
    file.write_all(content.as_bytes()).map_err(fail)
}

/// A key's id and public half, PEM.
///
/// # Errors
/// A file is missing, or holds no key.
pub fn public(folder: &Path) -> Result<(String, String), Failure> {
    let id = places::read_text(&folder.join("id"))?.trim().to_owned();
    Ok((id, verifying_key(&folder.join("public.pem"))?.to_pem()))
}

/// Reads a public key from a file, in any form that is in use.
///
/// # Errors
/// The file is missing, or holds no key.
pub fn verifying_key(file: &Path) -> Result<BatchVerifyingKey, Failure> {
    BatchVerifyingKey::parse(&places::read_text(file)?).map_err(|error| malformed(file, &error))
}

/// The signing key of a folder.
///
/// # Errors
/// A file is missing, or holds no key.
pub fn signing_key(folder: &Path) -> Result<BatchSigningKey, Failure> {
    let file = folder.join("key");
    let id = places::read_text(&folder.join("id"))?;
    let key = places::read_secret(&file)
        .map_err(|error| Failure::of_file(format_args!("can't read {}", file.display()), &error))?;
    BatchSigningKey::parse(id.trim(), &key).map_err(|error| malformed(&file, &error))
}

fn malformed(file: &Path, error: &KeyError) -> Failure {
    Failure::new(
        ExitClass::Configuration,
        format_args!("{}: {error}", file.display()),
        "put the right key there, or make keys with `facilitator keys`",
    )
}
