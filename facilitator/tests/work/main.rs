//! `facilitator work` as a pod runs it: folders, exit codes, reports, the ledger's identity, stopping.
#![allow(clippy::unwrap_used)]

mod claims;
mod preflight;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_facilitator");

struct Pod {
    folder: tempfile::TempDir,
}

impl Pod {
    /// Two batches of ten packets, and First's pod.
    fn new() -> Self {
        Self::of(2)
    }

    /// So many batches of ten packets, and First's pod.
    fn of(batches: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = folder.path().join("world");
        let made = Command::new(BINARY)
            .args(["sample", "--packets", "10", "--batches"])
            .arg(batches.to_string())
            .arg("--into")
            .arg(&world)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pod = Self { folder };
        for name in ["parameters", "work"] {
            fs::create_dir_all(pod.path(name)).unwrap();
        }
        pod.parameters(|_| {});
        pod
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn parameters(&self, change: impl Fn(&mut Value)) {
        let text = fs::read(self.path("world/first.json")).unwrap();
        let mut parameters: Value = serde_json::from_slice(&text).unwrap();
        change(&mut parameters);
        fs::write(self.path("parameters/parameters.json"), parameters.to_string()).unwrap();
    }

    fn list(&self, list: &Value) {
        fs::write(self.path("work/work.json"), list.to_string()).unwrap();
    }

    /// A list of every batch, one a chunk.
    fn intake_list(&self) -> Value {
        let mut headers = files(&self.path("world/ingestion-first"));
        headers.retain(|path| path.extension().is_some_and(|extension| extension == "batch"));
        let item = |path: &PathBuf| {
            let text = path.to_str().unwrap().strip_suffix(".batch").unwrap();
            let parts: Vec<_> = text.rsplitn(8, '/').collect();
            let time = format!("{}/{}/{}/{}/{}", parts[5], parts[4], parts[3], parts[2], parts[1]);
            json!([{"aggregation": parts[6], "time": time, "uuid": parts[0]}])
        };
        let chunks: Vec<_> = headers.iter().map(item).collect();
        assert!(!chunks.is_empty());
        json!({"stage": "Intake", "revision": 1, "work": "intake-1", "chunks": chunks})
    }

    fn command(&self, index: u32) -> Command {
        self.command_of("first", index)
    }

    fn command_of(&self, party: &str, index: u32) -> Command {
        let mut command = Command::new(BINARY);
        command
            .arg("work")
            .env("JOB_COMPLETION_INDEX", index.to_string())
            .env("POD_UID", "pod-1");
        for (flag, folder) in [
            ("--parameters-directory", "parameters"),
            ("--work-directory", "work"),
            ("--keys-directory", &format!("world/{party}-keys")),
        ] {
            command.arg(flag).arg(self.path(folder));
        }
        command
    }

    fn run(&self, index: u32) -> Output {
        self.command(index).output().unwrap()
    }

    fn ledger(&self) -> PathBuf {
        self.path("world/ledger-first")
    }
}

/// Every file below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_chunk_is_done_and_reported_and_a_second_pod_changes_nothing() {
    let pod = Pod::new();
    pod.list(&pod.intake_list());
    for index in [0, 1, 1] {
        let output = pod.run(index);
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
        let report = fs::read(pod.ledger().join(format!("reports/intake-1/{index}-pod-1"))).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["batches"].as_array().unwrap().len(), 1);
        assert_eq!(report["batches"][0]["outcome"], "Validated");
        assert_eq!(report["batches"][0]["packets"], 10);
    }
    let window = json!({"aggregation": "kittens-seen", "start": "202611200000", "end": "202611200300", "cutoffs": [1]});
    pod.list(&json!({"stage": "Aggregate", "revision": 1, "work": "aggregate-1", "chunks": [[window]]}));
    assert_eq!(code(&pod.run(0)), 0);
    let report = fs::read(pod.ledger().join("reports/aggregate-1/0-pod-1")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["windows"][0]["outcome"], "NoMembers");
}

fn by_hand(pod: &Pod, line: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(line.split(' ')).current_dir(pod.path("world"));
    command.output().unwrap()
}

