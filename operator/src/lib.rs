//! The operator: looks at each DataShareProcessor's mailboxes, decides what to do, starts worker Jobs, and says what happens.
//!
//! One controller. Each reconcile of a processor observes (I/O), decides (pure, the clock an argument), acts and reports
//! (I/O). It holds no Secret rights and writes no mailbox.

pub mod batch;
mod digest;
pub mod health;
pub mod inventory;
pub mod keys;
pub mod lease;
pub mod metrics;
pub mod processor;
pub mod run;
pub mod schema;
pub mod settings;
pub mod status;
pub mod window;
pub mod workload;
