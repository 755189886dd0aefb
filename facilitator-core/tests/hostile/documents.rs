//! Names, URLs, work lists, parameters and the ledger's JSON.

use async_trait::async_trait;
use bytes::Bytes;
use facilitator_core::formats::ledger::{
    Decided, Delivered, LedgerIdentity, LedgerObject, Rejected, Released, WindowResult,
};
use facilitator_core::formats::names::{
    AggregationId, BatchId, BatchTime, InstanceName, WindowId, parse_ingestion_name, parse_sum_part_name, parse_uuid,
    parse_validation_name,
};
use facilitator_core::formats::partial::Partial;
use facilitator_core::formats::plan::Plan;
use facilitator_core::formats::shard::PlanShard;
use facilitator_core::formats::work::{Parameters, Report, WorkList};
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

fn names() -> Vec<Case> {
    let stem = format!("a/2026/11/20/00/00/{UUID}");
    let mut cases = Vec::new();
    let foreign = [
        ("of no characters", String::new()),
        ("of an ending alone", ".batch".into()),
        ("with two endings", format!("{stem}.batch.sig.sig")),
        ("of another ending", format!("{stem}.batch.gz")),
        ("of a third party", format!("{stem}.validity_2")),
        ("with a folder too many", format!("x/{stem}.batch")),
        ("with a slash in front", format!("/{stem}.batch")),
        ("that goes up", format!("a/../{stem}.batch")),
        (
            "with a UUID in capitals",
            format!("a/2026/11/20/00/00/{}.batch", UUID.to_uppercase()),
        ),
        ("with a UUID in braces", format!("a/2026/11/20/00/00/{{{UUID}}}.batch")),
        ("with month 13", format!("a/2026/13/20/00/00/{UUID}.batch")),
        ("with 30 February", format!("a/2026/02/30/00/00/{UUID}.batch")),
        ("with minute 60", format!("a/2026/11/20/00/60/{UUID}.batch")),
        (
            "with a year of five digits",
            format!("a/12026/11/20/00/00/{UUID}.batch"),
        ),
        ("with Arabic digits", format!("a/٢٠٢٦/11/20/00/00/{UUID}.batch")),
        (
            "of the original's task markers",
            format!("task-markers/2026/11/20/00/00/{UUID}.batch"),
        ),
        (
            "of our own folder",
            format!("prio-operator/2026/11/20/00/00/{UUID}.batch"),
        ),
        ("with a zero byte", format!("a\0/2026/11/20/00/00/{UUID}.batch")),
        ("with a line break", format!("a\n/2026/11/20/00/00/{UUID}.batch")),
        (
            "with an aggregation of 101 characters",
            format!("{}/2026/11/20/00/00/{UUID}.batch", "a".repeat(101)),
        ),
        ("of 10 MB", "a/".repeat(5 << 20)),
        (
            "of a sum part's first release by a number",
            "us-ct.release-1/a/202611200000-202611200300.sum_0".into(),
        ),
        (
            "of a sum part's release 22",
            "us-ct.release-22/a/202611200000-202611200300.sum_0".into(),
        ),
        (
            "of a sum part with the release in its window",
            "us-ct/a/202611200000-202611200300.2.sum_0".into(),
        ),
    ];
    for (name, text) in foreign {
        cases.push(case(format!("an object's name {name}"), "passed over", move || {
            let read = parse_ingestion_name(&text).is_some()
                || parse_validation_name(&text).is_some()
                || parse_sum_part_name(&text).is_some();
            if read { "accepted".into() } else { "passed over".into() }
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

fn work() -> Vec<Case> {
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

fn ledger() -> Vec<Case> {
    fn of<T: LedgerObject + 'static>(kind: &str, name: &str, expected: &str, text: String) -> Case {
        let key = ObjectKey::parse("hostile").unwrap();
        case(format!("{kind} {name}"), expected, move || {
            said(T::from_bytes(&key, text.as_bytes()).map(drop))
        })
    }
    let not_ours = "is not what this build writes there";
    let rejected = r#"{"revision":1,"reason":"Empty","message":"","headerDigest":null,"packetDigest":null}"#;
    let released = r#"{"revision":1,"planDigest":"a","packetSetDigest":"b","clients":5}"#;
    let plan = r#"{"revision":1,"aggregation":"a","start":"s","end":"e","cutoffMillis":1,"share":"First","instance":"i","signer":"s","shape":{"name":"a","bins":1,"epsilon":0.1,"prime":5,"numberOfServers":2,"hammingWeight":null},"members":[],"exclusions":[]}"#;
    let shard = r#"{"revision":1,"aggregation":"a","start":"s","end":"e","cutoffMillis":1,"range":"r","share":"First","instance":"i","legacyPeer":false,"candidates":[]}"#;
    let partial = r#"{"revision":1,"plain":{"planDigest":"a","range":"r","packets":0,"clients":0,"invalidProofs":0,"missingPeerMessages":0,"excludedPackets":0,"members":[],"counted":"","invalid":"","packetKey":null},"sealed":""}"#;
    vec![
        of::<LedgerIdentity>("ledger.json", "of no bytes", not_ours, String::new()),
        of::<LedgerIdentity>("ledger.json", "of 100,000 opening brackets", not_ours, "[".repeat(100_000)),
        of::<LedgerIdentity>("ledger.json", "with a share of neither", not_ours, r#"{"revision":1,"id":"00000000-0000-0000-0000-000000000001","instance":"a","share":"Third","startAt":"x"}"#.into()),
        of::<Rejected>("rejected/", "of a later revision", "has revision 2", rejected.replace(":1,", ":2,")),
        of::<Rejected>("rejected/", "with an unknown reason", not_ours, rejected.replace("Empty", "Boring")),
        of::<Rejected>("rejected/", "with an unknown field", not_ours, rejected.replace("{", r#"{"x":1,"#)),
        of::<Rejected>("rejected/", "with a field given twice", not_ours, rejected.replace("{", r#"{"revision":1,"#)),
        of::<Released>("released/", "of -5 clients", not_ours, released.replace(":5", ":-5")),
        of::<Released>("released/", "of 2^64 clients", not_ours, released.replace(":5", ":18446744073709551616")),
        of::<Released>("released/", "with text after its end", not_ours, format!("{released}{released}")),
        of::<Decided>("decisions/", "that decides otherwise", not_ours, r#"{"revision":1,"decision":"Maybe","inTheWay":null}"#.into()),
        of::<Decided>("decisions/", "refused for no reason", not_ours, r#"{"revision":1,"decision":"Withdraw","inTheWay":null,"refusal":{"reason":"Mood","message":""}}"#.into()),
        of::<Delivered>("delivered/", "that isn't UTF-8", not_ours, "\u{fffd}".into()),
        of::<Delivered>("delivered/", "put in another way", not_ours, r#"{"revision":1,"recordDigest":"","signatureObject":"","storeTimeMillis":null,"put":"Forced"}"#.into()),
        of::<WindowResult>("results/", "of no verdict", not_ours, r#"{"revision":1}"#.into()),
        of::<Plan>("plans/", "with epsilon null", not_ours, plan.replace("0.1", "null")),
        of::<Plan>("plans/", "with bins 2^32", not_ours, plan.replace("\"bins\":1", "\"bins\":4294967296")),
        of::<Plan>("plans/", "of a later revision", "has revision 9", plan.replace("\"revision\":1", "\"revision\":9")),
        of::<Plan>("plans/", "with a member of no digest", not_ours, plan.replace("\"members\":[]", "\"members\":[{}]")),
        of::<Plan>("plans/", "with an override that nobody approved", not_ours, plan.replace("[]}", r#"[],"override":{"release":2,"expiresAtMillis":1,"reason":"r"}}"#)),
        of::<PlanShard>("shards/", "as they should be", "accepted", shard.into()),
        of::<PlanShard>("shards/", "with a candidate of no time", not_ours, shard.replace("[]", r#"[{"time":"2026/13/01/00/00"}]"#)),
        of::<PlanShard>("shards/", "with content of neither kind", not_ours, shard.replace("[]", r#"[{"time":"2026/11/01/00/00","uuid":"00000000-0000-0000-0000-000000000001","rejected":false,"recorded":true,"ours":null,"theirs":null,"content":{"Maybe":1}}]"#)),
        of::<Partial>("partials/", "as they should be", "accepted", partial.into()),
        of::<Partial>("partials/", "of -1 clients", not_ours, partial.replace("\"clients\":0", "\"clients\":-1")),
        of::<Partial>("partials/", "sealed by what is no base64", not_ours, partial.replace("\"sealed\":\"\"", "\"sealed\":\"?\"")),
        of::<Partial>("partials/", "with a sum in clear", not_ours, partial.replace("\"sealed\":\"\"", "\"sealed\":\"\",\"sum\":[1]")),
        of::<Report>("reports/", "with an unknown outcome", not_ours, r#"{"revision":1,"work":"w","index":0,"podUid":"p","batches":[{"outcome":"Lost"}]}"#.into()),
    ]
}

pub fn cases() -> Vec<Case> {
    [names(), work(), ledger()].into_iter().flatten().collect()
}
