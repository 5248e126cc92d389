//! Whether a cluster can be installed in or upgraded: its version, what we may do there, what else is there.

use std::fmt;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use serde_json::Value;

use super::cluster::Cluster;
use super::object::{KINDS, Kind};
use crate::error::CliError;
use crate::kube::client::failed;

/// Oldest minor version of Kubernetes 1 that is supported: what charts need (autoscaling/v2, the sysctl of gateways).
const OLDEST_MINOR: u32 = 25;

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it keeps the installation from working.
    pub severe: bool,
    /// What it is.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.severe { "error" } else { "warning" }, self.message)
    }
}

/// Looks at the cluster.
///
/// # Errors
/// When it does not answer.
pub async fn run(cluster: &Cluster, namespace: &str) -> Result<Vec<Finding>, CliError> {
    let version = cluster.kube.client.apiserver_version().await;
    let version = version.map_err(|error| failed("cannot read the cluster's version", &error))?;
    let mut found = Vec::new();
    let minor: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
    if version.major == "1" && minor.parse::<u32>().is_ok_and(|minor| minor < OLDEST_MINOR) {
        found.push(Finding {
            severe: true,
            message: format!("Kubernetes {} is older than 1.{OLDEST_MINOR}", version.git_version),
        });
    }
    for kind in KINDS.iter().filter(|kind| kind.name() != "Lease") {
        for verb in ["create", "patch"] {
            if !allowed(cluster, kind, namespace, verb).await? {
                let message = format!("you may not {verb} {}", kind.resource().plural);
                found.push(Finding { severe: true, message });
            }
        }
    }
    found.extend(unreachable_webhooks(cluster).await?);
    Ok(found)
}

async fn allowed(cluster: &Cluster, kind: &Kind, namespace: &str, verb: &str) -> Result<bool, CliError> {
    let resource = kind.resource();
    let attributes = ResourceAttributes {
        group: Some(resource.group),
        resource: Some(resource.plural),
        namespace: kind.namespaced.then(|| namespace.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.kube.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| failed("cannot ask what you may do", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Webhooks whose control plane is not there, and which refuse what it cannot be asked about.
async fn unreachable_webhooks(cluster: &Cluster) -> Result<Vec<Finding>, CliError> {
    let mut found = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.name().ends_with("WebhookConfiguration")) {
        for hook in cluster.list(kind, "istio.io/rev").await? {
            let first = hook.value().pointer("/webhooks/0");
            let text = |pointer: &str| first.and_then(|first| first.pointer(pointer)).and_then(Value::as_str);
            let (Some(name), Some(namespace)) =
                (text("/clientConfig/service/name"), text("/clientConfig/service/namespace"))
            else {
                continue;
            };
            if cluster.find("Service", namespace, name).await?.is_none() && text("/failurePolicy") == Some("Fail") {
                let message = format!("{hook} asks the Service {namespace}/{name}, which is not there");
                found.push(Finding { severe: false, message });
            }
        }
    }
    Ok(found)
}

/// Whether to go on.
///
/// # Errors
/// Names what keeps the installation from working.
pub fn refuse(findings: &[Finding]) -> Result<(), CliError> {
    let mut severe = findings.iter().filter(|finding| finding.severe);
    let Some(first) = severe.next() else { return Ok(()) };
    let error = CliError::user(first.message.clone());
    Err(severe.fold(error, |error, next| error.hint(format!("also: {}", next.message))))
}
