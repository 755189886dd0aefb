//! Images of the static binaries, packed and imported without a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command;

/// Where cargo puts the binaries of this workspace: those of the profile that this was built with.
pub(crate) const BINARIES: &str = if cfg!(debug_assertions) {
    "target/x86_64-unknown-linux-gnu/debug"
} else {
    "target/x86_64-unknown-linux-gnu/release"
};

/// The two images of an installation.
#[derive(Clone, Debug)]
pub struct Images {
    /// The operator.
    pub operator: Image,
    /// What worker pods run.
    pub facilitator: Image,
}

/// A name and a tag; the tag follows from the binary, so that a changed binary is never mistaken for an old one.
#[derive(Clone, Debug)]
pub struct Image {
    /// `localhost/<name>`.
    pub repository: String,
    /// The first half of the binary's SHA-256.
    pub tag: String,
}

impl Image {
    /// As in a chart's values.
    pub fn values(&self) -> Value {
        json!({"repository": self.repository, "tag": self.tag, "pullPolicy": "IfNotPresent"})
    }
}

/// Packs both images (kept in `target/images` by tag) and imports them into the node.
///
/// # Errors
/// When a binary isn't built: `cargo build` makes them.
pub async fn import(cluster: &Cluster) -> Result<Images> {
    let (operator, first) = pack(&cluster.repository, "prio-operator", "operator").await?;
    let (facilitator, second) = pack(&cluster.repository, "facilitator", "facilitator").await?;
    cluster.load(&[first, second]).await?;
    Ok(Images { operator, facilitator })
}

/// The images of the stores that stand for two clouds.
#[derive(Clone, Debug)]
pub struct StoreImages {
    /// SeaweedFS.
    pub s3: Image,
    /// fake-gcs-server.
    pub gcs: Image,
}

/// Packs and imports the stores; `tests/stores/setup` builds what isn't in the cache.
///
/// # Errors
/// When one can't be built or packed.
pub async fn import_stores(cluster: &Cluster) -> Result<StoreImages> {
    let folder = command::run(cluster.repository.join("tests/stores/setup"), &[] as &[&str]).await?;
    let folder = Path::new(folder.trim());
    let (s3, first) = pack_file(&cluster.repository, "seaweedfs", &folder.join("weed")).await?;
    let (gcs, second) = pack_file(&cluster.repository, "fake-gcs-server", &folder.join("fake-gcs-server")).await?;
    cluster.load(&[first, second]).await?;
    Ok(StoreImages { s3, gcs })
}

/// Packs and imports what runs in pods beside the parties: web servers, the ingestor and a store's front.
///
/// # Errors
/// When the binary isn't built.
pub async fn import_partner(cluster: &Cluster) -> Result<Image> {
    let (image, archive) = pack(&cluster.repository, "partner", "partner").await?;
    cluster.load(&[archive]).await?;
    Ok(image)
}

async fn pack(repository: &Path, name: &str, binary: &str) -> Result<(Image, PathBuf)> {
    let packed = pack_file(repository, name, &repository.join(BINARIES).join(binary)).await;
    packed.context("run cargo build --workspace --bins, with --release where this was built so")
}

/// The image's program is at `/` and the file's own name.
async fn pack_file(repository: &Path, name: &str, file: &Path) -> Result<(Image, PathBuf)> {
    let program = file.file_name().context("a program has a name")?.to_string_lossy();
    let digest = command::run("sha256sum", &[file])
        .await
        .with_context(|| format!("{} isn't there", file.display()))?;
    let tag: String = digest.chars().take(16).collect();
    let folder = repository.join("target/images");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join(format!("{name}-{tag}.tar"));
    let image = Image {
        repository: format!("localhost/{name}"),
        tag,
    };
    if archive.exists() {
        return Ok((image, archive));
    }
    let stripped = folder.join(format!("{name}-{}", image.tag));
    command::run(
        "strip",
        &[
            "--strip-debug",
            "-o",
            &stripped.display().to_string(),
            &file.display().to_string(),
        ],
    )
    .await?;
    let part = archive.with_extension("part");
    let arguments = [
        "image".to_owned(),
        part.display().to_string(),
        format!("{}:{}", image.repository, image.tag),
        format!("/{program}"),
        format!("{}=/{program}", stripped.display()),
    ];
    command::run(repository.join("tests/cluster/cluster"), &arguments).await?;
    std::fs::rename(&part, &archive)?;
    std::fs::remove_file(&stripped)?;
    Ok((image, archive))
}
