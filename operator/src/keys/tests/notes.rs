//! What people are told.

use crds::key_ring::KeyPurpose;

use super::*;
use crate::keys::decide::Step;
use crate::keys::note::note;

#[test]
fn each_step_is_told_as_it_was_and_no_copy_is_told_that_is_not_there() {
    let mut ring = Ring::new(KeyPurpose::BatchSigning);
    ring.add(0, |version| version.backed_up = Some(at(0)));
    ring.add(7, |_| {});
    let number = |seconds: i64| 1_700_000_000 + seconds;
    let keys = [(id(0), "public 0".to_owned()), (id(7), "public 7".to_owned())];
    let table = [
        (
            Step::Create { number: number(0) },
            "KeyCreated",
            "in Secret us-ct.1700000000; its second copy was written before, into Secret us-ct.1700000000.backup.",
        ),
        (
            Step::Create { number: number(7) },
            "KeyCreated",
            "in Secret us-ct.1700000007; there is no second copy",
        ),
        (
            Step::Forget { id: id(7) },
            "KeyForgotten",
            "a Secret us-ct.1700000007 or us-ct.1700000007.backup, delete it",
        ),
        (
            Step::NoteLoaded {
                id: id(7),
                since: at(8),
            },
            "KeyLoaded",
            "Every worker has k-1700000007",
        ),
        (
            Step::NoteCertified { id: id(7) },
            "KeyCertified",
            "k-1700000007 is issued",
        ),
        (
            Step::Publish(keys.into()),
            "KeysPublished",
            "k-1700000000 and k-1700000007",
        ),
        (
            Step::NotePublished { id: id(7) },
            "KeyPublished",
            "k-1700000007 is seen",
        ),
        (Step::Promote { id: id(7) }, "KeyInUse", "k-1700000007 is used"),
        (Step::Retire { id: id(7) }, "KeyRetired", "Its Secret stays"),
    ];
    for (step, reason, part) in table {
        let told = note("us-ct", &step, &ring.record);
        assert_eq!(told.reason, reason);
        assert_eq!(told.warning, reason == "KeyForgotten", "{told:?}");
        assert!(told.text.contains(part), "{told:?}");
        let has_copy = ring.record.versions[0].backed_up.is_some() && step == Step::Create { number: number(0) };
        assert_eq!(told.text.contains("copy was written"), has_copy, "{told:?}");
    }
}
