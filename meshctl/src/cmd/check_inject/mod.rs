//! `meshctl check-inject`: whether a pod gets a proxy, webhook by webhook, and why or why not. Also `x check-inject`.

mod analyze;

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::names;
use meshd_core::inject::{Decision, Facts, Injector, PROXY_CONTAINER, PodFacts};
use serde_json::{Value, json};

use self::analyze::Verdict;
use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::kube::client::{Kube, failed, optional};
use crate::kube::find;
use crate::live::{Live, NOT_CAPTURED};
use crate::printer::Report;
use crate::table::Table;

/// Which pod.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl check-inject web-7d4f9-x2x.shop\n  meshctl check-inject deploy/web -n shop\n  \
    meshctl check-inject -n shop -l app=web,version=v1\n\nExit code: 1 when more than one webhook injects."
)]
pub struct CheckInjectArgs {
    /// Pod or workload: [kind/]name[.namespace]
    #[arg(required_unless_present = "labels", conflicts_with = "labels")]
    pub target: Option<String>,
    /// Labels of a pod that is to be: name=value with commas between
    #[arg(short = 'l', long)]
    pub labels: Option<String>,
    /// How the verdicts are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The pod in question.
struct Subject {
    /// The pod; of a pod that is to be, its labels only.
    pod: Value,
    /// What it is called.
    name: String,
    namespace: String,
    /// Whether it has a proxy; `None` when it is to be.
    has_proxy: Option<bool>,
}

/// Asks the cluster, and tells what would happen to the pod.
///
/// # Errors
/// When the pod, its namespace or the webhooks cannot be read.
pub fn run(context: &Context, args: &CheckInjectArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let kube = context.kube().await?;
        let subject = subject(&kube, args).await?;
        let namespaces: Api<Namespace> = Api::all(kube.client.clone());
        let what = format!("cannot read namespace {}", subject.namespace);
        let namespace = optional(what, namespaces.get(&subject.namespace).await)?
            .ok_or_else(|| CliError::user(format!("there is no namespace {}", subject.namespace)))?;
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(kube.client.clone());
        let webhooks = webhooks.list(&ListParams::default()).await;
        let webhooks = webhooks.map_err(|error| failed("cannot list mutating webhooks", &error))?.items;
        let labels = labels_of(&subject.pod);
        let mut verdicts = analyze::all(&webhooks, &labels, namespace.labels());
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.injected) {
            ask_injector(&kube, &subject, verdict).await?;
        }
        let mut report = report(&subject, &verdicts);
        if subject.has_proxy == Some(true) {
            let live = Live::ask(&kube).await?;
            let name = subject.pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            if live.captured.get(&format!("{name}.{}", subject.namespace)) == Some(&false) {
                report.notes.push(format!("WARNING: {}: {NOT_CAPTURED}", subject.name));
            }
        }
        Ok(report)
    })
}

async fn subject(kube: &Kube, args: &CheckInjectArgs) -> Result<Subject, CliError> {
    if let Some(labels) = &args.labels {
        let labels = parse_labels(labels)?;
        return Ok(Subject {
            pod: json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "app" }] } }),
            name: "a pod with these labels".to_owned(),
            namespace: kube.namespace.clone(),
            has_proxy: None,
        });
    }
    let pod: Pod = find::pod(kube, args.target.as_deref().unwrap_or_default()).await?;
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    Ok(Subject {
        has_proxy: Some(containers.into_iter().any(|container| container.name == PROXY_CONTAINER)),
        name: format!("pod {}", pod.name_any()),
        namespace: pod.namespace().unwrap_or_else(|| kube.namespace.clone()),
        pod: serde_json::to_value(&pod)
            .map_err(|error| CliError::internal("the pod cannot be read").because(&error))?,
    })
}

/// Labels as `a=b,c=d`.
fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, CliError> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            CliError::user(format!("{pair:?} is no label"))
                .hint("name=value with commas between, as app=web,version=v1")
        })?;
        Ok((name.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()))
    });
    pairs.collect()
}

fn labels_of(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let texts =
        labels.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    texts.collect()
}

/// The webhook is called; what its injector then does is for the injector's own configuration.
async fn ask_injector(kube: &Kube, subject: &Subject, verdict: &mut Verdict) -> Result<(), CliError> {
    let Some(injector) = injector(kube, &verdict.revision).await? else { return Ok(()) };
    match injector.decide(&PodFacts { pod: &subject.pod, namespace: &subject.namespace }) {
        Decision::Skip(reason) => {
            verdict.injected = false;
            verdict.reason = format!("{}, but {reason}", verdict.reason);
        }
        // Another control plane's templates are its own.
        Decision::Inject(_) if !verdict.ours => {}
        Decision::Inject(_) => {
            let facts = Facts { namespace: subject.namespace.clone(), native_sidecar: true, ..Facts::default() };
            if let Err(refusal) = injector.inject(&subject.pod, &facts) {
                verdict.injected = false;
                verdict.reason = format!("{}, but the pod is refused: {refusal}", verdict.reason);
            }
        }
    }
    Ok(())
}

