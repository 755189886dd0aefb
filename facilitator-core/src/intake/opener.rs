//! Opening packets: all that is decided of a packet alone.

use zeroize::Zeroizing;

use crate::formats::ingestion::DataSharePacket;
use crate::formats::record::PacketExclusion;
use crate::formats::work::Share;
use crate::guards::query_point;
use crate::processor::MountedPacketKey;
use crate::proof::{ShareError, parse_first_share_into, parse_second_share_into};

/// A packet that was opened and checked; its share is in the opener.
pub(crate) struct OpenedPacket {
    /// Index of the key among the mounted ones.
    pub mounted: usize,
    /// `r_pit`, not reduced.
    pub r_pit: u32,
}

/// Opens packet after packet of one batch in the same buffers, which are wiped once, at the end.
///
/// The key that opened the last one is tried first. What becomes of a client's packet doesn't depend on that: of a key that
/// is mounted again the first one counts, so that no two open it. Whoever makes a packet that opens under two keys, which
/// GCM doesn't keep from them, has it counted under either or excluded; the record says which.
pub(crate) struct Opener<'a> {
    bins: u32,
    share: Share,
    keys: &'a [MountedPacketKey],
    /// The index of each key's first mount: those that are tried.
    tried: Vec<usize>,
    /// The key that opened the last packet of those that any opened.
    likely: Option<usize>,
    plaintext: Zeroizing<Vec<u8>>,
    elements: Zeroizing<Vec<u32>>,
}

impl<'a> Opener<'a> {
    pub fn new(bins: u32, share: Share, keys: &'a [MountedPacketKey]) -> Self {
        let point = |index: usize| keys[index].key.public_point();
        let is_first = |index: &usize| (0..*index).all(|earlier| point(earlier) != point(*index));
        Self {
            bins,
            share,
            keys,
            tried: (0..keys.len()).filter(is_first).collect(),
            likely: None,
            plaintext: Zeroizing::default(),
            elements: Zeroizing::default(),
        }
    }

    /// Opens a packet and checks all that doesn't depend on other packets: decryption, length, elements, query point.
    pub fn open(&mut self, packet: &DataSharePacket) -> Result<OpenedPacket, PacketExclusion> {
        let mounted = self.decrypt(packet).ok_or(PacketExclusion::Undecryptable)?;
        let parsed = match self.share {
            Share::First => parse_first_share_into(&self.plaintext, self.bins, &mut self.elements),
            Share::Second => parse_second_share_into(&self.plaintext, self.bins, &mut self.elements),
        };
        parsed.map_err(|error| match error {
            ShareError::ElementOutOfField { .. } => PacketExclusion::ElementOutOfField,
            ShareError::WrongDimension { .. } => PacketExclusion::WrongDimension,
        })?;
        let r_pit = u32::try_from(packet.r_pit).map_err(|_| PacketExclusion::QueryPointOutOfRange)?;
        if query_point::is_refused(r_pit, self.bins) {
            return Err(PacketExclusion::QueryPointRefused);
        }
        Ok(OpenedPacket { mounted, r_pit })
    }

    /// The share of the packet opened last: values and proof.
    pub fn elements(&self) -> &[u32] {
        &self.elements
    }

    /// The values of the packet opened last, one a bin.
    pub fn values(&self) -> &[u32] {
        &self.elements[..self.bins as usize]
    }

