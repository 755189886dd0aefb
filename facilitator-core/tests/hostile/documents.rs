//! Names, URLs, work lists, parameters and the ledger's JSON.

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::formats::ledger::{
    Decided, Delivered, LedgerIdentity, LedgerObject, Rejected, Released, WindowResult,
};
use facilitator_core::formats::names::{
    AggregationId, BatchId, BatchTime, InstanceName, SumPartPart, WindowId, parse_ingestion_name, parse_sum_part_name,
    parse_uuid, parse_validation_name,
};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::shard::PlanShard;
use facilitator_core::formats::work::{Parameters, Report, Share, WorkList};
use futures::StreamExt;
use mailbox::{
    ListPage, ListRequest, Mailbox, MailboxError, MailboxUrl, ObjectBody, ObjectKey, ObjectMeta, PutOutcome, Upload,
};

use crate::{Case, case, said};

/// A store that announces another length than it sends.
#[derive(Debug)]
pub struct Lying {
    pub announced: u64,
    pub url: MailboxUrl,
}

#[async_trait]
impl Mailbox for Lying {
    fn url(&self) -> &MailboxUrl {
        &self.url
    }

    async fn open(&self, key: &ObjectKey) -> Result<ObjectBody, MailboxError> {
        let meta = ObjectMeta {
            key: key.clone(),
            size: self.announced,
            modified: jiff::Timestamp::UNIX_EPOCH,
            sha256: None,
        };
        Ok(ObjectBody {
            meta,
            stream: futures::stream::empty().boxed(),
        })
    }

    async fn head(&self, _: &ObjectKey) -> Result<Option<ObjectMeta>, MailboxError> {
        Ok(None)
    }

    async fn begin_upload(&self, _: &ObjectKey) -> Result<Box<dyn Upload>, MailboxError> {
        unreachable!("only read")
    }

    async fn put_if_absent(&self, _: &ObjectKey, _: Bytes) -> Result<PutOutcome, MailboxError> {
        unreachable!("only read")
    }

    async fn list(&self, _: &ListRequest) -> Result<ListPage, MailboxError> {
        Ok(ListPage::default())
    }
}

const UUID: &str = "5a3da7c8-bf33-45d0-bfc6-7ef267c821f2";

/// Why none of those who list mailboxes reads a name: what is wrong with the part of it that they say no to.
fn why_passed_over(text: &str) -> String {
    let is_read = parse_ingestion_name(text).is_some()
        || parse_validation_name(text).is_some()
        || parse_sum_part_name(text).is_some();
    if is_read {
        return "accepted".into();
    }
    let without = |endings: &[&str]| {
        let mut stems = endings.iter().filter_map(|ending| text.strip_suffix(ending));
        stems.next().map(str::to_owned)
    };
    if let Some(stem) = without(&[".batch", ".batch.sig", ".batch.avro", ".validity_0", ".validity_1"]) {
        return said(BatchId::parse(&stem));
    }
    let Some(stem) = without(&[".sum_0", ".sum_1"]) else {
        return "no ending of ours".into();
    };
    let (folder, window) = stem.split_once('/').unwrap_or((&stem, ""));
    let window = match (WindowId::parse(window), folder.rsplit_once(".release-")) {
        (Ok(window), Some((_, release))) => window.again(release.parse().unwrap()),
        (window, _) => window,
    };
    match (window, InstanceName::parse(folder)) {
        (Err(error), _) | (_, Err(error)) => error.to_string(),
        (Ok(window), Ok(instance)) => {
            let written = window.sum_part_key(&instance, Share::First, SumPartPart::Header);
            format!("we would write {written}")
        }
    }
}