#[test]
fn a_window_is_released_again_under_an_override_and_both_releases_are_found() {
    let pod = Pod::new();
    for line in [
        "intake --parameters first.json",
        "intake --parameters second.json",
        "aggregate --parameters first.json",
        "aggregate --parameters second.json",
    ] {
        assert_eq!(code(&by_hand(&pod, line)), 0, "{line}");
    }
    // Past, so that the set can be frozen; the override is for long.
    let (cutoff, later) = (jiff::Timestamp::now().as_millisecond(), 250_000_000_000_000);
    let item = |release: u8, expires_at: i64, cutoffs: &[i64]| {
        json!([[{
            "aggregation": "kittens-seen", "start": "202611200000", "end": "202611200300", "cutoffs": cutoffs,
            "override": {"release": release, "expiresAtMillis": expires_at, "approvedBy": "officer", "reason": "late"},
        }]])
    };
    let run = |work: &str, chunks: Value| {
        pod.list(&json!({"stage": "Aggregate", "revision": 1, "work": work, "chunks": chunks}));
        let code = code(&pod.run(0));
        let report = fs::read(pod.ledger().join(format!("reports/{work}/0-pod-1"))).ok();
        let report = report.map(|report| serde_json::from_slice::<Value>(&report).unwrap()["windows"][0].clone());
        (code, report.unwrap_or_default())
    };
    let (exit, report) = run("again", item(2, later, &[cutoff]));
    assert_eq!(
        (exit, &report["outcome"], &report["release"]),
        (0, &json!("Summed"), &json!(2)),
        "{report}"
    );
    let (exit, report) = run("expired", item(3, 1, &[cutoff]));
    assert_eq!((exit, &report["reason"]), (0, &json!("OverrideExpired")), "{report}");
    assert_eq!(
        run("first", item(1, later, &[cutoff])).0,
        78,
        "the first release takes no override"
    );
    assert_eq!(run("cutoffs", item(4, later, &[1, cutoff])).0, 78, "one cutoff");

    let portals = "reassemble portal-first portal-second --keys . --truth truth.json";
    let alone = by_hand(&pod, portals);
    assert_eq!(code(&alone), 66);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("release 2"));
    assert_eq!(code(&by_hand(&pod, &format!("{portals} --release 1"))), 0);
    // The other party's release 2 is what this one's needs.
    fs::copy(pod.path("world/second.json"), pod.path("parameters/parameters.json")).unwrap();
    pod.list(&json!({"stage": "Aggregate", "revision": 1, "work": "again", "chunks": item(2, later, &[cutoff])}));
    assert_eq!(code(&pod.command_of("second", 0).output().unwrap()), 0);
    let both = by_hand(&pod, portals);
    let text = String::from_utf8_lossy(&both.stdout);
    assert_eq!(code(&both), 0, "{text}{}", String::from_utf8_lossy(&both.stderr));
    assert!(text.contains("kittens-seen 202611200000-202611200300:"), "{text}");
    assert!(
        text.contains("kittens-seen 202611200000-202611200300 release 2:"),
        "{text}"
    );
}

#[test]
fn parts_of_a_window_are_done_by_name_and_a_sum_before_the_plan_is_not() {
    let pod = Pod::new();
    pod.list(&pod.intake_list());
    assert_eq!([pod.run(0), pod.run(1)].map(|output| code(&output)), [0, 0]);
    let part = |part: Value| json!([{"aggregation": "kittens-seen", "start": "202611200000", "end": "202611200300", "cutoffs": [1], "part": part}]);
    let ranges = ["202611200000-202611200100", "202611200100-202611200300"];
    let chunks: Vec<_> = ranges
        .iter()
        .map(|range| part(json!({"PlanShard": range})))
        .chain([
            part(json!({"PartialSum": ranges[0]})),
            part(json!({"PartialSum": "202611200000"})),
        ])
        .collect();
    pod.list(&json!({"stage": "Aggregate", "revision": 1, "work": "aggregate-1", "chunks": chunks}));
    for (index, outcome) in [(0, "Part"), (1, "NoMembers"), (0, "NoMembers")] {
        assert_eq!(code(&pod.run(index)), 0);
        let name = pod.ledger().join(format!("reports/aggregate-1/{index}-pod-1"));
        let report: Value = serde_json::from_slice(&fs::read(&name).unwrap()).unwrap();
        assert_eq!(report["windows"][0]["outcome"], outcome);
        fs::remove_file(&name).unwrap();
    }
    let shards = pod.ledger().join("shards/kittens-seen/202611200000-202611200300/1");
    assert!(ranges.iter().all(|range| shards.join(range).exists()));
    let output = pod.run(2);
    assert_eq!(code(&output), 66, "no plan yet");
    assert!(String::from_utf8_lossy(&output.stderr).contains("plans/"));
    assert_eq!(code(&pod.run(3)), 78, "no range");
}

