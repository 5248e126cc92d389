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
mod render;
mod route;
pub mod rules;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

pub use self::args::InitArgs;
use self::args::{ArgsError, Mode};
use self::config::{CaptureConfig, Dns, RulesError};
use self::host::ThisHost;
use self::model::{Ruleset, TABLE};

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
    /// The kernel did not take the rules.
    #[error("cannot write the capture rules")]
    Exec(#[from] exec::ExecError),
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
    if args.skip_rule_apply == Some(true) {
        return Ok(Outcome::Skipped);
    }
    // Routes first: without rules they lead nothing anywhere, while marked packets without a route would leave.
    route::apply(&config)?;
    exec::apply(&ruleset)?;
    let rules = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
    Ok(Outcome::Applied { rules, ipv6: config.ipv6, dns: DnsOutcome::of(&config) })
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
            Self::Skipped => writeln!(f, "Traffic capture was left as it is"),
            Self::Removed { existed: true } => writeln!(f, "Traffic capture is off: table inet {TABLE} removed"),
            Self::Removed { existed: false } => writeln!(f, "Traffic capture is off: there was no table inet {TABLE}"),
        }
    }
}
