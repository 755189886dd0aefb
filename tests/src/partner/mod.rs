//! What runs in pods beside the parties: their web servers, the ingestor, and a store's front.

pub mod front;
pub mod ingest;
pub mod serve;
