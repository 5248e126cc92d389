//! The flags of `mesh-proxy init`. Letters, names and lists are those of `istio-iptables`, so that a pod's existing
//! init container arguments work; where a flag is left out, everything is captured, as Istio's injector asks for.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolishValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use super::cidr::Cidr;
use super::config::{CaptureConfig, Dns, Groups, Guard, Select, Tproxy};
use super::host::Host;

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

    /// Mark of packets that are led to the proxy unchanged (TPROXY).
    #[arg(short = 't', long = "istio-inbound-tproxy-mark", env = "ISTIO_INBOUND_TPROXY_MARK", default_value_t = 1337)]
    pub tproxy_mark: u32,

    /// Routing table that keeps such packets on this machine (TPROXY).
    #[arg(
        short = 'r',
        long = "istio-inbound-tproxy-route-table",
        env = "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        default_value_t = 133
    )]
    pub tproxy_route_table: u32,

    /// Groups whose outgoing traffic is captured, by number or by name in /etc/group; '*' is all.
    #[arg(long, env = "ISTIO_OUTBOUND_OWNER_GROUPS", default_value = "*")]
    pub owner_groups: String,

    /// Groups whose outgoing traffic is not captured, while that of all others is.
    #[arg(long, env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", default_value = "")]
    pub owner_groups_exclude: String,

    /// The workload's own IPv4 localhost, a range within 127.0.0.0/8.
    #[arg(long, env = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", default_value = "127.0.0.1/32")]
    pub ipv4_loopback: Cidr,

    /// Capture look-ups of names (port 53, UDP and TCP) that go to the servers of /etc/resolv.conf [env:
    /// REDIRECT_DNS, ISTIO_META_DNS_CAPTURE]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub redirect_dns: Option<bool>,

    /// With --redirect-dns, capture look-ups whatever server they go to [env: CAPTURE_ALL_DNS]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub capture_all_dns: Option<bool>,

    /// Drop packets that belong to no connection [env: DROP_INVALID, INVALID_DROP]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub drop_invalid: Option<bool>,

    /// Whether IPv6 is captured. By default, if this namespace has an IPv6 address that others can reach.
    #[arg(long, value_enum, default_value_t = Ipv6::Auto)]
    pub ipv6: Ipv6,

    /// Capture IPv4 and IPv6 whatever addresses there are; the same as --ipv6 on [env: DUAL_STACK, ISTIO_DUAL_STACK,
    /// ISTIO_AGENT_DUAL_STACK]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub dual_stack: Option<bool>,

    /// Network namespace to write the rules of, as a path such as /proc/7/ns/net. Default: this one.
    #[arg(long, env = "NETWORK_NAMESPACE")]
    pub network_namespace: Option<PathBuf>,

    /// Show the rules in the syntax of `nft -f` and change nothing [env: DRY_RUN]
    #[arg(short = 'n', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub dry_run: Option<bool>,

    /// Remove the rules and write none [env: CLEANUP_ONLY]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub cleanup_only: Option<bool>,

    /// Leave the rules as they are (and validate them, with --run-validation) [env: SKIP_RULE_APPLY]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub skip_rule_apply: Option<bool>,

    /// Check with a connection of its own that traffic is captured; if not, exit with status 126 [env: RUN_VALIDATION]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub run_validation: Option<bool>,

    /// Port that the validation connects to.
    #[arg(long, env = "IPTABLES_PROBE_PORT", default_value_t = 15002)]
    pub iptables_probe_port: u16,

    /// Time for the validation, such as 5s.
    #[arg(long, env = "PROBE_TIMEOUT", default_value = "5s", value_parser = mesh_api::duration::parse)]
    pub probe_timeout: Duration,

    /// Flags that change nothing here.
    #[command(flatten)]
    pub accepted: Accepted,
}

/// Flags of `istio-iptables` that ask for what is always so here, or for what there is not.
#[derive(Args, Clone, Debug)]
pub struct Accepted {
    /// Rules are always written whole in place of earlier ones, whatever these were.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub reconcile: Option<bool>,

    /// The same.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub force_apply: Option<bool>,

    /// Rules are always nftables, written without a program.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub native_nftables: Option<bool>,

    /// There is no lock that pods of a node would share.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch())]
    pub cni_mode: Option<bool>,

    /// There is no iptables binary to choose: anything but an empty value is refused.
    #[arg(long, env = "FORCE_IPTABLES_BINARY", default_value = "", value_parser = no_binary)]
    pub force_iptables_binary: String,

