//! The API of prio-operator: group `prio-operator.io`, version `v1alpha1`.
//!
//! Types only: no cryptography, no reconciling. The YAML under the cluster chart and `docs/api.md` are generated from here.

pub mod batch;
pub mod conditions;
pub mod definitions;
pub mod key_ring;
pub mod names;
pub mod peer;
pub mod processor;
pub mod reference;
pub mod schema;
pub mod window;

pub use batch::{Batch, BatchSpec, BatchStatus};
pub use key_ring::{KeyRing, KeyRingSpec, KeyRingStatus};
pub use peer::{Peer, PeerSpec, PeerStatus};
pub use processor::{DataShareProcessor, DataShareProcessorSpec, DataShareProcessorStatus};
pub use window::{AggregationWindow, AggregationWindowSpec, AggregationWindowStatus};

/// The API group.
pub const GROUP: &str = "prio-operator.io";
/// The API version.
pub const VERSION: &str = "v1alpha1";
