//! Static configuration: environment, flags and the files of the pod, read once into one value.
//!
//! Names and defaults are those of Istio's agent (pilot/cmd/pilot-agent/options/options.go), relative paths are relative to
//! the working directory as there: a container starts in `/`, a process on a plain machine wherever it likes.

mod env;
mod node;
mod refused;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::identity::{SpiffeId, TrustDomain};
use mesh_api::ids::{Name, Namespace};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::mesh_config::proxy::{AuthenticationPolicy, ProxyConfig};
use mesh_api::names;
use mesh_api::text::Str;
use mesh_api_rt::runtime::CpuBudget;
use mesh_api_xds::node::{InterceptionMode, NodeInfo, ProxyKind};
use mesh_ca::key::KeyKind;
use mesh_ca::rotation::RenewalPolicy;

use self::env::Layered;
pub use self::env::{Env, ProcessEnv, read_small};
use self::node::PodFiles;
use crate::agent::pod;
use crate::args::ProxyArgs;

/// Everything that is fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Who the proxy says it is.
    pub node: NodeInfo,
    /// The identity it asks certificates for.
    pub identity: SpiffeId,
    /// Where the control plane is, `host:port`.
    pub discovery_address: String,
    /// Where certificates are requested, `host:port`.
    pub ca_address: String,
    /// The control plane is spoken to in plaintext, without certificates (`controlPlaneAuthPolicy: NONE`).
    pub plaintext_control_plane: bool,
    /// The name that the control plane's certificate must have.
    pub control_plane_name: String,
    /// File with the trust anchors for the control plane.
    pub root_cert: PathBuf,
    /// File with the trust anchors for the certificate authority, where they differ.
    pub ca_root_cert: Option<PathBuf>,
    /// File with the bootstrap token.
    pub token: PathBuf,
    /// Folder with a certificate that proves who the workload is where there is no token (`PROV_CERT`).
    pub provisioned: Option<PathBuf>,
    /// Folder that certificates are written to, for programs that want files (`OUTPUT_CERTS`).
    pub output_certs: Option<PathBuf>,
    /// Kind of key that certificates are asked for.
    pub key_kind: KeyKind,
    /// When certificates are renewed.
    pub renewal: RenewalPolicy,
    /// Worker threads.
    pub workers: usize,
    /// Address and port of the admin interface.
    pub admin: (IpAddr, u16),
    /// Port of merged metrics and agent endpoints.
    pub status_port: u16,
    /// Port of readiness.
    pub readiness_port: u16,
    /// Port of metrics.
    pub metrics_port: u16,
    /// How the proxy ends after it was told to stop.
    pub drain: DrainSettings,
    /// How long it goes on serving what is open after another process has taken over (`LATEEN_HANDOVER_DRAIN`).
    pub handover_drain: Duration,
    /// Mark of the proxy's own connections.
    pub socket_mark: Option<u32>,
    /// Lifetime asked for certificates.
    pub cert_ttl: Duration,
    /// What of the application is asked on the status port.
    pub application: Application,
}

/// How the proxy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long it goes on serving after it was told to stop (`terminationDrainDuration`).
    pub duration: Duration,
    /// It ends as soon as it has no connection after the minimum instead (`EXIT_ON_ZERO_ACTIVE_CONNECTIONS`).
    pub until_idle: Option<Duration>,
}

