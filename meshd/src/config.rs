//! Everything that can be set, read once at start into one struct; no flag and no variable is read later.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_api::identity::TrustDomain;
use mesh_api::ids::{ClusterId, Name, Namespace, Revision};
use mesh_api::text::Str;
use mesh_ca::issue::Lifetimes;
use mesh_ca::selfsigned::DEFAULT_ROOT_TTL;
use meshd_core::debounce::DebounceConfig;
use meshd_core::world::MeshConfigPlace;

/// The settings of a control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of YAML and JSON files as a source of configuration.
    pub config_dir: Option<PathBuf>,
    /// The cluster as a source of configuration; `None` runs without one.
    pub kubernetes: Option<KubernetesConfig>,
    /// Folder of what must survive a restart: the authority's key, the keys of tokens, last good versions of files. Only its
    /// owner may enter it; one process uses it at a time.
    pub state_dir: PathBuf,
    /// Address of the plaintext port for xDS and certificates; `None` is no such port.
    pub grpc: Option<SocketAddr>,
    /// Address of the TLS port; `None` is no such port.
    pub secure_grpc: Option<SocketAddr>,
    /// Address of metrics, readiness and debug pages.
    pub monitoring: SocketAddr,
    /// Address of the webhooks, which take a cluster; `None` is no such port.
    pub webhooks: Option<SocketAddr>,
    /// Address of readiness alone, as kubelets ask for it; `None` is no such port.
    pub readiness: Option<SocketAddr>,
    /// Whether the webhooks inject pods.
    pub injects: bool,
    /// Whether ServiceEntries without addresses get some, in a cluster.
    pub allocates: bool,
    /// Whether the plaintext port may be on an address that other machines reach.
    pub allow_plaintext: bool,
    /// Trust domain, which the mesh configuration must then name too; `None` takes that of the mesh configuration.
    pub trust_domain: Option<TrustDomain>,
    /// Cluster of the objects of the folder, and of proxies that name none.
    pub cluster: ClusterId,
    /// Namespace that the control plane runs in: part of its identity and its names.
    pub namespace: Str,
    /// Namespace of objects that name none.
    pub default_namespace: Str,
    /// Names under which proxies reach the TLS port, besides the usual ones.
    pub dns_names: Vec<String>,
    /// Folder of a plugged-in authority, in Istio's `cacerts` layout. Without it, the authority is self-signed.
    pub ca_certs: Option<PathBuf>,
    /// What tokens of service accounts must be meant for; none accepts those for the API server itself.
    pub token_audiences: Vec<String>,
    /// Lifetimes of issued certificates.
    pub lifetimes: Lifetimes,
    /// Lifetime of a self-signed root.
    pub root_ttl: Duration,
    /// When changes become a snapshot.
    pub debounce: DebounceConfig,
    /// Translations at one time.
    pub push_workers: usize,
    /// Streams that may begin in a second; 0 is no limit.
    pub streams_per_second: u32,
    /// How long a connection of a proxy lives.
    pub max_connection_age: Duration,
}

/// How the control plane uses the cluster that it serves.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// File that says how to reach the cluster; `None` looks where clients of Kubernetes look.
    pub kubeconfig: Option<PathBuf>,
    /// Revision of this control plane, `default` for the one without a name.
    pub revision: Revision,
    /// Name of the pod it runs in, its identity among replicas; empty outside a cluster.
    pub pod_name: Str,
    /// Service account it runs as; empty outside a cluster.
    pub service_account: Str,
}

/// The revision that has no suffix in the names of its objects.
pub const DEFAULT_REVISION: &str = "default";

impl KubernetesConfig {
    /// The name of an object that each revision has for itself: `base`, or `base-REVISION`.
    #[must_use]
    pub fn name_of(&self, base: &str) -> String {
        match self.revision.as_str() {
            "" | DEFAULT_REVISION => base.to_owned(),
            revision => format!("{base}-{revision}"),
        }
    }
}

/// Source: istiod `--keepaliveMaxServerConnectionAge`.
pub const DEFAULT_CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);

impl Config {
    /// The defaults, with ports that the kernel chooses on loopback: what a test or an embedder starts from.
    #[must_use]
    pub fn on_loopback(config_dir: PathBuf, state_dir: PathBuf) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            config_dir: Some(config_dir),
            kubernetes: None,
            state_dir,
            grpc: Some(any_port),
            secure_grpc: Some(any_port),
            monitoring: any_port,
            webhooks: None,
            readiness: None,
            injects: true,
            allocates: true,
            allow_plaintext: false,
            trust_domain: None,
            cluster: ClusterId::from("Kubernetes"),
            namespace: Str::from(mesh_api::names::ROOT_NAMESPACE),
            default_namespace: Str::from("default"),
            dns_names: Vec::new(),
            ca_certs: None,
            token_audiences: vec![mesh_ca::token::AUDIENCE.to_owned()],
            lifetimes: Lifetimes::default(),
            root_ttl: DEFAULT_ROOT_TTL,
            debounce: DebounceConfig::default(),
            push_workers: 2,
            streams_per_second: 0,
            max_connection_age: DEFAULT_CONNECTION_AGE,
        }
    }

    /// Where the mesh configuration is.
    #[must_use]
    pub fn mesh_config(&self) -> MeshConfigPlace {
        match &self.kubernetes {
            Some(kubernetes) => MeshConfigPlace {
                namespace: Namespace::from(&self.namespace),
                name: Name::from(kubernetes.name_of(mesh_api::names::MESH_CONFIG_MAP)),
            },
            None => MeshConfigPlace::default(),
        }
    }

    /// All names of the TLS port: those that Istio's agents ask for, our own, and those that were set.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        let namespace = &self.namespace;
        let domain = mesh_api::names::CLUSTER_DOMAIN;
        let mut names = vec![
            format!("istiod.{namespace}.svc"),
            format!("istiod.{namespace}.svc.{domain}"),
            format!("meshd.{namespace}.svc"),
            "istiod".to_owned(),
            "meshd".to_owned(),
            "localhost".to_owned(),
        ];
        if let Some(kubernetes) = &self.kubernetes
            && kubernetes.revision.as_str() != DEFAULT_REVISION
        {
            let service = kubernetes.name_of("istiod");
            names.extend([
                format!("{service}.{namespace}.svc"),
                format!("{service}.{namespace}.svc.{domain}"),
                service,
            ]);
        }
        for name in &self.dns_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}
