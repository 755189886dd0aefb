//! What types of secrets can't do at all, and what their sources must not say.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use facilitator_core::crypto::{BatchSigningKey, ClaimKey, PacketDecryptionKey};
use facilitator_core::intake::Accumulated;
use facilitator_core::processor::{MountedPacketKey, Processor};
use facilitator_core::proof::{QueryBuffer, Shares};
use serde::Serialize;

/// Doesn't compile where the type implements one of the traits: it can't be told then which `ambiguous` is meant.
macro_rules! never {
    ($type:ty: $($trait:path),+) => {$(
        const _: fn() = || {
            trait Either<A> {
                fn ambiguous() {}
            }
            impl<T: ?Sized> Either<()> for T {}
            #[allow(dead_code)]
            struct Implemented;
            impl<T: ?Sized + $trait> Either<Implemented> for T {}
            <$type as Either<_>>::ambiguous();
        };
    )+};
}

// A comparison by `==` stops at the first difference, whoever prints or serialises a key tells it, and a copy is one more to wipe.
never!(PacketDecryptionKey: PartialEq, Display, Serialize, Clone);
never!(BatchSigningKey: PartialEq, Display, Serialize, Clone);
never!(ClaimKey: PartialEq, Display, Serialize, Clone);
never!(MountedPacketKey: PartialEq, Display, Serialize, Clone);
never!(Processor: PartialEq, Display, Serialize, Clone);
never!(Accumulated: PartialEq, Display, Serialize, Clone);
never!(Shares: PartialEq, Display, Serialize, std::fmt::Debug);
never!(QueryBuffer: PartialEq, Display, Serialize);

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The declarations in a source that derive `Debug`.
fn deriving_debug(source: &str) -> impl Iterator<Item = &str> {
    let derives = source.match_indices("#[derive(").filter_map(|(at, _)| {
        let rest = &source[at..];
        let (derived, declared) = rest.split_at(rest.find(")]")?);
        let ends = |end: &str| declared.find(end).unwrap_or(declared.len());
        let has_debug = derived.split([',', '(', ' ']).any(|name| name == "Debug");
        // Up to the end of a type with fields in braces, or of another one.
        has_debug.then(|| &declared[..ends("\n}").min(ends(";\n"))])
    });
    derives
}

fn holds_secret(declared: &str) -> bool {
    ["Zeroizing<", ": Secret,", "Secret<", "(Secret)"]
        .iter()
        .any(|secret| declared.contains(secret))
}

/// `Zeroizing` shows what it holds: a type with one in it writes its own `Debug`.
#[test]
fn no_type_that_holds_wiped_memory_derives_debug() {
    let bad = "#[derive(Clone, Debug)]\npub struct Buffer(Zeroizing<Vec<u32>>);\n";
    assert!(deriving_debug(bad).any(holds_secret), "what is wrong is found");
    let good = "#[derive(Clone)]\npub struct Buffer(Zeroizing<Vec<u32>>);\n#[derive(Debug)]\nstruct Other {\n    a: u32,\n}\n";
    assert!(!deriving_debug(good).any(holds_secret));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for part in ["facilitator-core/src", "facilitator/src", "mailbox/src", "operator/src"] {
        sources(&root.join(part), &mut files);
    }
    assert!(files.len() > 50, "{} sources", files.len());
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        for declared in deriving_debug(&source).filter(|declared| holds_secret(declared)) {
            panic!("{}: derives Debug, which shows what it holds: {declared}", file.display());
        }
    }
}
