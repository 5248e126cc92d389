//! An image archive that is both: an OCI layout (`index.json`, `blobs/`) and what `docker load` takes (`manifest.json`).

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tar;
use crate::workspace;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Equal contents are equal images, whenever they are built.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// An image of one layer on an empty base.
#[derive(Debug)]
pub(crate) struct Image {
    /// `hub/name:tag`.
    pub(crate) name: String,
    pub(crate) entrypoint: String,
    /// Uid and gid.
    pub(crate) user: u32,
    pub(crate) contents: Vec<Content>,
}

/// Something in an image; paths have no slash in front.
#[derive(Debug)]
pub(crate) enum Content {
    /// An executable file.
    File { path: String, from: PathBuf },
    /// A symbolic link.
    Link { path: String, to: String },
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Digest of the image's manifest, `sha256:…`: what a node's store knows it by.
    pub(crate) digest: String,
}

/// A blob with its place in the archive.
struct Blob {
    digest: String,
    size: usize,
    bytes: Vec<u8>,
}

impl Image {
    /// The name as a node's store spells it: a hub without a host is Docker's.
    pub(crate) fn full_name(&self) -> String {
        let host = self.name.split('/').next().unwrap_or_default();
        let has_host = self.name.contains('/') && (host.contains(['.', ':']) || host == "localhost");
        if has_host { self.name.clone() } else { format!("docker.io/{}", self.name) }
    }

    /// Writes the archive to `path`.
    pub(crate) fn write(&self, path: &Path) -> Result<Written> {
        let layer = path.with_extension("layer");
        self.write_layer(&layer)?;
        let layer_digest = digest_of(&layer)?;
        let layer_size = fs::metadata(&layer)?.len();
        let platform = json!({"architecture": architecture(), "os": "linux"});
        let config = Blob::new(&json!({
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": {
                "User": format!("{0}:{0}", self.user),
                "Entrypoint": [self.entrypoint],
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created": CREATED, "created_by": "cargo xtask images"}],
        }))?;
        let manifest = Blob::new(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
            "layers": [{"mediaType": LAYER, "digest": layer_digest, "size": layer_size}],
        }))?;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": manifest.digest,
                "size": manifest.size,
                "platform": platform,
                "annotations": {"io.containerd.image.name": self.full_name()},
            }],
        });
        let docker = json!([{
            "Config": blob_path(&config.digest),
            "RepoTags": [self.name],
            "Layers": [blob_path(&layer_digest)],
        }]);
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut out = tar::Writer::new(BufWriter::new(file));
        out.folder("blobs")?;
        out.folder("blobs/sha256")?;
        for blob in [&config, &manifest] {
            out.bytes(&blob_path(&blob.digest), &blob.bytes)?;
        }
        out.file(&blob_path(&layer_digest), 0o644, &layer)?;
        out.bytes("index.json", &serde_json::to_vec(&index)?)?;
        out.bytes("manifest.json", &serde_json::to_vec(&docker)?)?;
        out.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        out.finish()?;
        fs::remove_file(&layer)?;
        Ok(Written { digest: manifest.digest })
    }

    fn write_layer(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut layer = tar::Writer::new(BufWriter::new(file));
        for folder in self.folders() {
            layer.folder(&folder)?;
        }
        for content in &self.contents {
            match content {
                Content::File { path, from } => layer.file(path, 0o755, from)?,
                Content::Link { path, to } => layer.link(path, to)?,
            }
        }
        layer.finish()?;
        Ok(())
    }

    /// Every folder above some content, outer ones first.
    fn folders(&self) -> BTreeSet<String> {
        let paths = self.contents.iter().map(|content| match content {
            Content::File { path, .. } | Content::Link { path, .. } => path,
        });
        paths.flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned())).collect()
    }
}

impl Blob {
    fn new(value: &Value) -> Result<Self> {
        let bytes = serde_json::to_vec(value)?;
        let mut sum = sha256sum().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting sha256sum")?;
        sum.stdin.take().context("the input of sha256sum")?.write_all(&bytes)?;
        let digest = digest(&String::from_utf8_lossy(&sum.wait_with_output()?.stdout))?;
        Ok(Self { digest, size: bytes.len(), bytes })
    }
}

/// From coreutils: it spares this crate a dependency and is quick where an unoptimized build of ours is not.
fn sha256sum() -> Command {
    Command::new("sha256sum")
}

fn digest_of(path: &Path) -> Result<String> {
    // By the input and not by name: of a name with odd characters it would print something else.
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    digest(&workspace::output(sha256sum().stdin(file))?)
}

fn digest(line: &str) -> Result<String> {
    let hex = line.split(' ').next().filter(|word| word.len() == 64);
    Ok(format!("sha256:{}", hex.with_context(|| format!("sha256sum wrote `{line}`"))?))
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// As Go spells it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
