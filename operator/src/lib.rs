//! The operator: looks at each DataShareProcessor's mailboxes, decides what to do, starts worker Jobs, and says what happens.
//!
//! Two controllers: of processors, and of Peers, whose manifests processors rest on. Each reconcile observes (I/O), decides
//! (pure, the clock an argument), acts and reports (I/O). It holds no Secret rights and writes no mailbox.

pub mod batch;
pub mod claims;
mod digest;
pub mod health;
pub mod inventory;
pub mod keys;
pub mod lease;
pub mod metrics;
pub mod peer;
pub mod processor;
pub mod run;
pub mod schema;
pub mod settings;
pub mod status;
pub mod told;
mod undecodable;
pub mod window;
pub mod workload;
