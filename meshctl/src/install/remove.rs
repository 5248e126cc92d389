//! Taking an installation out of a cluster.

use std::time::Duration;

use mesh_api::kinds::Kind as MeshKind;
use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};

use super::cluster::Cluster;
use super::object::{COMPONENT_LABEL, KINDS, Object};
use super::progress::Progress;
use crate::error::CliError;

/// What is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One revision: its control plane, gateways, webhooks, tags.
    Revision(String),
    /// Everything of ours, with definitions and keys.
    Purge,
}

/// What goes, in the order in which it goes.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// The objects.
    pub objects: Vec<Object>,
    /// What is worth knowing before.
    pub warnings: Vec<String>,
}

/// Looks for everything that is to go.
///
/// # Errors
/// When the cluster does not answer.
pub async fn plan(cluster: &Cluster, scope: &Scope, namespace: &str) -> Result<Removal, CliError> {
    let ours = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
    let selector = match scope {
        Scope::Revision(revision) => format!("{ours},{REVISION_LABEL}={revision}"),
        Scope::Purge => ours,
    };
    let mut removal = Removal::default();
    for kind in KINDS {
        for object in cluster.list(kind, &selector).await? {
            if goes(&object, scope, namespace) {
                removal.objects.push(object);
            }
        }
    }
    removal.objects.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.order(b)));
    removal.warnings = warnings(cluster, scope, &removal.objects).await?;
    Ok(removal)
}

fn goes(object: &Object, scope: &Scope, namespace: &str) -> bool {
    match (object.kind(), scope) {
        // What the mesh's trust stands on, and what revisions share, outlives a revision; webhooks that would point to
        // nobody do not.
        ("Secret", Scope::Revision(_)) => false,
        ("ConfigMap", Scope::Revision(_)) if object.name() == mesh_api::names::CA_ROOT_CONFIG_MAP => false,
        (_, Scope::Revision(_)) if object.label(COMPONENT_LABEL) == "base" => object.is_webhook(),
        ("Namespace", Scope::Purge) => object.name() == namespace,
        _ => true,
    }
}

/// Webhooks first, so that nothing asks a control plane that is gone; workloads next, so that nothing is made anew;
/// definitions and namespaces last.
fn rank(object: &Object) -> u8 {
    match object.kind() {
        kind if kind.ends_with("WebhookConfiguration") => 0,
        "HorizontalPodAutoscaler" => 1,
        "Deployment" | "DaemonSet" => 2,
        "CustomResourceDefinition" => 4,
        "Namespace" => 5,
        _ => 3,
    }
}

async fn warnings(cluster: &Cluster, scope: &Scope, objects: &[Object]) -> Result<Vec<String>, CliError> {
    let mut found = Vec::new();
    let gateways: Vec<String> = objects
        .iter()
        .filter(|object| object.is_workload() && object.label(COMPONENT_LABEL).ends_with("gateway"))
        .map(|object| format!("{}/{}", object.namespace(), object.name()))
        .collect();
    if !gateways.is_empty() {
        found.push(format!("gateways go: {}", gateways.join(", ")));
    }
    let proxies = proxies(cluster, scope).await?;
    if !proxies.is_empty() {
        let named: Vec<&str> = proxies.iter().take(30).map(String::as_str).collect();
        found.push(format!(
            "{} pods have proxies of what goes, which then get no configuration and no certificates: {}{}",
            proxies.len(),
            named.join(", "),
            if proxies.len() > named.len() { ", …" } else { "" }
        ));
    }
    for object in objects.iter().filter(|object| object.kind() == "CustomResourceDefinition") {
        let kind = MeshKind::ALL.iter().find(|kind| {
            let info = kind.info();
            format!("{}.{}", info.plural, info.group) == object.name()
        });
        let Some(info) = kind.map(|kind| kind.info()) else { continue };
        let version = info.versions.first().copied().unwrap_or_default();
        let kind = kube::core::GroupVersionKind::gvk(info.group, version, info.name);
        let resource = kube::core::ApiResource::from_gvk_with_plural(&kind, info.plural);
        let count = cluster.kube.list(&resource, None, None).await?.len();
        if count > 0 {
            found.push(format!("{count} {} go with their definition", info.plural));
        }
    }
    Ok(found)
}

/// Pods with an injected proxy of a revision that goes. Gateways of ours have none: they go themselves.
async fn proxies(cluster: &Cluster, scope: &Scope) -> Result<Vec<String>, CliError> {
    let pods = kube::core::ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    let mut found = Vec::new();
    for pod in cluster.kube.list(&pods, None, None).await? {
        let meta = &pod.metadata;
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name));
        let injected = annotation("sidecar.istio.io/status").is_some();
        let ours = match scope {
            Scope::Revision(revision) => annotation(REVISION_LABEL) == Some(revision),
            Scope::Purge => true,
        };
        if injected && ours {
            let (namespace, name) =
                (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
            found.push(format!("{namespace}/{name}"));
        }
    }
    Ok(found)
}

/// Does it, waiting for each stage before the next.
///
/// # Errors
/// When the cluster refuses something, or something does not go away in time.
pub async fn run(
    cluster: &Cluster,
    scope: &Scope,
    removal: &Removal,
    namespace: &str,
    timeout: Duration,
) -> Result<(), CliError> {
    stages(cluster, &removal.objects, timeout).await?;
    // A control plane that was just ending may have written a last time.
    let again = plan(cluster, scope, namespace).await?;
    if !again.objects.is_empty() {
        stages(cluster, &again.objects, timeout).await?;
    }
    Ok(())
}

async fn stages(cluster: &Cluster, objects: &[Object], timeout: Duration) -> Result<(), CliError> {
    let mut progress = Progress::default();
    let mut rest = objects;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|object| rank(object) == rank(first)).count();
        let (stage, after) = rest.split_at(count);
        for object in stage {
            progress.now(format!("deleting {object}"));
            cluster.delete(object).await?;
        }
        cluster.gone(stage, timeout).await?;
        rest = after;
    }
    if !objects.is_empty() {
        progress.done(format!("{} objects deleted", objects.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mk_object(kind: &str, name: &str, component: &str) -> Object {
        let labels = json!({ COMPONENT_LABEL: component });
        Object::new(json!({ "kind": kind, "metadata": { "name": name, "labels": labels } })).unwrap()
    }

    #[test]
    fn a_revision_leaves_what_others_share() {
        let revision = Scope::Revision("canary".to_owned());
        let goes = |kind, name, component| {
            let object = mk_object(kind, name, component);
            (super::goes(&object, &revision, "istio-system"), super::goes(&object, &Scope::Purge, "istio-system"))
        };
        assert_eq!(goes("Secret", "istio-ca-secret", ""), (false, true));
        assert_eq!(goes("ConfigMap", "istio-ca-root-cert", ""), (false, true));
        assert_eq!(goes("ConfigMap", "istio-canary", "pilot"), (true, true));
        assert_eq!(goes("ServiceAccount", "istio-reader-service-account", "base"), (false, true));
        assert_eq!(goes("ValidatingWebhookConfiguration", "istiod-default-validator", "base"), (true, true));
        assert_eq!(goes("Namespace", "istio-system", ""), (true, true));
        assert_eq!(goes("Namespace", "other", ""), (true, false));
    }

    #[test]
    fn webhooks_go_first_and_namespaces_last() {
        let order =
            ["MutatingWebhookConfiguration", "Deployment", "ConfigMap", "CustomResourceDefinition", "Namespace"];
        let ranks: Vec<u8> = order.iter().map(|kind| rank(&mk_object(kind, "x", ""))).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
