//! What runs in pods beside the parties: their web servers.

pub mod serve;
