//! Mailboxes and files as a person names them on the command line.

use std::path::Path;
use std::sync::Arc;

use mailbox::{Access, Mailbox, MailboxUrl, open_mailbox};

use crate::exit::Failure;

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