/// What the injector says of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// `ISTIO_KUBE_APP_PROBERS`: probes by path, as JSON.
    pub probers: Option<String>,
    /// `ISTIO_PROMETHEUS_ANNOTATIONS`: where its metrics are, as JSON.
    pub metrics: Option<String>,
    /// The annotation with several such places.
    pub scrape_targets: Option<Str>,
    /// Probes go to `localhost` instead of the pod's address (`REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION`).
    pub probe_localhost: bool,
    /// HTTPS probes may speak HTTP/2 (`ISTIO_ENABLE_HTTP2_PROBING`).
    pub probe_http2: bool,
    /// Metrics are shown to this host only (`METRICS_LOCALHOST_ACCESS_ONLY`).
    pub metrics_local_only: bool,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A variable is not set.
    #[error("environment variable {0} is not set; it says {1}")]
    Missing(&'static str, &'static str),
    /// A variable does not parse.
    #[error("environment variable {name}: {value:?} is not {expected}")]
    Invalid {
        /// Which.
        name: String,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The proxy configuration does not parse.
    #[error("environment variable {} does not hold a ProxyConfig", names::PROXY_CONFIG_ENV)]
    ProxyConfig(#[source] serde_yaml_ng::Error),
    /// The mesh configuration or the annotation does not parse.
    #[error("{0} does not hold a configuration of the proxy")]
    Config(String, #[source] serde_yaml_ng::Error),
    /// The metadata that the variables make is not acceptable.
    #[error("{}* variables do not make valid node metadata", names::META_PREFIX_ENV)]
    Metadata(#[source] serde_json::Error),
    /// A file is there but cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A file of the downward API is not one.
    #[error("line {line} of {path} is not of the form key=\"value\"")]
    PodFile {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
    },
    /// Asks for what this proxy does not do.
    #[error("environment variable {name}={value} is not supported: {instead}")]
    Refused {
        /// Which.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is done instead.
        instead: &'static str,
    },
}

/// Time for connections to end (`terminationDrainDuration`).
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Time for what is open when another process takes over: that of Envoy's hot restart (`--parent-shutdown-time-s`).
const DEFAULT_HANDOVER_DRAIN: Duration = Duration::from_secs(900);

/// Default worker threads of a sidecar (Istio's `concurrency: 2` of old; the performance notes give the reason).
const DEFAULT_WORKERS: usize = 2;

/// Reads the environment through `env`.
///
/// # Errors
/// The first setting that is missing or cannot be used.
pub fn read(args: &ProxyArgs, env: &impl Env) -> Result<Bootstrap, BootstrapError> {
    let mut env = Layered { process: env, metadata: BTreeMap::new() };
    let files = PodFiles::read(env.process, Path::new(pod::FOLDER))?;
    let config = proxy_config(args, &env, &files)?;
    env.metadata = config.proxy_metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    refused::check(&env)?;
    let node = node::read(args, &env, &config, files)?;
    let trust_domain = env.get(names::TRUST_DOMAIN_ENV).unwrap_or_else(|| "cluster.local".to_owned());
    let identity = identity(&trust_domain, &node.namespace, &node.metadata.service_account)?;
    let discovery_address = config.discovery_address().to_owned();
    let ca_address = env.get(names::CA_ADDR_ENV).unwrap_or_else(|| discovery_address.clone());
    let host = discovery_address.rsplit_once(':').map_or(discovery_address.as_str(), |(host, _)| host);
    let control_plane_name =
        env.get("ISTIOD_SAN").unwrap_or_else(|| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    let root_cert = root_cert(&env)?;
    let loopback = match node.address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    Ok(Bootstrap {
        identity,
        plaintext_control_plane: config.control_plane_auth_policy == Some(AuthenticationPolicy::None),
        control_plane_name,
        ca_address,
        ca_root_cert: env.folder("CA_ROOT_CA"),
        root_cert,
        token: token(&env)?,
        provisioned: env.folder("PROV_CERT"),
        output_certs: env.folder("OUTPUT_CERTS"),
        key_kind: key_kind(&env)?,
        renewal: renewal(&env)?,
        workers: workers(args, &env, &config, CpuBudget::detect())?,
        admin: (loopback, port("proxyAdminPort", config.proxy_admin_port, names::PROXY_ADMIN_PORT)?),
        status_port: port("statusPort", config.status_port, names::STATUS_PORT)?,
        readiness_port: env.parsed("ENVOY_STATUS_PORT", "a port")?.unwrap_or(names::READINESS_PORT),
        metrics_port: env.parsed("ENVOY_PROMETHEUS_PORT", "a port")?.unwrap_or(names::PROXY_METRICS_PORT),
        drain: drain(&env, &config)?,
        handover_drain: env.duration("LATEEN_HANDOVER_DRAIN")?.unwrap_or(DEFAULT_HANDOVER_DRAIN),
        socket_mark: Some(args.socket_mark).filter(|mark| *mark != 0),
        cert_ttl: env.duration("SECRET_TTL")?.unwrap_or(Duration::from_secs(24 * 3600)),
        application: application(&env, &node)?,
        discovery_address,
        node,
    })
}

impl Bootstrap {
    /// Whether the workload sees the addresses of its clients (interception mode TPROXY).
    #[must_use]
    pub fn keeps_clients_address(&self) -> bool {
        !self.is_gateway() && self.node.metadata.interception_mode == InterceptionMode::Tproxy
    }

    /// Whether this is a gateway: everything it serves is for others.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.node.kind == ProxyKind::Router
    }

    /// Listeners that redirection leads to, which are opened before configuration names them.
    #[must_use]
    pub fn early_listeners(&self) -> Vec<(Str, SocketAddr)> {
        if self.is_gateway() || self.node.metadata.interception_mode != InterceptionMode::Redirect {
            // Nothing is redirected, or the socket needs options that configuration brings.
            return Vec::new();
        }
        let listeners = [
            (names::VIRTUAL_OUTBOUND_LISTENER, names::OUTBOUND_PORT),
            (names::VIRTUAL_INBOUND_LISTENER, names::INBOUND_PORT),
        ];
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let has = |any: &IpAddr| self.node.metadata.addresses.iter().any(|own| own.is_ipv4() == any.is_ipv4());
        let families = any.into_iter().filter(has);
        let of = |any| listeners.map(|(name, port)| (Str::from(name), SocketAddr::new(any, port)));
        families.flat_map(of).collect()
    }
}

fn port(name: &str, value: Option<u32>, default: u16) -> Result<u16, BootstrapError> {
    let Some(value) = value else { return Ok(default) };
    u16::try_from(value).map_err(|_| BootstrapError::Invalid {
        name: format!("{}: {name}", names::PROXY_CONFIG_ENV),
        value: value.to_string(),
        expected: "a port",
    })
}

/// The file of the mesh, then the variable, then the pod's annotation: the later counts, field by field
/// (istio/istio: pilot/cmd/pilot-agent/config/config.go).
fn proxy_config<E: Env>(
    args: &ProxyArgs,
    env: &Layered<'_, E>,
    files: &PodFiles,
) -> Result<ProxyConfig, BootstrapError> {
    let mut config = ProxyConfig::default();
    let path = Path::new(&args.mesh_config);
    let file = env.process.file(path).map_err(|source| BootstrapError::File { path: path.to_owned(), source })?;
    if let Some(text) = file.filter(|text| !text.trim().is_empty()) {
        let mesh: MeshConfig = serde_yaml_ng::from_str(&text)
            .map_err(|source| BootstrapError::Config(args.mesh_config.clone(), source))?;
        config = mesh.default_config.unwrap_or_default();
    }
    if let Some(text) = env.get(names::PROXY_CONFIG_ENV) {
        config = config.overlaid(&serde_yaml_ng::from_str(&text).map_err(BootstrapError::ProxyConfig)?);
    }
    if let Some(text) = files.annotations.get(names::PROXY_CONFIG_ANNOTATION) {
        let name = || format!("annotation {}", names::PROXY_CONFIG_ANNOTATION);
        let over = serde_yaml_ng::from_str(text).map_err(|source| BootstrapError::Config(name(), source))?;
        config = config.overlaid(&over);
    }
    Ok(config)
}

fn identity(trust_domain: &str, namespace: &str, account: &str) -> Result<SpiffeId, BootstrapError> {
    let trust_domain = TrustDomain::parse(trust_domain).map_err(|_| BootstrapError::Invalid {
        name: names::TRUST_DOMAIN_ENV.to_owned(),
        value: trust_domain.to_owned(),
        expected: "a trust domain",
    })?;
    Ok(SpiffeId { trust_domain, namespace: Namespace::from(namespace), service_account: Name::from(account) })
}

/// Where the control plane's roots are: said, or by who signs its certificate (`PILOT_CERT_PROVIDER`).
fn root_cert<E: Env>(env: &Layered<'_, E>) -> Result<PathBuf, BootstrapError> {
    if let Some(path) = env.folder("XDS_ROOT_CA") {
        return Ok(path);
    }
    let provider = env.get("PILOT_CERT_PROVIDER").unwrap_or_else(|| "istiod".to_owned());
    Ok(PathBuf::from(match provider.as_str() {
        "istiod" => "./var/run/secrets/istio/root-cert.pem",
        "kubernetes" => "./var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        "custom" => "./etc/certs/root-cert.pem",
        // A signer's name: its roots are distributed as those of the control plane.
        signer if signer.starts_with("k8s.io/") => "./var/run/secrets/istio/root-cert.pem",
        _ => {
            let name = "PILOT_CERT_PROVIDER".to_owned();
            let expected = "istiod, kubernetes, custom or k8s.io/<signer>";
            return Err(BootstrapError::Invalid { name, value: provider, expected });
        }
    }))
}

fn token<E: Env>(env: &Layered<'_, E>) -> Result<PathBuf, BootstrapError> {
    let default = match env.get("JWT_POLICY").as_deref() {
        None | Some("third-party-jwt") => "./var/run/secrets/tokens/istio-token",
        Some("first-party-jwt") => "./var/run/secrets/kubernetes.io/serviceaccount/token",
        Some(other) => {
            let expected = "third-party-jwt or first-party-jwt";
            return Err(BootstrapError::Invalid { name: "JWT_POLICY".to_owned(), value: other.to_owned(), expected });
        }
    };
    Ok(env.path("LATEEN_TOKEN_FILE", default))
}

/// ECDSA on P-256 unless said otherwise; Istio's agent makes RSA keys unless `ECC_SIGNATURE_ALGORITHM` is set.
fn key_kind<E: Env>(env: &Layered<'_, E>) -> Result<KeyKind, BootstrapError> {
    let invalid =
        |name: &str, value: String, expected| BootstrapError::Invalid { name: name.to_owned(), value, expected };
    if let Some(value) = env.get("ECC_SIGNATURE_ALGORITHM").filter(|value| value != "ECDSA") {
        return Err(invalid("ECC_SIGNATURE_ALGORITHM", value, "ECDSA"));
    }
    match env.get("WORKLOAD_RSA_KEY_SIZE") {
        Some(size) if size == "2048" => return Ok(KeyKind::Rsa2048),
        Some(size) if size == "4096" => return Ok(KeyKind::Rsa4096),
        Some(size) => return Err(invalid("WORKLOAD_RSA_KEY_SIZE", size, "2048 or 4096")),
        None => {}
    }
    match env.get("ECC_CURVE") {
        None => Ok(KeyKind::EcdsaP256),
        Some(curve) if curve == "P256" => Ok(KeyKind::EcdsaP256),
        Some(curve) if curve == "P384" => Ok(KeyKind::EcdsaP384),
        Some(curve) => Err(invalid("ECC_CURVE", curve, "P256 or P384")),
    }
}

fn renewal<E: Env>(env: &Layered<'_, E>) -> Result<RenewalPolicy, BootstrapError> {
    let default = RenewalPolicy::default();
    Ok(RenewalPolicy {
        grace_ratio: env.parsed("SECRET_GRACE_PERIOD_RATIO", "a share such as 0.5")?.unwrap_or(default.grace_ratio),
        jitter: env.parsed("SECRET_GRACE_PERIOD_RATIO_JITTER", "a share such as 0.01")?.unwrap_or(default.jitter),
    })
}

/// The flag, the configuration, the CPU limit, in this order. 0 stands for the limit, or for all CPUs where there is none.
fn workers<E: Env>(
    args: &ProxyArgs,
    env: &Layered<'_, E>,
    config: &ProxyConfig,
    mut budget: CpuBudget,
) -> Result<usize, BootstrapError> {
    // Without a limit the kubelet writes the CPUs of the node, which then is none.
    let limit: Option<usize> = env.parsed("ISTIO_CPU_LIMIT", "a number of CPUs")?;
    let limit = limit.filter(|limit| (1..budget.cpus).contains(limit));
    if let Some(limit) = limit {
        #[expect(clippy::cast_precision_loss, reason = "less than the CPUs of a machine")]
        let limit = limit as f64;
        budget.quota = Some(budget.quota.map_or(limit, |quota| quota.min(limit)));
    }
    let concurrency = args.concurrency.or_else(|| config.concurrency.and_then(|count| usize::try_from(count).ok()));
    let concurrency = concurrency.filter(|count| *count != 0 || budget.quota.is_none());
    Ok(budget.workers(concurrency, DEFAULT_WORKERS))
}

fn drain<E: Env>(env: &Layered<'_, E>, config: &ProxyConfig) -> Result<DrainSettings, BootstrapError> {
    let legacy: Option<u64> = env.parsed("TERMINATION_DRAIN_DURATION_SECONDS", "a number of seconds")?;
    let configured = config.termination_drain_duration.map(|text| text.0);
    let minimum = env.duration("MINIMUM_DRAIN_DURATION")?.unwrap_or(DEFAULT_DRAIN);
    Ok(DrainSettings {
        duration: configured.or_else(|| legacy.map(Duration::from_secs)).unwrap_or(DEFAULT_DRAIN),
        until_idle: env.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")?.unwrap_or(false).then_some(minimum),
    })
}

fn application<E: Env>(env: &Layered<'_, E>, node: &NodeInfo) -> Result<Application, BootstrapError> {
    Ok(Application {
        probers: env.get("ISTIO_KUBE_APP_PROBERS"),
        metrics: env.get("ISTIO_PROMETHEUS_ANNOTATIONS"),
        scrape_targets: node.metadata.annotations.get("prometheus.istio.io/scrape-targets").cloned(),
        probe_localhost: env.flag("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION")?.unwrap_or(false),
        probe_http2: env.flag("ISTIO_ENABLE_HTTP2_PROBING")?.unwrap_or(true),
        metrics_local_only: env.flag("METRICS_LOCALHOST_ACCESS_ONLY")?.unwrap_or(false),
    })
}
