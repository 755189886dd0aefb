//! Names of objects, and URLs.

use facilitator_core::formats::claims::parse_claims_name;
use facilitator_core::formats::manifest::{StorageUrl, check_base_url};
use facilitator_core::formats::names::{
    BatchId, BatchRange, IngestionPart, ValidationPart, WindowId, parse_ingestion_name, parse_partial_name,
    parse_shard_name, parse_sum_part_name, parse_validation_name,
};
use facilitator_core::formats::work::Share;
use mailbox::{MailboxUrl, ObjectKey};

use super::{ACCEPTED, Target, said};
use crate::support::Truth;

const PARTS: [&str; 13] = [
    "ingestion",
    "validation",
    "sum part",
    "partial",
    "shard",
    "claims",
    "range",
    "storage URL",
    "base URL",
    "key",
    "mailbox URL",
    "batch",
    "window",
];

fn object_names(input: &[u8]) -> Result<Vec<String>, String> {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok(vec!["not text".into(); PARTS.len()]);
    };
    if let Some((id, part)) = parse_ingestion_name(text)
        && id.ingestion_key(part).as_str() != text
    {
        return Err("an ingestion object has two names".into());
    }
    if let Some((id, share, part)) = parse_validation_name(text)
        && id.validation_key(share, part).as_str() != text
    {
        return Err("a validation object has two names".into());
    }
    if let Some((instance, window, share, part)) = parse_sum_part_name(text)
        && window.sum_part_key(&instance, share, part).as_str() != text
    {
        return Err("a sum part's object has two names".into());
    }
    if let Some((window, range)) = parse_partial_name(text)
        && window.partial_key(&range).as_str() != text
    {
        return Err("a partial sum has two names".into());
    }
    if let Some((window, cutoff, range)) = parse_shard_name(text)
        && window.shard_key(cutoff, &range).as_str() != text
    {
        return Err("a plan shard has two names".into());
    }
    if let Ok(window) = WindowId::parse(text)
        && window.path() != text
    {
        return Err("a window has two names".into());
    }
    if let Ok(url) = MailboxUrl::parse(text)
        && MailboxUrl::parse(&url.to_string()).as_ref() != Ok(&url)
    {
        return Err("a mailbox's URL reads as another's".into());
    }
    if let Some((key, object)) = parse_claims_name(text)
        && object.key(key).as_str() != text
    {
        return Err("an object of claims has two names".into());
    }
    let there = |there: bool| if there { ACCEPTED.into() } else { String::new() };
    // Errors quote the text: only their ends tell them apart.
    let end = |said: String| match said.as_str() {
        ACCEPTED => said,
        _ => said.chars().skip(said.chars().count().saturating_sub(40)).collect(),
    };
    Ok(vec![
        there(parse_ingestion_name(text).is_some()),
        there(parse_validation_name(text).is_some()),
        there(parse_sum_part_name(text).is_some()),
        there(parse_partial_name(text).is_some()),
        there(parse_shard_name(text).is_some()),
        there(parse_claims_name(text).is_some()),
        end(said(BatchRange::parse(text))),
        end(said(StorageUrl::parse(text))),
        end(said(check_base_url(text))),
        end(said(ObjectKey::parse(text))),
        end(said(MailboxUrl::parse(text))),
        end(said(BatchId::parse(text))),
        end(said(WindowId::parse(text))),
    ])
}

fn name_seeds() -> Vec<Vec<u8>> {
    let id = &Truth::read()[0].batch_ids()[0];
    let window = "us-ct/kittens-seen/202611200000-202611200300";
    let texts = [
        id.ingestion_key(IngestionPart::Signature).into_string(),
        id.validation_key(Share::Second, ValidationPart::Packets).into_string(),
        format!("{window}.sum_0"),
        format!("{window}.invalid_uuid_1.avro"),
        "us-ct.release-2/kittens-seen/202611200000-202611200300.sum_1.sig".into(),
        "kittens-seen/202611200000-202611200300".into(),
        "partials/kittens-seen/202611200000-202611200300/2026112001008f-202611200300".into(),
        "shards/kittens-seen/202611200000-202611200300/1795146600000/202611200000-2026112001008f".into(),
        "202611200000-2026112001008f".into(),
        "kittens-seen/202611200000-202611200300.9".into(),
        id.path(),
        "file:///var/mailbox".into(),
        "s3://region/bucket/prefix".into(),
        "https://manifests.example/path".into(),
        format!("claims/{}/2026112003/{}", "0a".repeat(16), "9f".repeat(16)),
        format!("claims/{}/20261120-runs/000001", "0a".repeat(16)),
    ];
    texts.map(String::into_bytes).to_vec()
}

pub fn targets() -> Vec<Target> {
    vec![Target {
        name: "name",
        parts: &PARTS,
        seeds: name_seeds,
        run: object_names,
    }]
}
