//! Makes one sample batch for both parties, and puts it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use facilitator_core::crypto::{BatchSigningKey, sha256};
use facilitator_core::formats::names::{AggregationId, BatchTime, IngestionPart};
use facilitator_core::formats::work::Share;
use facilitator_core::sample::{self, Recipient, Sample, SampleError, SampleSpec};
use mailbox::{Mailbox, ObjectKey, PutOutcome};

use crate::exit::{ExitClass, Failure};
use crate::key_folders::{self, KeyFolders};

/// What the headers say about how long packets of a batch came in.
const BATCH_MILLIS: i64 = 60 * 60 * 1000;

/// Who makes sample batches, and for whom.
pub struct Ingestor {
    signing: BatchSigningKey,
    recipients: [Recipient; 2],
}

impl Ingestor {
    /// With the keys that `facilitator keys` made in a folder: its own signing key, and the processors' public ones.
    ///
    /// # Errors
    /// A file is missing, or holds no key.
    pub fn of_folder(root: &Path) -> Result<Self, Failure> {
        let folders = KeyFolders::of(root);
        let recipient = |share| -> Result<Recipient, Failure> {
            let folder = folders.packet(share);
            let (id, _) = key_folders::public(&folder)?;
            let key = key_folders::verifying_key(&folder.join("public.pem"))?;
            Ok(Recipient {
                public_point: *key.point(),
                key_id: Some(id),
            })
        };
        Ok(Self {
            signing: key_folders::signing_key(&folders.ingestor())?,
            recipients: [recipient(Share::First)?, recipient(Share::Second)?],
        })
    }
}

/// What of a batch the command line decides.
pub struct Wish<'a> {
    /// The aggregation.
    pub aggregation: &'a AggregationId,
    /// The time of the path.
    pub time: BatchTime,
    /// Bins of the histogram.
    pub bins: u32,
    /// Packets in the batch.
    pub packets: u32,
    /// Stated in the header.
    pub epsilon: f64,
    /// Decides values and UUIDs.
    pub seed: u64,
}

/// Makes a batch; its UUID follows from seed, aggregation and time.
///
/// # Errors
/// Bins that can't be had, or a key that can't sign.
pub fn make(ingestor: &Ingestor, wish: &Wish<'_>) -> Result<Sample, Failure> {
    let digest = sha256(format!("sample batch {} {} {}", wish.seed, wish.aggregation, wish.time).as_bytes());
    let uuid: [u8; 16] = std::array::from_fn(|index| digest[index]);
    let spec = SampleSpec {
        aggregation: wish.aggregation.clone(),
        time: wish.time,
        batch_uuid: uuid::Builder::from_random_bytes(uuid).into_uuid(),
        bins: wish.bins,
        packets: wish.packets as usize,
        epsilon: wish.epsilon,
        hamming_weight: None,
        batch_start_time: wish.time.as_millis(),
        batch_end_time: wish.time.as_millis() + BATCH_MILLIS,
        seed: wish.seed,
        faults: Vec::new(),
    };
    sample::make(&spec, &ingestor.recipients, &ingestor.signing).map_err(|error| match error {
        SampleError::Signing { .. } => Failure::new(ExitClass::Internal, error, "run it again, on another machine"),
        _ => Failure::new(ExitClass::Data, error, "check the arguments and the keys"),
    })
}

/// Puts a batch for both parties, signatures last. `false`: it was there, the same.
///
/// # Errors
/// The mailboxes', and [`ExitClass::Conflict`] where another batch has its name.
pub async fn put(sample: &Sample, mailboxes: &[Arc<dyn Mailbox>; 2]) -> Result<bool, Failure> {
    let mut created = false;
    for signatures in [false, true] {
        for (mailbox, objects) in mailboxes.iter().zip([&sample.first, &sample.second]) {
            for (part, content) in objects.in_put_order() {
                if matches!(part, IngestionPart::Signature) == signatures {
                    created |= put_object(mailbox.as_ref(), &sample.id.ingestion_key(part), content).await?;
                }
            }
        }
    }
    Ok(created)
}

async fn put_object(mailbox: &dyn Mailbox, key: &ObjectKey, content: &[u8]) -> Result<bool, Failure> {
    if mailbox.put_if_absent(key, Bytes::copy_from_slice(content)).await? == PutOutcome::Created {
        return Ok(true);
    }
    // One byte more than ours shows that an object is another.
    let same = match mailbox.head(key).await? {
        Some(meta) if meta.size == content.len() as u64 => mailbox.read(key, meta.size).await? == content,
        _ => false,
    };
    if same {
        return Ok(false);
    }
    Err(Failure::new(
        ExitClass::Conflict,
        format_args!(
            "mailbox {}, object {key}: a batch of that name was made with other keys or arguments",
            mailbox.url()
        ),
        "repeat those, or choose another --seed, --start or --aggregation",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailbox::MemoryMailbox;

    use super::*;

    fn sample(ingestor: &Ingestor, packets: u32, seed: u64) -> Sample {
        let aggregation = AggregationId::parse("a").unwrap();
        let time = BatchTime::parse_compact("202611200000").unwrap();
        make(
            ingestor,
            &Wish {
                aggregation: &aggregation,
                time,
                bins: 5,
                packets,
                epsilon: 0.1,
                seed,
            },
        )
        .unwrap()
    }

    #[tokio::test]
    async fn both_parties_get_the_same_packets_and_a_second_put_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        key_folders::make(folder.path()).unwrap();
        let ingestor = Ingestor::of_folder(folder.path()).unwrap();
        let memory = [MemoryMailbox::new("first"), MemoryMailbox::new("second")];
        let mailboxes = memory.clone().map(|mailbox| Arc::new(mailbox) as Arc<dyn Mailbox>);
        let batch = sample(&ingestor, 4, 0);
        assert!(put(&batch, &mailboxes).await.unwrap());
        let before = memory.clone().map(|mailbox| mailbox.snapshot());
        assert_eq!((before[0].len(), before[1].len()), (3, 3));
        assert!(before[0].keys().eq(before[1].keys()));
        assert!(!put(&sample(&ingestor, 4, 0), &mailboxes).await.unwrap());
        let other = put(&sample(&ingestor, 5, 0), &mailboxes).await.unwrap_err();
        assert_eq!(other.exit, ExitClass::Conflict);
        assert_eq!(memory.clone().map(|mailbox| mailbox.snapshot()), before);
        // Another seed is another batch.
        assert!(put(&sample(&ingestor, 5, 1), &mailboxes).await.unwrap());
    }

    #[tokio::test]
    async fn an_interrupted_put_is_finished_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        key_folders::make(folder.path()).unwrap();
        let ingestor = Ingestor::of_folder(folder.path()).unwrap();
        let batch = sample(&ingestor, 2, 0);
        let memory = [MemoryMailbox::new("first"), MemoryMailbox::new("second")];
        let mailboxes = memory.clone().map(|mailbox| Arc::new(mailbox) as Arc<dyn Mailbox>);
        memory[1].refuse_writes(true);
        assert_eq!(put(&batch, &mailboxes).await.unwrap_err().exit, ExitClass::Denied);
        let signature = batch.id.ingestion_key(IngestionPart::Signature);
        assert!(
            !memory[0].snapshot().contains_key(signature.as_str()),
            "no party starts before both can"
        );
        memory[1].refuse_writes(false);
        assert!(put(&batch, &mailboxes).await.unwrap());
        assert_eq!((memory[0].snapshot().len(), memory[1].snapshot().len()), (3, 3));
    }
}
