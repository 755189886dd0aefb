//! Every outcome of a put into a partner's bucket (ledger rule 11).

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::aggregate::AggregateOutcome;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::batch::hex;
use facilitator_core::formats::ledger::{
    Delivered, FailedReason, LedgerObject, Rejected, RejectedReason, WindowResult,
};
use facilitator_core::formats::names::{BatchId, SumPartPart, ValidationPart};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::sum_part::SumPart;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::formats::work::{Share, ValidationFormat};
use facilitator_core::intake::IntakeOutcome;
use facilitator_core::processor::WorkError;
use facilitator_core::sample::FaultKind;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxErrorKind, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey,
    ObjectMeta, PutOutcome, Upload,
};

use crate::gate::Gate;
use crate::work::{Outcome, Task, run, window};
use crate::world::{Place, SHARES, Setup, World, instance, place};

/// What a partner's bucket lets us do, besides creating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Grants {
    Everything,
    /// Reading is refused, and so is the put of what exists.
    List,
    /// As `List`; the store shows the hash that was set with the put.
    ListWithHashes,
    /// Nothing else; the put of what exists is refused as all else is.
    Nothing,
    /// Nothing else; of the put of what exists the store says that it exists.
    Conflict,
}

#[derive(Debug)]
struct Partner {
    inner: Arc<MemoryMailbox>,
    grants: Grants,
}

impl Partner {
    fn denied(&self, key: &ObjectKey) -> MailboxError {
        MailboxError::of_object(
            MailboxErrorKind::Denied,
            self.inner.url(),
            key,
            "the partner doesn't grant it",
        )
    }
}

#[async_trait]
impl Mailbox for Partner {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        if self.grants == Grants::Everything {
            self.inner.open(key).await
        } else {
            Err(self.denied(key))
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        if self.grants == Grants::Everything {
            self.inner.head(key).await
        } else {
            Err(self.denied(key))
        }
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        match self.inner.put_if_absent(key, content).await? {
            PutOutcome::Exists if !matches!(self.grants, Grants::Everything | Grants::Conflict) => {
                Err(self.denied(key))
            }
            outcome => Ok(outcome),
        }
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        if matches!(self.grants, Grants::Nothing | Grants::Conflict) {
            let detail = "the partner doesn't grant it";
            return Err(MailboxError::of_mailbox(
                MailboxErrorKind::Denied,
                self.inner.url(),
                detail,
            ));
        }
        let mut page = self.inner.list(request).await?;
        if self.grants == Grants::ListWithHashes {
            let there = self.inner.snapshot();
            for meta in &mut page.objects {
                meta.sha256 = Some(hex(&sha256(&there[meta.key.as_str()])));
            }
        }
        Ok(page)
    }
}

/// What is in the partner's bucket when the rerun comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum There {
    Nothing,
    /// Ours, but for the signature.
    Unsigned,
    Ours,
    /// A predecessor's: our signature, the same said in other bytes.
    SameMeaning,
    /// Our signature over something else.
    OtherMeaning,
    /// Somebody's bytes, of another length.
    Strange,
    /// One of ours, by its place in the order of puts, is somebody's bytes.
    StrangePart(usize),
    /// Somebody's bytes in the place of the first object, and no other.
    StrangeAlone,
}

impl There {
    /// Whether a single object can't be so.
    fn is_of_parts(self) -> bool {
        matches!(self, Self::Unsigned | Self::StrangePart(_) | Self::StrangeAlone)
    }
}

const GRANTS: [Grants; 5] = [
    Grants::Everything,
    Grants::List,
    Grants::ListWithHashes,
    Grants::Nothing,
    Grants::Conflict,
];

/// Who may list and not read: lengths tell nothing where they are the same, and where they or hashes aren't, nobody can say
/// that it means something else. Who may nothing else is refused what exists, and nothing tells whether it does: no outcome,
/// and nothing final is said. Columns are [`GRANTS`].
const TABLE: [(There, [&str; GRANTS.len()]); 10] = {
    const NEW: &str = "Created";
    const SAME: &str = "SameBytes";
    const MEANS: &str = "SameMeaning";
    const OTHER: &str = "Different";
    const UNREAD: &str = "Unverified";
    const DENIED: &str = "denied";
    [
        (There::Nothing, [NEW, NEW, NEW, NEW, NEW]),
        // The signature is new, and nothing but a hash shows what is below it.
        (There::Unsigned, [NEW, UNREAD, NEW, DENIED, UNREAD]),
        (There::Ours, [SAME, UNREAD, SAME, DENIED, UNREAD]),
        (There::SameMeaning, [MEANS, UNREAD, UNREAD, DENIED, UNREAD]),
        (There::OtherMeaning, [OTHER, UNREAD, UNREAD, DENIED, UNREAD]),
        (There::Strange, [OTHER, UNREAD, UNREAD, DENIED, UNREAD]),
        (There::StrangePart(0), [OTHER, UNREAD, UNREAD, DENIED, UNREAD]),
        (There::StrangePart(1), [OTHER, UNREAD, UNREAD, DENIED, UNREAD]),
        (There::StrangePart(2), [OTHER, UNREAD, UNREAD, DENIED, UNREAD]),
        // Nobody committed it: a signature of ours would be over a mixture. Who is told of no length or hash can't know.
        (There::StrangeAlone, [OTHER, OTHER, OTHER, DENIED, UNREAD]),
    ]
};

