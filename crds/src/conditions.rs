//! Condition types and reasons. `docs/operations.md` says what each means and what to do.

/// All kinds: does it work, is it done.
pub const READY: &str = "Ready";
/// A terminal error: nothing happens until somebody changes something.
pub const STALLED: &str = "Stalled";
/// DataShareProcessor: the last listing of its mailboxes worked.
pub const MAILBOXES_LISTED: &str = "MailboxesListed";
/// DataShareProcessor: worker pods start.
pub const WORKERS_READY: &str = "WorkersReady";
/// DataShareProcessor, KeyRing: the admission policies stand.
pub const ADMISSION_GUARDED: &str = "AdmissionGuarded";
/// DataShareProcessor: workers have all versions of the KeyRings that it refers to.
pub const KEYS_LOADED: &str = "KeysLoaded";
/// DataShareProcessor: no window is overdue.
pub const WINDOWS_ON_TIME: &str = "WindowsOnTime";
/// DataShareProcessor: what is needed of each party is known.
pub const PEERS_KNOWN: &str = "PeersKnown";
/// DataShareProcessor: our own manifests are where others read them.
pub const MANIFEST_PUBLISHED: &str = "ManifestPublished";
/// DataShareProcessor: a preflight found nothing that would keep work from being done.
pub const PREFLIGHT: &str = "Preflight";
/// Peer: the manifest in use is the one that the party publishes.
pub const MANIFEST_CURRENT: &str = "ManifestCurrent";
/// Batch: intake has taken it.
pub const VALIDATED: &str = "Validated";
/// AggregationWindow: its sum part is in the portal.
pub const AGGREGATED: &str = "Aggregated";
/// AggregationWindow: the peer has named the same set.
pub const PEER_SET_KNOWN: &str = "PeerSetKnown";
/// KeyRing: a version is on its way to being used.
pub const PROGRESSING: &str = "Progressing";
/// KeyRing: a version goes on only when a person has done something.
pub const WAITS_FOR_PERSON: &str = "WaitsForPerson";

/// AggregationWindow: what came of `spec.override`.
pub const OVERRIDDEN: &str = "Overridden";

/// Reasons, by condition; a reason is also the label of metrics, so the set is closed.
pub mod reasons {
    /// All is well.
    pub const OK: &str = "AsExpected";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// Nothing is known yet.
    pub const PENDING: &str = "Pending";
    /// A mailbox can't be listed.
    pub const LISTING_FAILED: &str = "ListingFailed";
    /// A store refuses the operator's identity.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// A bucket or folder isn't there.
    pub const NO_SUCH_MAILBOX: &str = "NoSuchMailbox";
    /// How a mailbox is reached is set wrongly.
    pub const WRONG_SETTINGS: &str = "WrongSettings";
    /// `ledger.json` is gone although the status remembers it.
    pub const LEDGER_GONE: &str = "LedgerGone";
    /// `ledger.json` holds another id, instance or share.
    pub const LEDGER_MISMATCH: &str = "LedgerMismatch";
    /// A worker refused its configuration (exit code 78).
    pub const CONFIGURATION_REFUSED: &str = "ConfigurationRefused";
    /// The last look at the processor failed; the message says where.
    pub const LOOK_FAILED: &str = "LookFailed";
    /// The spec is refused by the operator; the message says which field.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// A worker's image can't be pulled.
    pub const IMAGE_NOT_PULLED: &str = "ImageNotPulled";
    /// A quota or limit refuses the pod.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// Admission refuses the Job or its pod.
    pub const ADMISSION_REFUSED: &str = "AdmissionRefused";
    /// The operator's account may not create Jobs.
    pub const RIGHTS_MISSING: &str = "RightsMissing";
    /// A Secret, ConfigMap or volume that the pod mounts is missing.
    pub const MOUNT_MISSING: &str = "MountMissing";
    /// The service account is missing.
    pub const SERVICE_ACCOUNT_MISSING: &str = "ServiceAccountMissing";
    /// No node takes the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The pod didn't start in time and no cause was found.
    pub const NOT_STARTED: &str = "NotStarted";
    /// A window is past its time and not summed.
    pub const WINDOW_OVERDUE: &str = "WindowOverdue";
    /// An admission policy is missing or doesn't refuse.
    pub const POLICY_MISSING: &str = "PolicyMissing";

