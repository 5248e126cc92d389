//! Who the proxy says it is: id and metadata as Istio's agent makes them, so that a real istiod serves it too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use mesh_api::mesh_config::proxy::{ProxyConfig, TracingServiceName};
use mesh_api::names;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};
use serde_json::{Value, json};

use super::BootstrapError;
use super::env::{Env, Layered};
use crate::agent::pod;
use crate::args::{ProxyArgs, Role};

/// Name of the service where nothing says one.
const NO_SERVICE: &str = "istio-proxy";

/// What the downward API has written.
#[derive(Debug, Default)]
pub(super) struct PodFiles {
    pub(super) labels: BTreeMap<Str, Str>,
    pub(super) annotations: BTreeMap<Str, Str>,
}

impl PodFiles {
    /// Empty where there are none: a process on a plain machine has no kubelet.
    pub(super) fn read(env: &impl Env, folder: &Path) -> Result<Self, BootstrapError> {
        let read = |name: &str| {
            let path = folder.join(name);
            let text = match env.file(&path) {
                Ok(text) => text.unwrap_or_default(),
                Err(source) => return Err(BootstrapError::File { path, source }),
            };
            pod::parse(&text).map_err(|line| BootstrapError::PodFile { path, line })
        };
        Ok(Self { labels: read("labels")?, annotations: read("annotations")? })
    }
}

pub(super) fn read<E: Env>(
    args: &ProxyArgs,
    env: &Layered<'_, E>,
    config: &ProxyConfig,
    files: PodFiles,
) -> Result<NodeInfo, BootstrapError> {
    let namespace = env.required(names::POD_NAMESPACE_ENV, "which namespace the workload is in")?;
    let name = env.required(names::POD_NAME_ENV, "what the workload is called")?;
    let mut metadata = metadata(env, config, files)?;
    metadata.name = Str::from(name.as_str());
    metadata.namespace = Str::from(namespace.as_str());
    let account = env.get(names::SERVICE_ACCOUNT_ENV).unwrap_or_else(|| "default".to_owned());
    metadata.service_account = Str::from(account);
    let addresses = addresses(env, &metadata.addresses)?;
    let address = addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    metadata.addresses = addresses;
    let domain = match args.domain.as_str() {
        "" => format!("{namespace}.svc.cluster.local"),
        domain => domain.to_owned(),
    };
    Ok(NodeInfo {
        kind: match args.role {
            Role::Sidecar => ProxyKind::Sidecar,
            Role::Router => ProxyKind::Router,
        },
        address,
        name: Str::from(name),
        namespace: Str::from(namespace.as_str()),
        dns_domain: Str::from(domain),
        service_cluster: Str::from(service_cluster(args, config, &metadata)),
        locality: locality(&metadata),
        takes_marks: true,
        metadata,
    })
}

/// Metadata of the variables, then what the agent knows itself.
fn metadata<E: Env>(
    env: &Layered<'_, E>,
    config: &ProxyConfig,
    files: PodFiles,
) -> Result<NodeMetadata, BootstrapError> {
    let mut keys = env.metadata_keys()?;
    if let Some(labels) = keys.get("LABELS").filter(|labels| labels.is_object()).cloned() {
        // istiod lays these under the labels of the pod.
        keys.entry("STATIC_LABELS").or_insert(labels);
    }
    for (key, name) in [("ENVOY_STATUS_PORT", "ENVOY_STATUS_PORT"), ("ENVOY_PROMETHEUS_PORT", "ENVOY_PROMETHEUS_PORT")]
    {
        if let Some(port) = env.parsed::<u16>(name, "a port")? {
            keys.insert(key.to_owned(), json!(port));
        }
    }
    if env.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")? == Some(true) {
        keys.insert("EXIT_ON_ZERO_ACTIVE_CONNECTIONS".to_owned(), json!("true"));
    }
    for name in ["POD_PORTS", "APP_CONTAINERS"] {
        let Some(Value::String(text)) = keys.get(name) else { continue };
        // An empty list is written as an empty text by the injector.
        if text.is_empty() {
            keys.remove(name);
        }
    }
    let mut metadata: NodeMetadata = serde_json::from_value(Value::Object(keys)).map_err(BootstrapError::Metadata)?;
    metadata.labels.extend(files.labels);
    metadata.annotations.extend(files.annotations);
    metadata.istio_version = Str::from(env!("CARGO_PKG_VERSION"));
    let config = serde_json::to_value(config).map_err(BootstrapError::Metadata)?;
    metadata.proxy_config = config.as_object().is_some_and(|config| !config.is_empty()).then_some(config);
    Ok(metadata)
}

/// The pod's own address first, because the control plane takes the first for it; then those of the interfaces.
fn addresses<E: Env>(env: &Layered<'_, E>, said: &[IpAddr]) -> Result<Vec<IpAddr>, BootstrapError> {
    let own: Option<IpAddr> = env.parsed(names::INSTANCE_IP_ENV, "an IP address")?;
    let several = env.get("INSTANCE_IPS").unwrap_or_default();
    let mut found: Vec<IpAddr> = own.into_iter().chain(said.iter().copied()).collect();
    for text in several.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let ip = text.parse().map_err(|_| BootstrapError::Invalid {
            name: "INSTANCE_IPS".to_owned(),
            value: several.clone(),
            expected: "IP addresses with commas between them",
        })?;
        found.push(ip);
    }
    if found.len() < 2 {
        // A dual stack pod is told one address by the downward API; the other one is on its interfaces. Only a family that
        // is missing is taken from there: a plain machine has addresses that are none of the workload's.
        let wants = |ip: &IpAddr| found.first().is_none_or(|own| own.is_ipv4() != ip.is_ipv4());
        let more: Vec<_> = env.process.interfaces().into_iter().filter(wants).collect();
        let in_pod = own.is_none() || env.process.get("KUBERNETES_SERVICE_HOST").is_some();
        found.extend(more.into_iter().filter(|_| in_pod));
    }
    if found.is_empty() {
        found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    }
    let mut unique = Vec::with_capacity(found.len());
    for ip in found {
        if !unique.contains(&ip) {
            unique.push(ip);
        }
    }
    Ok(unique)
}

/// istio/istio: pkg/bootstrap/config.go, `getServiceCluster`.
fn service_cluster(args: &ProxyArgs, config: &ProxyConfig, metadata: &NodeMetadata) -> String {
    let said = config.service_cluster.as_deref().filter(|name| !name.is_empty() && *name != NO_SERVICE);
    if let Some(said) = said {
        return said.to_owned();
    }
    let canonical = metadata.labels.get(names::CANONICAL_NAME_LABEL).map(Str::as_str).filter(|name| !name.is_empty());
    let namespace = &metadata.namespace;
    match (config.tracing_service_name, canonical) {
        (Some(TracingServiceName::CanonicalNameOnly), Some(name)) => return name.to_owned(),
        (Some(TracingServiceName::CanonicalNameAndNamespace), Some(name)) => return format!("{name}.{namespace}"),
        _ => {}
    }
    if !args.service_cluster.is_empty() && args.service_cluster != NO_SERVICE {
        return args.service_cluster.clone();
    }
    let app = metadata.labels.get(names::APP_LABEL).filter(|app| !app.is_empty());
    let workload = Some(&metadata.workload_name).filter(|name| !name.is_empty());
    match app.or(workload) {
        Some(name) => format!("{name}.{namespace}"),
        None => format!("{NO_SERVICE}.{namespace}"),
    }
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
