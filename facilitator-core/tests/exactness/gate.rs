//! Mailboxes that stop before every call until the test lets it pass, and then do it, or fail at it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey,
    ObjectMeta, PutOutcome, Upload,
};

use crate::world::Place;

/// What a call does to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Open,
    Head,
    List,
    Put,
    /// Nothing of an upload is visible before its commit.
    BeginOrWrite,
    Commit,
}

/// A call: which mailbox, what, and the object or prefix that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub place: usize,
    pub kind: Kind,
    pub name: String,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Head,
        Self::List,
        Self::Put,
        Self::BeginOrWrite,
        Self::Commit,
    ];
}

impl Op {
    pub fn changes(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::Commit)
    }

    /// The ledger's folder that it concerns: of claims, chunks and runs each are one.
    pub fn ledger_folder(&self) -> Option<&str> {
        let is_ledger = self.place % 4 == Place::Ledger as usize;
        let folder = self.name.split('/').next().filter(|_| is_ledger)?;
        Some(if self.name.contains("-runs/") { "runs" } else { folder })
    }

    /// Whether the two calls do the same in either order: neither sees what the other does.
    pub fn is_independent_of(&self, other: &Self) -> bool {
        if self.place != other.place || !(self.changes() || other.changes()) {
            return true;
        }
        match (self.kind, other.kind) {
            (Kind::BeginOrWrite, _) | (_, Kind::BeginOrWrite) => true,
            (Kind::List, _) => !other.name.starts_with(&self.name),
            (_, Kind::List) => !self.name.starts_with(&other.name),
            _ => self.name != other.name,
        }
    }
}

/// What goes wrong with a call that passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Done, and the answer is lost.
    LoseAnswer,
    /// Not done, and no answer.
    LoseRequest,
    /// Put twice, as by a library that tries again: the second answer comes back.
    Duplicate,
    /// As `Duplicate`, at a store that refuses to put what exists rather than say that it does (rule 11).
    DenySecond,
    /// A listing that doesn't show yet what came last: half of it is missing.
    StaleList,
    /// What is read breaks off half-way.
    CutBody,
}

impl Fault {
    pub const ALL: [Self; 6] = [
        Self::LoseAnswer,
        Self::LoseRequest,
        Self::Duplicate,
        Self::DenySecond,
        Self::StaleList,
        Self::CutBody,
    ];

    /// Whether it says of such a call something that no other fault says. Listings of our own ledger show at once what was
    /// put: rule 1 asks for such a store.
    pub fn is_of(self, op: &Op) -> bool {
        match self {
            Self::None => false,
            Self::LoseAnswer => true,
            Self::LoseRequest | Self::Duplicate | Self::DenySecond => op.changes(),
            Self::StaleList => op.kind == Kind::List && op.place % 4 != Place::Ledger as usize,
            Self::CutBody => op.kind == Kind::Open,
        }
    }

    /// Whether the worker may end in an error: one that is worth another try.
    pub fn may_fail(self) -> bool {
        matches!(self, Self::LoseAnswer | Self::LoseRequest | Self::CutBody)
    }
}

/// Holds the calls of one worker back.
#[derive(Default)]
pub struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    open: bool,
    next: u64,
    waiting: VecDeque<(u64, Op, Waker)>,
    granted: HashMap<u64, Fault>,
    abandoned: usize,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    pub fn closed() -> Arc<Self> {
        Arc::default()
    }

    /// Lets every call pass.
    pub fn open() -> Arc<Self> {
        let gate = Self::closed();
        gate.state().open = true;
        gate
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads that were neither committed nor aborted: a crash leaves such.
    pub fn abandoned(&self) -> usize {
        self.state().abandoned
    }

    /// The call that passes next.
    pub fn front(&self) -> Option<Op> {
        self.state().waiting.front().map(|(_, op, _)| op.clone())
    }

    /// Lets the call in front pass.
    pub fn grant(&self, fault: Fault) {
        let mut state = self.state();
        if let Some((id, _, waker)) = state.waiting.pop_front() {
            state.granted.insert(id, fault);
            drop(state);
            waker.wake();
        }
    }

    async fn pass(&self, op: Op) -> Fault {
        Pass {
            gate: self,
            op: Some(op),
            id: None,
        }
        .await
    }
}

struct Pass<'a> {
    gate: &'a Gate,
    op: Option<Op>,
    id: Option<u64>,
}

