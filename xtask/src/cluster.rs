//! `cargo xtask e2e`: a cluster, images in it, and the tests of e2e named `cluster_*`, or `beside_*` with a real Istio.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::images::{self, Images, Profile};
use crate::workspace;

/// Names of the tests that run on a cluster begin so.
const FAMILY: &str = "cluster_";
/// Names of those beside a real Istio.
const BESIDE: &str = "beside_";

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask e2e --provider host --keep --profile dev --filter main_path\n  \
                        KUBECONFIG=~/.kube/config cargo xtask e2e --provider existing --hub registry.example.com/mesh")]
pub(crate) struct E2e {
    /// Where the cluster comes from
    #[arg(long, value_enum, default_value_t = Provider::Host)]
    provider: Provider,
    /// Leave the cluster, and what failed tests made in it, as they are in the end
    #[arg(long)]
    keep: bool,
    /// Run tests whose names hold this; may be repeated
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Cargo's profile of images and of meshctl
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// First part of the images' names; an existing cluster must be able to pull them
    #[arg(long, default_value = images::HUB)]
    hub: String,
    /// Tag of the images
    #[arg(long, default_value = images::TAG)]
    tag: String,
    /// Beside a real Istio: build it from Go modules, load its images, run the tests named beside_
    #[arg(long)]
    beside: bool,
    /// Only list the tests
    #[arg(long)]
    list: bool,
}

/// Where a cluster comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// One node of plain processes on this machine, as root (e2e/cluster/up.sh)
    Host,
    /// `kind create cluster` with a node image built here, as root (e2e/cluster/kind-up.sh)
    Kind,
    /// The cluster of the present kubeconfig
    Existing,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Kind => "kind",
            Self::Existing => "existing",
        }
    }

    /// The file that says how to reach the cluster; none to leave that to the environment.
    fn kubeconfig(self) -> Result<Option<PathBuf>> {
        let home = workspace::cluster_home()?;
        Ok(match self {
            Self::Host => Some(home.join("run/admin.conf")),
            Self::Kind => Some(home.join("kind/kubeconfig")),
            Self::Existing => None,
        })
    }

    fn load(self) -> Option<images::Target> {
        match self {
            Self::Host => Some(images::Target::Host),
            Self::Kind => Some(images::Target::Kind),
            Self::Existing => None,
        }
    }

    /// Starts the cluster, or finds it running, and says which.
    fn up(self) -> Result<Started> {
        let ran = match self.kubeconfig()? {
            Some(file) => file.is_file() && answers(&file),
            None => true,
        };
        match self {
            Self::Host => workspace::run(&mut script("up.sh"))?,
            Self::Kind => workspace::run(&mut script("kind-up.sh"))?,
            Self::Existing => {}
        }
        Ok(if ran { Started::Before } else { Started::Now })
    }

    fn down(self) -> Result<()> {
        match self {
            Self::Host => workspace::run(&mut script("down.sh")),
            Self::Kind => {
                workspace::run(script("kind-up.sh").arg("delete"))?;
                workspace::run(script("dockerd.sh").arg("stop"))
            }
            Self::Existing => Ok(()),
        }
    }
}

/// When the cluster was started; one that ran before is not ours to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    Now,
    Before,
}

/// How long each step took.
#[derive(Debug, Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("\n== {name}");
        let started = workspace::now();
        let result = step().context(name);
        self.0.push((name, started.elapsed()));
        result
    }

    fn show(&self) {
        for (name, time) in &self.0 {
            eprintln!("{name:<28} {:>5.0} s", time.as_secs_f32());
        }
    }
}

/// Runs the suite. A suite that would run nothing fails.
pub(crate) fn run(e2e: &E2e) -> Result<()> {
    if e2e.list {
        return workspace::run(e2e.test().arg("--list"));
    }
    let mut steps = Steps::default();
    let result = e2e.suite(&mut steps);
    eprintln!("\n== {} on {}", if result.is_ok() { "passed" } else { "FAILED" }, e2e.provider.name());
    steps.show();
    result
}

