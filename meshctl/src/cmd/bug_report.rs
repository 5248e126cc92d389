//! `meshctl bug-report`: what others need to find a fault: logs, configuration and debug pages, without any secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures::stream::{self, StreamExt as _};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, LogParams};
use mesh_api_rt::build_info;
use meshd_core::analyze::{Sort, Subject};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::kube::client::Kube;
use crate::kube::proxy::{CONTAINER, PodProxy, has_proxy};
use crate::kube::{control, find};
use crate::objects;
use crate::printer::Report;
use crate::table::Table;

/// How much, and where to.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl bug-report\n  meshctl bug-report -n shop --output-file shop.tar.gz\n\n\
    Secrets, tokens and private keys are left out.")]
pub struct BugReportArgs {
    /// Archive to write
    #[arg(long = "output-file", default_value = "bug-report.tar.gz", value_name = "FILE")]
    pub file: PathBuf,
    /// Largest sum of all pages and logs before they are packed, in megabytes
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub max_megabytes: u64,
    /// Most proxies asked
    #[arg(long, default_value_t = 50)]
    pub max_proxies: usize,
    /// Logs of this many seconds
    #[arg(long, default_value_t = 3600)]
    pub since: i64,
}

/// Bytes of one container's log.
const MAX_LOG_BYTES: i64 = 16 << 20;
/// Pods asked at the same time.
const PODS_AT_ONCE: usize = 8;
/// Pages of the control plane. `/debug/configz` leaves the content of Secrets out.
const CONTROL_PAGES: [(&str, &str); 6] = [
    ("/debug/syncz", "syncz.json"),
    ("/debug/findings", "findings.json"),
    ("/debug/configz", "configz.json"),
    ("/debug/endpointz", "endpointz.json"),
    ("/metrics", "metrics.txt"),
    ("/version", "version.json"),
];
/// Pages of a proxy. Its dump leaves private keys out.
const PROXY_PAGES: [(&str, &str); 4] = [
    ("/config_dump?include_eds", "config_dump.json"),
    ("/clusters?format=json", "clusters.json"),
    ("/stats/prometheus", "stats.txt"),
    ("/server_info", "server_info.json"),
];

/// What is written, and how much of it there may be.
struct Archive {
    folder: PathBuf,
    left: u64,
    files: Vec<(String, u64)>,
    missing: Vec<String>,
}

/// Collects and packs.
///
/// # Errors
/// When the cluster does not answer, or the archive cannot be written.
pub fn run(context: &Context, args: &BugReportArgs) -> Result<Report, CliError> {
    let failed = |error: io::Error| CliError::internal("cannot write the bug report").because(&error);
    let folder = tempfile::tempdir().map_err(failed)?;
    let root = folder.path().join("bug-report");
    fs::create_dir(&root).map_err(failed)?;
    let mut archive = Archive { folder: root, left: args.max_megabytes << 20, files: Vec::new(), missing: Vec::new() };
    archive.add("meshctl.json", json!(build_info!("meshctl")).to_string().as_bytes()).map_err(failed)?;
    context.block_on(async {
        let kube = context.kube().await?;
        cluster(&kube, &mut archive).await?;
        pods(context, &kube, args, &mut archive).await
    })?;
    let missing = archive.missing.join("\n");
    archive.add("missing.txt", missing.as_bytes()).map_err(failed)?;
    pack(folder.path(), &args.file)?;
    Ok(report(&archive, &args.file))
}

/// The objects of the mesh, as they are in the cluster.
async fn cluster(kube: &Kube, archive: &mut Archive) -> Result<(), CliError> {
    let sorts: Vec<Sort> = Sort::ALL.iter().copied().filter(|sort| *sort != Sort::SECRET).collect();
    let reading = objects::from_cluster(kube, &sorts).await?;
    for (sort, why) in &reading.hidden {
        archive.missing.push(format!("{}: {why}", sort.plural));
    }
    for sort in sorts {
        let of_sort = reading.found.iter().filter(|found| found.subject.sort == Some(sort));
        let items: Vec<Value> = of_sort.map(|found| redacted(&found.subject)).collect();
        if items.is_empty() {
            continue;
        }
        let name = format!("objects/{}.{}.json", sort.plural, if sort.group.is_empty() { "core" } else { sort.group });
        archive.page(&name, &serde_json::to_vec_pretty(&items).unwrap_or_default())?;
    }
    Ok(())
}

/// An object without what may be secret: values of environment variables that are written out, and ConfigMaps of others.
fn redacted(subject: &Subject) -> Value {
    let mut value = subject.value.clone();
    if subject.sort == Some(Sort::CONFIG_MAP) && !subject.name.starts_with("istio") {
        return json!({ "kind": "ConfigMap", "metadata": { "name": subject.name, "namespace": subject.namespace } });
    }
    hide(&mut value);
    value
}

/// Variables of applications may hold passwords; those of proxies do not.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let of_proxy = fields
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(|name| name == CONTAINER || name == "istio-init");
            if let (false, Some(variables)) = (of_proxy, fields.get_mut("env").and_then(Value::as_array_mut)) {
                for variable in variables.iter_mut().filter_map(Value::as_object_mut) {
                    if variable.contains_key("value") {
                        variable.insert("value".to_owned(), json!("not shown"));
                    }
                }
            }
            fields.values_mut().for_each(hide);
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

