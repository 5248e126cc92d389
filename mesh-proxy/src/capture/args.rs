//! The flags of `mesh-proxy init`. Letters, names and lists are those of `istio-iptables`, so that a pod's existing
//! init container arguments work; where a flag is left out, everything is captured, as Istio's injector asks for.

use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::config::{CaptureConfig, Guard, Select};

/// Write the rules that lead this network namespace's traffic through the proxy.
///
/// Example: mesh-proxy init -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -x '' -b '*' -d 15090,15021,15020
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Port of the proxy that takes outgoing connections.
    #[arg(short = 'p', long = "envoy-port", env = "ENVOY_PORT", default_value_t = 15001)]
    pub outbound_port: u16,

    /// Port of the proxy that takes incoming connections.
    #[arg(short = 'z', long, env = "INBOUND_CAPTURE_PORT", default_value_t = 15006)]
    pub inbound_capture_port: u16,

    /// Port of the proxy's tunnel, which is never captured.
    #[arg(short = 'e', long, env = "INBOUND_TUNNEL_PORT", default_value_t = 15008)]
    pub inbound_tunnel_port: u16,

    /// User ids of the proxy, separated by commas; their connections are not captured.
    #[arg(short = 'u', long, env = "PROXY_UID", default_value = "1337")]
    pub proxy_uid: String,

    /// Group ids of the proxy, separated by commas. Default: those of --proxy-uid.
    #[arg(short = 'g', long, env = "PROXY_GID")]
    pub proxy_gid: Option<String>,

    /// Mark (SO_MARK) of the proxy's connections, which are not captured. For namespaces in which the proxy has no
    /// user id of its own.
    #[arg(long, env = "PROXY_MARK")]
    pub proxy_mark: Option<u32>,

    /// How connections reach the proxy. NONE removes the rules.
    #[arg(
        short = 'm',
        long = "istio-inbound-interception-mode",
        env = "ISTIO_INBOUND_INTERCEPTION_MODE",
        ignore_case = true,
        default_value = "REDIRECT"
    )]
    pub mode: Mode,

    /// Incoming ports to capture, separated by commas; '*' is all, an empty list none.
    #[arg(short = 'b', long = "istio-inbound-ports", env = "ISTIO_INBOUND_PORTS", default_value = "*")]
    pub inbound_ports: String,

    /// Incoming ports not to capture.
    #[arg(
        short = 'd',
        long = "istio-local-exclude-ports",
        env = "ISTIO_LOCAL_EXCLUDE_PORTS",
        default_value = "15090,15021,15020"
    )]
    pub exclude_inbound_ports: String,

    /// Outgoing destination ranges (CIDR) to capture; '*' is all, an empty list none.
    #[arg(short = 'i', long = "istio-service-cidr", env = "ISTIO_SERVICE_CIDR", default_value = "*")]
    pub outbound_ranges: String,

    /// Outgoing destination ranges (CIDR) not to capture.
    #[arg(short = 'x', long = "istio-service-exclude-cidr", env = "ISTIO_SERVICE_EXCLUDE_CIDR", default_value = "")]
    pub exclude_outbound_ranges: String,

    /// Outgoing destination ports to capture whatever the range; '*' is all.
    #[arg(short = 'q', long = "istio-outbound-ports", env = "ISTIO_OUTBOUND_PORTS", default_value = "")]
    pub outbound_ports: String,

    /// Outgoing destination ports not to capture.
    #[arg(
        short = 'o',
        long = "istio-local-outbound-ports-exclude",
        env = "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        default_value = ""
    )]
    pub exclude_outbound_ports: String,

    /// Interfaces whose traffic is not captured; a trailing '+' stands for any ending.
    #[arg(short = 'c', long = "istio-exclude-interfaces", env = "ISTIO_EXCLUDE_INTERFACES", default_value = "")]
    pub exclude_interfaces: String,

    /// Interfaces of virtual machines: what comes in on them is captured as traffic going out.
    #[arg(short = 'k', long = "kube-virt-interfaces", env = "KUBE_VIRT_INTERFACES", default_value = "")]
    pub reroute_interfaces: String,

    /// Whether IPv6 is captured. By default, if this namespace has an IPv6 address that others can reach.
    #[arg(long, value_enum, default_value_t = Ipv6::Auto)]
    pub ipv6: Ipv6,

    /// Capture IPv4 and IPv6 whatever addresses there are; the same as --ipv6 on.
    #[arg(long, env = "ISTIO_AGENT_DUAL_STACK")]
    pub dual_stack: bool,

    /// Show the rules in the syntax of `nft -f` and change nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Remove the rules and write none.
    #[arg(long)]
    pub cleanup_only: bool,
}

/// How connections reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Mode {
    /// Destination rewritten to the proxy; the original one is asked from connection tracking.
    Redirect,
    /// Nothing is captured.
    None,
}

