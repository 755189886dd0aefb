#![allow(clippy::unwrap_used)]
use super::*;

fn record() -> Record {
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
    empty.plain.hamming_weight = None;
    empty.sealed.clear();
    assert_eq!(Record::decode(&empty.encode()).unwrap(), empty);
}

#[test]
fn the_layout_is_frozen() {
    let bytes = record().encode();
    assert_eq!(&bytes[..8], b"PRIOREC1");
    assert_eq!(&bytes[16..24], &[1, 0, 0, 0, 12, 0, 0, 0]);
    let digest = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    assert_eq!(
        digest,
        "55f279a161cd4149d08662d69f8c243c24118c754a92dff591d97a636ab3843b"
    );
}

#[test]
fn every_cut_is_noticed() {
    let bytes = record().encode();
    for length in 0..bytes.len() {
        assert!(Record::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Record::decode(&longer), Err(RecordError::Trailing { bytes: 1 }));
}

#[test]
fn values_out_of_bounds_are_named() {
    let change = |change: fn(&mut Record)| {
        let mut record = record();
        change(&mut record);
        Record::decode(&record.encode()).unwrap_err().to_string()
    };
    assert!(change(|r| r.plain.bins = 0).contains("bins"));
    assert!(change(|r| r.plain.bins = 1 << 19).contains("bins"));
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
    bytes[16] = 2;
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
