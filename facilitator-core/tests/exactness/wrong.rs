//! Mailboxes that do what ours must never do: wrong builds, to see that they are caught.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use facilitator_core::crypto::{BatchSigningKey, sha256};
use facilitator_core::formats::names::{BatchId, ValidationPart, parse_validation_name};
use facilitator_core::formats::record::{Message, PacketState, Record};
use facilitator_core::formats::signature::BatchSignature;
use facilitator_core::formats::validation::{ValidationHeader, ValidationPacket};
use facilitator_core::proof::{add, mul, proof_holds, subtract};
use futures::StreamExt;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, MemoryMailbox, ObjectBody, ObjectKey, ObjectMeta,
    PutOutcome, Upload,
};

/// Puts what `is_held` names only right before or after the object that `releases`: wrong orders of writes.
#[derive(Clone, Debug)]
pub struct Reordering {
    pub inner: Arc<dyn Mailbox>,
    pub is_held: fn(&str) -> bool,
    pub releases: fn(&str) -> bool,
    /// Whether the releasing object goes before what was held.
    pub first: bool,
    pub held: Arc<Mutex<Vec<(ObjectKey, Bytes)>>>,
}

impl Reordering {
    fn held(&self) -> MutexGuard<'_, Vec<(ObjectKey, Bytes)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mailbox for Reordering {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        // The worker itself believes that it is there.
        let held = self.held().iter().find(|(held, _)| held == key).cloned();
        let Some((key, content)) = held else {
            return self.inner.open(key).await;
        };
        let meta = ObjectMeta {
            key,
            size: content.len() as u64,
            modified: crate::world::now(),
            sha256: None,
        };
        Ok(ObjectBody {
            meta,
            stream: futures::stream::iter([Ok(content)]).boxed(),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.inner.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        Ok(Box::new(ReorderingUpload {
            mailbox: self.clone(),
            key: key.clone(),
            content: BytesMut::new(),
        }))
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        if (self.is_held)(key.as_str()) {
            self.held().push((key.clone(), content));
            return Ok(PutOutcome::Created);
        }
        if !(self.releases)(key.as_str()) {
            return self.inner.put_if_absent(key, content).await;
        }
        let mut puts = std::mem::take(&mut *self.held());
        let at = if self.first { 0 } else { puts.len() };
        puts.insert(at, (key.clone(), content));
        let mut outcome = PutOutcome::Created;
        for (other, content) in puts {
            let put = self.inner.put_if_absent(&other, content).await?;
            if other == *key {
                outcome = put;
            }
        }
        Ok(outcome)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        self.inner.list(request).await
    }
}

struct ReorderingUpload {
    mailbox: Reordering,
    key: ObjectKey,
    content: BytesMut,
}

#[async_trait]
impl Upload for ReorderingUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), MailboxError> {
        self.content.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit_if_absent(self: Box<Self>) -> Result<PutOutcome, MailboxError> {
        self.mailbox.put_if_absent(&self.key, self.content.freeze()).await
    }

    async fn abort(self: Box<Self>) -> Result<(), MailboxError> {
        Ok(())
    }
}

/// How the peer's messages are misread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misread {
    /// As if every proof held.
    AllProven,
    /// As if the first proven packet of several had no message.
    OneLess,
}

/// The peer's validation batches of three objects, misread: what a build makes of them that proves wrongly.
#[derive(Debug)]
pub struct Misreading {
    pub inner: Arc<dyn Mailbox>,
    pub how: Misread,
    pub store: Arc<MemoryMailbox>,
    pub own_ledger: Arc<MemoryMailbox>,
    pub peer_key: BatchSigningKey,
}

impl Misreading {
    fn misread(
        &self,
        batch: &BatchId,
        part: ValidationPart,
        key: impl Fn(ValidationPart) -> ObjectKey,
    ) -> Option<Vec<u8>> {
        let there = self.store.snapshot();
        let records = self.own_ledger.snapshot();
        let record = Record::decode(records.get(batch.ledger_key("records").as_str())?).ok()?;
        let ours: BTreeMap<_, _> = record
            .plain
            .packets
            .iter()
            .filter_map(|packet| match packet.state {
                PacketState::In { message, .. } => Some((packet.uuid, message)),
                PacketState::Excluded(_) => None,
            })
            .collect();
        let mut packets = ValidationPacket::read_all(there.get(key(ValidationPart::Packets).as_str())?).ok()?;
        let holds = |packet: &ValidationPacket| {
            let ours = ours.get(&packet.uuid);
            ours.zip(packet.message())
                .is_some_and(|(ours, theirs)| proof_holds(*ours, theirs))
        };
        match self.how {
            Misread::AllProven => {
                for packet in packets.iter_mut().filter(|packet| !holds(packet)) {
                    if let (Some(ours), Some(Message { f, g, .. })) = (ours.get(&packet.uuid), packet.message()) {
                        packet.h_r = subtract(mul(add(ours.f, f), add(ours.g, g)), ours.h).into();
                    }
                }
            }
            Misread::OneLess => {
                let proven: Vec<usize> = (0..packets.len()).filter(|index| holds(&packets[*index])).collect();
                if let [first, _, ..] = proven[..] {
                    packets.remove(first);
                }
            }
        }
        let packets = ValidationPacket::write_all(&packets);
        let mut header = ValidationHeader::read(there.get(key(ValidationPart::Header).as_str())?).ok()?;
        header.packet_file_digest = sha256(&packets).to_vec();
        let header = header.write();
        Some(match part {
            ValidationPart::Packets => packets,
            ValidationPart::Signature => BatchSignature::sign(&self.peer_key, &header).ok()?.write(),
            ValidationPart::Header => header,
        })
    }
}

#[async_trait]
impl Mailbox for Misreading {
    fn url(&self) -> &MailboxUrl {
        self.inner.url()
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let mut body = self.inner.open(key).await?;
        if let Some((batch, writer, part)) = parse_validation_name(key.as_str())
            && let Some(bytes) = self.misread(&batch, part, |part| batch.validation_key(writer, part))
        {
            body.meta.size = bytes.len() as u64;
            body.stream = futures::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        }
        Ok(body)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        self.inner.head(key).await
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        self.inner.begin_upload(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, MailboxError> {
        self.inner.put_if_absent(key, content).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, MailboxError> {
        self.inner.list(request).await
    }
}