async fn pods(context: &Context, kube: &Kube, args: &BugReportArgs, archive: &mut Archive) -> Result<(), CliError> {
    let all = find::selected(kube, context.kube.namespace.as_deref(), "").await?;
    let of_control = find::selected(kube, Some(&kube.istio_namespace), control::SELECTOR).await?;
    let proxies: Vec<Pod> = all.into_iter().filter(has_proxy).collect();
    if proxies.len() > args.max_proxies {
        archive.missing.push(format!(
            "{} proxies, of which {} are left out",
            proxies.len(),
            proxies.len() - args.max_proxies
        ));
    }
    let proxies = proxies.into_iter().take(args.max_proxies);
    let mut pages = stream::iter(of_control.into_iter().map(|pod| (pod, true)).chain(proxies.map(|pod| (pod, false))))
        .map(|(pod, is_control)| pages_of(kube, pod, is_control, args.since))
        .buffered(PODS_AT_ONCE);
    while let Some((name, pages)) = pages.next().await {
        for (file, page) in pages {
            match page {
                Ok(page) => archive.page(&format!("{name}/{file}"), &page)?,
                Err(error) => archive.missing.push(format!("{name}/{file}: {}", error.message)),
            }
        }
    }
    Ok(())
}

type Pages = Vec<(String, Result<Vec<u8>, CliError>)>;

/// Logs and pages of a pod.
async fn pages_of(kube: &Kube, pod: Pod, is_control: bool, since: i64) -> (String, Pages) {
    let (pod_name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let mut pages: Pages = Vec::new();
    let api: Api<Pod> = Api::namespaced(kube.client.clone(), &namespace);
    let container = if is_control { "discovery" } else { CONTAINER };
    for previous in [false, true] {
        let restarts = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        if previous && !restarts.into_iter().any(|status| status.name == container && status.restart_count > 0) {
            continue;
        }
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            since_seconds: (!previous).then_some(since),
            limit_bytes: Some(MAX_LOG_BYTES),
            ..LogParams::default()
        };
        let log = api.logs(&pod_name, &params).await.map(String::into_bytes);
        let log = log.map_err(|error| crate::kube::client::failed("cannot read the log", &error));
        pages.push((format!("{container}{}.log", if previous { ".previous" } else { "" }), log));
    }
    if is_control {
        let port = crate::kube::portforward::PodPort {
            namespace: namespace.clone(),
            pod: pod_name.clone(),
            port: mesh_api::names::MONITORING_PORT,
        };
        for (path, file) in CONTROL_PAGES {
            pages.push((file.to_owned(), port.page(kube, path).await.map(|page| page.to_vec())));
        }
    } else if let Ok(proxy) = PodProxy::of(&pod, None) {
        for (path, file) in PROXY_PAGES {
            pages.push((file.to_owned(), proxy.page(kube, Method::GET, path).await.map(|page| page.to_vec())));
        }
    }
    let kind = if is_control { "istiod" } else { "proxies" };
    (format!("{kind}/{namespace}/{pod_name}"), pages)
}

impl Archive {
    fn page(&mut self, name: &str, content: &[u8]) -> Result<(), CliError> {
        self.add(name, content).map_err(|error| CliError::internal(format!("cannot write {name}")).because(&error))
    }

    /// Writes a file, or notes that there was no room for it.
    fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        if size > self.left {
            self.missing.push(format!("{name}: {size} bytes, larger than what is left; --max-megabytes allows more"));
            return Ok(());
        }
        self.left -= size;
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
        self.files.push((name.to_owned(), size));
        Ok(())
    }
}

/// Packs with the system's `tar`, which every place with kubectl has.
fn pack(folder: &Path, file: &Path) -> Result<(), CliError> {
    let what = || CliError::internal(format!("cannot pack {}", file.display()));
    let output = Command::new("tar").arg("-czf").arg(file).arg("-C").arg(folder).arg("bug-report").output();
    let output = output.map_err(|error| what().because(&error).hint("it is packed by the program tar"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(what().hint(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn report(archive: &Archive, file: &Path) -> Report {
    let mut table = Table { padding: 3, ..Table::new(&["FILE", "BYTES"]) };
    for (name, size) in &archive.files {
        table.row([name.clone(), size.to_string()]);
    }
    let mut notes: Vec<String> = archive.missing.iter().map(|missing| format!("left out: {missing}")).collect();
    notes.push(format!("wrote {}; look through it before you give it away", file.display()));
    let data = json!({ "file": file, "files": archive.files, "missing": archive.missing });
    Report { table, data, notes, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_left_out() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": [
            { "name": "web", "env": [{ "name": "PASSWORD", "value": "hunter2" }] },
            { "name": CONTAINER, "env": [{ "name": "POD_NAME", "value": "a" }] } ] } });
        let text = redacted(&Subject::new(pod, "shop", Vec::new())).to_string();
        assert!(!text.contains("hunter2") && text.contains("\"value\":\"a\""), "{text}");
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "web" }, "data": { "p": "hunter2" } });
        assert!(!redacted(&Subject::new(map, "shop", Vec::new())).to_string().contains("hunter2"));
    }

    #[test]
    fn what_has_no_room_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive { folder: folder.path().to_owned(), left: 4, files: Vec::new(), missing: Vec::new() };
        archive.add("a/b.txt", b"123").unwrap();
        archive.add("c.txt", b"123").unwrap();
        assert_eq!((archive.files.len(), archive.missing.len()), (1, 1));
        assert_eq!(fs::read(folder.path().join("a/b.txt")).unwrap(), b"123");
    }
}
