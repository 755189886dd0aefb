//! The Secrets of worker pods.

/// A Secret that worker pods mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its name.
    pub secret: String,
    /// The key's id, where a KeyRing says it: work lists pin it.
    pub id: Option<String>,
    /// The key's public half, PEM, where a KeyRing says it.
    pub public_key: Option<String>,
}

/// The Secrets of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// The first one signs; the others finish what they began.
    pub signing: Vec<Mount>,
    /// In the order in which they are tried.
    pub packets: Vec<Mount>,
}

impl KeySet {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Mount> {
        self.signing.iter().chain(&self.packets)
    }
}
