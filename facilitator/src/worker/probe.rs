//! Whether keys are mounted, as a stage's pods would find them. It needs no partner: keys are loaded before partners know
//! them, and partners may wait for ours.

use std::path::Path;

use facilitator_core::crypto::{BatchVerifyingKey, PublicPoint};
use facilitator_core::formats::work::{Parameters, ProbedKey};

use super::setup::{MountedKeys, configuration, mounted_keys};
use crate::exit::Failure;

/// Looks for each key among the mounted ones: by its id, and with the public half that was told. Returns their ids.
///
/// # Errors
/// [`crate::exit::ExitClass::Configuration`], naming the key that isn't there or is another.
pub fn probe(
    parameters: &Parameters,
    folder: &Path,
    signing: &[ProbedKey],
    packets: &[ProbedKey],
) -> Result<Vec<String>, Failure> {
    let MountedKeys {
        signing_key,
        other_signing_keys,
        packet_keys,
    } = mounted_keys(parameters, folder)?;
    let signs: Vec<(&str, &PublicPoint)> = std::iter::once(&signing_key)
        .chain(&other_signing_keys)
        .map(|key| (key.id(), key.verifying_key().point()))
        .collect();
    let opens: Vec<(&str, &PublicPoint)> = packet_keys
        .iter()
        .map(|key| (key.id.as_str(), key.key.public_point()))
        .collect();
    for (what, wanted, mounted) in [("signing", signing, signs), ("packet", packets, opens)] {
        for key in wanted {
            find(what, key, &mounted)?;
        }
    }
    Ok(signing.iter().chain(packets).map(|key| key.id.clone()).collect())
}

fn find(what: &str, key: &ProbedKey, mounted: &[(&str, &PublicPoint)]) -> Result<(), Failure> {
    let told = BatchVerifyingKey::from_pem(&key.public_key)
        .map_err(|error| configuration(format_args!("the public half of {:?}: {error}", key.id), ""))?;
    let Some((_, point)) = mounted.iter().find(|(id, _)| *id == key.id) else {
        return Err(configuration(
            format_args!("no mounted Secret holds the {what} key {:?}", key.id),
            "see whether somebody changed its Secret: its `id` must be the key's",
        ));
    };
    if *point != told.point() {
        return Err(configuration(
            format_args!(
                "the Secret of the {what} key {:?} holds another key than its KeyRing made",
                key.id
            ),
            "restore the Secret from its second copy, and find out who changed it",
        ));
    }
    Ok(())
}