/// Every row of [`TABLE`] with each of [`GRANTS`].
fn table() -> impl Iterator<Item = (Grants, There, &'static str)> {
    let row = |(there, said): (There, [&'static str; GRANTS.len()])| {
        let cell = move |(grants, expected)| (grants, there, expected);
        GRANTS.into_iter().zip(said).map(cell)
    };
    TABLE.into_iter().flat_map(row)
}

/// What is put: a validation batch in a format, or a sum part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Validation(ValidationFormat),
    SumPart,
}

impl What {
    /// The objects in the order in which they are put.
    fn keys(self, share: Share, batch: &BatchId) -> Vec<ObjectKey> {
        use ValidationPart::{Header, Packets, Signature};
        match self {
            Self::Validation(ValidationFormat::ThreeObjects) => [Packets, Header, Signature]
                .map(|part| batch.validation_key(share, part))
                .into(),
            Self::Validation(ValidationFormat::SingleObject) => vec![batch.validation_key(share, Signature)],
            Self::SumPart => [SumPartPart::InvalidPackets, SumPartPart::Header, SumPartPart::Signature]
                .map(|part| window().sum_part_key(&instance(), share, part))
                .into(),
        }
    }

    fn change(self, mailbox: &MemoryMailbox, keys: &[ObjectKey], world: &World, share: Share, there: There) {
        let last = keys.len() - 1;
        match there {
            There::Ours => {}
            There::Nothing => keys.iter().for_each(|key| assert!(mailbox.remove(key))),
            There::Unsigned => assert!(mailbox.remove(&keys[last])),
            There::Strange => keys.iter().for_each(|key| mailbox.replace(key, "strange")),
            There::StrangePart(part) => mailbox.replace(&keys[part], "strange"),
            There::StrangeAlone => {
                keys[1..].iter().for_each(|key| assert!(mailbox.remove(key)));
                mailbox.replace(&keys[0], "strange");
            }
            There::SameMeaning | There::OtherMeaning => {
                let now: Vec<Bytes> = keys
                    .iter()
                    .map(|key| mailbox.snapshot()[key.as_str()].clone())
                    .collect();
                let own = match share {
                    Share::First => &world.keys.first,
                    Share::Second => &world.keys.second,
                };
                let sign = |header: &[u8]| BatchSignature::sign(own, header).unwrap().write();
                let is_other = there == There::OtherMeaning;
                let objects: Vec<Vec<u8>> = match self {
                    Self::Validation(ValidationFormat::ThreeObjects) => {
                        let (packets, header) = changed_messages(&now[0], &now[1], is_other);
                        let signature = sign(&header);
                        vec![packets, header, signature]
                    }
                    Self::Validation(ValidationFormat::SingleObject) => {
                        let ours = BatchSignature::read(&now[0]).unwrap();
                        let (header, packets) = ours.inline().unwrap();
                        let (packets, header) = changed_messages(packets, header, is_other);
                        vec![BatchSignature::sign_inline(own, header, packets).unwrap().write()]
                    }
                    Self::SumPart => {
                        let mut part = SumPart::read(&now[1]).unwrap();
                        part.batch_uuids.reverse();
                        part.sum[0] ^= i64::from(is_other);
                        let header = part.write();
                        let signature = sign(&header);
                        vec![now[0].to_vec(), header, signature]
                    }
                };
                for (key, bytes) in keys.iter().zip(objects) {
                    mailbox.replace(key, bytes);
                }
            }
        }
    }
}

/// Packets and header with the messages in another order, and with one that says something else.
fn changed_messages(packets: &[u8], header: &[u8], is_other: bool) -> (Vec<u8>, Vec<u8>) {
    let mut packets = ValidationPacket::read_all(packets).unwrap();
    packets.reverse();
    packets[0].f_r ^= i64::from(is_other);
    let packets = ValidationPacket::write_all(&packets);
    let mut header = ValidationHeader::read(header).unwrap();
    header.packet_file_digest = sha256(&packets).to_vec();
    (packets, header.write())
}

fn said(result: Result<Vec<Outcome>, WorkError>) -> String {
    match result {
        Err(error) if error.is_denied() => "denied".into(),
        Err(error) => format!("{error}"),
        Ok(outcomes) => match &outcomes[0] {
            Outcome::Intake(IntakeOutcome::Validated { put, .. }) => format!("{put:?}"),
            Outcome::Intake(IntakeOutcome::Rejected {
                reason: RejectedReason::PeerHasOther,
                ..
            }) => "Different".into(),
            Outcome::Aggregate(AggregateOutcome::Done { result, .. }) => match (result.put, result.reason) {
                (Some(put), None) => format!("{put:?}"),
                (None, Some(FailedReason::PortalHasOther)) => "Different".into(),
                other => format!("{other:?}"),
            },
            other => format!("{other:?}"),
        },
    }
}

