//! What runs in pods beside the parties: their web servers, and the ingestor.

pub mod ingest;
pub mod serve;
