//! Static configuration: environment and flags, read once into one value.
//!
//! Names and defaults are those of Istio's agent (pilot/cmd/pilot-agent/options/options.go), relative paths are relative to
//! the working directory as there: a container starts in `/`, a process on a plain machine wherever it likes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_api::identity::{SpiffeId, TrustDomain};
use mesh_api::ids::{Name, Namespace};
use mesh_api::mesh_config::proxy::{AuthenticationPolicy, ProxyConfig};
use mesh_api::names;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};
use serde_json::{Map, Value};

use crate::args::{ProxyArgs, Role};

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
    /// File with the bootstrap token.
    pub token: PathBuf,
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
    /// Time for connections to end after the proxy was told to stop.
    pub drain: Duration,
    /// Mark of the proxy's own connections.
    pub socket_mark: Option<u32>,
    /// Lifetime asked for certificates.
    pub cert_ttl: Duration,
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
    /// The metadata that the variables make is not acceptable.
    #[error("{}* variables do not make valid node metadata", names::META_PREFIX_ENV)]
    Metadata(#[source] serde_json::Error),
}

/// Where the control plane is when nothing says so.
const DEFAULT_DISCOVERY_ADDRESS: &str = "istiod.istio-system.svc:15012";

/// Time for connections to end (`terminationDrainDuration`).
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Default worker threads of a sidecar (Istio's `concurrency: 2` of old; the performance notes give the reason).
const DEFAULT_WORKERS: usize = 2;

/// Reads the environment through `env`.
///
/// # Errors
/// The first setting that is missing or cannot be used.
pub fn read(args: &ProxyArgs, env: &impl Env) -> Result<Bootstrap, BootstrapError> {
    let mut env = Layered { process: env, metadata: BTreeMap::new() };
    let config = proxy_config(&env)?;
    env.metadata = config.proxy_metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let namespace = env.required(names::POD_NAMESPACE_ENV, "which namespace the workload is in")?;
    let name = env.required(names::POD_NAME_ENV, "what the workload is called")?;
    let address: IpAddr = env
        .parsed(names::INSTANCE_IP_ENV, "an IP address")?
        .ok_or(BootstrapError::Missing(names::INSTANCE_IP_ENV, "at which address the workload is reached"))?;
    let account = env.get(names::SERVICE_ACCOUNT_ENV).unwrap_or_else(|| "default".to_owned());
    let trust_domain = env.get(names::TRUST_DOMAIN_ENV).unwrap_or_else(|| "cluster.local".to_owned());
    let identity = identity(&trust_domain, &namespace, &account)?;
    let domain = match args.domain.as_str() {
        "" => format!("{namespace}.svc.cluster.local"),
        domain => domain.to_owned(),
    };
    let mut metadata = metadata(&env)?;
    metadata.name = Str::from(name.as_str());
    metadata.namespace = Str::from(namespace.as_str());
    metadata.service_account = Str::from(account.as_str());
    if metadata.addresses.is_empty() {
        metadata.addresses = vec![address];
    }
    metadata.istio_version = Str::from(env!("CARGO_PKG_VERSION"));
    let node = NodeInfo {
        kind: match args.role {
            Role::Sidecar => ProxyKind::Sidecar,
            Role::Router => ProxyKind::Router,
        },
        address,
        name: Str::from(name.as_str()),
        namespace: Str::from(namespace.as_str()),
        dns_domain: Str::from(domain.as_str()),
        service_cluster: Str::from(service_cluster(&metadata, &namespace)),
        locality: locality(&metadata),
        takes_marks: true,
        metadata,
    };
    let discovery_address = config.discovery_address.as_deref().unwrap_or(DEFAULT_DISCOVERY_ADDRESS).to_owned();
    let ca_address = env.get(names::CA_ADDR_ENV).unwrap_or_else(|| discovery_address.clone());
    let host = discovery_address.rsplit_once(':').map_or(discovery_address.as_str(), |(host, _)| host);
    let control_plane_name = env.get("ISTIOD_SAN").unwrap_or_else(|| host.to_owned());
    let concurrency = args.concurrency.or_else(|| config.concurrency.and_then(|count| usize::try_from(count).ok()));
    Ok(Bootstrap {
        identity,
        plaintext_control_plane: config.control_plane_auth_policy == Some(AuthenticationPolicy::None),
        control_plane_name,
        ca_address,
        root_cert: path(&env, "XDS_ROOT_CA", "./var/run/secrets/istio/root-cert.pem"),
        token: path(&env, "LATEEN_TOKEN_FILE", "./var/run/secrets/tokens/istio-token"),
        workers: mesh_api_rt::runtime::CpuBudget::detect().workers(concurrency, DEFAULT_WORKERS),
        admin: (
            IpAddr::from([127, 0, 0, 1]),
            port("proxyAdminPort", config.proxy_admin_port, names::PROXY_ADMIN_PORT)?,
        ),
        status_port: port("statusPort", config.status_port, names::STATUS_PORT)?,
        readiness_port: env.parsed("ENVOY_STATUS_PORT", "a port")?.unwrap_or(names::READINESS_PORT),
        metrics_port: env.parsed("ENVOY_PROMETHEUS_PORT", "a port")?.unwrap_or(names::PROXY_METRICS_PORT),
        drain: config.termination_drain_duration.map_or(DEFAULT_DRAIN, |text| text.0),
        socket_mark: Some(args.socket_mark).filter(|mark| *mark != 0),
        cert_ttl: env.duration("SECRET_TTL")?.unwrap_or(Duration::from_secs(24 * 3600)),
        discovery_address,
        node,
    })
}

impl Bootstrap {
    /// Whether this is a gateway: everything it serves is for others.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.node.kind == ProxyKind::Router
    }
}

