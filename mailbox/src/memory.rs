//! A mailbox in memory, for tests: store times by an injected clock, and hands to do what a hostile or careless owner of
//! a store may do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;

use crate::{
    ExpiryRule, ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, ObjectBody, ObjectKey,
    ObjectMeta, ProbeEnd, PutOutcome, Upload,
};

/// Entries of a page where the request names no limit; as S3's.
const PAGE: usize = 1000;

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A mailbox in memory. Clones share their content.
#[derive(Clone)]
pub struct MemoryMailbox {
    url: MailboxUrl,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Bytes, Timestamp)>,
    refuse_reads: bool,
    refuse_writes: bool,
    failures: usize,
    open_uploads: usize,
    time: Option<Timestamp>,
    refuse_listing: bool,
    error: Option<MailboxError>,
    silent: bool,
    takes_everything: bool,
    expiry_rules: Option<Vec<ExpiryRule>>,
}

impl MemoryMailbox {
    /// An empty mailbox; `name` is for messages. Store times are the machine's.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_clock(name, Timestamp::now)
    }

    /// An empty mailbox whose store times `clock` gives.
    #[must_use]
    pub fn with_clock(name: &str, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            url: MailboxUrl::memory(name),
            clock: Arc::new(clock),
            state: Arc::default(),
        }
    }

    /// All content, by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, Bytes> {
        self.state()
            .objects
            .iter()
            .map(|(name, (content, _))| (name.clone(), content.clone()))
            .collect()
    }

    /// Overwrites or creates an object, as its owner could; the store time is the clock's.
    pub fn replace(&self, key: &ObjectKey, content: impl Into<Bytes>) {
        let now = (self.clock)();
        self.state()
            .objects
            .insert(key.as_str().to_owned(), (content.into(), now));
    }

    /// Removes an object, as its owner could; says whether it was there.
    pub fn remove(&self, key: &ObjectKey) -> bool {
        self.state().objects.remove(key.as_str()).is_some()
    }

    /// Sets an object's store time; says whether it was there.
    pub fn set_modified(&self, key: &ObjectKey, time: Timestamp) -> bool {
        self.state()
            .objects
            .get_mut(key.as_str())
            .map(|object| object.1 = time)
            .is_some()
    }

    /// From now on `open` and `head` are [`MailboxErrorKind::Denied`]: a partner that grants create and list only.
    pub fn refuse_reads(&self, refuse: bool) {
        self.state().refuse_reads = refuse;
    }

    /// From now on puts are [`MailboxErrorKind::Denied`].
    pub fn refuse_writes(&self, refuse: bool) {
        self.state().refuse_writes = refuse;
    }

    /// From now on `list` is [`MailboxErrorKind::Denied`].
    pub fn refuse_listing(&self, refuse: bool) {
        self.state().refuse_listing = refuse;
    }

    /// From now on every call ends with this error; `None`: as before.
    pub fn fail_with(&self, error: Option<MailboxError>) {
        self.state().error = error;
    }

    /// From now on it answers no call but those that list.
    pub fn fall_silent(&self) {
        self.state().silent = true;
    }

    /// From now on it is a store that doesn't compare checksums: what [`Mailbox::may_put`] sends stays there.
    pub fn take_everything(&self) {
        self.state().takes_everything = true;
    }

    /// From now on it has these rules. They delete nothing.
    pub fn expire(&self, rules: Vec<ExpiryRule>) {
        self.state().expiry_rules = Some(rules);
    }

    /// The next `calls` calls are [`MailboxErrorKind::Unavailable`].
    pub fn fail_next(&self, calls: usize) {
        self.state().failures = calls;
    }

    /// From now on listings tell this clock. Without it they tell none.
    pub fn tell_time(&self, time: Timestamp) {
        self.state().time = Some(time);
    }

    /// Uploads begun and not yet ended: 0 unless a test leaks one.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.state().open_uploads
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already; the map is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, key: Option<&ObjectKey>, call: Call) -> Result<MutexGuard<'_, State>, MailboxError> {
        let mut state = self.state();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let refused = match call {
            Call::Read => state.refuse_reads,
            Call::Write => state.refuse_writes,
            Call::List => state.refuse_listing,
        };
        let fault = if state.failures > 0 {
            state.failures -= 1;
            Some((MailboxErrorKind::Unavailable, "the test made this call fail"))
        } else if refused {
            Some((MailboxErrorKind::Denied, "the test refuses this call"))
        } else {
            None
        };
        match (fault, key) {
            (None, _) => Ok(state),
            (Some((kind, detail)), Some(key)) => Err(MailboxError::of_object(kind, &self.url, key, detail)),
            (Some((kind, detail)), None) => Err(MailboxError::of_mailbox(kind, &self.url, detail)),
        }
    }

    async fn answers(&self) {
        if self.state().silent {
            std::future::pending::<()>().await;
        }
    }

    fn put(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        let now = (self.clock)();
        let mut state = self.enter(Some(key), Call::Write)?;
        if state.objects.contains_key(key.as_str()) {
            return Ok(PutOutcome::Exists);
        }
        state.objects.insert(key.as_str().to_owned(), (content, now));
        Ok(PutOutcome::Created)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    List,
}