    /// The first key that opens the packet: those of the id that it names, then the others, of each the one that opened the
    /// last packet first.
    fn decrypt(&mut self, packet: &DataSharePacket) -> Option<usize> {
        let (keys, likely) = (self.keys, self.likely);
        // Under whichever of its mounts.
        let is_named = |index: usize| {
            packet.encryption_key_id.as_deref().is_some_and(|id| {
                let point = keys[index].key.public_point();
                keys.iter().any(|key| key.id == id && key.key.public_point() == point)
            })
        };
        let kind = |index: &usize| (is_named(*index), likely == Some(*index));
        let order = [(true, true), (true, false), (false, true), (false, false)];
        let (tried, plaintext) = (&self.tried, &mut self.plaintext);
        let mut tried = order
            .into_iter()
            .flat_map(|wanted| tried.iter().copied().filter(move |index| kind(index) == wanted));
        let opened = tried.find(|index| {
            #[cfg(test)]
            tests::TRIES.with(|tries| tries.set(tries.get() + 1));
            keys[*index]
                .key
                .decrypt_into(&packet.encrypted_payload, plaintext)
                .is_ok()
        });
        self.likely = opened.or(likely);
        opened
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use uuid::Uuid;

    use super::*;
    use crate::crypto::{PacketDecryptionKey, encrypt};

    std::thread_local! {
        /// How often this thread tried a key on a packet.
        pub(in crate::intake) static TRIES: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn named_keys_are_tried_first_then_the_one_that_opened_the_last_then_the_others() {
        let mut rng = StdRng::seed_from_u64(3);
        let keys: Vec<_> = (0..4)
            .map(|n| MountedPacketKey {
                id: format!("key-{n}"),
                key: PacketDecryptionKey::generate(&mut rng),
            })
            .collect();
        let mut packet = |key: usize, names: Option<&str>| DataSharePacket {
            uuid: Uuid::nil(),
            encrypted_payload: encrypt(keys[key].key.public_point(), &[7; 32], &mut rng).unwrap(),
            encryption_key_id: names.map(str::to_owned),
            r_pit: 12_345,
            version_configuration: None,
            device_nonce: None,
        };
        // The key, what the packet names, the key that opened the last packet, how many are tried.
        let table = [
            (3, None, None, 4),
            (3, None, Some(3), 1),
            (3, Some("key-3"), None, 1),
            (3, Some("key-3"), Some(0), 1),
            (3, Some("key-0"), Some(3), 2),
            (3, Some("unknown"), Some(3), 1),
            (0, None, Some(3), 2),
            (2, Some("key-3"), Some(1), 4),
            (2, Some("key-3"), Some(3), 4),
        ];
        for (key, names, likely, expected) in table {
            let packet = packet(key, names);
            TRIES.set(0);
            let mut opener = Opener::new(5, Share::Second, &keys);
            opener.likely = likely;
            let opened = opener.open(&packet);
            assert_eq!(
                opened.ok().map(|opened| opened.mounted),
                Some(key),
                "{names:?} {likely:?}"
            );
            assert_eq!(TRIES.get(), expected, "{key} {names:?} {likely:?}");
            assert_eq!(opener.likely, Some(key));
            let closed = DataSharePacket {
                encrypted_payload: vec![4; 90],
                ..packet
            };
            assert!(opener.open(&closed).is_err());
            assert_eq!(opener.likely, Some(key), "what no key opens tells nothing");
        }
    }

    #[test]
    fn a_key_that_is_mounted_again_is_the_first_one_under_all_of_its_ids() {
        let mut rng = StdRng::seed_from_u64(4);
        let [one, other] = [0, 1].map(|_| PacketDecryptionKey::generate(&mut rng));
        let again = |key: &PacketDecryptionKey| PacketDecryptionKey::parse(&key.to_base64()).unwrap();
        let mounted = [("a", again(&one)), ("b", again(&other)), ("c", again(&one)), ("", one)];
        let keys = mounted.map(|(id, key)| MountedPacketKey { id: id.into(), key });
        for (names, expected) in [(Some("a"), 1), (Some("c"), 1), (Some("b"), 2), (None, 1)] {
            let packet = DataSharePacket {
                uuid: Uuid::nil(),
                encrypted_payload: encrypt(keys[0].key.public_point(), &[7; 32], &mut rng).unwrap(),
                encryption_key_id: names.map(str::to_owned),
                r_pit: 12_345,
                version_configuration: None,
                device_nonce: None,
            };
            TRIES.set(0);
            let opened = Opener::new(5, Share::Second, &keys).open(&packet);
            assert_eq!(opened.ok().map(|opened| opened.mounted), Some(0), "{names:?}");
            assert_eq!(TRIES.get(), expected, "{names:?}");
        }
    }
}
