//! Key material of a test installation: the original's published test keys and fresh ones of ours.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A batch-signing key pair.
#[derive(Clone)]
pub struct SigningKey {
    /// The `key_identifier`.
    pub id: String,
    /// Base64 of the PKCS#8 key.
    pub secret: String,
}

impl SigningKey {
    /// The uncompressed public point, base64: the last 65 bytes of a PKCS#8 P-256 key.
    ///
    /// # Errors
    /// When the key isn't one.
    pub fn public(&self) -> Result<String> {
        let der = STANDARD.decode(&self.secret).context("a signing key isn't base64")?;
        match der.len().checked_sub(65).map(|at| &der[at..]) {
            Some(point) if point[0] == 4 => Ok(STANDARD.encode(point)),
            _ => bail!("signing key {} has no public point at its end", self.id),
        }
    }

    /// The private scalar, 32 bytes.
    ///
    /// # Errors
    /// When the key isn't a PKCS#8 P-256 key of the usual form.
    pub fn scalar(&self) -> Result<Vec<u8>> {
        let der = STANDARD.decode(&self.secret).context("a signing key isn't base64")?;
        let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = der
            .windows(5)
            .position(|w| w == marker)
            .context("a signing key isn't a PKCS#8 P-256 key")?
            + 5;
        Ok(der.get(at..at + 32).context("a signing key is too short")?.to_vec())
    }
}

/// A packet-decryption key pair.
#[derive(Clone)]
pub struct PacketKey {
    /// Its id; packets may name it.
    pub id: String,
    /// Base64 of the public point (65 bytes) and the scalar (32 bytes).
    pub secret: String,
}

impl PacketKey {
    /// The uncompressed public point, base64.
    ///
    /// # Errors
    /// When the key isn't one.
    pub fn public(&self) -> Result<String> {
        Ok(STANDARD.encode(&self.bytes()?[..65]))
    }

    /// The private scalar, 32 bytes.
    ///
    /// # Errors
    /// When the key isn't one.
    pub fn scalar(&self) -> Result<Vec<u8>> {
        Ok(self.bytes()?[65..].to_vec())
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let bytes = STANDARD.decode(&self.secret).context("a packet key isn't base64")?;
        if bytes.len() != 97 {
            bail!("packet key {} has {} bytes, not 97", self.id, bytes.len());
        }
        Ok(bytes)
    }
}

/// The keys of one share processor.
#[derive(Clone)]
pub struct PartyKeys {
    /// Signs its validation batches and sum parts.
    pub signing: SigningKey,
    /// Its own packet key.
    pub packet: PacketKey,
    /// The original's test key of its share: the fixtures are encrypted to it.
    pub fixture_packet: PacketKey,
}

/// All keys of an installation of two parties.
#[derive(Clone)]
pub struct KeySet {
    /// Signs the ingestion batches that we write.
    pub ingestor: SigningKey,
    /// Signed the original's ingestion batches.
    pub fixture_ingestor: SigningKey,
    /// Of First and Second.
    pub parties: [PartyKeys; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FixtureParty {
    signing: String,
    key_identifier: String,
    #[serde(default)]
    packet_decryption: String,
}

#[derive(Deserialize)]
struct FixtureKeys {
    ingestor: FixtureParty,
    first: FixtureParty,
    second: FixtureParty,
}

impl KeySet {
    /// Fresh keys, and beside them the original's from `keys.json` of the fixtures.
    ///
    /// # Errors
    /// When `keys.json` isn't of its form.
    pub fn make(fixture_keys: &str) -> Result<Self> {
        let fixtures: FixtureKeys = serde_json::from_str(fixture_keys).context("keys.json of the fixtures")?;
        let party = |name: &str, fixture: &FixtureParty| PartyKeys {
            signing: fresh_signing_key(&format!("{name}-signing-1")),
            packet: fresh_packet_key(&format!("{name}-packet-1")),
            fixture_packet: PacketKey {
                id: format!("{name}-packet-original"),
                secret: fixture.packet_decryption.clone(),
            },
        };
        Ok(Self {
            ingestor: fresh_signing_key("ingestor-fresh-1"),
            fixture_ingestor: SigningKey {
                id: fixtures.ingestor.key_identifier.clone(),
                secret: fixtures.ingestor.signing.clone(),
            },
            parties: [party("first", &fixtures.first), party("second", &fixtures.second)],
        })
    }

    /// Every private scalar: what no log, Event, object or argument may hold.
    ///
    /// # Errors
    /// When a key isn't one.
    pub fn scalars(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = self.scalars_beside_rings()?;
        for party in &self.parties {
            all.push((party.signing.id.clone(), party.signing.scalar()?));
            all.push((party.packet.id.clone(), party.packet.scalar()?));
        }
        Ok(all)
    }

    /// Those of the keys that are in use beside those of KeyRings.
    ///
    /// # Errors
    /// When a key isn't one.
    pub fn scalars_beside_rings(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = vec![(self.ingestor.id.clone(), self.ingestor.scalar()?)];
        for party in &self.parties {
            all.push((party.fixture_packet.id.clone(), party.fixture_packet.scalar()?));
        }
        Ok(all)
    }
}

fn scalar_and_point() -> ([u8; 32], Vec<u8>) {
    loop {
        let bytes: [u8; 32] = rand::random();
        // All but one of 2^32 random values are scalars of the curve.
        if let Ok(key) = p256::SecretKey::from_slice(&bytes) {
            let point = key.public_key().to_sec1_bytes();
            return (bytes, point.to_vec());
        }
    }
}

fn fresh_packet_key(id: &str) -> PacketKey {
    let (scalar, mut bytes) = scalar_and_point();
    bytes.extend(scalar);
    PacketKey {
        id: id.to_owned(),
        secret: STANDARD.encode(bytes),
    }
}

/// A new key pair of that id.
pub fn fresh_signing_key(id: &str) -> SigningKey {
    let (scalar, point) = scalar_and_point();
    // PKCS#8 of a P-256 key has a fixed form: version, algorithm, then scalar and point.
    let mut der = vec![0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13];
    der.extend([0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
    der.extend([0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    der.extend([0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20]);
    der.extend(scalar);
    der.extend([0xa1, 0x44, 0x03, 0x42, 0x00]);
    der.extend(point);
    SigningKey {
        id: id.to_owned(),
        secret: STANDARD.encode(der),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fresh_keys_have_their_parts_in_place() {
        let signing = fresh_signing_key("k");
        let key = p256::SecretKey::from_slice(&signing.scalar().unwrap()).unwrap();
        assert_eq!(
            signing.public().unwrap(),
            STANDARD.encode(key.public_key().to_sec1_bytes())
        );
        let packet = fresh_packet_key("k");
        let key = p256::SecretKey::from_slice(&packet.scalar().unwrap()).unwrap();
        assert_eq!(
            packet.public().unwrap(),
            STANDARD.encode(key.public_key().to_sec1_bytes())
        );
    }
}