/// What the ledger says of it: in `delivered` and `rejected`, or in `results`.
fn on_disk(world: &World, share: Share, what: What, batch: &BatchId) -> Option<String> {
    let ledger = world.places[place(share, Place::Ledger)].snapshot();
    let read = |key: &ObjectKey| ledger.get(key.as_str()).cloned();
    if what == What::SumPart {
        let key = window().ledger_key("results");
        let result = WindowResult::from_bytes(&key, &read(&key)?).unwrap();
        return Some(result.put.map_or("Different".into(), |put| format!("{put:?}")));
    }
    let (delivered, rejected) = (batch.ledger_key("delivered"), batch.ledger_key("rejected"));
    if let Some(bytes) = read(&rejected) {
        let reason = Rejected::from_bytes(&rejected, &bytes).unwrap().reason;
        assert_eq!((reason, read(&delivered)), (RejectedReason::PeerHasOther, None));
        return Some("Different".into());
    }
    let Delivered { put, .. } = Delivered::from_bytes(&delivered, &read(&delivered)?).unwrap();
    Some(format!("{put:?}"))
}

#[tokio::test]
async fn every_outcome_of_a_put_is_named_and_nothing_is_overwritten() {
    use ValidationFormat::{SingleObject, ThreeObjects};
    let mut rows = 0;
    for share in SHARES {
        for what in [
            What::Validation(ThreeObjects),
            What::Validation(SingleObject),
            What::SumPart,
        ] {
            rows += every_outcome(share, what).await;
        }
    }
    // The full product: each once, and the compiler tells of a state or a grant that nothing makes.
    let pairs: HashSet<_> = table().map(|(grants, there, _)| (grants, there)).collect();
    assert_eq!(pairs.len(), GRANTS.len() * TABLE.len());
    let of_parts = TABLE.iter().filter(|(there, _)| there.is_of_parts()).count();
    assert_eq!(rows, SHARES.len() * GRANTS.len() * (3 * TABLE.len() - of_parts));
}

async fn every_outcome(share: Share, what: What) -> usize {
    let world = World::new();
    let batches = [
        world.batch(1, 3, &[(1, FaultKind::InvalidProof)]),
        world.batch(2, 2, &[]),
    ];
    let intakes: Vec<Task> = batches.iter().cloned().map(Task::Intake).collect();
    let mut setup = Setup::of(share);
    if let What::Validation(format) = what {
        setup.format = format;
    }
    world.run(&Setup::of(share.peer()), &intakes).await.unwrap();
    world.run(&setup, &intakes).await.unwrap();
    // The worker before stopped right after its puts, or its last answer was lost.
    let (task, bucket, said_last) = match what {
        What::Validation(_) => {
            let peer = place(share.peer(), Place::PeerValidation);
            (
                Task::Intake(batches[0].clone()),
                peer,
                batches[0].ledger_key("delivered"),
            )
        }
        What::SumPart => {
            let task = Task::Aggregate(window());
            world.run(&setup, std::slice::from_ref(&task)).await.unwrap();
            (task, place(share, Place::Portal), window().ledger_key("results"))
        }
    };
    world.places[place(share, Place::Ledger)].remove(&said_last);
    let (begin, keys) = (world.content(), what.keys(share, &batches[0]));
    let mut rows = 0;
    for (grants, there, expected) in table() {
        if keys.len() == 1 && there.is_of_parts() {
            continue;
        }
        rows += 1;
        world.reset(&begin);
        what.change(&world.places[bucket], &keys, &world, share, there);
        let before = world.places[bucket].snapshot();
        let mut processor = world.processor(&setup, &Gate::open());
        let partner = Arc::new(Partner {
            inner: Arc::clone(&world.places[bucket]),
            grants,
        });
        match what {
            What::SumPart => processor.mailboxes.portal = partner,
            What::Validation(_) => processor.mailboxes.peer = partner,
        }
        let name = format!("{share:?} {what:?} {grants:?} {there:?}");
        let outcome = said(run(&processor, std::slice::from_ref(&task)).await);
        assert_eq!(outcome, expected, "{name}");
        let after = world.places[bucket].snapshot();
        assert!(
            before.iter().all(|(key, bytes)| after.get(key) == Some(bytes)),
            "{name}: overwritten"
        );
        if expected == "denied" {
            assert_eq!(on_disk(&world, share, what, &batches[0]), None, "{name}");
            continue;
        }
        assert_eq!(
            on_disk(&world, share, what, &batches[0]).as_deref(),
            Some(expected),
            "{name}"
        );
        let content = world.content();
        run(&processor, std::slice::from_ref(&task)).await.unwrap();
        assert_eq!(world.content(), content, "{name}: a rerun changes nothing");
    }
    rows
}
