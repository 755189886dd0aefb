//! What to do about a reason, in a sentence; `docs/operations.md` says more. Pure.

use crds::conditions::reasons;

/// Where what isn't known here is told.
const ELSEWHERE: &str = "look its reason up in the guide's table of reasons";

/// What to do about a reason of the operator's own conditions, or about one that keeps a pod from starting.
pub(super) fn remedy(reason: &str) -> &'static str {
    match reason {
        // `PeersKnown`.
        reasons::PEER_MISSING => "make the Peer, or correct the reference to it",
        reasons::PEER_UNKNOWN => "run kubectl describe peer, and mend what keeps its manifest from being known",
        reasons::PARTY_DIFFERS => "correct the reference, or make another Peer for this party",
        reasons::IDENTITY_DIFFERS => {
            "ask the peer which identity is right, and correct mailboxes.outgoing.peer.credentials or let it \
             correct its manifest"
        }
        reasons::MAILBOX_REFUSED => {
            "ask that party to correct its manifest, or write the mailbox's URL into mailboxes.outgoing"
        }
        reasons::INVALID_SPEC => "correct the field of the spec that it names",

        // `MailboxesListed`.
        reasons::LISTING_FAILED => {
            "mend what it names: a store must be there and the operator let out to it (the party chart's \
             mailboxes.network), a folder mounted for the operator (extraVolumeMounts) and readable for user 65532"
        }
        reasons::ACCESS_DENIED => {
            "give the operator's identity, not the workers', the right to list and read that mailbox (a folder: \
             user 65532)"
        }
        reasons::NO_SUCH_MAILBOX => "correct the mailbox's URL, or make the bucket or folder",
        reasons::WRONG_SETTINGS => {
            "correct the mailbox's setting that it names: URL, region, endpoint, authorities or credentials"
        }

        // `KeysLoaded`, and `ManifestPublished` of a processor with KeyRings.
        reasons::KEY_RING_MISSING => {
            "apply the KeyRing again under its name, or correct the reference to it in spec.keys"
        }
        reasons::KEY_RING_UNUSABLE => {
            "mend what it says of the KeyRing, see that the keys controller runs, or correct spec.keys"
        }
        reasons::NO_KEY_YET => "run kubectl describe keyring, and give it what it waits for",
        reasons::PROBING => {
            "unset spec.suspend if it is set, wait for the Jobs that it names, and ask for another preflight"
        }
        reasons::PROBE_FAILED => {
            "mend the Secret, the right or the key that it names: workers are asked again by themselves"
        }

        // `ManifestPublished`.
        reasons::MANIFEST_REFUSED => "correct the field of spec.manifest that it names",
        reasons::PUBLISH_FAILED => {
            "list the ConfigMap in the party chart's manifests.configMaps, and see that nobody else writes it"
        }
        reasons::NOT_SERVED => {
            "have the web server at manifest.servedAt serve what the ConfigMap holds, and the operator let out to it"
        }
        reasons::OTHER_KEY_SERVED => {
            "find out at once who serves that key and who has it, and tell partners not to fetch until it is mended"
        }
        reasons::CACHED_TOO_LONG => "have the web server send Cache-Control: no-cache",

        // `Pod`.
        reasons::IMAGE_NOT_PULLED => {
            "correct the party chart's workers.image, or give the registry's Secret in spec.workers.imagePullSecrets"
        }
        reasons::QUOTA_EXCEEDED => "raise the quota or limit, or lower maxPods or resources of spec.workers",
        reasons::ADMISSION_REFUSED => {
            "mend what the policy or webhook refuses; an image, account or Secret that isn't listed goes into the \
             party chart's values"
        }
        reasons::RIGHTS_MISSING => "install the party chart for this namespace, or give back the Role that it makes",
        reasons::MOUNT_MISSING => {
            "make the Secret, claim or ConfigMap that it names, or free its volume where another node has it"
        }
        reasons::SERVICE_ACCOUNT_MISSING => {
            "make the stage's account (the party chart's workers.serviceAccounts), or correct serviceAccountName \
             in spec.workers"
        }
        reasons::UNSCHEDULABLE => {
            "mend the requests, node selector, tolerations or volumes that keep nodes from taking the pod, or add a \
             node"
        }
        reasons::NOT_STARTED => {
            "mend what it names; if it names nothing, ask for another preflight and run kubectl describe on its \
             Job and pod"
        }
        _ => ELSEWHERE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Whoever gives the reasons that lines are made of.
    const GIVERS: [&str; 8] = [
        include_str!("../partners.rs"),
        include_str!("../observe.rs"),
        include_str!("../keys/resolve.rs"),
        include_str!("../keys/probe.rs"),
        include_str!("../manifest.rs"),
        include_str!("../served.rs"),
        include_str!("../../workload/failure.rs"),
        include_str!("judge.rs"),
    ];

    /// A reason's word, by the name of its constant.
    fn word(name: &str) -> &'static str {
        let words = include_str!("../../../../crds/src/conditions.rs").lines();
        let mark = format!("pub const {name}: &str = ");
        let mut found = words.filter_map(|line| line.trim().strip_prefix(&mark));
        found
            .next()
            .unwrap_or_else(|| panic!("no reason {name}"))
            .trim_matches(['"', ';'])
    }

    #[test]
    fn every_reason_that_a_line_may_have_has_a_sentence_of_its_own() {
        let names: BTreeSet<&str> = GIVERS
            .iter()
            .flat_map(|source| source.split("reasons::").skip(1))
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next())
            .filter(|name| !name.is_empty() && *name != "OK")
            .collect();
        for known in [
            "PEER_MISSING",
            "ACCESS_DENIED",
            "PROBE_FAILED",
            "NOT_SERVED",
            "MOUNT_MISSING",
        ] {
            assert!(names.contains(known), "{known} isn't found: {names:?}");
        }
        let mut sentences = BTreeMap::new();
        for name in names {
            let sentence = remedy(word(name));
            assert_ne!(sentence, ELSEWHERE, "{name}");
            let other = sentences.insert(sentence, name);
            assert_eq!(other, None, "{name} has the same: {sentence}");
            // It stands after a semicolon and before a full stop.
            assert!(
                sentence.starts_with(|c: char| c.is_ascii_lowercase()) && !sentence.ends_with('.'),
                "{name}: {sentence}"
            );
        }
    }

    #[test]
    fn a_reason_that_nobody_gave_yet_has_the_guide() {
        for reason in ["", "Mood", reasons::OK] {
            assert_eq!(remedy(reason), ELSEWHERE, "{reason:?}");
        }
    }
}
