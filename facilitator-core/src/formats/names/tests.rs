#![allow(clippy::unwrap_used)]
use super::*;

const UUID: &str = "5a3da7c8-bf33-45d0-bfc6-7ef267c821f2";

#[test]
fn takes_and_refuses_aggregation_ids() {
    for text in ["kittens-seen", "a", "A.b_c-9", "x.batch", &"a".repeat(100)] {
        assert_eq!(AggregationId::parse(text).unwrap().as_str(), text);
    }
    for text in [
        "",
        "-a",
        ".a",
        "a/b",
        "a b",
        "ä",
        "task-markers",
        "prio-operator",
        &"a".repeat(101),
        "a\n",
    ] {
        assert!(AggregationId::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn times_go_both_ways_and_only_real_ones() {
    let time = BatchTime::parse_path("2026/11/20/00/45").unwrap();
    assert_eq!(time.to_compact(), "202611200045");
    assert_eq!(time.timestamp().to_string(), "2026-11-20T00:45:00Z");
    assert_eq!(BatchTime::parse_compact("202611200045").unwrap(), time);
    assert_eq!(
        BatchTime::from_timestamp("2026-11-20T00:45:59.9Z".parse().unwrap()),
        Some(time)
    );
    assert_eq!(
        BatchTime::parse_path("0001/01/01/00/00").unwrap().to_path(),
        "0001/01/01/00/00"
    );
    for text in [
        "2026/02/30/00/00",
        "2026/11/20/24/00",
        "2026/11/20/00/60",
        "2026/1/20/00/00",
        "2026-11-20-00-00",
        "2026/11/20/00/00/",
        "0000/01/01/00/00",
        "+026/11/20/00/00",
        "2026/11/20/00/0é",
        "202611200045",
    ] {
        assert!(BatchTime::parse_path(text).is_err(), "{text:?}");
    }
}

#[test]
fn names_of_a_batch_go_both_ways() {
    let id = BatchId::parse(&format!("x.batch/2026/11/20/00/00/{UUID}")).unwrap();
    for part in [IngestionPart::Header, IngestionPart::Signature, IngestionPart::Packets] {
        assert_eq!(
            parse_ingestion_name(id.ingestion_key(part).as_str()),
            Some((id.clone(), part))
        );
    }
    for share in [Share::First, Share::Second] {
        for part in [
            ValidationPart::Header,
            ValidationPart::Signature,
            ValidationPart::Packets,
        ] {
            assert_eq!(
                parse_validation_name(id.validation_key(share, part).as_str()),
                Some((id.clone(), share, part))
            );
        }
    }
    assert_eq!(
        id.ledger_key("records").as_str(),
        format!("records/x.batch/2026/11/20/00/00/{UUID}")
    );
}

#[test]
fn foreign_names_are_none() {
    let stem = format!("a/2026/11/20/00/00/{UUID}");
    let upper = UUID.to_uppercase();
    for name in [
        format!("{stem}.batch.sig.sig"),
        format!("{stem}.batch.gz"),
        format!("{stem}.validity_2"),
        stem.clone(),
        format!("/{stem}.batch"),
        format!("x/{stem}.batch"),
        format!("a/2026/11/20/00/00/{upper}.batch"),
        format!("a/2026/11/20/00/00/{}.batch", UUID.replace('-', "")),
        format!("a/2026/13/20/00/00/{UUID}.batch"),
        format!("task-markers/2026/11/20/00/00/{UUID}.batch"),
        String::new(),
        ".batch".to_owned(),
    ] {
        assert_eq!(parse_ingestion_name(&name), None, "{name}");
        assert_eq!(parse_validation_name(&name), None, "{name}");
    }
}

#[test]
fn names_of_a_window_go_both_ways() {
    let window = WindowId::parse("kittens-seen/202611200000-202611200300").unwrap();
    let instance = InstanceName::parse("us-ct-g-enpa").unwrap();
    let key = window.sum_part_key(&instance, Share::Second, SumPartPart::InvalidPackets);
    assert_eq!(
        key.as_str(),
        "us-ct-g-enpa/kittens-seen/202611200000-202611200300.invalid_uuid_1.avro"
    );
    for part in [SumPartPart::Header, SumPartPart::Signature, SumPartPart::InvalidPackets] {
        let key = window.sum_part_key(&instance, Share::First, part);
        assert_eq!(
            parse_sum_part_name(key.as_str()),
            Some((instance.clone(), window.clone(), Share::First, part))
        );
    }
    assert!(window.contains(window.start) && !window.contains(window.end));
    for text in [
        "a/202611200300-202611200300",
        "a/202611200300-202611200400.1",
        "a/202611200300-202611200400.0",
        "a/202611200300-202611200400.10",
        "a/202611200300-202611200400.+2",
        "a/202611200300-202611200400.",
        "a/202611200300-202611200400.2.2",
        "a/202611200300-202611200000",
        "a/202611200300",
        "202611200300-202611200400",
    ] {
        assert!(WindowId::parse(text).is_err(), "{text}");
    }
    assert_eq!(
        parse_sum_part_name("kittens-seen/202611200000-202611200300.sum_0"),
        None
    );
}

#[test]
fn names_of_a_windows_parts_go_both_ways() {
    let window = WindowId::parse("kittens-seen/202611200000-202611200300").unwrap();
    let range = BatchRange::parse("2026112001008f-202611200300").unwrap();
    let (partial, shard) = (window.partial_key(&range), window.shard_key(-5, &range));
    assert_eq!(
        partial.as_str(),
        "partials/kittens-seen/202611200000-202611200300/2026112001008f-202611200300"
    );
    assert_eq!(
        shard.as_str(),
        "shards/kittens-seen/202611200000-202611200300/-5/2026112001008f-202611200300"
    );
    assert_eq!(parse_partial_name(partial.as_str()), Some((window.clone(), range)));
    assert_eq!(parse_shard_name(shard.as_str()), Some((window, -5, range)));
    for name in [
        "partials/kittens-seen/202611200000-202611200300",
        "partials/kittens-seen/202611200000-202611200300/5/202611200100-202611200300",
        "plans/kittens-seen/202611200000-202611200300/202611200100-202611200300",
        "partials/202611200100-202611200300",
    ] {
        assert_eq!(parse_partial_name(name), None, "{name}");
    }
    for name in [
        "shards/kittens-seen/202611200000-202611200300/202611200100-202611200300",
        "shards/kittens-seen/202611200000-202611200300/05/202611200100-202611200300",
        "shards/kittens-seen/202611200000-202611200300/+5/202611200100-202611200300",
        "shards/kittens-seen/202611200000-202611200300/5/202611200300-202611200100",
    ] {
        assert_eq!(parse_shard_name(name), None, "{name}");
    }
}

#[test]
fn a_further_release_has_names_of_its_own() {
    let window = WindowId::parse("kittens-seen/202611200000-202611200300").unwrap();
    let instance = InstanceName::parse("us-ct.release-x").unwrap();
    for release in 2..=MAX_RELEASES {
        let again = window.again(release).unwrap();
        assert_eq!((again.release(), again.first()), (release, window.clone()));
        assert_eq!(again.path(), format!("{window}.{release}"));
        assert_eq!(WindowId::parse(&again.path()).unwrap(), again);
        let key = again.sum_part_key(&instance, Share::First, SumPartPart::Header);
        assert_eq!(
            key.as_str(),
            format!("us-ct.release-x.release-{release}/kittens-seen/202611200000-202611200300.sum_0")
        );
        assert_eq!(
            parse_sum_part_name(key.as_str()),
            Some((instance.clone(), again, Share::First, SumPartPart::Header))
        );
    }
    for release in [0, 1, 10, 255] {
        assert!(window.again(release).is_err(), "{release}");
    }
    for name in [
        "us-ct/kittens-seen/202611200000-202611200300.2.sum_0",
        "us-ct.release-1/kittens-seen/202611200000-202611200300.sum_0",
        "us-ct.release-22/kittens-seen/202611200000-202611200300.sum_0",
        "us-ct.release-2.release-3/kittens-seen/202611200000-202611200300.sum_0",
        ".release-2/kittens-seen/202611200000-202611200300.sum_0",
    ] {
        assert_eq!(parse_sum_part_name(name), None, "{name}");
    }
    assert!(InstanceName::parse("us-ct.release-2").is_err());
    assert!(InstanceName::parse("us-ct.release-").is_ok());
}
