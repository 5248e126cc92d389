//! Transparent capture: the nftables rules that lead a workload's connections through the proxy.
//!
//! [`rules`] decides (pure), [`exec`] writes. [`run`] is the subcommand `mesh-proxy init`, which an init container or
//! `meshctl demo` calls once per network namespace before the workload starts. DNS capture and TPROXY mode are not
//! here yet: asking for them is an error.

pub mod args;
pub mod cidr;
pub mod config;
mod encode;
pub mod exec;
mod netlink;
mod render;
pub mod rules;

use std::fmt;
use std::net::Ipv6Addr;

pub use self::args::InitArgs;
use self::args::{ArgsError, Mode};
use self::config::RulesError;
use self::rules::{Ruleset, TABLE};

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
    },
    /// There are no capture rules any more.
    Removed {
        /// Whether there were any.
        existed: bool,
    },
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
    /// The kernel did not take the rules.
    #[error("cannot write the capture rules")]
    Exec(#[from] exec::ExecError),
}

/// Carries out `mesh-proxy init`: writes, shows or removes the capture rules of this network namespace.
///
/// # Errors
/// When the flags contradict, or the kernel refuses; see [`CaptureError`].
pub fn run(args: &InitArgs) -> Result<Outcome, CaptureError> {
    if args.cleanup_only || args.mode == Mode::None {
        return Ok(Outcome::Removed { existed: exec::remove()? });
    }
    let config = args.config(has_ipv6)?;
    let ruleset = config.ruleset()?;
    if args.dry_run {
        return Ok(Outcome::Shown(ruleset));
    }
    exec::apply(&ruleset)?;
    let rules = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
    Ok(Outcome::Applied { rules, ipv6: config.ipv6 })
}

/// Whether this network namespace has an IPv6 address that traffic from elsewhere can use.
fn has_ipv6() -> bool {
    // A kernel without IPv6 has no such file.
    std::fs::read_to_string("/proc/self/net/if_inet6").is_ok_and(|table| lists_routable(&table))
}

/// Reads the kernel's table of IPv6 addresses: one per line, the address as 32 hexadecimal digits first.
fn lists_routable(table: &str) -> bool {
    table.lines().filter_map(|line| line.split_ascii_whitespace().next()).any(|digits| {
        u128::from_str_radix(digits, 16).map(Ipv6Addr::from_bits).is_ok_and(|address| {
            !address.is_loopback() && !address.is_unicast_link_local() && address != rules::PASSTHROUGH_V6
        })
    })
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(ruleset) => write!(f, "{ruleset}"),
            Self::Applied { rules, ipv6 } => {
                let families = if *ipv6 { "IPv4 and IPv6" } else { "IPv4" };
                writeln!(f, "Traffic capture is on for {families}: {rules} rules in table inet {TABLE}")
            }
            Self::Removed { existed: true } => writeln!(f, "Traffic capture is off: table inet {TABLE} removed"),
            Self::Removed { existed: false } => writeln!(f, "Traffic capture is off: there was no table inet {TABLE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routable_addresses_count_as_ipv6() {
        let loopback = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link_local = "fe800000000000000000000000000002 02 40 20 80     eth0\n";
        let routable = "fd000000000000000000000000000002 02 40 00 80     eth0\n";
        assert!(!lists_routable(""));
        assert!(!lists_routable(&format!("{loopback}{link_local}")));
        assert!(lists_routable(&format!("{loopback}{link_local}{routable}")));
        assert!(!lists_routable("rubbish\n\n"));
    }
}
