//! Command line of the proxy. The words are those of Istio's agent, so that its container arguments work unchanged.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::agent::commands::{RequestArgs, WaitArgs};
use crate::capture;
use crate::handover::replace::ReplaceArgs;

/// Sidecar and gateway proxy of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  mesh-proxy proxy sidecar --domain default.svc.cluster.local
  mesh-proxy proxy router
  mesh-proxy proxy sidecar --take-over
  mesh-proxy init -p 15001 -z 15006
  mesh-proxy wait --timeoutSeconds 60
  mesh-proxy request --debug-port 15020 POST quitquitquit";

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    Proxy(Box<ProxyArgs>),
    /// Write the redirection rules of this network namespace, then exit
    #[command(alias = "istio-iptables")]
    Init(Box<capture::InitArgs>),
    /// Wait until the proxy of this pod is ready
    Wait(WaitArgs),
    /// Send one request to a page of the proxy of this pod, and show the answer
    Request(RequestArgs),
    /// Show which build this is
    Version(VersionArgs),
    /// Give the running proxy of this network namespace this program, which it starts in its place
    Replace(ReplaceArgs),
    /// Pass signals on to the proxies that are children of this process, until the last has ended
    #[command(hide = true)]
    Supervise,
}

/// `proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Which kind of proxy
    #[arg(value_enum, default_value_t = Role::Sidecar)]
    pub role: Role,
    /// DNS domain of the workload, `<namespace>.svc.<cluster domain>`
    #[arg(long, default_value = "")]
    pub domain: String,
    /// Worker threads; 0 means one for each CPU of the limit
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// Log levels, as `default:info,http:debug`
    #[arg(long = "log_output_level", alias = "log-output-level", default_value = "default:info")]
    pub log_output_level: String,
    /// Log as JSON
    #[arg(long = "log_as_json", alias = "log-as-json")]
    pub log_as_json: bool,
    /// Log level of what serves connections and requests, as `warning`; else that of --log_output_level
    #[arg(long = "proxyLogLevel", default_value = "")]
    pub proxy_log_level: String,
    /// Log levels by Envoy's components, as `upstream:debug,misc:error`
    #[arg(long = "proxyComponentLogLevel", default_value = "")]
    pub proxy_component_log_level: String,
    /// Name of the service in node information and traces; else made of the label `app` and the namespace
    #[arg(long = "serviceCluster", alias = "service-cluster", default_value = "")]
    pub service_cluster: String,
    /// File with a mesh configuration, whose `defaultConfig` counts below `PROXY_CONFIG`
    #[arg(long = "meshConfig", alias = "mesh-config", default_value = "./etc/istio/config/mesh")]
    pub mesh_config: String,
    /// Port of a token exchange service: there is none, so only 0 is accepted
    #[arg(long = "stsPort", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=0))]
    pub sts_port: u16,
    /// Kind of that token exchange service; without one it does not matter
    #[arg(long = "tokenManagerPlugin", default_value = "GoogleTokenExchange", hide = true)]
    pub token_manager_plugin: String,
    /// Template of Envoy's bootstrap: this proxy has none, so only an empty value is accepted
    #[arg(long = "templateFile", default_value = "", value_parser = nothing)]
    pub template_file: String,
    /// File for Envoy's log of outliers: those are logged with the rest, so only an empty value is accepted
    #[arg(long = "outlierLogPath", default_value = "", value_parser = nothing)]
    pub outlier_log_path: String,
    /// Mark of the proxy's own connections, which redirection by mark lets pass (0 sets none)
    #[arg(long, env = "LATEEN_SOCKET_MARK", default_value_t = 0)]
    pub socket_mark: u32,
    /// Take the sockets of the proxy that runs here, if one does: it serves until this one can, then drains and ends
    #[arg(long, env = "LATEEN_TAKE_OVER", value_parser = clap::builder::BoolishValueParser::new())]
    pub take_over: bool,
}

/// `version`.
#[derive(Args, Clone, Copy, Debug)]
pub struct VersionArgs {
    /// Only the version
    #[arg(short, long)]
    pub short: bool,
    /// Shape of the output
    #[arg(short, long, value_enum)]
    pub output: Option<VersionOutput>,
}

/// Shape of the output of `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionOutput {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Beside one workload
    Sidecar,
    /// A gateway
    Router,
}

impl Role {
    /// The word in a node id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

impl ProxyArgs {
    /// What `mesh-proxy proxy <role>` means without any flag.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            domain: String::new(),
            concurrency: None,
            log_output_level: "default:info".to_owned(),
            log_as_json: false,
            proxy_log_level: String::new(),
            proxy_component_log_level: String::new(),
            service_cluster: String::new(),
            mesh_config: "./etc/istio/config/mesh".to_owned(),
            sts_port: 0,
            token_manager_plugin: "GoogleTokenExchange".to_owned(),
            template_file: String::new(),
            outlier_log_path: String::new(),
            socket_mark: 0,
            take_over: false,
        }
    }
}

/// A flag of Istio's that names something this proxy does not have.
fn nothing(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { Err("this proxy has nothing that could use it".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"mesh-proxy").chain(args))
    }

    #[test]
    fn the_arguments_of_istios_injector_are_taken() {
        let args = [
            "proxy",
            "sidecar",
            "--domain",
            "shop.svc.cluster.local",
            "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error",
            "--log_output_level=default:info",
            "--concurrency",
            "2",
            "--stsPort=0",
            "--serviceCluster",
            "web.shop",
        ];
        let Command::Proxy(args) = parse(&args).unwrap().command else { panic!("not proxy") };
        assert_eq!((args.role, &*args.domain, args.concurrency), (Role::Sidecar, "shop.svc.cluster.local", Some(2)));
        assert_eq!((&*args.proxy_log_level, &*args.proxy_component_log_level), ("warning", "misc:error"));
        assert_eq!(&*args.service_cluster, "web.shop");
    }

    #[test]
    fn what_cannot_act_is_refused_by_name() {
        for (flag, value) in
            [("--stsPort", "15463"), ("--templateFile", "/a.json"), ("--outlierLogPath", "/dev/stdout")]
        {
            let error = parse(&["proxy", "sidecar", flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        assert!(parse(&["proxy", "waypoint"]).is_err());
    }

    #[test]
    fn no_flag_is_the_same_as_new() {
        let Command::Proxy(args) = parse(&["proxy", "router"]).unwrap().command else { panic!("not proxy") };
        assert_eq!(format!("{args:?}"), format!("{:?}", ProxyArgs::new(Role::Router)));
    }
}