pub fn names() -> Vec<Case> {
    let stem = format!("a/2026/11/20/00/00/{UUID}");
    let mut cases = Vec::new();
    let foreign = [
        ("of no characters", "no ending of ours", String::new()),
        ("of an ending alone", "is no aggregation id", ".batch".into()),
        ("with two endings", "no ending of ours", format!("{stem}.batch.sig.sig")),
        ("of another ending", "no ending of ours", format!("{stem}.batch.gz")),
        ("of a third party", "no ending of ours", format!("{stem}.validity_2")),
        ("with a folder too many", "is no batch time", format!("x/{stem}.batch")),
        (
            "with a slash in front",
            "is no aggregation id",
            format!("/{stem}.batch"),
        ),
        ("that goes up", "is no batch time", format!("a/../{stem}.batch")),
        (
            "with a UUID in capitals",
            "is no batch UUID",
            format!("a/2026/11/20/00/00/{}.batch", UUID.to_uppercase()),
        ),
        (
            "with a UUID in braces",
            "is no batch UUID",
            format!("a/2026/11/20/00/00/{{{UUID}}}.batch"),
        ),
        (
            "with month 13",
            "is no batch time",
            format!("a/2026/13/20/00/00/{UUID}.batch"),
        ),
        (
            "with 30 February",
            "is no batch time",
            format!("a/2026/02/30/00/00/{UUID}.batch"),
        ),
        (
            "with minute 60",
            "is no batch time",
            format!("a/2026/11/20/00/60/{UUID}.batch"),
        ),
        (
            "with a year of five digits",
            "is no batch time",
            format!("a/12026/11/20/00/00/{UUID}.batch"),
        ),
        (
            "with Arabic digits",
            "is no batch time",
            format!("a/٢٠٢٦/11/20/00/00/{UUID}.batch"),
        ),
        (
            "of the original's task markers",
            "is no aggregation id",
            format!("task-markers/2026/11/20/00/00/{UUID}.batch"),
        ),
        (
            "of our own folder",
            "is no aggregation id",
            format!("prio-operator/2026/11/20/00/00/{UUID}.batch"),
        ),
        (
            "with a zero byte",
            "is no aggregation id",
            format!("a\0/2026/11/20/00/00/{UUID}.batch"),
        ),
        (
            "with a line break",
            "is no aggregation id",
            format!("a\n/2026/11/20/00/00/{UUID}.batch"),
        ),
        (
            "with an aggregation of 101 characters",
            "is no aggregation id",
            format!("{}/2026/11/20/00/00/{UUID}.batch", "a".repeat(101)),
        ),
        ("of 10 MB", "no ending of ours", "a/".repeat(5 << 20)),
        (
            "of a sum part's first release by a number",
            "there is no release 1",
            "us-ct.release-1/a/202611200000-202611200300.sum_0".into(),
        ),
        (
            "of a sum part's release 22",
            "there is no release 22",
            "us-ct.release-22/a/202611200000-202611200300.sum_0".into(),
        ),
        (
            "of a sum part with the release in its window",
            "we would write us-ct.release-2/a/",
            "us-ct/a/202611200000-202611200300.2.sum_0".into(),
        ),
    ];
    let good = [
        format!("{stem}.batch"),
        format!("{stem}.batch.sig"),
        format!("{stem}.validity_1"),
        "us-ct.release-2/a/202611200000-202611200300.sum_0".into(),
    ];
    assert!(good.iter().all(|text| why_passed_over(text) == "accepted"));
    for (name, expected, text) in foreign {
        cases.push(case(format!("an object's name {name}"), expected, move || {
            why_passed_over(&text)
        }));
    }
    cases.extend([
        case("an aggregation id with a slash", "is no aggregation id", || {
            said(AggregationId::parse("a/b"))
        }),
        case("an aggregation id with a dot in front", "is no aggregation id", || {
            said(AggregationId::parse(".a"))
        }),
        case("an instance with a blank", "is no instance name", || {
            said(InstanceName::parse("a b"))
        }),
        case("an instance named as another's release", "is no instance name", || {
            said(InstanceName::parse("us-ct.release-2"))
        }),
        case("a window's release 0", "there is no release 0", || {
            said(WindowId::parse("a/202611200000-202611200300.0"))
        }),
        case("a window's release 10", "is no window time", || {
            said(WindowId::parse("a/202611200000-202611200300.10"))
        }),
        case("a batch time with blanks", "is no batch time", || {
            said(BatchTime::parse_path("2026/11/20/ 0/00"))
        }),
        case("a batch time with a sign", "is no batch time", || {
            said(BatchTime::parse_path("+026/11/20/00/00"))
        }),
        case("a batch UUID without hyphens", "is no batch UUID", || {
            said(parse_uuid(&UUID.replace('-', "")))
        }),
        case(
            "a window that ends before it begins",
            "its end must be after its start",
            || said(WindowId::parse("a/202611200300-202611200000")),
        ),
        case("a window of one time", "is no window time", || {
            said(WindowId::parse("a/202611200300"))
        }),
        case("a batch path of one part", "is no batch time", || {
            said(BatchId::parse("a"))
        }),
        case("an object key that goes up", "segment", || {
            said(ObjectKey::parse("a/../b"))
        }),
        case("an object key of 1,025 bytes", "longer than 1024", || {
            said(ObjectKey::parse("a".repeat(1_025))).split_off(200)
        }),
        case("an object key with a zero byte", "control character", || {
            said(ObjectKey::parse("a\0b"))
        }),
        case("a mailbox URL with a password", "credentials", || {
            said(MailboxUrl::parse("s3://user:secret@region/bucket"))
        }),
        case("a mailbox URL that goes up", "segment", || {
            said(MailboxUrl::parse("file:///a/../etc"))
        }),
        case("a mailbox URL of another scheme", "none of file, s3, gs", || {
            said(MailboxUrl::parse("http://example/a"))
        }),
        case("a mailbox URL with an escape", "an escape", || {
            said(MailboxUrl::parse("file:///a/%2e%2e/b"))
        }),
    ]);
    cases
}

