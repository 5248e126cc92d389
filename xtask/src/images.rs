//! `cargo xtask images`: static binaries on an empty base, written as image archives. No daemon, no registry, no network,
//! and the same binaries always give the same bytes.

mod archive;
mod binary;
mod load;
mod tar;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::PathBuf;

use crate::workspace;
use archive::{Content, Image};
pub(crate) use load::Target;

/// The hub of images that were built here; the charts' default too.
pub(crate) const HUB: &str = "lateen";
/// The tag: the workspace's version, as the charts' default.
pub(crate) const TAG: &str = env!("CARGO_PKG_VERSION");

/// What `cargo xtask images` takes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  cargo xtask images --profile dist --hub registry.example.com/mesh --tag 1.2.3")]
pub(crate) struct Images {
    /// Cargo's profile: dev builds soonest, dist is what is shipped
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub(crate) profile: Profile,
    /// First part of the images' names
    #[arg(long, default_value = HUB)]
    pub(crate) hub: String,
    /// Tag of the images
    #[arg(long, default_value = TAG)]
    pub(crate) tag: String,
    /// Only these, comma separated [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Name>,
    /// Also load them into a cluster that e2e/cluster started
    #[arg(long, value_enum)]
    pub(crate) load: Option<Target>,
}

/// One of our images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// The control plane
    Meshd,
    /// Sidecar, gateway and the init container
    MeshProxy,
    /// Services and clients for tests
    Shop,
}

/// Cargo's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Debug
    Dev,
    /// Thin link-time optimization
    Release,
    /// What is shipped
    Dist,
}

impl Profile {
    /// As cargo spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }

    /// Its folder below the target folder.
    pub(crate) fn folder(self) -> &'static str {
        if self == Self::Dev { "debug" } else { self.name() }
    }
}

impl Name {
    const ALL: [Self; 3] = [Self::Meshd, Self::MeshProxy, Self::Shop];

    /// The last part of the image's name; the binary's name in the image too.
    fn name(self) -> &'static str {
        match self {
            Self::Meshd => "meshd",
            Self::MeshProxy => "mesh-proxy",
            Self::Shop => "shop",
        }
    }

    /// The package, whose binary has its name.
    fn package(self) -> &'static str {
        if self == Self::Shop { "e2e-shop" } else { self.name() }
    }

    /// Who runs the process, also as group: Istio's uid for the mesh's own, which redirection rules let pass.
    fn user(self) -> u32 {
        if self == Self::Shop { 1000 } else { 1337 }
    }

    /// Names by which people's scripts call the binary.
    fn links(self) -> &'static [&'static str] {
        if self == Self::MeshProxy { &["pilot-agent"] } else { &[] }
    }
}

/// Builds what was asked for and prints the archives' paths.
pub(crate) fn run(images: &Images) -> Result<()> {
    for path in build(images)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Builds one image after the other and returns their archives.
pub(crate) fn build(images: &Images) -> Result<Vec<PathBuf>> {
    let folder = workspace::target_dir()?.join("images").join(images.profile.folder());
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let chosen = Name::ALL.iter().filter(|name| images.only.is_empty() || images.only.contains(name));
    let mut archives = Vec::new();
    for name in chosen {
        let started = workspace::now();
        let binary = folder.join(name.name());
        binary::build(name.package(), images.profile, &binary)?;
        let mut contents = vec![Content::File { path: format!("usr/local/bin/{}", name.name()), from: binary }];
        for link in name.links() {
            contents.push(Content::Link { path: format!("usr/local/bin/{link}"), to: name.name().to_owned() });
        }
        let image = Image {
            name: format!("{}/{}:{}", images.hub, name.name(), images.tag),
            entrypoint: format!("/usr/local/bin/{}", name.name()),
            user: name.user(),
            contents,
        };
        let path = folder.join(format!("{}.tar", name.name()));
        let written = image.write(&path)?;
        let size = fs::metadata(&path).map_or(0, |file| file.len()) / 1_000_000;
        let loaded = images.load.map(|target| load::load(target, &image, &written, &path)).transpose()?;
        let loaded = loaded.map_or("", load::Loaded::text);
        eprintln!("{}: {size} MB in {:.0} s{loaded}", image.name, started.elapsed().as_secs_f32());
        archives.push(path);
    }
    Ok(archives)
}

#[cfg(test)]
mod tests;
