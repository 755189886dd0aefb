//! Mailboxes and files as a person names them on the command line.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use mailbox::{Access, Mailbox, MailboxUrl, open_mailbox};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// The longest secret that is read, in bytes: a Secret of Kubernetes has 1 MiB at most.
const MAX_SECRET_BYTES: usize = 1 << 20;

/// A mailbox's URL from a URL or a local folder, relative ones included.
///
/// # Errors
/// Neither of them.
pub fn mailbox_url(place: &str) -> Result<MailboxUrl, Failure> {
    Ok(if place.contains("://") {
        MailboxUrl::parse(place)?
    } else {
        MailboxUrl::of_folder(Path::new(place))?
    })
}

/// Opens what [`mailbox_url`] names, as the clouds themselves want it.
///
/// # Errors
/// As there.
pub fn mailbox(place: &str) -> Result<Arc<dyn Mailbox>, Failure> {
    mailbox_with(place, &Access::default())
}

/// [`mailbox`] with other settings than the clouds' own.
///
/// # Errors
/// As there, and settings that can't be used.
pub fn mailbox_with(place: &str, access: &Access) -> Result<Arc<dyn Mailbox>, Failure> {
    Ok(open_mailbox(&mailbox_url(place)?, access)?)
}

/// Reads a small text file.
///
/// # Errors
/// It isn't there, may not be read, or isn't UTF-8.
pub fn read_text(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::of_file(format_args!("can't read {}", file.display()), &error))
}

/// Reads a small secret text, which is wiped when dropped, into room that doesn't have to grow: growing would leave copies.
///
/// # Errors
/// It isn't there, may not be read, isn't UTF-8, or is longer than a Kubernetes Secret can be.
pub fn read_secret(file: &Path) -> io::Result<Zeroizing<String>> {
    let mut source = File::open(file)?;
    // The file's length is no promise.
    let mut bytes = Zeroizing::new(vec![0; MAX_SECRET_BYTES + 1]);
    let mut length = 0;
    loop {
        match source.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > MAX_SECRET_BYTES {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            "it is longer than a Secret can be",
        ));
    }
    let text =
        str::from_utf8(&bytes[..length]).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it isn't UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Makes a folder with those above it; fine where it is.
///
/// # Errors
/// What the file system says.
pub fn make_folder(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::of_file(format_args!("can't make the folder {}", folder.display()), &error))
}

/// Replaces a file's content at once: a reader sees the old or the new.
///
/// # Errors
/// What the file system says.
pub fn replace_text(file: &Path, content: &str) -> Result<(), Failure> {
    let fail = |error| Failure::of_file(format_args!("can't write {}", file.display()), &error);
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    std::fs::write(&new, content).map_err(fail)?;
    std::fs::rename(&new, file).map_err(fail)
}