#[test]
fn another_ledger_than_the_known_one_stops_the_job_and_nothing_is_done() {
    let pod = Pod::new();
    pod.list(&pod.intake_list());
    let known = "0a0a0a0a-0000-4000-8000-000000000001";
    pod.parameters(|parameters| parameters["ledgerId"] = json!(known));
    let output = pod.run(0);
    assert_eq!(code(&output), 78);
    assert!(String::from_utf8_lossy(&output.stderr).contains(known));
    assert!(!pod.ledger().join("records").exists() && !pod.ledger().join("ledger.json").exists());

    pod.parameters(|_| {});
    assert_eq!(code(&pod.run(0)), 0);
    pod.parameters(|parameters| parameters["ledgerId"] = json!(known));
    assert_eq!(code(&pod.run(1)), 78);
    pod.parameters(|parameters| parameters["instance"] = json!("another"));
    assert_eq!(code(&pod.run(1)), 78);
    assert!(!pod.ledger().join("reports/intake-1/1-pod-1").exists());
}

#[test]
fn wrong_configuration_is_one_clear_line_and_78() {
    let pod = Pod::new();
    pod.list(&json!({"stage": "Intake", "revision": 1, "work": "w", "chunks": []}));
    assert_eq!(code(&pod.run(0)), 78, "no such chunk");
    pod.list(&json!({"stage": "Intake", "revision": 2, "work": "w", "chunks": [[]]}));
    assert_eq!(code(&pod.run(0)), 78, "another revision");
    pod.list(&json!({"stage": "Intake", "revision": 1, "work": "w", "chunks": [[]]}));
    let key = pod.path("world/first-keys/batch-signing/key");
    let secret = fs::read_to_string(&key).unwrap();
    fs::write(&key, format!("x{secret}")).unwrap();
    let output = pod.run(0);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 78);
    assert!(
        message.contains("batch-signing") && !message.contains(secret.trim()),
        "{message}"
    );
}

/// What the operator tells a probe of the mounted keys.
fn probed(pod: &Pod, folder: &str) -> Value {
    let read = |name: &str| fs::read_to_string(pod.path("world/first-keys").join(folder).join(name)).unwrap();
    json!({"id": read("id").trim(), "publicKey": read("public.pem")})
}

