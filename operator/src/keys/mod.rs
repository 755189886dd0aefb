//! KeyRings: keys that follow each other without a packet or a signature lost. The decision is pure; the keys controller,
//! a Deployment and account of its own, carries it out.

pub mod act;
pub mod cluster;
pub mod decide;
pub mod forecast;
pub mod guard;
pub mod look;
pub mod note;
pub mod objects;
pub mod observe;
pub mod run;
pub mod settings;
pub mod status;
pub mod tries;
pub mod version;

#[cfg(test)]
mod tests;
