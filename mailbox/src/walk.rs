//! Lists a folder tree in byte order of whole names, page by page, without entering folders that can't matter.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::file::{UPLOADS, meta_of};
use crate::{ListPage, ListRequest, ObjectKey};

/// Entries of a page where the request names no limit. Each page reads again the folders that it touches, so it is
/// larger than a cloud's.
const PAGE: usize = 10_000;

/// A fault, and the name of the folder or object that it concerns.
type Fault = (String, io::Error);

/// One page of the objects below `root`, which exists.
pub(crate) fn list(root: &Path, request: &ListRequest) -> Result<ListPage, Fault> {
    let limit = request.limit.unwrap_or(PAGE).max(1);
    let mut walk = Walk {
        request,
        limit,
        page: ListPage::default(),
        last: String::new(),
    };
    walk.folder(root, "")?;
    Ok(walk.page)
}

struct Walk<'a> {
    request: &'a ListRequest,
    limit: usize,
    page: ListPage,
    /// What `start_after` must be to go on after the last entry.
    last: String,
}

/// A folder's entry, by what its names begin with: folders sort as if they ended in `/`, as their objects' names do.
struct Entry {
    name: String,
    path: PathBuf,
}

impl Walk<'_> {
    /// Lists the folder whose objects' names begin with `name` (empty, or ending in `/`). `false`: the page is full.
    fn folder(&mut self, path: &Path, name: &str) -> Result<bool, Fault> {
        let entries = match self.entries(path, name) {
            Ok(entries) => entries,
            // Gone since its parent was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !name.is_empty() => {
                return Ok(true);
            }
            Err(error) => return Err((name.to_owned(), error)),
        };
        for entry in entries {
            let go_on = if !entry.name.ends_with('/') {
                self.object(&entry)?
            } else if let Some(folder) = self.request.folder_of(&entry.name) {
                self.fold(&entry.path, &entry.name, folder)?
            } else {
                self.folder(&entry.path, &entry.name)?
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The folder's entries that can hold or be what is asked for, in order.
    fn entries(&self, path: &Path, name: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // No object of ours has a name that isn't UTF-8; a person's file may.
            let Ok(own) = entry.file_name().into_string() else {
                continue;
            };
            let kind = entry.file_type()?;
            let whole = if kind.is_dir() {
                format!("{name}{own}/")
            } else if kind.is_file() {
                format!("{name}{own}")
            } else {
                continue;
            };
            if self.matters(&whole) && !(name.is_empty() && own == UPLOADS) {
                entries.push(Entry {
                    name: whole,
                    path: entry.path(),
                });
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Whether the object `name`, or for a name ending in `/` any name that begins with it, may be asked for.
    fn matters(&self, name: &str) -> bool {
        let ListRequest {
            prefix,
            start_after,
            end_before,
            ..
        } = self.request;
        let is_folder = name.ends_with('/');
        let fits = name.starts_with(prefix.as_str()) || (is_folder && prefix.starts_with(name));
        let after = start_after
            .as_deref()
            .is_none_or(|start| name > start || (is_folder && start.starts_with(name)));
        let before = end_before.as_deref().is_none_or(|end| name < end);
        fits && after && before
    }

    fn is_full(&mut self) -> bool {
        let full = self.page.objects.len() + self.page.folders.len() >= self.limit;
        if full {
            self.page.next = Some(self.last.clone());
        }
        full
    }

    fn object(&mut self, entry: &Entry) -> Result<bool, Fault> {
        let Ok(key) = ObjectKey::parse(entry.name.as_str()) else {
            return Ok(true);
        };
        if self.is_full() {
            return Ok(false);
        }
        match fs::symlink_metadata(&entry.path).and_then(|meta| meta_of(&key, &meta)) {
            Ok(meta) => {
                self.last.clone_from(&entry.name);
                self.page.objects.push(meta);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err((entry.name.clone(), error)),
        }
    }

    /// Folds a folder into one entry, if any object of it is asked for: stores have no empty folders.
    fn fold(&mut self, path: &Path, name: &str, folder: &str) -> Result<bool, Fault> {
        let one = ListRequest {
            folders: false,
            ..self.request.clone()
        };
        let mut probe = Walk {
            request: &one,
            limit: 1,
            page: ListPage::default(),
            last: String::new(),
        };
        probe.folder(path, name)?;
        if probe.page.objects.is_empty() {
            return Ok(true);
        }
        if self.is_full() {
            return Ok(false);
        }
        self.last = ListRequest::after_folder(folder);
        self.page.folders.push(folder.to_owned());
        Ok(true)
    }
}
