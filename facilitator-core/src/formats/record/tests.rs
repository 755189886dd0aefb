#![allow(clippy::unwrap_used)]
use super::*;

pub(crate) fn record() -> Record {
    let message = Message {
        f: 1,
        g: 4_293_918_720,
        h: 3,
    };
    let packet = |n: u128, state| RecordPacket {
        uuid: Uuid::from_u128(n),
        state,
    };
    let mut packets = vec![packet(7, PacketState::In { key: 1, message })];
    packets.extend(
        PacketExclusion::ALL
            .into_iter()
            .map(|r| packet(u128::from(r as u8), PacketState::Excluded(r))),
    );
    Record {
        plain: RecordPlain {
            head: RecordHead {
                instance: "us-ct-g-enpa".into(),
                share: Share::Second,
                batch: BatchId::parse("kittens-seen/2026/11/20/00/45/5a3da7c8-bf33-45d0-bfc6-7ef267c821f2").unwrap(),
                name: "kittens-seen".into(),
                bins: 2,
                epsilon: 0.23,
                prime: 4_293_918_721,
                number_of_servers: 2,
                hamming_weight: Some(-1),
                batch_start_time: -5,
                batch_end_time: 100,
                header_digest: [3; 32],
                packet_digest: [4; 32],
                validation_format: ValidationFormat::SingleObject,
                signer: "second-signing-key-1".into(),
            },
            packet_keys: vec![[4; 65], [5; 65]],
            packets,
        },
        sealed: vec![vec![8; 24], vec![9; 24]],
    }
}

#[test]
fn what_is_written_is_read_again() {
    let record = record();
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    let mut empty = record;
    empty.plain.packets.clear();
    empty.plain.packet_keys.clear();
    empty.plain.head.hamming_weight = None;
    empty.sealed.clear();
    assert_eq!(Record::decode(&empty.encode()).unwrap(), empty);
}

#[test]
fn the_layout_is_frozen() {
    let bytes = record().encode();
    assert_eq!(&bytes[..8], b"PRIOREC1");
    assert_eq!(&bytes[8..16], &[1, 0, 0, 0, 12, 0, 0, 0]);
    let digest = crate::formats::batch::hex(&crate::crypto::sha256(&bytes));
    assert_eq!(
        digest,
        "8d35241f712c0b068bfd699c307a95fe3a1d8260f596d681348e6de69ec74cfd"
    );
}

/// A source that hands out a byte at a time, and counts them.
struct Trickle<'a>(&'a [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        std::io::Read::read(&mut self.0, &mut buffer[..length])
    }
}

#[test]
fn a_stream_is_read_as_the_whole_is() {
    let record = record();
    let bytes = record.encode();
    let mut reader = RecordReader::new(Trickle(&bytes)).unwrap();
    assert_eq!(*reader.head(), record.plain.head);
    let packets: Vec<_> = (&mut reader).take(2).collect::<Result<_, _>>().unwrap();
    assert_eq!(packets, record.plain.packets[..2]);
    // Packets that nobody asked for are read over.
    let end = reader.end().unwrap();
    assert_eq!((end.packets, end.excluded), (9, 8));
    assert_eq!(end.packet_keys, record.plain.packet_keys);
    assert_eq!(end.digest, record.plain.digest());
    assert_eq!(
        end.digest,
        crate::crypto::sha256(&bytes[8..bytes.len() - 60]),
        "all between mark and seals"
    );
    assert_eq!(end.seals().unwrap(), record.sealed);
}

#[test]
fn what_went_wrong_among_the_packets_is_said_at_the_end_too() {
    let record = record();
    let bytes = record.encode();
    let cut = &bytes[..bytes.len() / 2];
    let mut reader = RecordReader::new(cut).unwrap();
    let error = reader.find_map(Result::err).unwrap();
    assert!(reader.next().is_none());
    assert_eq!(reader.end().err(), Some(error));
}

#[test]
fn every_cut_is_noticed() {
    let bytes = record().encode();
    for length in 0..bytes.len() {
        assert!(Record::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Record::decode(&longer), Err(RecordError::Trailing));
}

#[test]
fn values_out_of_bounds_are_named() {
    let change = |change: fn(&mut Record)| {
        let mut record = record();
        change(&mut record);
        Record::decode(&record.encode()).unwrap_err().to_string()
    };
    assert!(change(|r| r.plain.head.bins = 0).contains("bins"));
    assert!(change(|r| r.plain.head.bins = 1 << 19).contains("bins"));
    assert!(change(|r| r.sealed.truncate(1)).contains("sealed parts"));
    assert!(change(|r| r.sealed[0].truncate(23)).contains("sealed part's length"));
    assert!(
        change(|r| r.plain.packets[0].state = PacketState::In {
            key: 2,
            message: Message { f: 0, g: 0, h: 0 }
        })
        .contains("packet's key")
    );
    assert_eq!(Record::decode(b"something else"), Err(RecordError::NotARecord));
}

#[test]
fn a_later_revision_is_refused_by_name() {
    let mut bytes = record().encode();
    bytes[8] = 2;
    assert_eq!(Record::decode(&bytes), Err(RecordError::Revision { revision: 2 }));
}

#[test]
fn the_bound_of_the_table_holds() {
    let mut record = record();
    let packet = record.plain.packets[0];
    record.plain.packets = vec![packet; 1000];
    assert!(record.encode().len() as u64 <= record_bound(1000, 2, 2));
}

#[test]
fn the_plain_part_is_read_despite_lost_seals() {
    let record = record();
    let bytes = record.encode();
    let cut = Record::decode_despite_seals(&bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(cut.plain, record.plain);
    assert_eq!(cut.sealed, [vec![8; 24], vec![]]);
    assert_eq!(
        Record::decode_despite_seals(&bytes[..bytes.len() - 60]).unwrap().sealed,
        vec![Vec::<u8>::new(); 2]
    );
    assert_eq!(Record::decode_despite_seals(&bytes).unwrap(), record);
}