    /// A KeyRing that the spec refers to isn't there.
    pub const KEY_RING_MISSING: &str = "KeyRingMissing";
    /// A KeyRing that the spec refers to is for another purpose, holds too many versions, or keys that aren't its own.
    pub const KEY_RING_UNUSABLE: &str = "KeyRingUnusable";
    /// A KeyRing that the spec refers to has no version that may be used yet.
    pub const NO_KEY_YET: &str = "NoKeyYet";
    /// Probe Jobs find out whether workers have a new version.
    pub const PROBING: &str = "Probing";
    /// A probe Job fails: workers don't get a new version.
    pub const PROBE_FAILED: &str = "ProbeFailed";
    /// Preflight: nothing failed.
    pub const PASSED: &str = "Passed";
    /// Preflight: its Jobs aren't over.
    pub const RUNNING: &str = "Running";
    /// Preflight: none was made of what is so now.
    pub const UNKNOWN: &str = "Unknown";
    /// There is no Peer of the name.
    pub const PEER_MISSING: &str = "PeerMissing";
    /// Nothing is known of a Peer: its manifest never came.
    pub const PEER_UNKNOWN: &str = "PeerUnknown";
    /// A Peer is another kind of party than it is named as.
    pub const PARTY_DIFFERS: &str = "PartyDiffers";
    /// The peer's manifest asks for another identity at its mailbox than workers have there.
    pub const IDENTITY_DIFFERS: &str = "IdentityDiffers";
    /// A mailbox of a manifest can't be used.
    pub const MAILBOX_REFUSED: &str = "MailboxRefused";
    /// True, with one of these: it works, and somebody should mend something before it doesn't.
    pub const TO_MEND: [&str; 2] = [IDENTITY_DIFFERS, CACHED_TOO_LONG];
    /// Our manifests couldn't be written.
    pub const PUBLISH_FAILED: &str = "PublishFailed";
    /// Partners get what was written, and caches may keep it for too long.
    pub const CACHED_TOO_LONG: &str = "CachedTooLong";
    /// Partners get another key under the id of one of ours.
    pub const OTHER_KEY_SERVED: &str = "OtherKeyServed";
    /// Partners don't get what was written.
    pub const NOT_SERVED: &str = "NotServed";

    /// Peer: its manifest couldn't be fetched.
    pub const FETCH_FAILED: &str = "FetchFailed";
    /// Peer, or our own: a manifest isn't good.
    pub const MANIFEST_REFUSED: &str = "ManifestRefused";
    /// Peer: a change waits for a person.
    pub const CHANGE_HELD: &str = "ChangeHeld";
    /// Peer, an Event: its manifest is another.
    pub const MANIFEST_CHANGED: &str = "ManifestChanged";

    /// Batch: waiting for a worker.
    pub const WAITING: &str = "Waiting";
    /// Batch: taken in.
    pub const VALIDATED: &str = "Validated";
    /// Batch: refused for good.
    pub const REJECTED: &str = "Rejected";
    /// Batch: tried again later.
    pub const BLOCKED: &str = "Blocked";
    /// Batch: its window was planned before it came.
    pub const LATE: &str = "Late";
    /// Batch: alone in a pod, it failed three times.
    pub const CRASHES_WORKER: &str = "CrashesWorker";

