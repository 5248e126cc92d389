//! The command line. Flags of `meshd run` have istiod's spellings as aliases, and its environment variables count.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mesh_api::duration;
use mesh_api::identity::TrustDomain;
use mesh_api::ids::{ClusterId, Revision};
use mesh_api::text::Str;
use mesh_api_rt::runtime::CpuBudget;
use mesh_api_rt::telemetry::{Levels, LogFormat};
use mesh_ca::issue::Lifetimes;
use mesh_ca::selfsigned::DEFAULT_ROOT_TTL;
use meshd_core::debounce::{DebounceConfig, EndpointLane};

use crate::config::{Config, DEFAULT_CONNECTION_AGE, DEFAULT_REVISION, KubernetesConfig};

/// The control plane of the mesh.
#[derive(Debug, Parser)]
#[command(name = "meshd", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the control plane
    #[command(alias = "discovery")]
    Run(Box<RunArgs>),
    /// Prints a token with which a workload outside Kubernetes gets its first certificate
    Token(TokenArgs),
}

/// Flags of `meshd run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  meshd run --config-dir ./mesh --state-dir ./state\n  meshd run --kubernetes --kubeconfig ~/.kube/config --state-dir ./state"
)]
pub struct RunArgs {
    /// Folder of YAML and JSON files to take configuration from; read recursively and watched
    #[arg(long, alias = "configDir", value_name = "DIR", required_unless_present = "kubernetes")]
    config_dir: Option<PathBuf>,
    /// Take configuration from the cluster
    #[arg(long)]
    kubernetes: bool,
    /// File that says how to reach the cluster. Default: KUBECONFIG, else the service account of the pod
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Revision of this control plane
    #[arg(long, env = "REVISION", value_name = "NAME", default_value = crate::config::DEFAULT_REVISION)]
    revision: String,
    /// Pod that this control plane runs in
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "")]
    pod_name: String,
    /// Service account that this control plane runs as
    #[arg(long, env = "SERVICE_ACCOUNT", value_name = "NAME", default_value = "")]
    service_account: String,
    /// Folder for keys and other state; made if it is not there, for its owner only
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Address for xDS in plaintext, loopback unless --allow-plaintext; "none" for no such port
    #[arg(long, alias = "grpcAddr", value_name = "ADDR", default_value = "127.0.0.1:15010", value_parser = optional_address)]
    grpc_addr: OptionalAddress,
    /// Address for xDS and certificates over TLS; "none" for no such port
    #[arg(long, alias = "secureGRPCAddr", value_name = "ADDR", default_value = "0.0.0.0:15012", value_parser = optional_address)]
    secure_grpc_addr: OptionalAddress,
    /// Address for metrics, readiness and debug pages
    #[arg(long, alias = "monitoringAddr", value_name = "ADDR", default_value = "0.0.0.0:15014")]
    monitoring_addr: SocketAddr,
    /// Address of the webhooks; "none" for no such port. Default with --kubernetes: 0.0.0.0:15017
    #[arg(long, alias = "httpsAddr", value_name = "ADDR", value_parser = optional_address)]
    https_addr: Option<OptionalAddress>,
    /// Address of /ready alone, for kubelets; "none" for no such port. Default with --kubernetes: 0.0.0.0:8080
    #[arg(long, alias = "httpAddr", value_name = "ADDR", value_parser = optional_address)]
    http_addr: Option<OptionalAddress>,
    /// Whether the webhooks inject pods
    #[arg(long, env = "INJECT_ENABLED", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    inject: bool,
    /// Whether ServiceEntries without addresses get virtual ones, in their status
    #[arg(long, env = "PILOT_ENABLE_IP_AUTOALLOCATE", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    allocate_addresses: bool,
    /// Serve plaintext xDS also where other machines reach it: anybody there reads the configuration of any proxy
    #[arg(long)]
    allow_plaintext: bool,
    /// Trust domain; the mesh configuration must name the same. Default: what that says
    #[arg(long, value_name = "DOMAIN", value_parser = TrustDomain::parse)]
    trust_domain: Option<TrustDomain>,
    /// Cluster that the objects belong to
    #[arg(long, alias = "clusterID", env = "CLUSTER_ID", value_name = "NAME", default_value = "Kubernetes")]
    cluster_id: String,
    /// Namespace of the control plane
    #[arg(long, short = 'n', env = "POD_NAMESPACE", default_value = mesh_api::names::ROOT_NAMESPACE)]
    namespace: String,
    /// Namespace of objects that name none
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    default_namespace: String,
    /// Further name under which proxies reach the TLS port; may be repeated
    #[arg(long = "san", alias = "tlsSan", value_name = "NAME", env = "ISTIOD_CUSTOM_HOST", value_delimiter = ',')]
    sans: Vec<String>,
    /// Folder of a plugged-in authority (ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem)
    #[arg(long, value_name = "DIR")]
    ca_certs_dir: Option<PathBuf>,
    /// What the token of a service account must be meant for, one of these
    #[arg(long, env = "TOKEN_AUDIENCES", value_name = "AUDIENCE", value_delimiter = ',', default_value = mesh_ca::token::AUDIENCE)]
    token_audiences: Vec<String>,
    /// Tokens that proxies show: third-party-jwt (projected, for the audience) or first-party-jwt (those for the API server)
    #[arg(long, env = "JWT_POLICY", value_name = "POLICY", default_value = "third-party-jwt", value_parser = ["third-party-jwt", "first-party-jwt"])]
    jwt_policy: String,
    /// Age at which a connection of a proxy is renewed
    #[arg(long, alias = "keepaliveMaxServerConnectionAge", value_name = "DURATION", value_parser = duration::parse)]
    max_connection_age: Option<Duration>,
    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = log_format)]
    log_format: LogFormat,
    /// Log levels, such as info or info,meshd::xds:debug
    #[arg(long, alias = "log_output_level", env = "MESHD_LOG", value_name = "LEVELS", default_value = "info")]
    log_level: Levels,
    #[command(flatten)]
    tuning: Tuning,
}

