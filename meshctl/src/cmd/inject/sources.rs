//! Where the configuration of an injection comes from: files, the cluster, or the defaults of a new installation.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, ListParams};
use mesh_api::crd::networking::proxy_config::ProxyConfig;
use mesh_api::mesh_config::MeshConfig;
use mesh_api::names;
use mesh_api::object::Object;
use meshd_core::inject::{DEFAULT_REVISION, Injector};

use super::{InjectArgs, configs};
use crate::context::Context;
use crate::error::CliError;
use crate::files;
use crate::kube::client::{Kube, failed, optional};

/// The ConfigMap of the injector, and its keys.
const INJECTOR_MAP: &str = "istio-sidecar-injector";
const CONFIG_KEY: &str = "config";
const VALUES_KEY: &str = "values";
/// The first minor version of Kubernetes whose native sidecars are stable.
const NATIVE_SINCE: u32 = 33;
/// Nodes that are looked at.
const MAX_NODES: u32 = 5000;

/// The texts of the configuration. Empty ones mean defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// Key `config` of the injector's ConfigMap.
    pub(super) config: String,
    /// Key `values` of it.
    pub(super) values: String,
    /// Key `mesh` of the mesh's ConfigMap.
    pub(super) mesh: String,
    /// Whether all nodes run native sidecars; `None` when no cluster was asked.
    pub(super) nodes_have_native: Option<bool>,
    /// Namespace of objects that name none.
    pub(super) namespace: String,
    /// The cluster's ProxyConfigs.
    pub(super) proxy_configs: Vec<Arc<Object<ProxyConfig>>>,
    /// What to tell about where this comes from.
    pub(super) notes: Vec<String>,
}

impl Source {
    /// The injector of this configuration.
    pub(super) fn injector(&self, revision: &str) -> Result<Injector, CliError> {
        let (mesh, _) = MeshConfig::parse(&self.mesh)
            .map_err(|error| CliError::user("the mesh configuration cannot be read").because(&error))?;
        let config = as_config(&self.config);
        Injector::from_config(&config, &self.values, &mesh, revision)
            .map_err(|error| CliError::user("the injector cannot be set up").because(&error))
    }
}

/// A text that is one template and no configuration is the template `sidecar`, as in Istio.
fn as_config(text: &str) -> String {
    let is_config = mesh_api::inject::config::InjectorConfig::parse(text).is_ok();
    if is_config || !text.contains("{{") {
        return text.to_owned();
    }
    serde_json::json!({ "templates": { "sidecar": text } }).to_string()
}

/// Reads files, then asks the cluster for what they do not say.
pub(super) fn read(context: &Context, args: &InjectArgs) -> Result<Source, CliError> {
    let file = |path: &Option<std::path::PathBuf>| path.as_deref().map(files::read).transpose();
    let config = file(&args.inject_config_file)?;
    let values = file(&args.values_file)?;
    let mesh = file(&args.mesh_config_file)?;
    let complete = config.is_some() && mesh.is_some();
    let named = context.kube.is_given() || args.inject_config_map.is_some() || args.mesh_config_map.is_some();
    let mut source = if args.offline || (complete && !named) {
        Source { namespace: "default".to_owned(), ..Source::default() }
    } else {
        match context.block_on(from_cluster(context, args)) {
            Ok(source) => source,
            // Who names a cluster or an object in it, does not want another configuration instead.
            Err(error) if named => return Err(error),
            Err(error) => {
                let why = error
                    .chain
                    .first()
                    .map_or_else(|| error.message.clone(), |cause| format!("{}: {cause}", error.message));
                let note = format!("note: the configuration is that of a new installation, because there is {why}");
                Source { namespace: "default".to_owned(), notes: vec![note], ..Source::default() }
            }
        }
    };
    // Values of one installation do not fit the templates of another: files come together.
    if let Some(config) = config {
        source.config = config;
        source.values.clear();
    }
    source.values = values.unwrap_or(source.values);
    source.mesh = mesh.unwrap_or(source.mesh);
    Ok(source)
}

async fn from_cluster(context: &Context, args: &InjectArgs) -> Result<Source, CliError> {
    let kube = context.kube().await?;
    let suffix = match args.revision.as_str() {
        "" | DEFAULT_REVISION => String::new(),
        revision => format!("-{revision}"),
    };
    let maps: Api<ConfigMap> = Api::namespaced(kube.client.clone(), &kube.istio_namespace);
    let name = |own: &Option<String>, default: &str| own.clone().unwrap_or_else(|| format!("{default}{suffix}"));
    let injector = data(&kube, &maps, &name(&args.inject_config_map, INJECTOR_MAP)).await?;
    let mesh = data(&kube, &maps, &name(&args.mesh_config_map, names::MESH_CONFIG_MAP)).await?;
    let (proxy_configs, notes) = configs::of_cluster(&kube).await?;
    let key =
        |map: &ConfigMap, key: &str| map.data.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
    Ok(Source {
        config: key(&injector, CONFIG_KEY),
        values: key(&injector, VALUES_KEY),
        mesh: key(&mesh, names::MESH_CONFIG_KEY),
        nodes_have_native: nodes_have_native(&kube).await,
        namespace: kube.namespace.clone(),
        proxy_configs,
        notes,
    })
}

async fn data(kube: &Kube, maps: &Api<ConfigMap>, name: &str) -> Result<ConfigMap, CliError> {
    let found = optional(format!("cannot read ConfigMap {}/{name}", kube.istio_namespace), maps.get(name).await)?;
    found.ok_or_else(|| {
        CliError::user(format!("no ConfigMap {name} in namespace {}", kube.istio_namespace))
            .hint("-i names the control plane's namespace, --revision its revision; --offline does not ask the cluster")
    })
}

/// Whether the kubelets of all nodes run native sidecars. Who may not list nodes, learns nothing.
async fn nodes_have_native(kube: &Kube) -> Option<bool> {
    let nodes: Api<Node> = Api::all(kube.client.clone());
    let list =
        nodes.list(&ListParams::default().limit(MAX_NODES)).await.map_err(|error| failed("nodes", &error)).ok()?;
    let versions =
        list.items.iter().filter_map(|node| Some(&node.status.as_ref()?.node_info.as_ref()?.kubelet_version));
    Some(versions.map(|version| minor(version)).all(|minor| minor.is_some_and(|minor| minor >= NATIVE_SINCE)))
}

/// The minor version in `v1.33.1-eks-5`.
fn minor(version: &str) -> Option<u32> {
    let mut parts = version.trim_start_matches('v').split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    let minor = parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    if major > 1 { Some(u32::MAX) } else { Some(minor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_of_a_kubelet_is_found() {
        assert_eq!(minor("v1.33.1-eks-5"), Some(33));
        assert_eq!(minor("1.29+"), Some(29));
        assert_eq!(minor("unknown"), None);
    }

    #[test]
    fn a_template_by_itself_is_the_sidecar() {
        let text = "metadata:\n  labels:\n    x: {{ .Revision | quote }}\n";
        assert!(as_config(text).contains("\"templates\":{\"sidecar\""), "{}", as_config(text));
        assert_eq!(as_config("policy: enabled\n"), "policy: enabled\n");
    }
}
