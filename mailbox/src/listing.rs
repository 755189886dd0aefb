//! Listings of stores that take a prefix, a start and a delimiter, made into what [`ListRequest`] promises.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{ListPage, ListRequest, MailboxError, ObjectKey, ObjectMeta};

/// The longest page that S3 and GCS give.
const PAGE: usize = 1000;

/// One request to a store, with whole names.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub prefix: &'a str,
    /// Only names after it.
    pub after: Option<&'a str>,
    /// Names with a `/` after the prefix are folded.
    pub folders: bool,
    /// 1 to 1,000.
    pub limit: usize,
}

/// An object as a store lists it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub name: String,
    pub size: u64,
    pub modified: Timestamp,
    pub sha256: Option<String>,
}

/// A store's answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub objects: Vec<Listed>,
    /// Names up to and with the `/`.
    pub folders: Vec<String>,
    /// There are more names after these; then these aren't empty.
    pub more: bool,
    /// The store's clock, in whole seconds.
    pub time: Option<Timestamp>,
}

/// A store that can be asked.
#[async_trait]
pub(crate) trait Lister: Sync {
    async fn ask(&self, query: Query<'_>) -> Result<Answer, MailboxError>;
    /// An error of this store.
    fn error(&self, detail: &str) -> MailboxError;
}

enum Entry {
    Object(Listed),
    Folder(String),
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Object(listed) => &listed.name,
            Self::Folder(folder) => folder,
        }
    }
}

/// One page of what is in the store below `root` (empty, or ending in `/`).
pub(crate) async fn list(store: &dyn Lister, root: &str, request: &ListRequest) -> Result<ListPage, MailboxError> {
    Listing { store, root, request }.page().await
}

struct Listing<'a> {
    store: &'a dyn Lister,
    root: &'a str,
    request: &'a ListRequest,
}

impl Listing<'_> {
    async fn page(&self) -> Result<ListPage, MailboxError> {
        let request = self.request;
        let mut left = request.limit.unwrap_or(PAGE).clamp(1, PAGE);
        let mut page = ListPage::default();
        let mut after = request.start_after.clone();
        // Stores differ in whether they fold what comes after a start inside a folder: that folder is asked for by itself.
        if let Some(start) = request
            .start_after
            .as_deref()
            .filter(|start| start.starts_with(&request.prefix))
            && let Some(folder) = request.folder_of(start)
        {
            let passed = ListRequest::after_folder(folder);
            if start < passed.as_str() {
                if self.holds_any(folder).await? {
                    page.folders.push(folder.to_owned());
                    left -= 1;
                    if left == 0 {
                        page.next = Some(passed);
                        return Ok(page);
                    }
                }
                after = Some(passed);
            }
        }
        let answer = self
            .ask(&request.prefix, after.as_deref(), request.folders, left)
            .await?;
        page.time = answer.time;
        let (entries, more) = cut(answer, left);
        let last = entries.last().map(|entry| match entry {
            Entry::Object(listed) => listed.name.clone(),
            Entry::Folder(folder) => ListRequest::after_folder(folder),
        });
        for entry in entries {
            if self.is_past_end(entry.name()) {
                return Ok(page);
            }
            if after.as_deref().is_some_and(|after| entry.name() <= after) {
                continue;
            }
            match entry {
                Entry::Object(listed) => page.objects.extend(meta(listed)),
                Entry::Folder(folder) => {
                    let cut = request.end_before.as_ref().is_some_and(|end| end.starts_with(&folder));
                    if !cut || self.holds_any(&folder).await? {
                        page.folders.push(folder);
                    }
                }
            }
        }
        page.next = last.filter(|_| more);
        if more && page.next <= request.start_after {
            return Err(self.store.error("its listing doesn't go on"));
        }
        Ok(page)
    }

    fn is_past_end(&self, name: &str) -> bool {
        self.request.end_before.as_deref().is_some_and(|end| name >= end)
    }

    /// Whether any name in `folder` is asked for.
    async fn holds_any(&self, folder: &str) -> Result<bool, MailboxError> {
        let mut after = self
            .request
            .start_after
            .clone()
            .filter(|start| start.starts_with(folder));
        loop {
            let answer = self.ask(folder, after.as_deref(), false, 2).await?;
            for listed in &answer.objects {
                if self.is_past_end(&listed.name) {
                    return Ok(false);
                }
                if ObjectKey::parse(listed.name.as_str()).is_ok() {
                    return Ok(true);
                }
            }
            match answer.objects.last() {
                Some(last) if answer.more => after = Some(last.name.clone()),
                _ => return Ok(false),
            }
        }
    }

    /// Asks with names inside the mailbox, and answers with such.
    async fn ask(
        &self,
        prefix: &str,
        after: Option<&str>,
        folders: bool,
        limit: usize,
    ) -> Result<Answer, MailboxError> {
        let whole = |name: &str| format!("{}{name}", self.root);
        let (prefix, after) = (whole(prefix), after.map(whole));
        let query = Query {
            prefix: &prefix,
            after: after.as_deref(),
            folders,
            limit,
        };
        let mut answer = self.store.ask(query).await?;
        let inside = |name: &str| name.strip_prefix(self.root).map(str::to_owned);
        answer.objects = answer
            .objects
            .into_iter()
            .filter_map(|listed| inside(&listed.name).map(|name| Listed { name, ..listed }))
            .collect();
        answer.folders = answer.folders.iter().filter_map(|folder| inside(folder)).collect();
        Ok(answer)
    }
}

/// The answer's first `limit` entries, in order, and whether there are more.
fn cut(mut answer: Answer, limit: usize) -> (Vec<Entry>, bool) {
    let mut more = answer.more;
    if answer.objects.len() + answer.folders.len() > limit
        && let Some(last) = answer.objects.last().filter(|_| more)
    {
        // Some stores count objects alone: then folders after the last one are ahead of objects yet to come.
        answer.folders.retain(|folder| *folder < last.name);
    }
    let objects = answer.objects.into_iter().map(Entry::Object);
    let mut entries: Vec<_> = objects.chain(answer.folders.into_iter().map(Entry::Folder)).collect();
    entries.sort_by(|a, b| a.name().cmp(b.name()));
    more |= entries.len() > limit;
    entries.truncate(limit);
    (entries, more)
}

/// `None` for names that none of our objects has: a person's folder markers.
fn meta(listed: Listed) -> Option<ObjectMeta> {
    let key = ObjectKey::parse(listed.name).ok()?;
    Some(ObjectMeta {
        key,
        size: listed.size,
        modified: listed.modified,
        sha256: listed.sha256,
    })
}
