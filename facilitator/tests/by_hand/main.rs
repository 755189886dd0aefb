//! The two-party flow by hand, with the built program on local folders, and what a person sees who errs.
#![allow(clippy::unwrap_used, missing_docs)]

mod preflight;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn facilitator(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facilitator"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command line that must succeed, and returns its standard output.
#[track_caller]
fn done(line: &str, folder: &Path) -> String {
    let output = facilitator(&line.split(' ').collect::<Vec<_>>(), folder);
    assert!(
        output.status.success(),
        "{line}: {:?}\n{}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command line that must fail with this code and one line on standard error that holds `wanted`.
#[track_caller]
fn fails(line: &str, folder: &Path, code: i32, wanted: &str) {
    let output = facilitator(&line.split(' ').collect::<Vec<_>>(), folder);
    let error = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{line}: {error}{}",
        text(&output.stdout)
    );
    let lines: Vec<_> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((lines.len(), error.lines().count()), (1, 1), "{line}: {error}");
    assert!(lines[0].contains(wanted), "{line}: {error}");
}

/// Every file below a folder with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

const STEPS: [&str; 4] = [
    "intake --parameters demo/first.json",
    "intake --parameters demo/second.json",
    "aggregate --parameters demo/first.json",
    "aggregate --parameters demo/second.json",
];
const REASSEMBLE: &str = "reassemble demo/portal-first demo/portal-second --keys demo --truth demo/truth.json";

#[test]
fn two_parties_on_one_machine_learn_the_totals_and_a_second_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done("sample --into demo", here);
    done(
        "sample --into demo --aggregation mobility-level --bins 33 --packets 11 --batches 2 --spacing-minutes 180",
        here,
    );
    for step in STEPS {
        done(step, here);
    }
    let table = done(REASSEMBLE, here);
    assert_eq!(
        table.matches("\nmatch\n").count() + usize::from(table.ends_with("\nmatch")),
        3,
        "{table}"
    );
    assert!(
        table.contains("kittens-seen 202611200000-202611200300: 60 clients in 3 batches"),
        "{table}"
    );
    assert!(table.contains("signatures verified"), "{table}");

    let json: serde_json::Value = serde_json::from_str(&done(&format!("{REASSEMBLE} --json"), here)).unwrap();
    let truth: serde_json::Value = serde_json::from_slice(&fs::read(here.join("demo/truth.json")).unwrap()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    for (window, truth) in json.as_array().unwrap().iter().zip(truth.as_array().unwrap()) {
        assert_eq!(window["totals"], truth["totals"]);
        assert_eq!(window["clients"], truth["clients"]);
        assert_eq!(window["match"], true);
    }

    let before = content(here);
    done("sample --into demo", here);
    for step in STEPS {
        done(step, here);
    }
    let after = content(here);
    // Reports say that a run took place; nothing else may differ.
    let changed: Vec<_> = after
        .iter()
        .filter(|(path, bytes)| before.get(*path) != Some(bytes) && !path.to_string_lossy().contains("/reports/"))
        .map(|(path, _)| path)
        .collect();
    assert!(
        changed.is_empty() && before.keys().all(|path| after.contains_key(path)),
        "{changed:?}"
    );
}

#[test]
fn secrets_are_for_their_owner_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let made = done("keys --into keys", folder.path());
    assert_eq!(made.matches("made ").count(), 5, "{made}");
    let secrets: Vec<_> = content(folder.path())
        .into_iter()
        .filter(|(path, _)| path.ends_with("key"))
        .collect();
    assert_eq!(secrets.len(), 5);
    for (path, secret) in secrets {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
        assert!(!made.contains(text(&secret).trim()));
    }
    let before = content(folder.path());
    let kept = done("keys --into keys", folder.path());
    assert_eq!(kept.matches("kept ").count(), 5, "{kept}");
    assert_eq!(content(folder.path()), before);
}

#[test]
fn wrong_arguments_get_one_line_and_code_64() {
    let folder = tempfile::tempdir().unwrap();
    for (line, wanted) in [
        ("smaple", "sample"),
        ("sample", "--into"),
        ("sample --into demo --bins 0", "--bins"),
        ("sample --into demo --bins 5000", "4096"),
        ("sample --into demo --start 2026", "--start"),
        ("sample --into demo --aggregation task-markers", "--aggregation"),
        ("sample --into demo --first a", "--first"),
        ("reassemble only-one", "SECOND"),
        ("lint-manifest --kind portal m.json", "portal-global"),
        ("intake", "--parameters"),
    ] {
        fails(line, folder.path(), 64, wanted);
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "a refused command leaves nothing"
    );
}

#[test]
fn each_class_of_failure_has_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fails("intake --parameters demo/first.json", here, 78, "demo/first.json");
    fails("reassemble portal-first portal-second", here, 66, "portal-first");
    fails("reassemble ftp://a/b ftp://a/c", here, 78, "ftp://a/b");

    done("sample --into demo --batches 1", here);
    fails(REASSEMBLE, here, 66, "facilitator aggregate");
    fails(
        "sample --into demo --batches 1 --min-clients 11",
        here,
        73,
        "first.json",
    );
    fails("sample --into demo --batches 1 --packets 21", here, 73, "kittens-seen");
    fs::write(here.join("nonsense.json"), "{").unwrap();
    fails("intake --parameters nonsense.json", here, 78, "nonsense.json");
    fails("reassemble a b --truth nonsense.json", here, 65, "nonsense.json");
}