/// What istiod takes from its environment.
#[derive(Debug, Args)]
struct Tuning {
    /// Time without a change after which changes are pushed
    #[arg(long, env = "PILOT_DEBOUNCE_AFTER", value_name = "DURATION", value_parser = duration::parse)]
    debounce_after: Option<Duration>,
    /// Longest time that a change is held back
    #[arg(long, env = "PILOT_DEBOUNCE_MAX", value_name = "DURATION", value_parser = duration::parse)]
    debounce_max: Option<Duration>,
    /// Whether changes of endpoints wait as well
    #[arg(long, env = "PILOT_ENABLE_EDS_DEBOUNCE", value_name = "BOOL")]
    debounce_endpoints: Option<bool>,
    /// Translations at one time; 0 is one for each CPU
    #[arg(long, env = "PILOT_PUSH_THROTTLE", value_name = "N", default_value_t = 0)]
    push_throttle: usize,
    /// Proxies that may connect in a second; 0 follows the number of CPUs
    #[arg(long, env = "PILOT_MAX_REQUESTS_PER_SECOND", value_name = "N", default_value_t = 0)]
    max_streams_per_second: u32,
    /// Lifetime of certificates for which none was asked
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", value_name = "DURATION", value_parser = duration::parse)]
    workload_cert_ttl: Option<Duration>,
    /// Longest lifetime of certificates
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", value_name = "DURATION", value_parser = duration::parse)]
    max_workload_cert_ttl: Option<Duration>,
    /// Lifetime of a self-signed root
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", value_name = "DURATION", value_parser = duration::parse)]
    root_cert_ttl: Option<Duration>,
}

/// Flags of `meshd token`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  meshd token --state-dir ./state --namespace shop --service-account web > istio-token"
)]
pub struct TokenArgs {
    /// State folder of the control plane
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Namespace of the workload
    #[arg(long, short = 'n')]
    pub namespace: String,
    /// Service account of the workload
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub service_account: String,
    /// Trust domain of the mesh
    #[arg(long, value_name = "DOMAIN", value_parser = TrustDomain::parse, default_value = mesh_api::names::CLUSTER_DOMAIN)]
    pub trust_domain: TrustDomain,
    /// Lifetime, at most a day
    #[arg(long, alias = "tokenDuration", value_name = "DURATION", value_parser = duration::parse, default_value = "1h")]
    pub ttl: Duration,
}