/// Whether IPv6 is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ipv6 {
    /// If the namespace has an address that others can reach.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// A flag's value cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: {entry:?} is not {expected}")]
pub struct ArgsError {
    /// Long name of the flag.
    pub flag: &'static str,
    /// The list entry in question.
    pub entry: String,
    /// What would be right.
    pub expected: &'static str,
    /// What reading it said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl InitArgs {
    /// The capture settings that the flags describe. `has_ipv6` is asked only when the flags leave it open.
    ///
    /// # Errors
    /// Names the flag and the list entry that cannot be read.
    pub fn config(&self, has_ipv6: impl FnOnce() -> bool) -> Result<CaptureConfig, ArgsError> {
        const PORT: &str = "a port number";
        const RANGE: &str = "an address range";
        const ID: &str = "a numeric id";
        const INTERFACE: &str = "an interface name";
        let uids = list("proxy-uid", &self.proxy_uid, ID)?;
        let gids = match &self.proxy_gid {
            Some(text) => list("proxy-gid", text, ID)?,
            None => uids.clone(),
        };
        Ok(CaptureConfig {
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_capture_port,
            tunnel_port: self.inbound_tunnel_port,
            guard: Guard { uids, gids, mark: self.proxy_mark },
            inbound_ports: select("istio-inbound-ports", &self.inbound_ports, PORT)?,
            exclude_inbound_ports: list("istio-local-exclude-ports", &self.exclude_inbound_ports, PORT)?,
            outbound_ranges: select("istio-service-cidr", &self.outbound_ranges, RANGE)?,
            exclude_outbound_ranges: list("istio-service-exclude-cidr", &self.exclude_outbound_ranges, RANGE)?,
            outbound_ports: select("istio-outbound-ports", &self.outbound_ports, PORT)?,
            exclude_outbound_ports: list("istio-local-outbound-ports-exclude", &self.exclude_outbound_ports, PORT)?,
            exclude_interfaces: list("istio-exclude-interfaces", &self.exclude_interfaces, INTERFACE)?,
            reroute_interfaces: list("kube-virt-interfaces", &self.reroute_interfaces, INTERFACE)?,
            ipv6: match self.ipv6 {
                Ipv6::On => true,
                Ipv6::Off => self.dual_stack,
                Ipv6::Auto => self.dual_stack || has_ipv6(),
            },
        })
    }
}

fn select<T>(flag: &'static str, text: &str, expected: &'static str) -> Result<Select<T>, ArgsError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    if text.trim() == "*" { Ok(Select::All) } else { list(flag, text, expected).map(Select::Only) }
}

/// Reads a list separated by commas; blanks around entries and empty entries are skipped.
fn list<T>(flag: &'static str, text: &str, expected: &'static str) -> Result<Vec<T>, ArgsError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            entry.parse().map_err(|source| ArgsError {
                flag,
                entry: entry.to_owned(),
                expected,
                source: Box::new(source),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        init: InitArgs,
    }

    fn parse(line: &[&str]) -> Result<CaptureConfig, String> {
        let command = Command::try_parse_from(["init"].iter().chain(line)).map_err(|error| error.to_string())?;
        command.init.config(|| false).map_err(|error| error.to_string())
    }

    #[test]
    fn the_injectors_arguments_are_the_default() {
        let line = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*"];
        let injected = [&line[..], &["-d", "15090,15021,15020"]].concat();
        assert_eq!(parse(&injected), parse(&[]));
        assert_eq!(parse(&[]).unwrap(), CaptureConfig { ipv6: false, ..CaptureConfig::default() });
    }

    #[test]
    fn lists_are_read() {
        let config = parse(&["-b", "80, 443", "-x", "10.0.0.0/8,fd00::/8", "-c", "eth1,docker+", "-g", "5", "-i", ""]);
        let config = config.unwrap();
        assert_eq!(config.inbound_ports, Select::Only(vec![80, 443]));
        assert_eq!(config.exclude_outbound_ranges.len(), 2);
        assert_eq!(config.exclude_interfaces, ["eth1".parse().unwrap(), "docker+".parse().unwrap()]);
        assert_eq!(config.guard.gids, [5]);
        assert_eq!(config.outbound_ranges, Select::Only(Vec::new()));
    }

    #[test]
    fn a_bad_entry_is_named_with_its_flag() {
        let message = parse(&["-o", "22,65536"]).unwrap_err();
        assert_eq!(message, "--istio-local-outbound-ports-exclude: \"65536\" is not a port number");
        assert!(parse(&["-m", "TPROXY"]).unwrap_err().contains("TPROXY"));
        assert!(parse(&["--redirect-dns"]).unwrap_err().contains("--redirect-dns"));
    }
}
