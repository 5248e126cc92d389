//! `meshctl x precheck`: whether the mesh can be installed into a cluster, or brought to this release.

use std::time::SystemTime;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::expiry::{self, Expiring, Nearness};
use crate::kube::client::{Kube, failed};
use crate::kube::control;
use crate::objects;
use crate::printer::Report;

/// Whether, and how it is shown.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl x precheck\n  meshctl x precheck -o json\n\n\
    Exit code: 0 when nothing stands in the way, 1 otherwise.")]
pub struct PrecheckArgs {
    /// How messages are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The oldest Kubernetes that is tried with this release: the oldest that Kubernetes itself supports.
const OLDEST_MINOR: u32 = 33;

/// What an installation makes: group, resource, whether it is in a namespace.
const MADE: [(&str, &str, bool); 12] = [
    ("", "namespaces", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("apps", "deployments", true),
    ("", "configmaps", true),
    ("", "secrets", true),
];

/// Something that stands in the way, or should be known.
struct Issue {
    code: &'static str,
    level: &'static str,
    text: String,
}

/// Looks.
///
/// # Errors
/// When the cluster does not answer.
pub fn run(context: &Context, _: &PrecheckArgs) -> Result<Report, CliError> {
    let issues = context.block_on(async {
        let kube = context.kube().await?;
        let mut issues = Vec::new();
        let version = kube.client.apiserver_version().await;
        let version = version.map_err(|error| failed("cannot read the cluster's version", &error))?;
        issues.extend(old(&version.minor, &version.git_version));
        for (group, resource, namespaced) in MADE {
            issues.extend(denied(&kube, group, resource, namespaced).await?);
        }
        issues.extend(others(&kube).await);
        issues.extend(expiring(&kube).await?);
        Ok(issues)
    })?;
    Ok(report(&issues))
}

/// The minor version may end in a `+`.
fn old(minor: &str, version: &str) -> Option<Issue> {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    let number: u32 = digits.parse().ok()?;
    (number < OLDEST_MINOR).then(|| Issue {
        code: "IST0142",
        level: "Error",
        text: format!("The Kubernetes Version {version:?} is lower than the minimum version: 1.{OLDEST_MINOR}"),
    })
}

async fn denied(kube: &Kube, group: &str, resource: &str, namespaced: bool) -> Result<Option<Issue>, CliError> {
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some("create".to_owned()),
        namespace: namespaced.then(|| kube.istio_namespace.clone()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(kube.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| failed(format!("cannot ask whether {resource} may be made"), &error))?;
    let status = answer.status.unwrap_or_default();
    Ok((!status.allowed).then(|| Issue {
        code: "IST0141",
        level: "Error",
        text: format!(
            "Missing required permission to create resource {resource} ({})",
            status.reason.unwrap_or_default()
        ),
    }))
}

/// Control planes that are there: an installation goes beside them, and the names that it takes must be free.
async fn others(kube: &Kube) -> Vec<Issue> {
    let Ok(replicas) = control::replicas(kube, None).await else { return Vec::new() };
    let mut revisions: Vec<String> = replicas.into_iter().map(|replica| replica.revision).collect();
    revisions.sort();
    revisions.dedup();
    let tell = |revision: String| Issue {
        code: "MESH5001",
        level: "Info",
        text: format!(
            "A control plane of revision {revision} runs in {}: install another revision beside it, or upgrade it",
            kube.istio_namespace
        ),
    };
    revisions.into_iter().map(tell).collect()
}

/// Certificates of a mesh that is there which end soon: an upgrade is no time to find that out. What may not be read is left
/// out; that it may not is told above where it matters.
async fn expiring(kube: &Kube) -> Result<Vec<Issue>, CliError> {
    let reading = objects::from_cluster(kube, &expiry::SORTS).await?;
    let subjects = || reading.found.iter().map(|found| &found.subject);
    let found = expiry::find(subjects(), &kube.istio_namespace, SystemTime::now());
    let tell = |expiring: Expiring| {
        let object =
            subjects().nth(expiring.subject).map(|subject| format!("{} {}", subject.kind, subject.full_name()));
        let (code, level) = match expiring.nearness {
            Nearness::Expired => ("MESH4005", "Error"),
            Nearness::Urgent => ("MESH4006", "Error"),
            Nearness::Soon => ("MESH4007", "Info"),
        };
        Issue { code, level, text: format!("({}) {}", object.unwrap_or_default(), expiring.text) }
    };
    Ok(found.into_iter().map(tell).collect())
}

fn report(issues: &[Issue]) -> Report {
    let text = issues.iter().map(|issue| format!("{} [{}] {}\n", issue.level, issue.code, issue.text)).collect();
    let value = |issue: &Issue| json!({ "code": issue.code, "level": issue.level, "message": issue.text });
    let data: Vec<Value> = issues.iter().map(value).collect();
    let bad = issues.iter().any(|issue| issue.level != "Info");
    let note = if bad {
        "the cluster is not ready for an installation"
    } else {
        "nothing stands in the way of an installation"
    };
    let exit = if bad { Exit::User } else { Exit::Ok };
    Report { text, data: Value::Array(data), notes: vec![note.to_owned()], exit, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_cluster_and_missing_permissions_stand_in_the_way() {
        assert!(old("32", "v1.32.1").is_some_and(|issue| issue.text.contains("v1.32.1")));
        assert!(old("33", "v1.33.0").is_none() && old("37+", "v1.37.1").is_none());
        let issue = |level| Issue { code: "IST0141", level, text: String::new() };
        assert_eq!(report(&[issue("Error")]).exit, Exit::User);
        assert_eq!(report(&[issue("Info")]).exit, Exit::Ok);
    }
}
