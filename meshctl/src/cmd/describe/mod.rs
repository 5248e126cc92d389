//! `meshctl describe pod|service`: what concerns a pod or a Service, as `istioctl x describe` writes it.
//!
//! Facts come from the objects of the cluster; what a proxy really holds shows `proxy-config`.

mod facts;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::Api;
use meshd_core::analyze::Sort;
use serde_json::json;

use self::facts::Facts;
use crate::context::Context;
use crate::error::CliError;
use crate::kube::client::{Kube, optional};
use crate::kube::find;
use crate::live::Live;
use crate::objects;
use crate::printer::Report;

/// What is described.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl describe pod web-1.shop\n  meshctl describe pod deploy/web\n  \
    meshctl describe service web -n shop")]
pub struct DescribeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// A pod
    #[command(visible_alias = "po")]
    Pod {
        /// Its name, as [kind/]name[.namespace]
        name: String,
    },
    /// A Service, by the first pod behind it
    #[command(visible_alias = "svc")]
    Service {
        /// Its name, as name[.namespace]
        name: String,
    },
}

/// Kinds that say something about a pod.
const SORTS: [Sort; 6] = [
    Sort::SERVICE,
    Sort::DESTINATION_RULE,
    Sort::VIRTUAL_SERVICE,
    Sort::PEER_AUTHENTICATION,
    Sort::AUTHORIZATION_POLICY,
    Sort::GATEWAY,
];

/// Describes it.
///
/// # Errors
/// When it is not there.
pub fn run(context: &Context, args: &DescribeArgs) -> Result<Report, CliError> {
    let (pod, service, reading, live, root) = context.block_on(async {
        let kube = context.kube().await?;
        let (pod, service) = match &args.what {
            What::Pod { name } => (Some(find::pod(&kube, name).await?), None),
            What::Service { name } => behind(&kube, name).await?,
        };
        let reading = objects::from_cluster(&kube, &SORTS).await?;
        let live = Live::ask(&kube).await?;
        Ok((pod, service, reading, live, kube.istio_namespace))
    })?;
    let mut notes: Vec<String> = reading.hidden.values().map(|why| format!("not looked at: {why}")).collect();
    let name = pod.as_ref().map(|pod| format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default()));
    let captured = name.and_then(|name| live.captured.get(&name).copied());
    let pod = pod.map(|pod| serde_json::to_value(pod).unwrap_or_default());
    if pod.is_none() {
        notes.push("no pod is behind this Service: only what names its host is told".to_owned());
    }
    let facts = Facts { all: reading.found.iter().map(|found| &found.subject).collect(), root: &root, captured };
    let text = facts.describe(pod.as_ref(), service.as_deref());
    let data = json!({ "lines": text.lines().collect::<Vec<_>>() });
    Ok(Report { text, data, notes, ..Report::default() })
}

/// The first pod behind a Service, and the Service's `namespace/name`.
async fn behind(kube: &Kube, name: &str) -> Result<(Option<Pod>, Option<String>), CliError> {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let (name, namespace) = name.rsplit_once('.').unwrap_or((name, &kube.namespace));
    let api: Api<Service> = Api::namespaced(kube.client.clone(), namespace);
    let found = optional(format!("cannot read Service {name} in {namespace}"), api.get(name).await)?;
    let service = found.ok_or_else(|| CliError::user(format!("there is no Service {name} in {namespace}")))?;
    let full = format!("{namespace}/{}", service.name_any());
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods = if selector.is_empty() {
        Vec::new()
    } else {
        find::selected(kube, Some(namespace), &selector.join(",")).await?
    };
    Ok((pods.into_iter().next(), Some(full)))
}
