//! Finds and reads sum parts.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use facilitator_core::crypto::TrustedKeys;
use facilitator_core::formats::batch::{self, MAX_HEADER_BYTES};
use facilitator_core::formats::names::{self, BatchTime, SumPartPart};
use facilitator_core::formats::sum_part::{InvalidPacket, SumPart};
use facilitator_core::formats::work::Share;
use jiff::Timestamp;
use mailbox::{ListRequest, Mailbox, MailboxErrorKind, ObjectKey};

use crate::exit::{ExitClass, Failure};
use crate::reassembly::{Part, Shape};
use crate::{key_folders, places};

/// The largest sum part: 2^19 − 1 bins of up to 5 bytes, and as many batches as a window may hold.
const MAX_SUM_PART_BYTES: u64 = 64 << 20;
/// The largest invalid list.
const MAX_INVALID_BYTES: u64 = 1 << 30;

/// Public keys that may have signed one party's sum parts.
pub struct SignerKeys(TrustedKeys);

impl SignerKeys {
    /// The key of a folder that `facilitator keys` made.
    ///
    /// # Errors
    /// A file is missing, or holds no key.
    pub fn of_folder(folder: &Path) -> Result<Self, Failure> {
        let (id, _) = key_folders::public(folder)?;
        let key = key_folders::verifying_key(&folder.join("public.pem"))?;
        Ok(Self([(id, key)].into_iter().collect()))
    }

    /// Keys as `ID=FILE` arguments.
    ///
    /// # Errors
    /// An argument of another form; a file that is missing or holds no key.
    pub fn of_arguments(arguments: &[String]) -> Result<Self, Failure> {
        let mut keys = TrustedKeys::default();
        for argument in arguments {
            let (id, file) = argument.split_once('=').ok_or_else(|| {
                Failure::new(
                    ExitClass::Usage,
                    format_args!("{argument:?} is no ID=FILE"),
                    "see --help",
                )
            })?;
            keys.insert(id, key_folders::verifying_key(Path::new(file))?);
        }
        Ok(Self(keys))
    }
}

/// A sum part that is there, not read yet.
pub struct Found {
    mailbox: Arc<dyn Mailbox>,
    /// The header's name; signature and invalid list have names of the same stem.
    header: ObjectKey,
    signature: ObjectKey,
    invalid: ObjectKey,
    /// What the name says; `None` for a part given by a path that holds the file name alone.
    named: Option<(String, String)>,
    start: String,
    end: String,
    /// Which release of the window, as far as the name says it.
    release: u8,
}

/// The sum parts of `share` at a place: a mailbox, or one sum part's path or URL.
///
/// # Errors
/// The mailbox's.
pub async fn find(place: &str, share: Share) -> Result<Vec<Found>, Failure> {
    let suffix = format!(".sum_{}", share.index());
    if place.ends_with(&suffix) {
        return Ok(vec![one(place, share, &suffix)?]);
    }
    if place.ends_with(&format!(".sum_{}", share.peer().index())) {
        return Err(Failure::new(
            ExitClass::Usage,
            format_args!("{place} is the other party's part"),
            "name First's sum part (.sum_0) first, then Second's (.sum_1)",
        ));
    }
    let mailbox = places::mailbox(place)?;
    let objects = mailbox.list_all(&ListRequest::default()).await;
    let objects = objects.map_err(|error| match error.kind() {
        MailboxErrorKind::NoSuchMailbox => Failure::new(ExitClass::NoInput, error, ""),
        _ => error.into(),
    })?;
    let mut found = Vec::new();
    for object in objects.objects {
        // The signature is the commit: a part without one is still being written.
        let Some((instance, window, of, SumPartPart::Signature)) = names::parse_sum_part_name(object.key.as_str())
        else {
            continue;
        };
        if of == share {
            found.push(Found {
                mailbox: Arc::clone(&mailbox),
                header: window.sum_part_key(&instance, share, SumPartPart::Header),
                signature: object.key,
                invalid: window.sum_part_key(&instance, share, SumPartPart::InvalidPackets),
                named: Some((instance.to_string(), window.aggregation.to_string())),
                start: window.start.to_compact(),
                end: window.end.to_compact(),
                release: window.release(),
            });
        }
    }
    Ok(found)
}

