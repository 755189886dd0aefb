//! `facilitator keys`: makes the keys of an ingestor and two processors.

use std::path::PathBuf;

use crate::exit::Failure;
use crate::{key_folders, output, places};

/// Examples for the help.
pub const AFTER: &str = "\
Examples:
  facilitator keys --into keys
  kubectl create secret generic batch-signing \\
      --from-file=keys/first-keys/batch-signing/key \\
      --from-file=keys/first-keys/batch-signing/id
  kubectl create secret generic packet-decryption \\
      --from-file=keys/first-keys/packet-decryption/0/key \\
      --from-file=keys/first-keys/packet-decryption/0/id

Each key has a folder of three files: `key` is secret (base64; mode 0600), `id`
is its name, `public.pem` is for the partners. A key that is there is kept.";

/// Make keys for an ingestor and both processors, in the form of the Secrets that worker pods mount.
///
/// For trials: in earnest each party makes its own keys, and nobody holds another's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that gets `ingestor-keys`, `first-keys` and `second-keys`.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
}

/// Runs it.
///
/// # Errors
/// The file system's.
pub async fn run(args: Args) -> Result<(), Failure> {
    places::make_folder(&args.into)?;
    for (folder, made) in key_folders::make(&args.into)? {
        output::line(format_args!(
            "{} {}",
            if made { "made" } else { "kept" },
            folder.display()
        ));
    }
    Ok(())
}
