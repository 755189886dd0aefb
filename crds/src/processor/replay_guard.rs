//! Whether and how far a packet that another batch has is refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A packet that another batch of this party has is left out: the same encrypted packet, answered under two query points,
/// would tell the client's values to whoever sees both answers. Each party guards alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayGuard {
    /// `false`: packets are looked for in their own batch alone, and an ingestor that sends one again in another batch can
    /// learn, with the peer or with us, what its client reported. Only where the ingestor is known not to do that.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// A batch is compared with those that were taken in at most so many days before it, whatever the times of their paths. What
    /// an ingestor holds back for longer passes, as long as the packet's key is in use: rotate packet keys at least as often.
    #[serde(default = "horizon_days")]
    #[schemars(range(min = 1, max = 90))]
    pub horizon_days: u16,
}

impl Default for ReplayGuard {
    fn default() -> Self {
        Self {
            enabled: enabled(),
            horizon_days: horizon_days(),
        }
    }
}

fn enabled() -> bool {
    true
}

fn horizon_days() -> u16 {
    14
}
