//! `meshctl experimental replace-proxy`: another release of the proxy in pods that run, without a restart.
//!
//! An ephemeral container beside the proxy brings the program (`mesh-proxy replace`); the proxy starts it in its own container.
//! Pods are taken one after another, and the first that fails ends it: its proxy goes on as before.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, LogParams, Patch, PatchParams};
use meshd_core::inject::PROXY_CONTAINER;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::kube::client::{Kube, failed};
use crate::kube::find;
use crate::printer::Report;
use crate::table::Table;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// User of the proxy where the pod does not say otherwise.
const USER: i64 = 1337;
/// How the containers' names begin.
const NAME: &str = "lateen-replace";

/// What to replace by what.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl experimental replace-proxy web-7d4b9 --image lateen/mesh-proxy:0.2.0\n  \
    meshctl x replace-proxy deploy/web -n shop --image lateen/mesh-proxy:0.2.0\n\nConnections are neither refused nor cut. \
    A container that is restarted later has the image of its pod again:\nput the new one into what makes pods as well.")]
pub struct ReplaceArgs {
    /// Pod, or KIND/NAME of what has pods
    pub target: String,
    /// Image with the proxy to run
    #[arg(long)]
    pub image: String,
    /// Seconds for each pod, pulling the image included
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// How the result is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What became of a pod's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    replaced: bool,
    /// In the words of who brought the program, or of the kubelet.
    told: String,
}

/// Does it.
///
/// # Errors
/// When there is no such pod, it has no proxy, or the cluster refuses.
pub fn run(context: &Context, args: &ReplaceArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let kube = context.kube().await?;
        let mut outcomes = Vec::new();
        for pod in find::pods(&kube, &args.target).await?.iter().filter(|pod| find::is_running(pod)) {
            let outcome = replace(&kube, pod, args).await?;
            let failed = !outcome.replaced;
            outcomes.push((pod.name_any(), outcome));
            if failed {
                break;
            }
        }
        if outcomes.is_empty() {
            return Err(CliError::user(format!("{} has no pods that run", args.target)));
        }
        Ok(report(&outcomes))
    })
}

async fn replace(kube: &Kube, pod: &Pod, args: &ReplaceArgs) -> Result<Outcome, CliError> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_else(|| kube.namespace.clone()));
    let api: Api<Pod> = Api::namespaced(kube.client.clone(), &namespace);
    let container = container(pod, &args.image)?;
    let own = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
    let patched = api.patch_ephemeral_containers(&name, &PatchParams::default(), &patch).await;
    patched.map_err(|error| failed(format!("cannot put a container beside the proxy of {name}"), &error))?;
    let end = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        let now = api.get(&name).await.map_err(|error| failed(format!("cannot read pod {name}"), &error))?;
        if let Some(mut outcome) = outcome(&now, &own) {
            let log = LogParams { container: Some(own), ..LogParams::default() };
            // What it says is better than what the kubelet says of it.
            if let Ok(log) = api.logs(&name, &log).await
                && let Some(last) = log.lines().rev().find(|line| !line.trim().is_empty())
            {
                last.clone_into(&mut outcome.told);
            }
            return Ok(outcome);
        }
        if Instant::now() >= end {
            let told = format!("not within {} s; see kubectl describe pod {name}", args.timeout);
            return Ok(Outcome { replaced: false, told });
        }
        sleep(INTERVAL).await;
    }
}

/// The container that brings the program: the user of the proxy, in its process namespace, with no right that it does not need.
fn container(pod: &Pod, image: &str) -> Result<Value, CliError> {
    let no_proxy = || CliError::user(format!("pod {} has no container {PROXY_CONTAINER}", pod.name_any()));
    let spec = pod.spec.as_ref().ok_or_else(no_proxy)?;
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let proxy: &Container = containers.find(|container| container.name == PROXY_CONTAINER).ok_or_else(no_proxy)?;
    let of_pod = spec.security_context.as_ref();
    let own = proxy.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user).or_else(|| of_pod.and_then(|pod| pod.run_as_user)).unwrap_or(USER);
    let group = own.and_then(|own| own.run_as_group).or_else(|| of_pod.and_then(|pod| pod.run_as_group));
    let before = spec.ephemeral_containers.as_ref().map_or(0, Vec::len);
    Ok(json!({
        "name": format!("{NAME}-{}", before + 1),
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/local/bin/mesh-proxy", "replace"],
        "targetContainerName": PROXY_CONTAINER,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": group.unwrap_or(user),
            "runAsNonRoot": user != 0,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    }))
}

