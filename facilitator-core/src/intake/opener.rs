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
pub(crate) struct Opener<'a> {
    bins: u32,
    share: Share,
    keys: &'a [MountedPacketKey],
    /// The key that is tried right after those that a packet names.
    likely: Option<usize>,
    plaintext: Zeroizing<Vec<u8>>,
    elements: Zeroizing<Vec<u32>>,
}

impl<'a> Opener<'a> {
    pub fn new(bins: u32, share: Share, keys: &'a [MountedPacketKey]) -> Self {
        Self {
            bins,
            share,
            keys,
            likely: None,
            plaintext: Zeroizing::default(),
            elements: Zeroizing::default(),
        }
    }

    /// The same, trying this key first of those that a packet doesn't name.
    pub fn likely(self, likely: Option<usize>) -> Self {
        Self { likely, ..self }
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

    /// The first key that opens the packet: those of the id that it names, then the others, the likely one first of each.
    pub fn decrypt(&mut self, packet: &DataSharePacket) -> Option<usize> {
        let (keys, likely) = (self.keys, self.likely);
        let kind = |index: &usize| {
            let named = packet.encryption_key_id.as_deref() == Some(keys[*index].id.as_str());
            (named, likely == Some(*index))
        };
        let order = [(true, true), (true, false), (false, true), (false, false)];
        let mut tried = order
            .into_iter()
            .flat_map(|wanted| (0..keys.len()).filter(move |index| kind(index) == wanted));
        let plaintext = &mut self.plaintext;
        tried.find(|index| {
            #[cfg(test)]
            tests::TRIES.with(|tries| tries.set(tries.get() + 1));
            keys[*index]
                .key
                .decrypt_into(&packet.encrypted_payload, plaintext)
                .is_ok()
        })
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
    fn named_keys_are_tried_first_then_the_likely_one_then_the_others() {
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
        // The key, what the packet names, the likely key, how many are tried.
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
            let opened = Opener::new(5, Share::Second, &keys).likely(likely).open(&packet);
            assert_eq!(
                opened.ok().map(|opened| opened.mounted),
                Some(key),
                "{names:?} {likely:?}"
            );
            assert_eq!(TRIES.get(), expected, "{key} {names:?} {likely:?}");
        }
    }
}
