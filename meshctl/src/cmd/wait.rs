//! `meshctl wait`: until every proxy that an object concerns has what it says.

use std::time::Duration;

use mesh_api::kinds::Kind;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::kube::client::Kube;
use crate::kube::control;
use crate::printer::Report;
use crate::table::Table;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What to wait for.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl wait virtualservice web.shop\n  meshctl wait --timeout 60 dr web -n shop\n  \
    meshctl wait proxies\n\nExit code: 0 when all have it, 1 when time ran out or a proxy rejects it."
)]
pub struct WaitArgs {
    /// Kind of the object, or `proxies` for all that was changed
    pub kind: String,
    /// Its name, as name[.namespace]
    pub name: Option<String>,
    /// Seconds to wait
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Only the control plane's revision of this name
    #[arg(short, long)]
    pub revision: Option<String>,
    /// How the result is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How far a change came, over all replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    expected: u64,
    confirmed: u64,
    /// Proxies that have not answered yet.
    waiting: Vec<String>,
    /// Proxies that rejected it.
    rejected: Vec<String>,
    /// Whether some replica does not know the object yet.
    unseen: bool,
}

/// Waits.
///
/// # Errors
/// When there is no control plane, or the kind is unknown.
pub fn run(context: &Context, args: &WaitArgs) -> Result<Report, CliError> {
    let all = matches!(args.kind.to_ascii_lowercase().as_str(), "proxy" | "proxies" | "all");
    let kind = if all {
        None
    } else {
        let unknown =
            || CliError::user(format!("{:?} is no kind of the mesh", args.kind)).hint("as virtualservice, dr or gw");
        Some(Kind::from_user(&args.kind).filter(|kind| kind.is_mesh()).ok_or_else(unknown)?)
    };
    context.block_on(async {
        let kube = context.kube().await?;
        let object = match (kind, &args.name) {
            (None, _) => None,
            (Some(kind), Some(name)) => Some(key(kind, name, &kube.namespace)),
            (Some(_), None) => return Err(CliError::user("which object?").hint("meshctl wait virtualservice NAME")),
        };
        if let (Some(kind), Some(object)) = (kind, &object) {
            exists(&kube, kind, object).await?;
        }
        let end = Instant::now() + Duration::from_secs(args.timeout);
        loop {
            let progress = look(&kube, args.revision.as_deref(), object.as_deref()).await?;
            let done = !progress.unseen && progress.waiting.is_empty();
            if done || Instant::now() >= end {
                return Ok(report(&progress, object.as_deref(), done));
            }
            sleep(INTERVAL).await;
        }
    })
}

/// As the control plane names objects: `VirtualService/shop/web`.
fn key(kind: Kind, name: &str, namespace: &str) -> String {
    let (name, namespace) = name.rsplit_once('.').unwrap_or((name, namespace));
    format!("{kind}/{namespace}/{name}")
}

/// An object that is not there would be waited for without need.
async fn exists(kube: &Kube, kind: Kind, object: &str) -> Result<(), CliError> {
    let (namespace, name) = object.split_once('/').and_then(|(_, rest)| rest.split_once('/')).unwrap_or_default();
    let info = kind.info();
    let resource = kube::core::ApiResource {
        group: info.group.to_owned(),
        version: info.versions.first().copied().unwrap_or_default().to_owned(),
        api_version: info.api_version(),
        kind: info.name.to_owned(),
        plural: info.plural.to_owned(),
    };
    let api: kube::Api<kube::api::DynamicObject> =
        kube::Api::namespaced_with(kube.client.clone(), namespace, &resource);
    let found = crate::kube::client::optional(format!("cannot read {object}"), api.get(name).await)?;
    found.map(drop).ok_or_else(|| CliError::user(format!("there is no {object}")))
}

async fn look(kube: &Kube, revision: Option<&str>, object: Option<&str>) -> Result<Progress, CliError> {
    let (answers, _) = control::answers(control::pages(kube, revision, "/debug/syncz").await?)?;
    let mut progress = Progress::default();
    for (_, page) in answers {
        let page: Value = serde_json::from_slice(&page)
            .map_err(|error| CliError::internal("/debug/syncz is no JSON").because(&error))?;
        add(&page, object, &mut progress);
    }
    Ok(progress)
}

