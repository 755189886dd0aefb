//! Running other programs: one way, with errors that hold what the program said.

use std::ffi::OsStr;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program and gives its standard output. An error holds the end of what it wrote.
pub async fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Result<String> {
    run_with_input(program, arguments, "").await
}

/// The same, with text on standard input.
pub async fn run_with_input<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[S],
    input: &str,
) -> Result<String> {
    let output = output(program.as_ref(), arguments, input).await?;
    if !output.status.success() {
        let name = program.as_ref().to_string_lossy();
        let shown: Vec<String> = arguments
            .iter()
            .map(|a| a.as_ref().to_string_lossy().into_owned())
            .collect();
        let said = String::from_utf8_lossy(&output.stderr);
        let end: Vec<&str> = said.lines().rev().take(15).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        bail!(
            "{name} {} failed ({}):\n{}",
            shown.join(" "),
            output.status,
            end.join("\n")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with text on standard input, and gives all that came of it, whatever its exit code.
pub async fn output<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S], input: &str) -> Result<Output> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let mut child = Command::new(program.as_ref())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} can't be started"))?;
    let stdin = child.stdin.take();
    let input = input.as_bytes().to_vec();
    let writer = async move {
        if let Some(mut stdin) = stdin {
            // A program that doesn't read its input to the end is no fault of ours.
            let _ = stdin.write_all(&input).await;
        }
    };
    let ((), output) = tokio::join!(writer, child.wait_with_output());
    output.with_context(|| format!("{name} can't be waited for"))
}
