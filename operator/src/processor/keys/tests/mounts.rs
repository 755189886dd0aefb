//! What is mounted by work and by probes.

use super::*;

#[test]
fn work_mounts_what_is_used_and_what_workers_are_known_to_get() {
    let name = (PacketEncryption, "packets-key-2".to_owned());
    for state in [Written, Loaded, Published] {
        let mut rings = in_use();
        rings
            .get_mut("packets")
            .unwrap()
            .versions
            .insert(0, version("packets", 2, state));
        let with = "signing.1 packets.1 packets.2 old";
        let without = "signing.1 packets.1 old";
        // Whatever other processors' workers have: ours are asked.
        let unproven = resolved(&rings, &[], &[]);
        assert_eq!(work(&unproven), Ok(without.to_owned()), "{state:?}");
        assert_eq!(secrets(&unproven.all), with);
        assert!(unproven.versions.iter().any(VersionHere::waits_for_proof));
        let proven = resolved(&rings, &[], std::slice::from_ref(&name));
        assert_eq!(work(&proven), Ok(with.to_owned()));
        let loaded = resolved(&rings, &[known("packets", 2, state, true)], &[]);
        assert_eq!(work(&loaded), Ok(with.to_owned()));
        assert!(!loaded.versions.iter().any(VersionHere::waits_for_proof));
    }
    let mut rings = in_use();
    rings
        .get_mut("packets")
        .unwrap()
        .versions
        .push(version("packets", 0, Superseded));
    assert_eq!(
        work(&resolved(&rings, &[], &[])),
        Ok("signing.1 packets.1 packets.0 old".to_owned())
    );
}

#[test]
fn the_first_key_is_waited_for_and_a_ring_that_is_gone_takes_nothing_along() {
    let none = rings(vec![version("signing", 1, Written)], vec![version("packets", 1, InUse)]);
    assert_eq!(work(&resolved(&none, &[], &[])), Err(reasons::NO_KEY_YET));
    let before = [known("signing", 1, InUse, true), known("signing", 2, Written, false)];
    let mut gone = in_use();
    gone.remove("signing");
    let missing = resolved(&gone, &before, &[]);
    assert_eq!(work(&missing), Ok("signing.1 packets.1 old".to_owned()));
    assert_eq!(missing.trouble.unwrap().reason, reasons::KEY_RING_MISSING);
    // Nobody knows the public half of one that wasn't proven: it is neither asked for nor in the way of others.
    assert!(!missing.versions.iter().any(VersionHere::waits_for_proof));
    assert_eq!(secrets(&missing.all), "signing.1 packets.1 old");
    let wrong = rings(Vec::new(), Vec::new());
    let wrong = BTreeMap::from([("signing".to_owned(), wrong["packets"].clone())]);
    assert_eq!(work(&resolved(&wrong, &before, &[])), Err(reasons::KEY_RING_UNUSABLE));
}

#[test]
fn more_new_versions_than_a_pod_mounts_wait_and_work_goes_on() {
    let old = |ring: &str| (1..=3).map(|n| version(ring, n, Superseded)).collect::<Vec<_>>();
    let mut rings = rings(
        [vec![version("signing", 4, InUse)], old("signing")].concat(),
        vec![version("packets", 1, InUse)],
    );
    assert_eq!(work(&resolved(&rings, &[], &[])).unwrap().split(' ').count(), 6);
    rings
        .get_mut("signing")
        .unwrap()
        .versions
        .insert(0, version("signing", 5, Written));
    let surplus = resolved(&rings, &[], &[]);
    assert_eq!(work(&surplus).unwrap().split(' ').count(), 6);
    let trouble = surplus.trouble.unwrap();
    assert_eq!(trouble.reason, reasons::KEY_RING_UNUSABLE);
    assert!(trouble.message.contains("signing-key-5"), "{}", trouble.message);
    assert!(!secrets(&surplus.all).contains("signing.5"));
    assert!(!surplus.versions.iter().any(VersionHere::waits_for_proof));
    // Where all are needed, nothing can be left out.
    rings.get_mut("signing").unwrap().versions[0].state = Superseded;
    assert_eq!(work(&resolved(&rings, &[], &[])), Err(reasons::KEY_RING_UNUSABLE));
}

#[test]
fn equal_ids_of_two_rings_are_refused_and_keep_nobody_from_work_before_they_are_used() {
    let same = |mut version: KeyVersion| {
        version.id = "same".into();
        version
    };
    let mut both = in_use();
    both.get_mut("packets")
        .unwrap()
        .versions
        .insert(0, same(version("packets", 2, Written)));
    assert_eq!(resolved(&both, &[], &[]).trouble, None);
    both.get_mut("signing")
        .unwrap()
        .versions
        .insert(0, same(version("signing", 2, Written)));
    let refused = resolved(&both, &[], &[]);
    assert_eq!(work(&refused), Ok("signing.1 packets.1 old".to_owned()));
    let trouble = refused.trouble.unwrap();
    assert_eq!(trouble.reason, reasons::KEY_RING_UNUSABLE);
    assert!(
        trouble.message.contains("signing and packets have both"),
        "{}",
        trouble.message
    );
    assert!(
        !refused.versions.iter().any(VersionHere::waits_for_proof),
        "no probe can prove one of them"
    );
    // A proof of the one says nothing of the other.
    let one = resolved(&both, &[], &[(PacketEncryption, "same".to_owned())]);
    assert_eq!(work(&one), Ok("signing.1 packets.1 packets.2 old".to_owned()));
    assert!(!secrets(&one.all).contains("signing.2"));
    for name in ["signing", "packets"] {
        both.get_mut(name).unwrap().versions[0].state = Superseded;
    }
    assert_eq!(work(&resolved(&both, &[], &[])), Err(reasons::KEY_RING_UNUSABLE));
}

#[test]
fn no_status_makes_pods_mount_what_is_no_rings() {
    for secret in ["admin-password", "packets.01", "signing.1", "packets.1.backup"] {
        let mut rings = in_use();
        rings.get_mut("packets").unwrap().versions[0].secret = secret.into();
        let resolved = resolved(&rings, &[], &[]);
        assert_eq!(work(&resolved), Err(reasons::KEY_RING_UNUSABLE), "{secret}");
        assert_eq!(secrets(&resolved.all), "signing.1 old");
    }
}
