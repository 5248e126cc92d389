//! Loading archives into the nodes of a cluster that `e2e/cluster` started.

use anyhow::{Context, Result};
use clap::ValueEnum;
use std::path::Path;
use std::process::Command;

use super::archive::{Image, Written};
use crate::workspace;

/// Where the host cluster's containerd listens; `e2e/cluster/lib.sh` says so too.
const HOST_SOCKET: &str = "/run/k8s-lateen/containerd.sock";
/// Name of the kind cluster, as in `e2e/cluster/kind-up.sh`.
const KIND_CLUSTER: &str = "lateen";
/// Kubernetes' namespace in containerd.
const NAMESPACE: &str = "k8s.io";

/// A kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// One node of plain processes (e2e/cluster/up.sh)
    Host,
    /// Nodes in containers (e2e/cluster/kind-up.sh)
    Kind,
}

/// Whether there was something to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loaded {
    Now,
    Before,
}

impl Loaded {
    /// To say after a line.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Now => ", loaded",
            Self::Before => ", already there",
        }
    }
}

/// Loads `archive` unless all nodes have just this image.
pub(crate) fn load(target: Target, image: &Image, written: &Written, archive: &Path) -> Result<Loaded> {
    match target {
        Target::Host => {
            let ctr = || containerd(Command::new("ctr"), Some(HOST_SOCKET));
            if has(ctr(), image, written)? {
                return Ok(Loaded::Before);
            }
            workspace::output(ctr().args(["images", "import"]).arg(archive))?;
        }
        Target::Kind => {
            let kind = || Ok::<_, anyhow::Error>(Command::new(workspace::cluster_home()?.join("bin/kind")));
            let nodes = workspace::output(kind()?.args(["get", "nodes", "--name", KIND_CLUSTER]))?;
            let mut missing = false;
            for node in nodes.split_whitespace() {
                let mut docker = Command::new("docker");
                docker.args(["exec", node, "ctr"]);
                missing |= !has(containerd(docker, None), image, written)?;
            }
            if !missing {
                return Ok(Loaded::Before);
            }
            let load = ["load", "image-archive", "--name", KIND_CLUSTER];
            workspace::output(kind()?.args(load).arg(archive))?;
        }
    }
    Ok(Loaded::Now)
}

fn containerd(mut ctr: Command, socket: Option<&str>) -> Command {
    ctr.args(socket.map(|socket| ["--address", socket]).into_iter().flatten()).args(["--namespace", NAMESPACE]);
    ctr
}

/// Whether the node has this image under this name.
fn has(mut ctr: Command, image: &Image, written: &Written) -> Result<bool> {
    let filter = format!("name=={}", image.full_name());
    let listed = workspace::output(ctr.args(["images", "list", &filter])).context("asking a node for its images")?;
    Ok(listed.contains(&written.digest))
}
