//! Transparent capture: the nftables rules that lead a workload's connections through the proxy.
//!
//! [`rules`] decides (pure), [`exec`] writes. [`run`] is the subcommand `mesh-proxy init`, which an init container or
//! `meshctl demo` calls once per network namespace before the workload starts.

pub mod args;
pub mod cidr;
pub mod config;
mod encode;
pub mod exec;
pub mod host;
pub mod model;
mod netlink;
pub mod own;
pub mod probe;
mod render;
mod route;
pub mod rules;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

pub use self::args::InitArgs;
use self::args::{ArgsError, Mode};
use self::config::{CaptureConfig, Dns, RulesError};
use self::host::ThisHost;
use self::model::{Ruleset, TABLE};
use self::probe::{Caller, Probe};

/// What `mesh-proxy init` did; `Display` is the text for standard output.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: only shown what would be done.
    Shown(Ruleset),
    /// The rules were written in place of any earlier ones.
    Applied {
        /// The number of rules.
        rules: usize,
        /// Whether IPv6 is captured.
        ipv6: bool,
        /// Whether look-ups of names are captured.
        dns: DnsOutcome,
    },
    /// The rules were left as they are.
    Skipped,
    /// The rules were left as they are, and traffic is captured.
    Validated,
    /// There are no capture rules any more.
    Removed {
        /// Whether there were any.
        existed: bool,
    },
}

/// Whether look-ups of names are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsOutcome {
    /// Nobody asked for it.
    Off,
    /// They are.
    On,
    /// It was asked for, but `/etc/resolv.conf` names no server whose look-ups could be captured.
    NoServer,
}

/// `mesh-proxy init` failed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The flags make no sense.
    #[error("cannot read the capture settings")]
    Args(#[from] ArgsError),
    /// The settings make no rules.
    #[error("cannot make capture rules of these settings")]
    Rules(#[from] RulesError),
    /// The network namespace to write rules of cannot be entered.
    #[error("cannot enter the network namespace {}", path.display())]
    Namespace {
        /// The path that was given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The rules do not act, or there are none.
    #[error("traffic capture did not pass validation")]
    Validation(#[from] probe::ProbeError),
    /// The check could not be started.
    #[error("cannot start a runtime for the validation")]
    Runtime(#[source] io::Error),
    /// The kernel did not take the rules.
    #[error("cannot write the capture rules")]
    Exec(#[from] exec::ExecError),
}

impl CaptureError {
    /// Exit status of the process. 126 says that traffic is not captured: Istio's CNI plugin looks for it and has the
    /// pod started again (`ValidationErrorCode`, istio/istio: tools/istio-iptables/pkg/constants/constants.go).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Validation(_) => 126,
            Self::Args(_) | Self::Rules(_) => 1,
            Self::Namespace { .. } | Self::Runtime(_) | Self::Exec(_) => 2,
        }
    }
}

/// Carries out `mesh-proxy init`: writes, shows or removes the capture rules of this network namespace.
///
/// # Errors
/// When the flags contradict, or the kernel refuses; see [`CaptureError`].
pub fn run(args: &InitArgs) -> Result<Outcome, CaptureError> {
    let args = args.clone().with_environment(|name| std::env::var(name).ok())?;
    if let Some(path) = &args.network_namespace {
        enter(path)?;
    }
    let config = args.config(&ThisHost)?;
    let ruleset = config.ruleset()?;
    if args.dry_run == Some(true) {
        return Ok(Outcome::Shown(ruleset));
    }
    if args.cleanup_only == Some(true) || args.mode == Mode::None {
        route::remove(&config)?;
        return Ok(Outcome::Removed { existed: exec::remove()? });
    }
    let validation = (args.run_validation == Some(true)).then_some(args.probe_timeout);
    if args.skip_rule_apply == Some(true) {
        validate(&config, args.iptables_probe_port, validation)?;
        return Ok(validation.map_or(Outcome::Skipped, |_| Outcome::Validated));
    }
    // Routes first: without rules they lead nothing anywhere, while marked packets without a route would leave.
    route::apply(&config)?;
    exec::apply(&ruleset)?;
    validate(&config, args.iptables_probe_port, validation)?;
    let rules = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
    Ok(Outcome::Applied { rules, ipv6: config.ipv6, dns: DnsOutcome::of(&config) })
}

fn validate(config: &CaptureConfig, port: u16, within: Option<Duration>) -> Result<(), CaptureError> {
    let Some(within) = within else { return Ok(()) };
    let probe = Probe::of(config, Caller::this(), port)?;
    let runtime = mesh_api_rt::runtime::single().map_err(CaptureError::Runtime)?;
    Ok(runtime.block_on(probe.run(within))?)
}

/// Moves this thread into another network namespace.
fn enter(path: &Path) -> Result<(), CaptureError> {
    let entered = File::open(path).and_then(|file| Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
    entered.map_err(|source| CaptureError::Namespace { path: path.to_owned(), source })
}

impl DnsOutcome {
    fn of(config: &CaptureConfig) -> Self {
        match &config.dns {
            Dns::Off => Self::Off,
            Dns::Servers(servers) if servers.is_empty() => Self::NoServer,
            Dns::Servers(_) | Dns::All => Self::On,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(ruleset) => write!(f, "{ruleset}"),
            Self::Applied { rules, ipv6, dns } => {
                let families = if *ipv6 { "IPv4 and IPv6" } else { "IPv4" };
                let dns = match dns {
                    DnsOutcome::Off => "",
                    DnsOutcome::On => ", with DNS look-ups",
                    DnsOutcome::NoServer => {
                        ", without DNS look-ups: /etc/resolv.conf names no server (--capture-all-dns captures all)"
                    }
                };
                writeln!(f, "Traffic capture is on for {families}{dns}: {rules} rules in table inet {TABLE}")
            }
            Self::Validated => writeln!(f, "Traffic capture is on: a connection was led to the proxy's port"),
            Self::Skipped => writeln!(f, "Traffic capture was left as it is"),
            Self::Removed { existed: true } => writeln!(f, "Traffic capture is off: table inet {TABLE} removed"),
            Self::Removed { existed: false } => writeln!(f, "Traffic capture is off: there was no table inet {TABLE}"),
        }
    }
}
