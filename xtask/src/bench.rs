//! `cargo xtask bench`: builds what is shipped and measures it against Envoy with `e2e/bench`, interleaved in one run.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{envoy, workspace};

/// Our contender's description, see "A contender of your own" in e2e/bench/README.md.
const OURS: &str = "e2e/bench/contenders/mesh-proxy.json";
const OUR_NAME: &str = "mesh-proxy";

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// The path that requests take
    scenario: Scenario,
    /// Comma separated [default: envoy, direct where it can be, mesh-proxy]
    #[arg(long)]
    contenders: Option<String>,
    /// Measurements of each contender, in turn
    #[arg(long, default_value_t = 5)]
    reps: u32,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 4.0)]
    duration: f64,
    /// Where figures, logs and configurations go [default: target/bench/results/SCENARIO]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Further arguments for e2e/bench/bench.py run, after --
    #[arg(last = true)]
    args: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// client → sidecar =mTLS HTTP/1.1⇒ sidecar → app
    SidecarPair,
    /// client → proxy → app, HTTP/1.1 plaintext
    H1,
    /// As sidecar-pair with HTTP/2 between the sidecars
    PairH2,
    /// client → proxy → app, gRPC unary
    Grpc,
    /// gRPC through a pair with mTLS
    PairGrpc,
    /// Bulk TCP through one proxy
    Tcp,
    /// Bulk TCP through a pair with mTLS
    PairTcp,
    /// New mTLS connections into one sidecar
    TlsIn,
    /// From an edit in the configuration folder to the acknowledgements of 20 sidecars, 1,000 services
    Propagation,
}

impl Scenario {
    /// What bench.py calls it.
    fn mode(self) -> &'static str {
        match self {
            Self::SidecarPair => "pair-h1",
            Self::H1 => "h1",
            Self::PairH2 => "pair-h2",
            Self::Grpc => "grpc",
            Self::PairGrpc => "pair-grpc",
            Self::Tcp => "tcp",
            Self::PairTcp => "pair-tcp",
            Self::TlsIn => "tls-in",
            Self::Propagation => "propagation",
        }
    }

    /// Whether the client can also reach the app without a proxy.
    fn has_direct(self) -> bool {
        matches!(self, Self::H1 | Self::Grpc | Self::Tcp)
    }
}

/// Builds, installs and measures; the table is what bench.py prints.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let root = workspace::root();
    let target = workspace::target_dir()?;
    if matches!(bench.scenario, Scenario::Propagation) {
        return propagation(bench, &target);
    }
    let mode = bench.scenario.mode();
    let ours = root.join(OURS);
    let contenders = bench.contenders.clone().unwrap_or_else(|| default_contenders(bench.scenario, &ours));
    let mut python = Command::new("python3");
    python.current_dir(&root).arg("e2e/bench/bench.py").args(["run", "--mode", mode, "--contenders", &contenders]);
    let names = || contenders.split(',');
    if names().any(|name| name == "envoy" || name == "envoy-bare") {
        python.env("BENCH_ENVOY", envoy::ensure()?);
    }
    if names().any(|name| name == OUR_NAME) {
        if !ours.is_file() {
            bail!("{OURS} is missing: it describes how the benchmark starts {OUR_NAME}");
        }
        let binaries = build_ours(&target, &["mesh-proxy", "meshd"])?;
        python.arg("--custom").arg(&ours);
        python.env("BENCH_MESH_PROXY", binaries.join("mesh-proxy")).env("BENCH_MESHD", binaries.join("meshd"));
    }
    python.env("BENCH_TOOL", build_tool(&root, &target)?);
    let out = bench.out.clone().unwrap_or_else(|| target.join("bench/results").join(mode));
    python.arg("--out").arg(&out);
    python.args(["--reps", &bench.reps.to_string(), "--duration", &bench.duration.to_string()]).args(&bench.args);
    workspace::run(&mut python)
}

fn default_contenders(scenario: Scenario, ours: &Path) -> String {
    let mut names = vec!["envoy"];
    if scenario.has_direct() {
        names.insert(0, "direct");
    }
    if ours.is_file() {
        names.push(OUR_NAME);
    }
    names.join(",")
}

/// Has no contender: nothing else reads a folder and tells of acknowledgements.
fn propagation(bench: &Bench, target: &Path) -> Result<()> {
    let binaries = build_ours(target, &["mesh-proxy", "meshd", "meshctl"])?;
    let out = bench.out.clone().unwrap_or_else(|| target.join("bench/results/propagation"));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let mut run = workspace::cargo();
    run.args(["run", "--locked", "--package", "e2e", "--example", "propagation", "--"]);
    run.arg("--out").arg(out.join("figures.json")).args(&bench.args).env("MESH_BIN_DIR", binaries);
    workspace::run(&mut run)
}

/// What is shipped: the `dist` profile.
fn build_ours(target: &Path, packages: &[&str]) -> Result<PathBuf> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    workspace::run(workspace::cargo().args(["build", "--profile", "dist", "--locked"]).args(packages))?;
    Ok(target.join("dist"))
}

/// The load generator and upstream: a workspace of its own, so that it never enters the product's lock file.
fn build_tool(root: &Path, target: &Path) -> Result<PathBuf> {
    let manifest = root.join("e2e/bench/tools/Cargo.toml");
    let folder = target.join("bench/tools");
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&folder);
    workspace::run(&mut build).context("building the load generator")?;
    Ok(folder.join("release/meshbench"))
}