impl E2e {
    fn suite(&self, steps: &mut Steps) -> Result<()> {
        if self.beside && self.provider == Provider::Existing {
            bail!("--beside installs Istio and loads its images: it takes a cluster of its own (host or kind)");
        }
        let binaries = steps.run("building meshctl", || self.meshctl())?;
        steps.run("building tests", || {
            workspace::run(workspace::cargo().args([
                "test",
                "--locked",
                "--package",
                "e2e",
                "--test",
                "it",
                "--no-run",
            ]))
        })?;
        let listed = workspace::output(self.test().arg("--list"))?;
        if !listed.lines().any(|line| line.ends_with(": test")) {
            bail!("no test of e2e fits: a suite that runs nothing shows nothing");
        }
        let started = steps.run("starting the cluster", || self.provider.up())?;
        let tested = self.on_cluster(steps, &binaries);
        if self.keep || started == Started::Before || self.provider == Provider::Existing {
            return tested;
        }
        let ended = steps.run("ending the cluster", || self.provider.down());
        tested.and(ended)
    }

    fn on_cluster(&self, steps: &mut Steps, binaries: &Path) -> Result<()> {
        if self.provider != Provider::Existing {
            steps.run("building and loading images", || {
                let images = Images {
                    profile: self.profile,
                    hub: self.hub.clone(),
                    tag: self.tag.clone(),
                    only: Vec::new(),
                    load: self.provider.load(),
                };
                images::build(&images).map(drop)
            })?;
        }
        if self.beside {
            steps.run("building Istio", || workspace::run(script("istio.sh").arg("build")))?;
            steps.run("loading Istio", || workspace::run(script("istio.sh").args(["load", self.provider.name()])))?;
        }
        let logs = workspace::target_dir()?.join("e2e").join(self.provider.name());
        // What is there is of an earlier run.
        match fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("emptying {}", logs.display()));
            }
            _ => fs::create_dir_all(&logs)?,
        }
        let tested = steps.run("testing", || {
            let mut test = self.test();
            test.args(["--test-threads", "1"]).env("MESH_BIN_DIR", binaries).env("MESH_E2E_LOGS", &logs);
            test.env("MESH_E2E_PROVIDER", self.provider.name()).env("MESH_HUB", &self.hub).env("MESH_TAG", &self.tag);
            if self.keep {
                test.env("MESH_E2E_KEEP", "1");
            }
            self.reach(&mut test)?;
            workspace::run(&mut test)
        });
        if tested.is_err() {
            self.report(&binaries.join("meshctl"), &logs);
        }
        tested
    }

    fn test(&self) -> Command {
        let mut test = workspace::cargo();
        test.args(["test", "--locked", "--package", "e2e", "--test", "it", "--", "--ignored"]);
        let family = if self.beside { BESIDE } else { FAMILY };
        // Names that libtest is given are alternatives, so the family is part of each.
        if self.filter.is_empty() {
            test.arg(family);
        }
        test.args(self.filter.iter().map(
            |text| {
                if text.contains(family) { text.clone() } else { format!("{family}{text}") }
            },
        ));
        test
    }

    fn meshctl(&self) -> Result<PathBuf> {
        let build = ["build", "--locked", "--package", "meshctl", "--profile", self.profile.name()];
        workspace::run(workspace::cargo().args(build))?;
        Ok(workspace::target_dir()?.join(self.profile.folder()))
    }

    /// Keeps what the mesh says of itself. Best effort: the tests' failure is what is told.
    fn report(&self, meshctl: &Path, logs: &Path) {
        let mut report = Command::new(meshctl);
        report.arg("bug-report").current_dir(logs);
        if let Err(error) = self.reach(&mut report).and_then(|()| workspace::run(&mut report)) {
            eprintln!("no bug report: {error:#}");
        }
        eprintln!("logs: {}", logs.display());
    }

    fn reach(&self, command: &mut Command) -> Result<()> {
        if let Some(file) = self.provider.kubeconfig()? {
            command.env("KUBECONFIG", file);
        }
        Ok(())
    }
}

fn script(name: &str) -> Command {
    let mut command = Command::new(workspace::root().join("e2e/cluster").join(name));
    command.current_dir(workspace::root());
    command
}

/// Whether the API server that a kubeconfig names is there.
fn answers(kubeconfig: &Path) -> bool {
    let Ok(home) = workspace::cluster_home() else { return false };
    let mut kubectl = Command::new(home.join("bin/kubectl"));
    kubectl.args(["get", "--raw", "/readyz", "--request-timeout", "5s", "--kubeconfig"]).arg(kubeconfig);
    kubectl.output().is_ok_and(|output| output.status.success())
}
