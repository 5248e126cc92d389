//! The control plane's replicas: every pod of every revision, asked through port forwards.
//!
//! A question about the mesh goes to all of them, for each proxy is connected to one: an answer of a single replica would
//! be a part of the truth. Istio's own pods have the same labels, and answer what they can.

use std::fmt;

use bytes::Bytes;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use mesh_api::names;

use super::client::Kube;
use super::find;
use super::portforward::PodPort;
use crate::error::CliError;

/// The label of the control plane's pods.
pub const SELECTOR: &str = "app=istiod";

/// The revision of what names none.
pub const DEFAULT_REVISION: &str = "default";

/// A pod of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its revision; `default` when its labels do not say.
    pub revision: String,
    /// Whether it runs and is ready.
    pub ready: bool,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pod, self.namespace)
    }
}

impl Replica {
    fn of(pod: &Pod) -> Self {
        let revision = pod.labels().get(names::REVISION_LABEL).filter(|revision| !revision.is_empty());
        Self {
            pod: pod.name_any(),
            namespace: pod.namespace().unwrap_or_default(),
            revision: revision.cloned().unwrap_or_else(|| DEFAULT_REVISION.to_owned()),
            ready: find::is_running(pod) && find::is_ready(pod),
        }
    }

    /// Its port of debug pages.
    #[must_use]
    pub fn monitoring(&self) -> PodPort {
        PodPort { namespace: self.namespace.clone(), pod: self.pod.clone(), port: names::MONITORING_PORT }
    }
}

/// What one replica said.
#[derive(Debug)]
pub struct Said {
    /// Who.
    pub replica: Replica,
    /// What, or why nothing.
    pub page: Result<Bytes, CliError>,
}

/// The replicas that run, of one revision or of all, in the order of their names.
///
/// # Errors
/// When there are none, or the cluster cannot be asked.
pub async fn replicas(kube: &Kube, revision: Option<&str>) -> Result<Vec<Replica>, CliError> {
    let namespace = &kube.istio_namespace;
    let pods = find::selected(kube, Some(namespace), SELECTOR).await?;
    let mut found: Vec<Replica> = pods.iter().filter(|pod| find::is_running(pod)).map(Replica::of).collect();
    found.retain(|replica| revision.is_none_or(|wanted| replica.revision == wanted));
    found.sort_by(|a, b| a.pod.cmp(&b.pod));
    if found.is_empty() {
        let of = revision.map(|revision| format!(" of revision {revision}")).unwrap_or_default();
        return Err(CliError::user(format!("no control plane{of} runs in namespace {namespace}"))
            .hint("-i NAMESPACE names another namespace")
            .hint(format!("kubectl get pods -n {namespace} -l {SELECTOR}")));
    }
    Ok(found)
}

/// A debug page of all replicas.
///
/// # Errors
/// When there are no replicas. One that does not answer is told beside the answers of the others.
pub async fn pages(kube: &Kube, revision: Option<&str>, path: &str) -> Result<Vec<Said>, CliError> {
    let asked = replicas(kube, revision).await?.into_iter().map(|replica| async {
        let page = replica.monitoring().page(kube, path).await;
        Said { replica, page }
    });
    Ok(join_all(asked).await)
}

/// Who answered what, and a line about each who did not.
pub type Answers = (Vec<(Replica, Bytes)>, Vec<String>);

/// Parts the answers from the reasons why there are none.
///
/// # Errors
/// When nobody answered: why the first did not.
pub fn answers(said: Vec<Said>) -> Result<Answers, CliError> {
    let mut answered = Vec::new();
    let mut silent = Vec::new();
    let mut first = None;
    for Said { replica, page } in said {
        match page {
            Ok(page) => answered.push((replica, page)),
            Err(error) => {
                silent.push(format!("{replica} is left out: {}", error.message));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if answered.is_empty() => Err(error),
        _ => Ok((answered, silent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(pod: &str) -> Replica {
        Replica {
            pod: pod.to_owned(),
            namespace: "istio-system".to_owned(),
            revision: "default".to_owned(),
            ready: true,
        }
    }

    #[test]
    fn one_that_is_silent_is_told_and_the_others_count() {
        let failed = || Err(CliError::internal("cannot reach it"));
        let said = vec![
            Said { replica: replica("a"), page: failed() },
            Said { replica: replica("b"), page: Ok(Bytes::from_static(b"{}")) },
        ];
        let (answered, silent) = answers(said).unwrap();
        assert_eq!(answered.len(), 1);
        assert_eq!(silent, ["a.istio-system is left out: cannot reach it"]);
        assert!(answers(vec![Said { replica: replica("a"), page: failed() }]).is_err());
    }

    #[test]
    fn the_revision_is_the_labels() {
        let pod = |labels: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({ "metadata": { "name": "a", "labels": labels } })).unwrap()
        };
        assert_eq!(Replica::of(&pod(serde_json::json!({ "istio.io/rev": "canary" }))).revision, "canary");
        assert_eq!(Replica::of(&pod(serde_json::json!({}))).revision, "default");
    }
}