/// A part by its own path or URL.
fn one(place: &str, share: Share, suffix: &str) -> Result<Found, Failure> {
    let usage = |detail: &str| {
        Failure::new(
            ExitClass::Usage,
            format_args!("{place}: {detail}"),
            "sum parts are named YYYYMMDDHHmm-YYYYMMDDHHmm.sum_0 or .sum_1",
        )
    };
    let (folder, name) = place.rsplit_once('/').unwrap_or((".", place));
    let stem = name.strip_suffix(suffix).unwrap_or(name);
    let (start, end) = stem.split_once('-').ok_or_else(|| usage("its name holds no window"))?;
    for time in [start, end] {
        BatchTime::parse_compact(time).map_err(|error| usage(&error.to_string()))?;
    }
    let key = |name: String| ObjectKey::parse(name);
    Ok(Found {
        mailbox: places::mailbox(if folder.is_empty() { "/" } else { folder })?,
        header: key(name.to_owned())?,
        signature: key(format!("{name}.sig"))?,
        invalid: key(format!("{stem}.invalid_uuid_{}.avro", share.index()))?,
        named: None,
        start: start.to_owned(),
        end: end.to_owned(),
        release: 1,
    })
}

impl Found {
    /// The aggregation, as far as the name says it.
    pub fn aggregation(&self) -> Option<&str> {
        self.named.as_ref().map(|(_, aggregation)| aggregation.as_str())
    }

    /// The instance, as far as the name says it.
    pub fn instance(&self) -> Option<&str> {
        self.named.as_ref().map(|(instance, _)| instance.as_str())
    }

    /// `YYYYMMDDHHmm`.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// The window in words that both parties' parts share.
    pub fn window(&self) -> String {
        let release = match self.release {
            1 => String::new(),
            release => format!(" release {release}"),
        };
        match self.aggregation() {
            Some(aggregation) => format!("{aggregation} {}-{}{release}", self.start, self.end),
            None => format!("{}-{}", self.start, self.end),
        }
    }

    /// Which release of the window, 1 unless it was released again.
    pub fn release(&self) -> u8 {
        self.release
    }

    /// Reads the part: signature (checked where keys are given), header, digest, invalid list.
    ///
    /// # Errors
    /// An object that is missing or bad.
    pub async fn read(&self, keys: &Option<SignerKeys>) -> Result<Part, Failure> {
        let header = self.mailbox.read(&self.header, MAX_SUM_PART_BYTES).await?;
        let part: SumPart = match keys {
            Some(keys) => {
                let signature = self.mailbox.read(&self.signature, MAX_HEADER_BYTES).await?;
                let signature = batch::read_signature(&signature).map_err(|error| self.bad(error))?;
                batch::read_header(&signature, &header, &keys.0).map_err(|error| self.bad(error))?
            }
            None => SumPart::read(&header).map_err(|error| self.bad(error))?,
        };
        let invalid = match self.mailbox.read(&self.invalid, MAX_INVALID_BYTES).await {
            Ok(invalid) => invalid,
            // An empty list isn't written.
            Err(error) if error.kind() == MailboxErrorKind::NotFound => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let invalid: Vec<InvalidPacket> = batch::read_packets(&part, &invalid).map_err(|error| self.bad(error))?;
        self.convert(part, &invalid, keys.is_some())
    }

    fn convert(&self, part: SumPart, invalid: &[InvalidPacket], verified: bool) -> Result<Part, Failure> {
        let negative = |what: &str| self.bad(format_args!("the {what} is negative or out of range"));
        let time = |millis: i64| {
            let time = Timestamp::from_millisecond(millis)
                .ok()
                .and_then(BatchTime::from_timestamp);
            time.map(BatchTime::to_compact).ok_or_else(|| negative("time"))
        };
        let (start, end) = (time(part.aggregation_start_time)?, time(part.aggregation_end_time)?);
        if (&start, &end) != (&self.start, &self.end) {
            return Err(self.bad(format_args!("it says {start}-{end} inside")));
        }
        if self.aggregation().is_some_and(|aggregation| aggregation != part.name) {
            return Err(self.bad(format_args!("it says aggregation {:?} inside", part.name)));
        }
        let shares: Option<Vec<u64>> = part.sum.iter().map(|share| u64::try_from(*share).ok()).collect();
        Ok(Part {
            shape: Shape {
                aggregation: part.name,
                start,
                end,
                bins: u64::try_from(part.bins).map_err(|_| negative("number of bins"))?,
                epsilon: part.epsilon,
                prime: u64::try_from(part.prime).map_err(|_| negative("prime"))?,
                number_of_servers: u32::try_from(part.number_of_servers).map_err(|_| negative("number of servers"))?,
                hamming_weight: part.hamming_weight.map(i64::from),
            },
            batches: part.batch_uuids.into_iter().collect(),
            invalid: invalid.iter().map(|packet| packet.uuid).collect(),
            clients: u64::try_from(part.total_individual_clients).map_err(|_| negative("number of clients"))?,
            sum: shares.ok_or_else(|| negative("sum"))?,
            verified,
        })
    }

    fn bad(&self, error: impl std::fmt::Display) -> Failure {
        Failure::new(
            ExitClass::Data,
            format_args!("sum part {} of {}: {error}", self.header, self.mailbox.url()),
            "ask the party that wrote it",
        )
    }
}
