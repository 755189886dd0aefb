//! Writes the files that follow from the API's types: definitions for the cluster chart and for kubectl, and the reference.
//!
//! `cargo run -p crds --bin generate` writes them; with `-- --check` it only says which are stale (exit code 1).

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("generate: {other:?} is no option; there is only --check");
            return ExitCode::from(64);
        }
    };
    let files = match crds::definitions::generated_files() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("generate: {error}");
            return ExitCode::from(70);
        }
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().unwrap_or(manifest);
    let mut stale = false;
    for file in files {
        let path = root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == file.content) {
            continue;
        }
        stale = true;
        if check {
            eprintln!("{} is stale: cargo run -p crds --bin generate", file.path);
            continue;
        }
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, &file.content));
        if let Err(error) = written {
            eprintln!("generate: {} can't be written: {error}", file.path);
            return ExitCode::from(73);
        }
        println!("wrote {}", file.path);
    }
    ExitCode::from(u8::from(check && stale))
}
