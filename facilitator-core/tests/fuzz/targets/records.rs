//! The ledger's binary objects: records and claims.

use std::io::Read;

use bytes::Bytes;
use facilitator_core::crypto::seal::sealed_length;
use facilitator_core::crypto::sha256;
use facilitator_core::formats::claims::{
    Chunk, ChunkName, Claim, ClaimDay, ClaimsError, RUN_PREFIX_BYTES, RunHeader, RunIndex, encode_run, entries_of,
    header_length,
};
use facilitator_core::formats::names::BatchId;
use facilitator_core::formats::record::{
    Message, PacketExclusion, PacketState, Record, RecordError, RecordHead, RecordPacket, RecordPlain, RecordReader,
};
use facilitator_core::formats::work::{Share, ValidationFormat};
use uuid::Uuid;

use super::{Target, said};

/// Whole, whole but for its seals, and packet after packet as it comes: the same, and each record has one form.
fn record(input: &[u8]) -> Result<Vec<String>, String> {
    let whole = Record::decode(input);
    if let Ok(record) = &whole
        && record.encode() != input
    {
        return Err("a record has two forms".into());
    }
    let despite = Record::decode_despite_seals(input);
    if let (Ok(whole), Ok(despite)) = (&whole, &despite)
        && whole != despite
    {
        return Err("a record whose seals are whole is another without them".into());
    }
    let streamed = streamed(input);
    match (&whole, &streamed) {
        (Ok(whole), Ok(streamed)) if whole == streamed => {}
        (Err(whole), Err(streamed)) if whole == streamed => {}
        _ => return Err(format!("at once {}, streamed {}", said(whole), said(streamed))),
    }
    Ok(vec![said(whole), said(despite), said(streamed)])
}

fn streamed(input: &[u8]) -> Result<Record, RecordError> {
    struct ByteAfterByte<'a>(&'a [u8]);
    impl Read for ByteAfterByte<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }
    let mut reader = RecordReader::new(ByteAfterByte(input))?;
    let packets = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    let end = reader.end()?;
    Ok(Record {
        plain: RecordPlain {
            head: end.head.clone(),
            packet_keys: end.packet_keys.clone(),
            packets,
        },
        sealed: end.seals()?,
    })
}

fn record_seeds() -> Vec<Vec<u8>> {
    let with = |packets: Vec<PacketState>, keys: usize, hamming_weight: Option<i32>| {
        let packets = packets.into_iter().zip(7..).map(|(state, n)| RecordPacket {
            uuid: Uuid::from_u128(n),
            state,
        });
        let record = Record {
            plain: RecordPlain {
                head: RecordHead {
                    instance: "us-ct".into(),
                    share: Share::First,
                    batch: BatchId::parse("kittens-seen/2026/11/20/00/45/5a3da7c8-bf33-45d0-bfc6-7ef267c821f2")
                        .unwrap(),
                    name: "kittens-seen".into(),
                    bins: 2,
                    epsilon: 0.23,
                    prime: 4_293_918_721,
                    number_of_servers: 2,
                    hamming_weight,
                    batch_start_time: 1,
                    batch_end_time: 2,
                    header_digest: [3; 32],
                    packet_digest: [4; 32],
                    validation_format: ValidationFormat::ThreeObjects,
                    signer: "key".into(),
                },
                packet_keys: vec![[4; 65]; keys],
                packets: packets.collect(),
            },
            sealed: vec![vec![8; sealed_length(2)]; keys],
        };
        record.encode()
    };
    let message = Message { f: 1, g: 2, h: 3 };
    let counted = |key| PacketState::In { key, message };
    vec![
        with(vec![counted(0)], 1, None),
        with(
            vec![
                counted(0),
                PacketState::Excluded(PacketExclusion::Undecryptable),
                counted(1),
            ],
            2,
            Some(-1),
        ),
    ]
}

/// The bytes as a chunk of the name that they ask for, and as a run, read as a look does.
fn claims(input: &[u8]) -> Result<Vec<String>, String> {
    let mut digest = [0; 16];
    digest.copy_from_slice(&sha256(input)[..16]);
    let day = ClaimDay::parse("20261120").unwrap();
    let name = ChunkName { day, hour: 3, digest };
    let chunk = Chunk::decode(&name, input);
    if let Ok(claims) = &chunk
        && Chunk::encode(day, 3, claims).bytes != input
    {
        return Err("a chunk has two forms".into());
    }
    Ok(vec![said(chunk), said(run(input))])
}

fn run(input: &[u8]) -> Result<(), ClaimsError> {
    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(input.len());
    let end = within(RUN_PREFIX_BYTES.saturating_add(header_length(input)?));
    let header = RunHeader::decode(1, &input[within(RUN_PREFIX_BYTES).min(end)..end])?;
    for run in &header.runs {
        let index = Bytes::copy_from_slice(&input[within(run.index_at)..within(run.claim_at(0))]);
        let index = RunIndex::decode(run, &index)?;
        for fingerprint in (0..64).map(|bit| u64::MAX << bit) {
            assert!(index.may_be_at(fingerprint).end <= run.entries);
        }
        entries_of(&input[within(run.claim_at(0))..], run.entries as usize)?;
    }
    Ok(())
}

fn claim_seeds() -> Vec<Vec<u8>> {
    let claims: Vec<Claim> = (1..40)
        .map(|n| Claim {
            fingerprint: n << 57,
            owner: n,
        })
        .collect();
    let chunk = Chunk::encode(ClaimDay::parse("20261120").unwrap(), 3, &claims[..2]);
    let run = encode_run(1, Vec::new(), vec![(3, chunk.name.digest)], &claims).unwrap();
    vec![chunk.bytes.to_vec(), run.to_vec()]
}

pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "record",
            parts: &["whole", "despite its seals", "streamed"],
            seeds: record_seeds,
            run: record,
        },
        Target {
            name: "claims",
            parts: &["chunk", "run"],
            seeds: claim_seeds,
            run: claims,
        },
    ]
}
