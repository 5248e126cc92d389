//! Command line of the proxy. The words are those of Istio's agent, so that its container arguments work unchanged.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::capture;

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
  mesh-proxy init -p 15001 -z 15006";

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    Proxy(ProxyArgs),
    /// Write the redirection rules of this network namespace, then exit
    Init(capture::InitArgs),
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
    /// Worker threads; 0 means one for each CPU
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// Log levels, as `default:info,http:debug`
    #[arg(long = "log_output_level", alias = "log-output-level", default_value = "default:info")]
    pub log_output_level: String,
    /// Log as JSON
    #[arg(long = "log_as_json", alias = "log-as-json")]
    pub log_as_json: bool,
    /// Mark of the proxy's own connections, which redirection by mark lets pass (0 sets none)
    #[arg(long, env = "LATEEN_SOCKET_MARK", default_value_t = 0)]
    pub socket_mark: u32,
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