/// The injector of a revision; none when its configuration cannot be found or used.
async fn injector(kube: &Kube, revision: &str) -> Result<Option<Injector>, CliError> {
    let suffix = if matches!(revision, "" | "default") { String::new() } else { format!("-{revision}") };
    let maps: Api<ConfigMap> = Api::namespaced(kube.client.clone(), &kube.istio_namespace);
    let mut texts = Vec::new();
    for (name, keys) in [("istio-sidecar-injector", &["config", "values"][..]), (names::MESH_CONFIG_MAP, &["mesh"])] {
        let name = format!("{name}{suffix}");
        let Some(map) = optional(format!("cannot read ConfigMap {name}"), maps.get(&name).await)? else {
            return Ok(None);
        };
        let data = map.data.unwrap_or_default();
        texts.extend(keys.iter().map(|key| data.get(*key).cloned().unwrap_or_default()));
    }
    let [config, values, mesh] = texts.as_slice() else { return Ok(None) };
    let Ok((mesh, _)) = MeshConfig::parse(mesh) else { return Ok(None) };
    Ok(Injector::from_config(config, values, &mesh, revision).ok())
}

fn report(subject: &Subject, verdicts: &[Verdict]) -> Report {
    let mut table = Table { padding: 3, ..Table::new(&["WEBHOOK", "REVISION", "INJECTED", "REASON"]) };
    for verdict in verdicts {
        let mark = if verdict.injected { "✔" } else { "✘" };
        table.row([verdict.webhook.clone(), verdict.revision.clone(), mark.to_owned(), verdict.reason.clone()]);
    }
    let injecting = verdicts.iter().filter(|verdict| verdict.injected).count();
    let mut notes = Vec::new();
    if verdicts.is_empty() {
        notes.push("no webhook of a mesh is there: nothing is injected\nhint: meshctl install".to_owned());
    }
    if injecting > 1 {
        notes.push(
            "more than one webhook injects, which can lead to errors: let one revision win by its labels".to_owned(),
        );
    }
    match (subject.has_proxy, injecting) {
        (Some(false), 1..) => notes.push(format!(
            "{} has no proxy: it was made before a webhook would have injected it\nhint: kubectl rollout restart its workload",
            subject.name
        )),
        (Some(true), 0) => notes.push(format!(
            "{} has a proxy, which a pod made now would not get",
            subject.name
        )),
        _ => {}
    }
    let rows: Vec<Value> = verdicts
        .iter()
        .map(|verdict| {
            json!({
                "webhook": verdict.webhook, "revision": verdict.revision, "injected": verdict.injected,
                "reason": verdict.reason,
            })
        })
        .collect();
    Report {
        table,
        data: json!({ "namespace": subject.namespace, "hasProxy": subject.has_proxy, "webhooks": rows }),
        notes,
        exit: if injecting > 1 { Exit::User } else { Exit::Ok },
        ..Report::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_kubectl_writes_them() {
        let labels = parse_labels("app=web, version==v1,empty=").unwrap();
        let expected = [("app", "web"), ("empty", ""), ("version", "v1")];
        assert!(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "{labels:?}");
        assert!(parse_labels("app").unwrap_err().to_string().contains("name=value"));
    }

    #[test]
    fn a_pod_that_is_older_than_its_webhook_is_told_about() {
        let subject = |has_proxy| Subject {
            pod: Value::Null,
            name: "pod web".to_owned(),
            namespace: "shop".to_owned(),
            has_proxy,
        };
        let verdict = |injected| Verdict {
            webhook: "istio-sidecar-injector".to_owned(),
            revision: "default".to_owned(),
            ours: true,
            injected,
            reason: String::new(),
        };
        assert!(report(&subject(Some(false)), &[verdict(true)]).notes[0].contains("rollout restart"));
        assert!(report(&subject(Some(true)), &[verdict(false)]).notes[0].contains("would not get"));
        assert!(report(&subject(Some(true)), &[verdict(true)]).notes.is_empty());
        assert_eq!(report(&subject(None), &[verdict(true), verdict(true)]).exit, Exit::User);
        assert!(report(&subject(None), &[]).notes[0].contains("nothing is injected"));
    }
}