#[test]
fn sum_parts_that_are_wrong_or_do_not_belong_together_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done("sample --into demo --batches 1 --bins 4 --packets 12", here);
    for step in STEPS {
        done(step, here);
    }
    let part = |party: &str, name: &str| here.join(format!("demo/portal-{party}/sample/kittens-seen/{name}"));
    let stem = "202611200000-202611200300";
    // One sum part each, by their paths.
    let by_path = format!(
        "reassemble demo/portal-first/sample/kittens-seen/{stem}.sum_0 \
         demo/portal-second/sample/kittens-seen/{stem}.sum_1"
    )
    .replace("         ", "");
    assert!(done(&by_path, here).contains("signatures not checked"));
    // The other party's key.
    let keys = |first: &str, second: &str| {
        format!(
            "{by_path} --first-key first-batch-signing-key=demo/{first}-keys/batch-signing/public.pem \
             --second-key second-batch-signing-key=demo/{second}-keys/batch-signing/public.pem"
        )
        .replace("             ", "")
    };
    assert!(done(&keys("first", "second"), here).contains("signatures verified"));
    fails(&keys("second", "second"), here, 65, "sum_0");
    // Another truth.
    let truth = fs::read_to_string(here.join("demo/truth.json")).unwrap();
    fs::write(
        here.join("truth.json"),
        truth.replace("\"clients\": 12", "\"clients\": 13"),
    )
    .unwrap();
    let compared = format!("{by_path} --truth truth.json");
    let output = facilitator(&compared.split(' ').collect::<Vec<_>>(), here);
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stdout).contains("NO MATCH"));
    // A part that isn't there, and one that isn't whole.
    let second = part("second", &format!("{stem}.sum_1"));
    let whole = fs::read(&second).unwrap();
    fs::remove_file(&second).unwrap();
    fails(&by_path, here, 66, "sum_1");
    fs::write(&second, &whole[..whole.len() / 2]).unwrap();
    fails(&by_path, here, 65, "sum_1");
}

#[test]
fn mailboxes_are_copied_whole_and_nothing_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done("sample --into demo --batches 2", here);
    let there = |name: &str| {
        let root = here.join(name);
        let all = content(&root).into_iter();
        all.map(|(path, bytes)| (path.strip_prefix(&root).unwrap().to_owned(), bytes))
            .collect::<BTreeMap<_, _>>()
    };
    let copy = "copy demo/ingestion-first copied";
    assert_eq!(done(copy, here), "6 objects copied, 0 there before\n");
    assert_eq!(there("copied"), there("demo/ingestion-first"));
    assert_eq!(done(copy, here), "0 objects copied, 6 there before\n");
    assert_eq!(
        done("copy demo/ingestion-first part --prefix other/", here),
        "0 objects copied, 0 there before\n"
    );
    let (name, _) = there("copied").pop_first().unwrap();
    fs::write(here.join("copied").join(&name), "other").unwrap();
    fails(copy, here, 73, name.to_str().unwrap());
    assert_eq!(fs::read(here.join("copied").join(&name)).unwrap(), b"other");
    fails("copy absent copied", here, 78, "absent");
    fails(
        "copy demo/ingestion-first copied --to-access {",
        here,
        64,
        "--to-access",
    );
    fails(
        "copy demo/ingestion-first copied --to-access {\"pathStyle\":true}",
        here,
        78,
        "no access settings",
    );
}