    /// Window: its cutoff is still to come.
    pub const COLLECTING: &str = "Collecting";
    /// Window: a Job sums it.
    pub const SUMMING: &str = "Summing";
    /// Window: no batch was in time; the cutoff moved by one period.
    pub const DEFERRED: &str = "Deferred";
    /// Window: all cutoffs passed before it was first seen; set one in `windows.cutoffs`.
    pub const CUTOFF_PASSED: &str = "CutoffPassed";
    /// Window: no batch was in time at its last cutoff.
    pub const MISSED: &str = "Missed";
    /// Window: all its batches were empty.
    pub const EMPTY: &str = "Empty";
    /// Window: summed.
    pub const SUMMED: &str = "Summed";
    /// Window: fewer valid clients than the floor.
    pub const BELOW_FLOOR: &str = "BelowFloor";
    /// Window: failed for good. Preflight: a check failed.
    pub const FAILED: &str = "Failed";
    /// Override: nobody has approved it.
    pub const NOT_APPROVED: &str = "NotApproved";
    /// Override: it expired before its set was frozen.
    pub const OVERRIDE_EXPIRED: &str = "OverrideExpired";
    /// Window: the exchange of plan digests comes with a later version.
    pub const NOT_EXCHANGED: &str = "NotExchanged";

    /// KeyRing: no version is used yet.
    pub const NO_KEY_IN_USE: &str = "NoKeyInUse";
    /// KeyRing: a new version waits until every worker has it.
    pub const WAITS_FOR_LOADING: &str = "WaitsForLoading";
    /// KeyRing: a new version waits for a certificate, which a person gets.
    pub const WAITS_FOR_CERTIFICATE: &str = "WaitsForCertificate";
    /// KeyRing: a new version waits until it is old enough.
    pub const WAITS_FOR_AGE: &str = "WaitsForAge";
    /// KeyRing: a new version waits until it is seen in what is published.
    pub const WAITS_FOR_PUBLICATION: &str = "WaitsForPublication";
    /// KeyRing: a version was made in the future, or the clock went back.
    pub const VERSION_FROM_FUTURE: &str = "VersionFromFuture";
    /// KeyRing: what is published names a key that the ring doesn't have.
    pub const PUBLISHED_KEY_UNKNOWN: &str = "PublishedKeyUnknown";
    /// KeyRing: what is published holds another key under an id of the ring.
    pub const PUBLISHED_KEY_DIFFERS: &str = "PublishedKeyDiffers";
    /// KeyRing: what would be published breaks a rule of the protocol.
    pub const PUBLICATION_REFUSED: &str = "PublicationRefused";
    /// KeyRing: a second copy can't be made for a recipient.
    pub const BACKUP_REFUSED: &str = "BackupRefused";
    /// KeyRing: the ages contradict each other.
    pub const AGES_REFUSED: &str = "AgesRefused";
    /// KeyRing: the record of its versions can't be used.
    pub const RECORD_UNUSABLE: &str = "RecordUnusable";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// Whoever meets a word in a status finds it in the guide.
    #[test]
    fn the_guide_has_every_condition_and_reason() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let guide = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
        let words: Vec<&str> = include_str!("conditions.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1))
            .collect();
        assert!(words.len() > 40, "{words:?}");
        let missing: Vec<_> = words
            .iter()
            .filter(|word| !guide.contains(&format!("| `{word}` |")))
            .collect();
        assert!(missing.is_empty(), "docs/operations.md has no row for {missing:?}");
    }

    /// The words of reports and results end up in statuses too.
    #[test]
    fn the_guide_has_every_reason_of_the_formats() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |name: &str| std::fs::read_to_string(root.join("docs").join(name)).unwrap();
        let (guide, formats) = (read("operations.md"), read("formats.md"));
        let marks = ["\nReasons: ", "Blocked reasons: ", "`reason` for Failed: "];
        for mark in marks {
            let list = formats
                .split(mark)
                .nth(1)
                .unwrap_or_else(|| panic!("docs/formats.md has no {mark:?}"));
            let list = list.split("\n\n").next().unwrap().split("\n##").next().unwrap();
            let words = list
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|word| word.starts_with(char::is_uppercase));
            for word in words {
                assert!(
                    guide.contains(&format!("`{word}`")),
                    "docs/operations.md says nothing of {word}"
                );
            }
        }
    }
}