    /// Log levels of Istio's agent, as `default:info`. This command logs nothing: it says what it did and ends.
    #[arg(long = "log_output_level", alias = "log-output-level", default_value = "default:info", hide = true)]
    pub log_output_level: String,

    /// As above.
    #[arg(long = "log_as_json", alias = "log-as-json", hide = true)]
    pub log_as_json: bool,
}

/// A switch as Go's flags read it: `--name`, `--name=true`, `--name=f`, `--name=0`.
fn switch() -> impl clap::builder::TypedValueParser<Value = bool> {
    BoolishValueParser::new().map(|on| on)
}

fn no_binary(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    Err(format!("there is no iptables binary to choose ({text:?}): rules are written to the kernel as nftables"))
}

/// How connections reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Mode {
    /// Destination rewritten to the proxy; the original one is asked from connection tracking.
    Redirect,
    /// Incoming connections are handed to the proxy with their addresses unchanged, and the workload sees the client's
    /// address; outgoing ones as with REDIRECT.
    Tproxy,
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
#[error("{}{flag}: {entry:?} is not {expected}", if flag.starts_with(char::is_lowercase) { "--" } else { "" })]
pub struct ArgsError {
    /// Long name of the flag, or name of the variable.
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
    /// These flags, with switches that were not given taken from the variables that Istio reads besides.
    ///
    /// # Errors
    /// Names the variable that is neither true nor false.
    pub fn with_environment(mut self, env: impl Fn(&str) -> Option<String>) -> Result<Self, ArgsError> {
        let take = |switch: &mut Option<bool>, names: &[&'static str]| {
            for name in names {
                if switch.is_none() {
                    *switch = env(name).filter(|text| !text.is_empty()).map(|text| boolean(name, &text)).transpose()?;
                }
            }
            Ok::<_, ArgsError>(())
        };
        take(&mut self.redirect_dns, &["ISTIO_META_DNS_CAPTURE", "REDIRECT_DNS"])?;
        take(&mut self.capture_all_dns, &["CAPTURE_ALL_DNS"])?;
        take(&mut self.drop_invalid, &["INVALID_DROP", "DROP_INVALID"])?;
        take(&mut self.dual_stack, &["ISTIO_DUAL_STACK", "ISTIO_AGENT_DUAL_STACK", "DUAL_STACK"])?;
        take(&mut self.dry_run, &["DRY_RUN"])?;
        take(&mut self.cleanup_only, &["CLEANUP_ONLY"])?;
        take(&mut self.skip_rule_apply, &["SKIP_RULE_APPLY"])?;
        take(&mut self.run_validation, &["RUN_VALIDATION"])?;
        Ok(self)
    }

    /// The capture settings that the flags describe. What they leave open is asked of `host`.
    ///
    /// # Errors
    /// Names the flag and the list entry that cannot be read.
    pub fn config(&self, host: &impl Host) -> Result<CaptureConfig, ArgsError> {
        const PORT: &str = "a port number";
        const RANGE: &str = "an address range";
        const ID: &str = "a numeric id";
        const INTERFACE: &str = "an interface name";
        let uids = list("proxy-uid", &self.proxy_uid, ID)?;
        let gids = match &self.proxy_gid {
            Some(text) => list("proxy-gid", text, ID)?,
            None => uids.clone(),
        };
        let dual_stack = self.dual_stack.unwrap_or(false);
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
            groups: self.groups(host)?,
            loopback: self.ipv4_loopback,
            dns: match (self.redirect_dns.unwrap_or(false), self.capture_all_dns.unwrap_or(false)) {
                (false, _) => Dns::Off,
                (true, true) => Dns::All,
                (true, false) => Dns::Servers(host.name_servers()),
            },
            dns_port: DNS_PROXY_PORT,
            drop_invalid: self.drop_invalid.unwrap_or(false),
            tproxy: (self.mode == Mode::Tproxy)
                .then_some(Tproxy { mark: self.tproxy_mark, table: self.tproxy_route_table }),
            ipv6: match self.ipv6 {
                Ipv6::On => true,
                Ipv6::Off => dual_stack,
                Ipv6::Auto => dual_stack || host.has_ipv6(),
            },
        })
    }

    fn groups(&self, host: &impl Host) -> Result<Groups, ArgsError> {
        let read = |flag, text: &str| -> Result<Vec<u32>, ArgsError> {
            entries(text)
                .map(|entry| match entry.parse::<u32>() {
                    Ok(gid) => Ok(gid),
                    Err(source) => host.group(entry).ok_or_else(|| ArgsError {
                        flag,
                        entry: entry.to_owned(),
                        expected: "a group's number, nor a name in /etc/group",
                        source: Box::new(source),
                    }),
                })
                .collect()
        };
        if self.owner_groups.trim() == "*" {
            read("owner-groups-exclude", &self.owner_groups_exclude).map(Groups::Except)
        } else {
            read("owner-groups", &self.owner_groups).map(Groups::Only)
        }
    }
}