#[test]
fn manifests_of_the_original_pass_and_broken_ones_are_explained() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixtures = fixtures.join("../facilitator-core/tests/fixtures/prio-server/manifests");
    let kinds = [
        ("ingestor-global", "ingestor.json"),
        ("ingestor-specific", "ingestor.json"),
        ("data-share-processor-global", "dsp-global.json"),
        ("data-share-processor-specific", "dsp-specific.json"),
        ("portal-global", "portal.json"),
    ];
    for (kind, right) in kinds {
        for (_, file) in &kinds[1..] {
            let lint = format!("lint-manifest --kind {kind} {file}");
            if *file == right {
                assert!(done(&lint, &fixtures).contains(&format!("{file}: fine, ")), "{kind}");
            } else {
                fails(&lint, &fixtures, 65, file);
            }
        }
    }
    let both = "lint-manifest --kind data-share-processor-global dsp-global-gcp.json";
    fails(both, &fixtures, 65, "dsp-global-gcp.json");
    fails(
        "lint-manifest --kind portal-global absent.json",
        &fixtures,
        66,
        "absent.json",
    );
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let portal = fs::read_to_string(fixtures.join("portal.json")).unwrap();
    fs::write(here.join("bad.json"), portal.replace("\"format\": 1", "\"format\": 7")).unwrap();
    fails("lint-manifest --kind portal-global bad.json", here, 65, "bad.json");
}

#[test]
fn sum_parts_of_the_original_add_up_to_the_truth() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../facilitator-core/tests/fixtures/prio-server");
    let table = done("reassemble sums sums --truth truth.json", &fixtures);
    assert_eq!(table.lines().filter(|line| *line == "match").count(), 6, "{table}");
    assert!(table.contains("kittens-seen 202611200600-202611200900: 100 clients in 1 batch, 0 packets left out"));
}

#[test]
fn help_tells_what_everything_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let main = done("--help", folder.path());
    for command in [
        "sample",
        "keys",
        "intake",
        "aggregate",
        "reassemble",
        "copy",
        "lint-manifest",
        "work",
    ] {
        assert!(main.contains(&format!("\n  {command} ")), "{command}: {main}");
        let help = done(&format!("{command} --help"), folder.path());
        assert!(
            help.contains("Usage: facilitator")
                && (command == "work" || help.contains(&format!("  facilitator {command} "))),
            "{command}: {help}"
        );
    }
    assert!(main.contains("Exit codes:"));
}

/// As the operator has large windows summed, in one process: the same sum parts, whatever the parts.
#[test]
fn a_window_summed_in_parts_has_the_sum_part_of_one_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done("sample --into demo --batches 5 --period-minutes 480", here);
    for step in &STEPS[..2] {
        done(step, here);
    }
    let portal = |here: &Path| content(&here.join("demo/portal-first"));
    let summed = |flags: &str| {
        done(&format!("aggregate --parameters demo/first.json {flags}"), here);
        let partials = content(&here.join("demo/ledger-first"));
        let partials = partials
            .keys()
            .filter(|path| path.to_string_lossy().contains("/partials/"))
            .count();
        let portal = portal(here);
        for name in ["plans", "shards", "partials", "released", "decisions", "results"] {
            let _ = fs::remove_dir_all(here.join("demo/ledger-first").join(name));
        }
        fs::remove_dir_all(here.join("demo/portal-first")).unwrap();
        fs::create_dir(here.join("demo/portal-first")).unwrap();
        (partials, portal)
    };
    // One for all, and past: a set whose cutoff is to come isn't frozen.
    let cutoff = &format!("--cutoff {}", jiff::Timestamp::now());
    let (none, expected) = summed(cutoff);
    assert_eq!((none, expected.len()), (0, 2));
    let to_come = [
        "aggregate",
        "--parameters",
        "demo/first.json",
        "--cutoff",
        "2100-01-01T00:00:00Z",
    ];
    let refused = facilitator(&to_come, here);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("ClockAhead"));
    for (size, parts) in [(1, 5), (2, 3), (3, 2), (5, 1), (100, 1)] {
        assert_eq!(
            summed(&format!("{cutoff} --chunk-batches {size}")),
            (parts, expected.clone())
        );
    }
    let refused = facilitator(
        &["aggregate", "--parameters", "demo/first.json", "--chunk-batches", "0"],
        here,
    );
    assert_eq!(refused.status.code(), Some(64));
}
