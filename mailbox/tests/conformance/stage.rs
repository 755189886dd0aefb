//! What an operation is tried on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mailbox::{
    Access, Credentials, FileMailbox, Mailbox, MailboxUrl, MemoryMailbox, Patience, open_mailbox, open_mailbox_with,
};

use crate::proxy::{Fault, Proxy, Seen};
use crate::servers::{BUCKET, OPEN_BUCKET, Server};

pub type Shared = Arc<dyn Mailbox>;

/// Whether a backend could show what an operation is about.
pub enum Shown {
    Yes,
    /// Our side of it: what we ask, or how we take an answer that is made up; why the store's own side isn't.
    Asked(&'static str),
    /// Why not.
    No(&'static str),
}

/// What is behind a mailbox.
#[derive(Clone)]
pub enum Backend {
    Memory(MemoryMailbox),
    File(PathBuf),
    Store(Arc<Server>),
}

/// One operation on one backend, in a mailbox of its own.
#[derive(Clone)]
pub struct Stage {
    pub backend: Backend,
    /// The mailbox's folder or prefix.
    pub name: String,
    /// In the bucket for everybody.
    pub open: bool,
}

/// Waits that are over soon, and still long enough for a busy machine.
pub fn short_patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(4),
        idle: Duration::from_millis(800),
        attempts: 4,
        first_wait: Duration::from_millis(40),
        longest_wait: Duration::from_millis(200),
        budget: 50,
    }
}

impl Stage {
    /// The mailbox, as users open it.
    pub fn mailbox(&self) -> Shared {
        match &self.backend {
            Backend::Memory(mailbox) => Arc::new(mailbox.clone()),
            Backend::File(root) => {
                let folder = root.join(&self.name);
                std::fs::create_dir_all(&folder).unwrap();
                open_mailbox(FileMailbox::in_folder(&folder).unwrap().url(), &Access::default()).unwrap()
            }
            Backend::Store(server) => open_mailbox(&self.url(server), &self.access(server)).unwrap(),
        }
    }

    pub fn url(&self, server: &Server) -> MailboxUrl {
        server.url(if self.open { OPEN_BUCKET } else { BUCKET }, &self.name)
    }

    /// In a bucket that takes unsigned requests: what is signed, a proxy can't change.
    pub fn unsigned(self) -> Self {
        Self { open: true, ..self }
    }

    fn access(&self, server: &Server) -> Access {
        let mut access = server.access();
        if self.open {
            access.credentials = Credentials::Anonymous;
        }
        access
    }

    /// The store's server; `Err`: why there is none.
    pub fn server(&self) -> Result<&Arc<Server>, Shown> {
        match &self.backend {
            Backend::Memory(_) => Err(Shown::No("there is no server: objects are in the process's own memory")),
            Backend::File(_) => Err(Shown::No("there is no server: objects are in a folder of this machine")),
            Backend::Store(server) => Ok(server),
        }
    }

    /// The mailbox behind a proxy that makes faults, with short patience.
    pub async fn behind(
        &self,
        script: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
    ) -> Result<(Shared, Proxy), Shown> {
        self.behind_with(short_patience(), |_| {}, script).await
    }

    /// [`Stage::behind`] with other waits and settings.
    pub async fn behind_with(
        &self,
        patience: Patience,
        settings: impl FnOnce(&mut Access),
        script: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
    ) -> Result<(Shared, Proxy), Shown> {
        let server = self.server()?;
        let proxy = Proxy::start(server.address(), script).await;
        let mut access = self.access(server);
        access.endpoint = Some(format!("http://{}", proxy.address));
        settings(&mut access);
        Ok((open_mailbox_with(&self.url(server), &access, patience).unwrap(), proxy))
    }
}

/// The value, or the end of the operation: the backend can't show it.
macro_rules! shown {
    ($attempt:expr) => {
        match $attempt {
            Ok(value) => value,
            Err(not) => return not,
        }
    };
}
pub(crate) use shown;