/// Port on which the proxy answers look-ups (Istio's `IstioAgentDNSListenerPort`).
const DNS_PROXY_PORT: u16 = 15053;

/// A truth value as Go's `strconv.ParseBool` reads it.
fn boolean(name: &'static str, text: &str) -> Result<bool, ArgsError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ArgsError {
            flag: name,
            entry: text.to_owned(),
            expected: "true or false",
            source: Box::from("neither of the two"),
        }),
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
    entries(text)
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

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
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
        let init = command.init.with_environment(|_| None).map_err(|error| error.to_string())?;
        init.config(&Bare).map_err(|error| error.to_string())
    }

    /// A machine without IPv6, with one name server and one group.
    struct Bare;

    impl Host for Bare {
        fn has_ipv6(&self) -> bool {
            false
        }

        fn name_servers(&self) -> Vec<std::net::IpAddr> {
            vec![[10, 96, 0, 10].into()]
        }

        fn group(&self, name: &str) -> Option<u32> {
            (name == "staff").then_some(50)
        }
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
        assert!(parse(&["-m", "EBPF"]).unwrap_err().contains("EBPF"));
        assert!(parse(&["--force-iptables-binary", "legacy"]).unwrap_err().contains("no iptables binary"));
        let message = parse(&["--owner-groups", "wheel"]).unwrap_err();
        assert_eq!(message, "--owner-groups: \"wheel\" is not a group's number, nor a name in /etc/group");
        assert!(parse(&["--iptables-trace-logging"]).unwrap_err().contains("--iptables-trace-logging"));
    }

    #[test]
    fn switches_are_read_as_go_does_and_fall_back_to_the_environment() {
        let dns = |line: &[&str]| parse(line).unwrap().dns;
        let server = Dns::Servers(vec![[10, 96, 0, 10].into()]);
        assert_eq!(dns(&["--redirect-dns"]), server);
        assert_eq!(dns(&["--redirect-dns=true", "--capture-all-dns=1"]), Dns::All);
        assert_eq!(dns(&["--redirect-dns=false", "--capture-all-dns"]), Dns::Off);
        let command = Command::try_parse_from(["init", "--drop-invalid=false"]).unwrap();
        let env = |name: &str| match name {
            "ISTIO_META_DNS_CAPTURE" | "INVALID_DROP" => Some("true".to_owned()),
            "DUAL_STACK" => Some("1".to_owned()),
            "DRY_RUN" => Some(String::new()),
            _ => None,
        };
        let init = command.init.clone().with_environment(env).unwrap();
        assert_eq!((init.dry_run, init.drop_invalid), (None, Some(false)));
        let config = init.config(&Bare).unwrap();
        assert_eq!((config.dns, config.ipv6), (server, true));
        let error = command.init.with_environment(|name| (name == "CLEANUP_ONLY").then(|| "maybe".to_owned()));
        assert_eq!(error.unwrap_err().to_string(), "CLEANUP_ONLY: \"maybe\" is not true or false");
    }

    #[test]
    fn the_arguments_of_istios_templates_are_understood() {
        // manifests/charts/istio-control/istio-discovery/files/injection-template.yaml: istio-init, istio-validation.
        let line = "-p 15001 -z 15006 -u 1337 -m TPROXY -i * -x 10.0.0.0/8 -b * -d 15090,15021,15020 \
                    -q 80 -o 22 -c eth1 -k tap0 --log_output_level=default:info --run-validation --skip-rule-apply";
        let line: Vec<_> = line.split_whitespace().collect();
        let config = parse(&line).unwrap();
        assert_eq!(config.tproxy, Some(Tproxy { mark: 1337, table: 133 }));
        let groups = parse(&["--owner-groups-exclude", "staff,7"]).unwrap().groups;
        assert_eq!(groups, Groups::Except(vec![50, 7]));
        assert_eq!(parse(&["--owner-groups", "3"]).unwrap().groups, Groups::Only(vec![3]));
        assert_eq!(parse(&["--ipv4-loopback", "127.1.0.0/16"]).unwrap().loopback.to_string(), "127.1.0.0/16");
    }
}
