//! `docs/dependencies.md` lists what the workspace uses, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Crates of the workspace that come from elsewhere.
fn crates() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let lines = section.lines().filter_map(|line| line.split_once(" = "));
    lines
        .filter(|(_, value)| !value.contains("path = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn the_list_of_dependencies_is_complete() {
    let guide = read("docs/dependencies.md");
    let rows = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let listed: BTreeSet<String> = rows
        .filter(|row| *row != "Crate")
        .flat_map(|row| row.split(", "))
        .map(str::to_owned)
        .collect();
    let crates = crates();
    assert!(crates.len() > 20, "{crates:?}");
    let missing: Vec<_> = crates.difference(&listed).collect();
    let extra: Vec<_> = listed.difference(&crates).collect();
    assert!(
        missing.is_empty(),
        "docs/dependencies.md doesn't say why {missing:?} are here"
    );
    assert!(
        extra.is_empty(),
        "docs/dependencies.md lists {extra:?}, which Cargo.toml doesn't have"
    );
}

#[test]
fn every_dependency_is_used_by_a_crate() {
    let members = [
        "bench",
        "cli",
        "crds",
        "facilitator",
        "facilitator-core",
        "mailbox",
        "operator",
        "tests",
    ];
    let manifests: Vec<String> = members.map(|member| read(&format!("{member}/Cargo.toml"))).to_vec();
    let used = |name: &String| {
        let of = |line: &str| {
            line.strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with(['.', ' ']))
        };
        manifests.iter().any(|manifest| manifest.lines().any(of))
    };
    let unused: Vec<_> = crates().into_iter().filter(|name| !used(name)).collect();
    assert!(
        unused.is_empty(),
        "no crate of the workspace uses {unused:?}: take them out of Cargo.toml"
    );
}