/// An address, or none.
#[derive(Clone, Copy, Debug)]
struct OptionalAddress(Option<SocketAddr>);

impl RunArgs {
    /// How to log.
    #[must_use]
    pub fn logging(&self) -> (LogFormat, Levels) {
        (self.log_format, self.log_level.clone())
    }

    /// The settings that the flags make.
    #[must_use]
    pub fn into_config(self, cpu: &CpuBudget) -> Config {
        let tuning = self.tuning;
        let debounce = DebounceConfig::default();
        let lifetimes = Lifetimes::default();
        // Istio's formula for both, with its bound.
        let by_cpu = 15_u32.saturating_add(5_u32.saturating_mul(u32::try_from(cpu.cpus).unwrap_or(u32::MAX))).min(100);
        let rate = if tuning.max_streams_per_second == 0 { by_cpu } else { tuning.max_streams_per_second };
        let revision = if self.revision.is_empty() { DEFAULT_REVISION } else { &self.revision };
        let kubernetes = self.kubernetes.then(|| KubernetesConfig {
            kubeconfig: self.kubeconfig,
            revision: Revision::from(revision),
            pod_name: Str::from(self.pod_name),
            service_account: Str::from(self.service_account),
        });
        Config {
            config_dir: self.config_dir,
            kubernetes,
            state_dir: self.state_dir,
            grpc: self.grpc_addr.0,
            secure_grpc: self.secure_grpc_addr.0,
            monitoring: self.monitoring_addr,
            webhooks: in_cluster(self.https_addr, mesh_api::names::WEBHOOK_PORT, self.kubernetes),
            readiness: in_cluster(self.http_addr, mesh_api::names::MESHD_READINESS_PORT, self.kubernetes),
            injects: self.inject,
            allocates: self.allocate_addresses,
            allow_plaintext: self.allow_plaintext,
            trust_domain: self.trust_domain,
            cluster: ClusterId::from(self.cluster_id),
            namespace: Str::from(self.namespace),
            default_namespace: Str::from(self.default_namespace),
            dns_names: self.sans.into_iter().filter(|name| !name.is_empty()).collect(),
            ca_certs: self.ca_certs_dir,
            token_audiences: match self.jwt_policy.as_str() {
                // Such tokens are for the API server, which needs no naming.
                "first-party-jwt" => Vec::new(),
                _ if self.token_audiences.iter().all(String::is_empty) => vec![mesh_ca::token::AUDIENCE.to_owned()],
                _ => self.token_audiences.into_iter().filter(|audience| !audience.is_empty()).collect(),
            },
            lifetimes: Lifetimes {
                default: tuning.workload_cert_ttl.unwrap_or(lifetimes.default),
                max: tuning.max_workload_cert_ttl.unwrap_or(lifetimes.max),
                ..lifetimes
            },
            root_ttl: tuning.root_cert_ttl.unwrap_or(DEFAULT_ROOT_TTL),
            debounce: DebounceConfig {
                quiet: tuning.debounce_after.unwrap_or(debounce.quiet),
                max: tuning.debounce_max.unwrap_or(debounce.max),
                endpoints: match tuning.debounce_endpoints {
                    Some(true) => EndpointLane::WithConfig,
                    Some(false) | None => EndpointLane::Fast,
                },
            },
            push_workers: if tuning.push_throttle == 0 { cpu.cpus.max(1) } else { tuning.push_throttle.min(1024) },
            streams_per_second: rate,
            max_connection_age: self.max_connection_age.unwrap_or(DEFAULT_CONNECTION_AGE),
        }
    }
}

/// The address that was given, else this port of all addresses where there is a cluster.
fn in_cluster(given: Option<OptionalAddress>, port: u16, kubernetes: bool) -> Option<SocketAddr> {
    match given {
        Some(OptionalAddress(address)) => address.filter(|_| kubernetes),
        None => kubernetes.then(|| SocketAddr::from(([0, 0, 0, 0], port))),
    }
}