/// What became of the container, once something has.
fn outcome(pod: &Pod, container: &str) -> Option<Outcome> {
    let statuses = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    let status: &ContainerStatus = statuses.iter().find(|status| status.name == container)?;
    let state = status.state.as_ref()?;
    if let Some(ended) = &state.terminated {
        let told = ended.message.clone().or_else(|| ended.reason.clone()).unwrap_or_default();
        return Some(Outcome { replaced: ended.exit_code == 0, told: told.trim().to_owned() });
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    // Others pass by themselves.
    let lasting = [
        "ErrImageNeverPull",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    lasting.contains(&reason).then(|| Outcome {
        replaced: false,
        told: format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()),
    })
}

fn report(outcomes: &[(String, Outcome)]) -> Report {
    let word = |outcome: &Outcome| if outcome.replaced { "yes" } else { "NO" };
    let mut table = Table::new(&["POD", "REPLACED", "MESSAGE"]);
    for (pod, outcome) in outcomes {
        table.row([pod.clone(), word(outcome).to_owned(), outcome.told.clone()]);
    }
    let data = outcomes
        .iter()
        .map(|(pod, outcome)| json!({ "pod": pod, "replaced": outcome.replaced, "message": outcome.told }))
        .collect();
    let all = outcomes.iter().all(|(_, outcome)| outcome.replaced);
    Report { table, data: Value::Array(data), exit: if all { Exit::Ok } else { Exit::User }, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_container_runs_as_the_proxy_and_with_no_more_rights() {
        let native = mk_pod(json!({
            "metadata": { "name": "web-1" },
            "spec": {
                "containers": [{ "name": "app" }],
                "initContainers": [{ "name": "istio-proxy", "securityContext": { "runAsUser": 1007, "runAsGroup": 1008 } }],
                "ephemeralContainers": [{ "name": "lateen-replace-1" }],
            },
        }));
        let made = container(&native, "lateen/mesh-proxy:2").unwrap();
        assert_eq!((&made["name"], &made["targetContainerName"]), (&json!("lateen-replace-2"), &json!("istio-proxy")));
        let security = &made["securityContext"];
        assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(1007), &json!(1008)));
        assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
        let gateway =
            mk_pod(json!({ "metadata": { "name": "gw" }, "spec": { "containers": [{ "name": "istio-proxy" }] } }));
        assert_eq!(container(&gateway, "x").unwrap()["securityContext"]["runAsUser"], USER);
        let plain = mk_pod(json!({ "metadata": { "name": "db" }, "spec": { "containers": [{ "name": "app" }] } }));
        assert!(container(&plain, "x").unwrap_err().to_string().contains("istio-proxy"));
    }

    #[test]
    fn the_outcome_is_that_of_the_container() {
        let check = |state: Value, expect: Option<(bool, &str)>| {
            let statuses = json!([{ "name": "other", "state": { "terminated": { "exitCode": 0 } } },
                { "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state }]);
            let mut statuses = statuses;
            for field in ["image", "imageID"] {
                statuses[0][field] = json!("");
            }
            statuses[0]["ready"] = json!(false);
            statuses[0]["restartCount"] = json!(0);
            let pod = mk_pod(json!({ "metadata": {}, "status": { "ephemeralContainerStatuses": statuses } }));
            let expect = expect.map(|(replaced, told)| Outcome { replaced, told: told.to_owned() });
            assert_eq!(outcome(&pod, "c"), expect);
        };
        check(json!({ "running": {} }), None);
        check(json!({ "waiting": { "reason": "ContainerCreating" } }), None);
        check(
            json!({ "waiting": { "reason": "ImagePullBackOff", "message": "gone" } }),
            Some((false, "ImagePullBackOff: gone")),
        );
        check(json!({ "terminated": { "exitCode": 1, "message": "not ready\n" } }), Some((false, "not ready")));
        check(json!({ "terminated": { "exitCode": 0, "reason": "Completed" } }), Some((true, "Completed")));
    }

    #[test]
    fn one_failure_fails_the_command() {
        let outcome = |replaced| ("web-1".to_owned(), Outcome { replaced, told: String::new() });
        assert_eq!(report(&[outcome(true)]).exit, Exit::Ok);
        assert_eq!(report(&[outcome(true), outcome(false)]).exit, Exit::User);
    }
}