/// Where variables come from.
pub trait Env {
    /// The variable's value, if it is set.
    fn get(&self, name: &str) -> Option<String>;
    /// All variables.
    fn all(&self) -> Vec<(String, String)>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn all(&self) -> Vec<(String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }
}

/// The process environment over `proxyMetadata` of the proxy configuration, which Istio treats as environment too.
struct Layered<'a, E> {
    process: &'a E,
    metadata: BTreeMap<String, String>,
}

impl<E: Env> Layered<'_, E> {
    fn get(&self, name: &str) -> Option<String> {
        self.process.get(name).or_else(|| self.metadata.get(name).cloned()).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &'static str, meaning: &'static str) -> Result<String, BootstrapError> {
        self.get(name).ok_or(BootstrapError::Missing(name, meaning))
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, BootstrapError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(BootstrapError::Invalid { name: name.to_owned(), value, expected }),
        }
    }

    fn duration(&self, name: &'static str) -> Result<Option<Duration>, BootstrapError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match mesh_api::duration::parse(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(BootstrapError::Invalid { name: name.to_owned(), value, expected: "a duration such as 24h" }),
        }
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

fn proxy_config<E: Env>(env: &Layered<'_, E>) -> Result<ProxyConfig, BootstrapError> {
    match env.get(names::PROXY_CONFIG_ENV) {
        Some(text) => serde_yaml_ng::from_str(&text).map_err(BootstrapError::ProxyConfig),
        None => Ok(ProxyConfig::default()),
    }
}

fn identity(trust_domain: &str, namespace: &str, account: &str) -> Result<SpiffeId, BootstrapError> {
    let trust_domain = TrustDomain::parse(trust_domain).map_err(|_| BootstrapError::Invalid {
        name: names::TRUST_DOMAIN_ENV.to_owned(),
        value: trust_domain.to_owned(),
        expected: "a trust domain",
    })?;
    Ok(SpiffeId { trust_domain, namespace: Namespace::from(namespace), service_account: Name::from(account) })
}

/// `ISTIO_META_<KEY>` and `ISTIO_METAJSON_<KEY>` become metadata (pkg/bootstrap/config.go).
fn metadata<E: Env>(env: &Layered<'_, E>) -> Result<NodeMetadata, BootstrapError> {
    let mut keys = Map::new();
    let lower = env.metadata.iter().map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in lower.chain(env.process.all()) {
        if let Some(key) = name.strip_prefix(names::META_PREFIX_ENV) {
            keys.insert(key.to_owned(), Value::String(value));
        } else if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
            let value = serde_json::from_str(&value).map_err(BootstrapError::Metadata)?;
            keys.insert(key.to_owned(), value);
        }
    }
    serde_json::from_value(Value::Object(keys)).map_err(BootstrapError::Metadata)
}

/// `<app>.<namespace>`, as the injector sets `--service-cluster`.
fn service_cluster(metadata: &NodeMetadata, namespace: &str) -> String {
    let app = metadata.labels.get(names::APP_LABEL).filter(|app| !app.is_empty());
    app.map_or_else(|| "istio-proxy".to_owned(), |app| format!("{app}.{namespace}"))
}

/// `region/zone/subzone` of the locality label, dots allowed in place of slashes.
fn locality(metadata: &NodeMetadata) -> Locality {
    let Some(text) = metadata.labels.get(names::LOCALITY_LABEL) else { return Locality::default() };
    let separator = if text.contains('/') { '/' } else { '.' };
    let mut parts = text.splitn(3, separator).map(Str::from);
    Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        subzone: parts.next().unwrap_or_default(),
    }
}

fn path<E: Env>(env: &Layered<'_, E>, name: &str, default: &str) -> PathBuf {
    PathBuf::from(env.get(name).unwrap_or_else(|| default.to_owned()))
}