fn add(page: &Value, object: Option<&str>, progress: &mut Progress) {
    let list = |value: &Value, field: &str| -> Vec<String> {
        let items = value.get(field).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64).unwrap_or_default();
    let changes = page.get("changes").and_then(Value::as_array).cloned().unwrap_or_default();
    let about = |change: &&Value| {
        object.is_none_or(|object| list(change, "objects").iter().any(|known| known.ends_with(object)))
    };
    for change in changes.iter().filter(about) {
        progress.expected += number(change, "expected");
        progress.confirmed += number(change, "confirmed");
        progress.waiting.extend(list(change, "waiting"));
        progress.rejected.extend(list(change, "rejected"));
    }
    // What is older than the changes that are shown has arrived, unless a proxy is behind with everything.
    let nothing_yet = page.pointer("/controlPlane/change").is_none_or(Value::is_null);
    progress.unseen |= nothing_yet;
    for proxy in page.get("proxies").and_then(Value::as_array).into_iter().flatten() {
        let types = proxy.get("types").and_then(Value::as_object).into_iter().flatten();
        if types.into_iter().any(|(_, kind)| kind.get("status").and_then(Value::as_str) == Some("STALE")) {
            let name = proxy.get("connection").and_then(Value::as_str).unwrap_or_default();
            progress.waiting.push(name.to_owned());
        }
    }
    progress.waiting.sort();
    progress.waiting.dedup();
    progress.rejected.sort();
    progress.rejected.dedup();
}

fn report(progress: &Progress, object: Option<&str>, done: bool) -> Report {
    let mut table = Table { padding: 3, ..Table::new(&["OBJECT", "STATE", "WAITING", "REJECTED"]) };
    let state = match (done, progress.rejected.is_empty()) {
        (_, false) => "Rejected",
        (true, true) => "Applied",
        (false, true) => "Waiting",
    };
    table.row([
        object.unwrap_or("proxies").to_owned(),
        state.to_owned(),
        progress.waiting.len().to_string(),
        progress.rejected.len().to_string(),
    ]);
    let named = |what: &str, names: &[String]| names.iter().map(|name| format!("{what}: {name}")).collect::<Vec<_>>();
    let notes = [named("rejects", &progress.rejected), named("waits", &progress.waiting)].concat();
    let data = json!({ "object": object, "state": state, "expected": progress.expected, "confirmed": progress.confirmed,
        "waiting": progress.waiting, "rejected": progress.rejected });
    let exit = if state == "Applied" { Exit::Ok } else { Exit::User };
    Report { table, data, notes, exit, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_summed_and_one_that_waits_is_named() {
        let page = |waiting: Value, status: &str| {
            json!({ "controlPlane": { "change": "3" },
                "changes": [
                    { "id": "3", "objects": ["VirtualService/shop/web"], "expected": 2, "confirmed": 1, "waiting": waiting },
                    { "id": "4", "objects": ["VirtualService/shop/other"], "expected": 1, "confirmed": 0, "waiting": ["x-1"] },
                ],
                "proxies": [{ "connection": "b-1", "types": { "CDS": { "status": status } } }] })
        };
        let mut progress = Progress::default();
        add(&page(json!(["a-1"]), "SYNCED"), Some("VirtualService/shop/web"), &mut progress);
        assert_eq!((progress.expected, progress.waiting.clone()), (2, vec!["a-1".to_owned()]));
        add(&page(json!([]), "STALE"), Some("VirtualService/shop/web"), &mut progress);
        assert_eq!(progress.waiting, ["a-1", "b-1"]);
        assert_eq!(report(&progress, None, false).exit, Exit::User);
        let mut idle = Progress::default();
        add(&page(json!([]), "SYNCED"), Some("VirtualService/shop/web"), &mut idle);
        assert!(idle.waiting.is_empty() && !idle.unseen);
        assert_eq!(report(&idle, None, true).exit, Exit::Ok);
    }

    #[test]
    fn objects_are_named_as_the_control_plane_does() {
        assert_eq!(key(Kind::VirtualService, "web", "shop"), "VirtualService/shop/web");
        assert_eq!(key(Kind::VirtualService, "web.edge", "shop"), "VirtualService/edge/web");
    }
}