impl Future for Pass<'_> {
    type Output = Fault;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Fault> {
        let mut state = self.gate.state();
        if state.open {
            return Poll::Ready(Fault::None);
        }
        match self.id {
            None => {
                let id = state.next;
                state.next += 1;
                let op = self.op.clone();
                state.waiting.extend(op.map(|op| (id, op, context.waker().clone())));
                drop(state);
                self.id = Some(id);
                Poll::Pending
            }
            Some(id) => match state.granted.remove(&id) {
                Some(fault) => Poll::Ready(fault),
                None => {
                    if let Some(waiting) = state.waiting.iter_mut().find(|waiting| waiting.0 == id) {
                        waiting.2.clone_from(context.waker());
                    }
                    Poll::Pending
                }
            },
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.gate.state().waiting.retain(|waiting| waiting.0 != id);
        }
    }
}

/// A memory mailbox behind a gate.
#[derive(Clone, Debug)]
pub struct Gated {
    pub inner: Arc<MemoryMailbox>,
    pub place: usize,
    pub gate: Arc<Gate>,
    /// `false`: puts overwrite, and say that they created. What no mailbox of ours may do.
    pub conditional: bool,
}

impl Gated {
    async fn pass(&self, kind: Kind, name: &str) -> Fault {
        self.gate
            .pass(Op {
                place: self.place,
                kind,
                name: name.to_owned(),
            })
            .await
    }

    fn lost(&self, key: &ObjectKey) -> MailboxError {
        MailboxError::of_object(
            MailboxErrorKind::Unavailable,
            self.inner.url(),
            key,
            "the test lost the answer",
        )
    }

    async fn store(&self, key: &ObjectKey, content: Bytes, fault: Fault) -> Result<PutOutcome, MailboxError> {
        if fault == Fault::LoseRequest {
            return Err(self.lost(key));
        }
        if !self.conditional {
            self.inner.replace(key, content);
            return Ok(PutOutcome::Created);
        }
        let outcome = self.inner.put_if_absent(key, content.clone()).await?;
        match fault {
            Fault::LoseAnswer => Err(self.lost(key)),
            Fault::Duplicate => self.inner.put_if_absent(key, content).await,
            Fault::DenySecond => Err(MailboxError::of_object(
                MailboxErrorKind::Denied,
                self.inner.url(),
                key,
                "the test refuses the second try",
            )),
            _ => Ok(outcome),
        }
    }
}

#[async_trait]
impl Mailbox for Gated {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        match self.pass(Kind::Open, key.as_str()).await {
            Fault::LoseAnswer => Err(self.lost(key)),
            Fault::CutBody => {
                let ObjectBody { meta, stream } = self.inner.open(key).await?;
                let mut content: BytesMut = stream.try_collect().await?;
                content.truncate(content.len() / 2);
                let stream = futures::stream::iter([Ok(content.freeze()), Err(self.lost(key))]).boxed();
                Ok(ObjectBody { meta, stream })
            }
            _ => self.inner.open(key).await,
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        match self.pass(Kind::Head, key.as_str()).await {
            Fault::LoseAnswer => Err(self.lost(key)),
            _ => self.inner.head(key).await,
        }
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        if self.pass(Kind::BeginOrWrite, key.as_str()).await == Fault::LoseAnswer {
            return Err(self.lost(key));
        }
        Ok(Box::new(GatedUpload {
            mailbox: self.clone(),
            key: key.clone(),
            content: BytesMut::new(),
            counted: Some(self.inner.begin_upload(key).await?),
        }))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        let fault = self.pass(Kind::Put, key.as_str()).await;
        self.store(key, content, fault).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        match self.pass(Kind::List, &request.prefix).await {
            Fault::LoseAnswer => {
                let detail = "the test lost the answer";
                Err(MailboxError::of_mailbox(
                    MailboxErrorKind::Unavailable,
                    self.inner.url(),
                    detail,
                ))
            }
            Fault::StaleList => {
                let mut page = self.inner.list(request).await?;
                page.objects.truncate(page.objects.len() / 2);
                Ok(page)
            }
            _ => self.inner.list(request).await,
        }
    }
}

struct GatedUpload {
    mailbox: Gated,
    key: ObjectKey,
    content: BytesMut,
    /// The store's own, so that it can say how many are left; `None` once it ended.
    counted: Option<Box<dyn Upload>>,
}

#[async_trait]
impl Upload for GatedUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError> {
        if self.mailbox.pass(Kind::BeginOrWrite, self.key.as_str()).await == Fault::LoseAnswer {
            return Err(self.mailbox.lost(&self.key));
        }
        self.content.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit_if_absent(mut self: Box<Self>) -> Result<PutOutcome, MailboxError> {
        let fault = self.mailbox.pass(Kind::Commit, self.key.as_str()).await;
        self.counted = None;
        let content = std::mem::take(&mut self.content).freeze();
        self.mailbox.store(&self.key, content, fault).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), MailboxError> {
        self.counted = None;
        Ok(())
    }
}

impl Drop for GatedUpload {
    fn drop(&mut self) {
        self.mailbox.gate.state().abandoned += usize::from(self.counted.is_some());
    }
}
