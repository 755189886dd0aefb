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
    plaintext: Zeroizing<Vec<u8>>,
    elements: Zeroizing<Vec<u32>>,
}

impl<'a> Opener<'a> {
    pub fn new(bins: u32, share: Share, keys: &'a [MountedPacketKey]) -> Self {
        Self {
            bins,
            share,
            keys,
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

    /// The first key that opens the packet: those of the id that it names, then the others in order.
    fn decrypt(&mut self, packet: &DataSharePacket) -> Option<usize> {
        let named = |key: &MountedPacketKey| packet.encryption_key_id.as_deref() == Some(key.id.as_str());
        let first = self.keys.iter().enumerate().filter(|(_, key)| named(key));
        let rest = self.keys.iter().enumerate().filter(|(_, key)| !named(key));
        let plaintext = &mut self.plaintext;
        first
            .chain(rest)
            .find(|(_, key)| key.key.decrypt_into(&packet.encrypted_payload, plaintext).is_ok())
            .map(|(index, _)| index)
    }
}
