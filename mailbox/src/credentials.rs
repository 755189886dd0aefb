//! Who calls a store. Each way to get a token or key is a small provider; none shows a secret.

mod aws;
#[cfg(test)]
pub(crate) mod double;
pub(crate) mod google;

pub(crate) use aws::{for_aws, kind_of};
pub(crate) use google::for_gcs;