impl fmt::Debug for MemoryMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMailbox")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn meta(key: &ObjectKey, content: &Bytes, modified: Timestamp) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size: content.len() as u64,
        modified,
        sha256: None,
    }
}

#[async_trait]
impl Mailbox for MemoryMailbox {
    fn url(&self) -> &MailboxUrl {
        &self.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        self.answers().await;
        let state = self.enter(Some(key), Call::Read)?;
        let Some((content, modified)) = state.objects.get(key.as_str()) else {
            return Err(MailboxError::of_object(MailboxErrorKind::NotFound, &self.url, key, ""));
        };
        let mut rest = content.clone();
        let chunks =
            std::iter::from_fn(move || (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(64 * 1024)))));
        Ok(ObjectBody {
            meta: meta(key, content, *modified),
            stream: futures::stream::iter(chunks).boxed(),
        })
    }

    async fn read_range(&self, key: &ObjectKey, offset: u64, length: u64) -> Result<Bytes, MailboxError> {
        self.answers().await;
        let state = self.enter(Some(key), Call::Read)?;
        let Some((content, _)) = state.objects.get(key.as_str()) else {
            return Err(MailboxError::of_object(MailboxErrorKind::NotFound, &self.url, key, ""));
        };
        let within = |position: u64| usize::try_from(position).map_or(content.len(), |p| p.min(content.len()));
        Ok(content.slice(within(offset)..within(offset.saturating_add(length))))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.answers().await;
        let state = self.enter(Some(key), Call::Read)?;
        Ok(state
            .objects
            .get(key.as_str())
            .map(|(content, modified)| meta(key, content, *modified)))
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.answers().await;
        self.enter(Some(key), Call::Write)?.open_uploads += 1;
        Ok(Box::new(MemoryUpload {
            mailbox: self.clone(),
            key: key.clone(),
            content: BytesMut::new(),
        }))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.answers().await;
        self.put(key, content)
    }

    async fn may_put(&self, key: &ObjectKey) -> Result<ProbeEnd, MailboxError> {
        self.answers().await;
        let mut state = self.enter(Some(key), Call::Write)?;
        if !state.takes_everything {
            return Ok(ProbeEnd::ContentRefused);
        }
        if state.objects.contains_key(key.as_str()) {
            return Ok(ProbeEnd::NameTaken);
        }
        let now = (self.clock)();
        state
            .objects
            .insert(key.as_str().to_owned(), (Bytes::from_static(b"a probe"), now));
        let detail = "the test's store compares no checksums";
        Err(MailboxError::of_object(
            MailboxErrorKind::Unsupported,
            &self.url,
            key,
            detail,
        ))
    }

    async fn may_begin_upload(&self, key: &ObjectKey) -> Result<(), MailboxError> {
        self.begin_upload(key).await?.abort().await
    }

    async fn expiry_rules(&self) -> Result<Vec<ExpiryRule>, MailboxError> {
        self.answers().await;
        if let Some(error) = &self.state().error {
            return Err(error.clone());
        }
        let detail = "memory has no rules but those that a test gives";
        let absent = || MailboxError::of_mailbox(MailboxErrorKind::Unsupported, &self.url, detail);
        self.state().expiry_rules.clone().ok_or_else(absent)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        let state = self.enter(None, Call::List)?;
        let limit = request.limit.unwrap_or(PAGE).max(1);
        let mut page = ListPage {
            time: state.time,
            ..ListPage::default()
        };
        let mut last = String::new();
        for (name, (content, modified)) in state.objects.range(request.prefix.clone()..) {
            if !name.starts_with(&request.prefix) || request.end_before.as_ref().is_some_and(|end| name >= end) {
                break;
            }
            if request.start_after.as_ref().is_some_and(|start| name <= start) {
                continue;
            }
            let folder = request.folder_of(name);
            if folder.is_some() && folder == page.folders.last().map(String::as_str) {
                continue;
            }
            if page.objects.len() + page.folders.len() == limit {
                page.next = Some(last);
                break;
            }
            match folder {
                Some(folder) => {
                    last = ListRequest::after_folder(folder);
                    page.folders.push(folder.to_owned());
                }
                None => {
                    last.clone_from(name);
                    page.objects
                        .push(meta(&ObjectKey::parse(name.as_str())?, content, *modified));
                }
            }
        }
        Ok(page)
    }
}

struct MemoryUpload {
    mailbox: MemoryMailbox,
    key: ObjectKey,
    content: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError> {
        drop(self.mailbox.enter(Some(&self.key), Call::Write)?);
        self.content.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit_if_absent(mut self: Box<Self>) -> Result<PutOutcome, MailboxError> {
        let content = std::mem::take(&mut self.content).freeze();
        self.mailbox.put(&self.key, content)
    }

    async fn abort(self: Box<Self>) -> Result<(), MailboxError> {
        Ok(())
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.mailbox.state().open_uploads -= 1;
    }
}