/// `none`, an address, or `:port` as Go programs write it.
fn optional_address(text: &str) -> Result<OptionalAddress, String> {
    if matches!(text, "none" | "") {
        return Ok(OptionalAddress(None));
    }
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse()
        .map(|address| OptionalAddress(Some(address)))
        .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:15010"))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Config {
        let flags = ["meshd", "run", "--config-dir", "c", "--state-dir", "s"].iter().chain(flags);
        let Command::Run(args) = Cli::try_parse_from(flags).unwrap().command else { panic!("not run") };
        args.into_config(&CpuBudget { cpus: 2, quota: None })
    }

    #[test]
    fn the_ports_are_istios() {
        let config = parse(&[]);
        assert_eq!(config.grpc, Some(([127, 0, 0, 1], 15010).into()));
        assert_eq!(config.secure_grpc, Some(([0, 0, 0, 0], 15012).into()));
        assert_eq!(config.monitoring, ([0, 0, 0, 0], 15014).into());
        assert_eq!((config.push_workers, config.streams_per_second), (2, 25));
    }

    #[test]
    fn istiods_spellings_work() {
        let config = parse(&["--grpcAddr", "none", "--secureGRPCAddr", ":1234", "--clusterID", "west", "--san", "a,b"]);
        assert_eq!((config.grpc, config.secure_grpc), (None, Some(([0, 0, 0, 0], 1234).into())));
        assert_eq!(config.cluster, "west");
        let names = config.serving_names();
        assert!(
            names.contains(&"istiod.istio-system.svc".to_owned()) && names.ends_with(&["a".to_owned(), "b".to_owned()])
        );
    }

    #[test]
    fn a_cluster_a_folder_or_both_are_the_source() {
        assert!(parse(&[]).kubernetes.is_none());
        let both = parse(&["--kubernetes", "--revision", "canary"]).kubernetes.unwrap();
        assert_eq!(both.name_of("istio"), "istio-canary");
        let alone = ["meshd", "run", "--state-dir", "s", "--kubernetes", "--kubeconfig", "k", "--revision", ""];
        let Command::Run(args) = Cli::try_parse_from(alone).unwrap().command else { panic!("not run") };
        let config = args.into_config(&CpuBudget { cpus: 2, quota: None });
        assert_eq!(config.config_dir, None);
        let kubernetes = config.kubernetes.unwrap();
        assert_eq!(kubernetes.name_of("istio"), "istio");
        assert_eq!(kubernetes.kubeconfig, Some(PathBuf::from("k")));
        assert!(Cli::try_parse_from(["meshd", "run", "--state-dir", "s"]).is_err(), "no source at all");
        assert!(
            Cli::try_parse_from(["meshd", "run", "--state-dir", "s", "--config-dir", "c", "--kubeconfig", "k"])
                .is_err()
        );
    }

    #[test]
    fn a_cluster_has_webhooks_and_readiness() {
        let config = parse(&[]);
        assert_eq!((config.webhooks, config.readiness), (None, None));
        let config = parse(&["--kubernetes"]);
        let on = |port: u16| Some(SocketAddr::from(([0, 0, 0, 0], port)));
        assert_eq!((config.webhooks, config.readiness), (on(15017), on(8080)));
        let config = parse(&["--kubernetes", "--httpsAddr", "none", "--httpAddr", ":1"]);
        assert_eq!((config.webhooks, config.readiness), (None, on(1)));
    }

    #[test]
    fn the_policy_says_what_tokens_are_for() {
        assert_eq!(parse(&[]).token_audiences, ["istio-ca"]);
        assert_eq!(parse(&["--token-audiences", "a,b"]).token_audiences, ["a", "b"]);
        assert_eq!(parse(&["--token-audiences", ""]).token_audiences, ["istio-ca"], "nothing is not anything");
        assert_eq!(parse(&["--jwt-policy", "first-party-jwt"]).token_audiences, [""; 0]);
    }

    #[test]
    fn durations_are_gos() {
        let config = parse(&["--debounce-after", "1m30s", "--debounce-endpoints", "true"]);
        assert_eq!(config.debounce.quiet, Duration::from_secs(90));
        assert_eq!(config.debounce.endpoints, EndpointLane::WithConfig);
        assert!(Cli::try_parse_from(["meshd", "token", "--state-dir", "s", "-n", "shop", "--ttl", "soon"]).is_err());
    }
}