pub fn work() -> Vec<Case> {
    let list = |name: &str, expected: &str, text: String| {
        case(format!("a work list {name}"), expected, move || {
            said(serde_json::from_str::<WorkList>(&text))
        })
    };
    let item = r#"{"aggregation":"a","time":"2026/11/20/00/00","uuid":"00000000-0000-0000-0000-000000000001"}"#;
    let again = |approval: &str| {
        format!(
            r#"{{"stage":"Aggregate","revision":1,"work":"w","chunks":[[{{"aggregation":"a","start":"","end":"","cutoffs":[1],"override":{approval}}}]]}}"#
        )
    };
    let intake = |chunks: &str| format!(r#"{{"stage":"Intake","revision":1,"work":"w","chunks":{chunks}}}"#);
    vec![
        list("of no bytes", "EOF", String::new()),
        list("of another stage", "unknown variant", r#"{"stage":"Delete","revision":1,"work":"w","chunks":[]}"#.into()),
        list("of no stage", "missing field", r#"{"revision":1,"work":"w","chunks":[]}"#.into()),
        list("of 100,000 opening brackets", "recursion limit", intake(&"[".repeat(100_000))),
        list("with an unknown field", "unknown field", intake(&format!("[[{}]]", item.replace("}", r#","run":"sh"}"#)))),
        list("with a UUID that is none", "UUID", intake(&format!("[[{}]]", item.replace("00000000-", "x-")))),
        list("with a chunk that is no list", "invalid type", intake("[5]")),
        list("with a cutoff of 10^30", "invalid type", r#"{"stage":"Aggregate","revision":1,"work":"w","chunks":[[{"aggregation":"a","start":"","end":"","cutoffs":[1e30]}]]}"#.into()),
        list("with a revision of -1", "invalid value", r#"{"stage":"Intake","revision":-1,"work":"w","chunks":[]}"#.into()),
        list("cut off", "EOF", intake("[[")[..30].into()),
        list("with an override of release 256", "invalid value", again(r#"{"release":256,"expiresAtMillis":1,"approvedBy":"a","reason":"r"}"#)),
        list("with an override that never expires", "missing field", again(r#"{"release":2,"approvedBy":"a","reason":"r"}"#)),
        list("with an override and more", "unknown field", again(r#"{"release":2,"expiresAtMillis":1,"approvedBy":"a","reason":"r","force":true}"#)),
        case("parameters of another shape", "missing field", || said(serde_json::from_str::<Parameters>("{}"))),
        case("parameters with an unknown field", "unknown field", || said(serde_json::from_str::<Parameters>(r#"{"revision":1,"command":"sh"}"#))),
    ]
}

pub fn ledger() -> Vec<Case> {
    fn of<T: LedgerObject + 'static>(kind: &str, name: &str, expected: &str, text: impl Into<Vec<u8>>) -> Case {
        let text = text.into();
        let key = ObjectKey::parse("hostile").unwrap();
        // An error names the object and says what is wrong with it.
        case(format!("{kind} {name}"), expected, move || {
            match T::from_bytes(&key, &text) {
                Err(error) if !error.to_string().starts_with("hostile ") => format!("not named: {error}"),
                result => said(result.map(drop)),
            }
        })
    }
    let rejected = r#"{"revision":1,"reason":"Empty","message":"","headerDigest":null,"packetDigest":null}"#;
    let released = r#"{"revision":1,"planDigest":"a","packetSetDigest":"b","clients":5}"#;
    let plan = r#"{"revision":1,"aggregation":"a","start":"s","end":"e","cutoffMillis":1,"share":"First","instance":"i","signer":"s","shape":{"name":"a","bins":1,"epsilon":0.1,"prime":5,"numberOfServers":2,"hammingWeight":null},"members":[],"exclusions":[]}"#;
    let shard = r#"{"revision":1,"aggregation":"a","start":"s","end":"e","cutoffMillis":1,"range":"r","share":"First","instance":"i","legacyPeer":false,"candidates":[]}"#;
    let partial = r#"{"revision":1,"plain":{"planDigest":"a","range":"r","packets":0,"clients":0,"invalidProofs":0,"missingPeerMessages":0,"excludedPackets":0,"members":[],"counted":"","invalid":"","packetKeys":[]},"sealed":""}"#;
    let key = ObjectKey::parse("good").unwrap();
    assert!(
        Rejected::from_bytes(&key, rejected.as_bytes()).is_ok()
            && Released::from_bytes(&key, released.as_bytes()).is_ok()
    );
    assert!(Plan::from_bytes(&key, plan.as_bytes()).is_ok() && PlanShard::from_bytes(&key, shard.as_bytes()).is_ok());
    assert!(Partial::from_bytes(&key, partial.as_bytes()).is_ok());
    vec![
        of::<LedgerIdentity>("ledger.json", "of no bytes", "EOF while parsing a value", String::new()),
        of::<LedgerIdentity>("ledger.json", "of 100,000 opening brackets", "invalid type: sequence", "[".repeat(100_000)),
        of::<LedgerIdentity>("ledger.json", "with a share of neither", "unknown variant `Third`", r#"{"revision":1,"id":"00000000-0000-0000-0000-000000000001","instance":"a","share":"Third","startAt":"x"}"#),
        of::<Rejected>("rejected/", "of a later revision", "has revision 2", rejected.replace(":1,", ":2,")),
        of::<Rejected>("rejected/", "with an unknown reason", "unknown variant `Boring`", rejected.replace("Empty", "Boring")),
        of::<Rejected>("rejected/", "with an unknown field", "unknown field `x`", rejected.replace("{", r#"{"x":1,"#)),
        of::<Rejected>("rejected/", "with a field given twice", "duplicate field `revision`", rejected.replace("{", r#"{"revision":1,"#)),
        of::<Released>("released/", "of -5 clients", "invalid value: integer `-5`, expected u64", released.replace(":5", ":-5")),
        of::<Released>("released/", "of 2^64 clients", "invalid type: floating point", released.replace(":5", ":18446744073709551616")),
        of::<Released>("released/", "with text after its end", "trailing characters", format!("{released}{released}")),
        of::<Decided>("decisions/", "that decides otherwise", "unknown variant `Maybe`", r#"{"revision":1,"decision":"Maybe","inTheWay":null}"#),
        of::<Decided>("decisions/", "refused for no reason", "unknown variant `Mood`", r#"{"revision":1,"decision":"Withdraw","inTheWay":null,"refusal":{"reason":"Mood","message":""}}"#),
        of::<Delivered>("delivered/", "that isn't UTF-8", "invalid unicode code point", b"{\"revision\":1,\"recordDigest\":\"\xff\"}"),
        of::<Delivered>("delivered/", "put in another way", "unknown variant `Forced`", r#"{"revision":1,"recordDigest":"","signatureObject":"","storeTimeMillis":null,"put":"Forced"}"#),
        of::<WindowResult>("results/", "of no verdict", "missing field `verdict`", r#"{"revision":1}"#),
        of::<Plan>("plans/", "with epsilon null", "invalid type: null, expected f64", plan.replace("0.1", "null")),
        of::<Plan>("plans/", "with bins 2^32", "invalid value: integer `4294967296`, expected u32", plan.replace("\"bins\":1", "\"bins\":4294967296")),
        of::<Plan>("plans/", "of a later revision", "has revision 9", plan.replace("\"revision\":1", "\"revision\":9")),
        of::<Plan>("plans/", "with a member of no digest", "missing field `time`", plan.replace("\"members\":[]", "\"members\":[{}]")),
        of::<Plan>("plans/", "with an override that nobody approved", "missing field `approvedBy`", plan.replace("[]}", r#"[],"override":{"release":2,"expiresAtMillis":1,"reason":"r"}}"#)),
        of::<PlanShard>("shards/", "with a candidate of no time", "is no batch time", shard.replace("[]", r#"[{"time":"2026/13/01/00/00"}]"#)),
        of::<PlanShard>("shards/", "with content of neither kind", "unknown variant `Maybe`", shard.replace("[]", r#"[{"time":"2026/11/01/00/00","uuid":"00000000-0000-0000-0000-000000000001","rejected":false,"recorded":true,"ours":null,"theirs":null,"content":{"Maybe":1}}]"#)),
        of::<Partial>("partials/", "of -1 clients", "invalid value: integer `-1`, expected u64", partial.replace("\"clients\":0", "\"clients\":-1")),
        of::<Partial>("partials/", "sealed by what is no base64", "Invalid symbol 63", partial.replace("\"sealed\":\"\"", "\"sealed\":\"?\"")),
        of::<Partial>("partials/", "with a sum in clear", "unknown field `sum`", partial.replace("\"sealed\":\"\"", "\"sealed\":\"\",\"sum\":[1]")),
        of::<Report>("reports/", "with an unknown outcome", "unknown variant `Lost`", r#"{"revision":1,"work":"w","index":0,"podUid":"p","batches":[{"outcome":"Lost"}]}"#),
    ]
}
