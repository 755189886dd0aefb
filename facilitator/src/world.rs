//! The folder of a local world: both parties' mailboxes, keys and parameters, as `facilitator sample --into` makes it.

use std::path::{Path, PathBuf};

use facilitator_core::formats::work::{
    MailboxParameter, MailboxParameters, Parameters, ProcessorParameter, PublicKeyParameter, REVISION,
    ReplayGuardParameters, Share, ValidationFormat, WindowParameters,
};
use mailbox::{Access, MailboxUrl};

use crate::exit::{ExitClass, Failure};
use crate::key_folders::{self, KeyFolders};
use crate::places;

/// The name of both processors in sum-part paths.
const INSTANCE: &str = "sample";

/// A local world.
pub struct World {
    root: PathBuf,
}

/// `first` or `second`: the party's part of file names.
pub fn party(share: Share) -> &'static str {
    match share {
        Share::First => "first",
        Share::Second => "second",
    }
}

impl World {
    /// Makes what isn't there yet: folders, keys, parameters.
    ///
    /// # Errors
    /// The file system's, and [`ExitClass::Conflict`] where the world was made with other window settings.
    pub fn make(root: &Path, windows: &WindowParameters) -> Result<Self, Failure> {
        let world = Self {
            root: root.to_path_buf(),
        };
        for share in [Share::First, Share::Second] {
            for kind in ["ingestion", "peer-validation", "ledger", "portal"] {
                places::make_folder(&world.mailbox(kind, share))?;
            }
        }
        key_folders::make(root)?;
        for share in [Share::First, Share::Second] {
            world.make_parameters(share, windows)?;
        }
        Ok(world)
    }

    /// A mailbox's folder.
    fn mailbox(&self, kind: &str, share: Share) -> PathBuf {
        self.root.join(format!("{kind}-{}", party(share)))
    }

    /// The folder that the ingestor's batches for `share` go to.
    pub fn ingestion(&self, share: Share) -> PathBuf {
        self.mailbox("ingestion", share)
    }

    /// The truth about all batches.
    pub fn truth(&self) -> PathBuf {
        self.root.join("truth.json")
    }

    fn make_parameters(&self, share: Share, windows: &WindowParameters) -> Result<(), Failure> {
        let file = self.root.join(format!("{}.json", party(share)));
        let keys = KeyFolders::of(&self.root);
        let folder = |kind: &str, share: Share| -> Result<MailboxParameter, Failure> {
            let url = MailboxUrl::of_folder(&self.mailbox(kind, share))?.to_string();
            let access = Access::default();
            Ok(MailboxParameter { url, access })
        };
        let public = |folder: PathBuf| -> Result<Vec<PublicKeyParameter>, Failure> {
            let (id, public_key) = key_folders::public(&folder)?;
            Ok(vec![PublicKeyParameter { id, public_key }])
        };
        let parameters = Parameters {
            revision: REVISION,
            processor: ProcessorParameter {
                namespace: "by-hand".to_owned(),
                name: party(share).to_owned(),
                uid: "by-hand".to_owned(),
            },
            share,
            instance: INSTANCE.to_owned(),
            ledger_id: None,
            start_at: "1970-01-01T00:00:00Z".to_owned(),
            mailboxes: MailboxParameters {
                ingestion: folder("ingestion", share)?,
                peer_validation: folder("peer-validation", share)?,
                ledger: folder("ledger", share)?,
                peer: folder("peer-validation", share.peer())?,
                portal: folder("portal", share)?,
            },
            ingestor_keys: public(keys.ingestor())?,
            peer_keys: public(keys.signing(share.peer()))?,
            legacy_peer: false,
            validation_format: ValidationFormat::ThreeObjects,
            packet_decryption_keys: 1,
            other_signing_keys: 0,
            windows: windows.clone(),
            replay_guard: ReplayGuardParameters {
                enabled: true,
                horizon_days: 14,
            },
        };
        let internal = |error| Failure::new(ExitClass::Internal, error, "report this fault");
        let text = serde_json::to_string_pretty(&parameters).map_err(internal)? + "\n";
        if !file.exists() {
            return places::replace_text(&file, &text);
        }
        let there: Parameters = serde_json::from_str(&places::read_text(&file)?).map_err(|error| {
            let message = format_args!("{} is no parameters file: {error}", file.display());
            Failure::new(
                ExitClass::Configuration,
                message,
                "mend it, or choose a new folder with --into",
            )
        })?;
        if there.windows == *windows {
            return Ok(());
        }
        Err(Failure::new(
            ExitClass::Conflict,
            format_args!(
                "{} was made with a period of {} s and a floor of {} clients",
                file.display(),
                there.windows.period_seconds,
                there.windows.min_clients
            ),
            "repeat those settings, or choose a new folder with --into",
        ))
    }
}