#[test]
fn a_probe_reports_the_keys_that_are_mounted_and_names_what_is_missing_or_another() {
    let pod = Pod::new();
    let (signing, packets) = (probed(&pod, "batch-signing"), probed(&pod, "packet-decryption/0"));
    // A second signing key, as a rotation mounts it.
    let others = pod.path("world/first-keys/batch-signing-others/0");
    fs::create_dir_all(&others).unwrap();
    for file in ["key", "id"] {
        fs::copy(
            pod.path("world/ingestor-keys/batch-signing").join(file),
            others.join(file),
        )
        .unwrap();
    }
    pod.parameters(|parameters| parameters["otherSigningKeys"] = json!(1));
    let other = fs::read_to_string(pod.path("world/ingestor-keys/batch-signing/public.pem")).unwrap();
    let other = json!({"id": "ingestor-batch-signing-key", "publicKey": other});
    let probe = |signing: Value, packets: Value| {
        pod.list(&json!({"stage": "KeyProbe", "revision": 1, "work": "probe", "signing": signing, "packets": packets}));
        pod.run(0)
    };
    let output = probe(json!([signing, other]), json!([packets]));
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let report = fs::read(pod.ledger().join("reports/probe/0-pod-1")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let ids = [
        "first-batch-signing-key",
        "ingestor-batch-signing-key",
        "first-packet-decryption-key",
    ];
    assert_eq!(report["keys"], json!(ids));
    assert!(!pod.ledger().join("records").exists(), "a probe takes nothing in");

    // Partners may wait for our keys: a probe needs nothing of theirs.
    pod.parameters(|parameters| {
        (parameters["peerKeys"], parameters["ingestorKeys"]) = (json!([]), json!([]));
        parameters["mailboxes"]["peer"]["url"] = json!("");
        parameters["otherSigningKeys"] = json!(1);
    });
    assert_eq!(code(&probe(json!([signing, other]), json!([packets]))), 0);

    let mut missing = packets.clone();
    missing["id"] = json!("packets-2");
    let mut another = packets.clone();
    another["publicKey"] = signing["publicKey"].clone();
    for (packets, expected) in [(missing, "packets-2"), (another, "holds another key")] {
        let output = probe(json!([signing]), json!([packets]));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 78);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_worker_that_gives_up_says_why_in_its_last_words() {
    let pod = Pod::new();
    pod.list(&json!({"stage": "Intake", "revision": 2, "work": "w", "chunks": [[]]}));
    let log = pod.path("termination-log");
    fs::write(&log, "").unwrap();
    let output = pod.command(0).arg("--termination-log").arg(&log).output().unwrap();
    assert_eq!(code(&output), 78);
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("revision 2") && said.contains("facilitator"), "{said}");
}

#[test]
fn work_is_done_with_the_keys_that_its_list_pins_and_their_use_is_marked() {
    let pod = Pod::new();
    let pinned = |signer: &str, packet: &str| {
        let mut list = pod.intake_list();
        list["keys"] = json!({"signer": signer, "packetKeys": [packet]});
        pod.list(&list);
        pod.run(0)
    };
    let (signer, packet) = ("first-batch-signing-key", "first-packet-decryption-key");
    for (signer, packet, missing) in [("signer-2", packet, "signer-2"), (signer, "packets-2", "packets-2")] {
        let output = pinned(signer, packet);
        assert_eq!(code(&output), 78);
        assert!(String::from_utf8_lossy(&output.stderr).contains(missing));
        assert!(!pod.ledger().join("records").exists());
    }
    assert_eq!(code(&pinned(signer, packet)), 0);
    for id in [signer, packet] {
        let marks = pod.ledger().join("uses").join(id).join("kittens-seen");
        assert_eq!(fs::read_dir(&marks).unwrap().count(), 1, "{}", marks.display());
    }
}

#[test]
fn access_that_can_t_be_used_is_named_and_78() {
    let pod = Pod::new();
    pod.list(&pod.intake_list());
    let bucket = "s3://us-east-1/bucket";
    for (mailbox, url, access, told) in [
        (
            "ledger",
            bucket,
            json!({"conditionalWrites": "Weak"}),
            "conditionalWrites",
        ),
        (
            "peer",
            bucket,
            json!({"caBundle": "/nowhere/ca.pem"}),
            "/nowhere/ca.pem",
        ),
        ("peer", bucket, json!({"endpoint": "store:9000"}), "endpoint"),
        (
            "peer",
            "gs://bucket",
            json!({"credentials": {"awsFromGoogle": {"role": "r", "audience": "a"}}}),
            "gs://",
        ),
        (
            "peer",
            "file:///a",
            json!({"pathStyle": true}),
            "a folder takes no access settings",
        ),
        ("peer", bucket, json!({"pathstyle": true}), "pathstyle"),
    ] {
        pod.parameters(|parameters| parameters["mailboxes"][mailbox] = json!({"url": url, "access": access}));
        let output = pod.run(0);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 78, "{said}");
        assert!(said.contains(told), "{said}");
    }
    assert!(!pod.ledger().exists() || fs::read_dir(pod.ledger()).unwrap().next().is_none());
}

#[test]
fn asked_to_stop_it_stops_at_once_with_75() {
    let pod = Pod::new();
    // A chunk long enough to be interrupted: the ledger's batch over and over is quick, so many of them.
    let one = pod.intake_list()["chunks"][0][0].clone();
    let many: Vec<_> = (0..200_000).map(|_| one.clone()).collect();
    pod.list(&json!({"stage": "Intake", "revision": 1, "work": "w", "chunks": [many]}));
    let mut child: Child = pod.command(0).stderr(Stdio::null()).spawn().unwrap();
    let delivered = pod.ledger().join("delivered");
    for _ in 0..600 {
        if delivered.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(delivered.exists());
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(!pod.ledger().join("reports").exists());
}
