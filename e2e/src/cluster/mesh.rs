//! A mesh on a cluster: `meshctl`, the control plane, and manifests of workloads.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

use super::{Cluster, Namespace, wait};
use crate::process::binary;

/// Longest that one call of `meshctl` may take, in seconds: it waits for rollouts.
const MESHCTL_SECONDS: &str = "300";
/// Where a proxy's metrics are.
const METRICS: u16 = 15_020;

/// Name of one of our images as `cargo xtask e2e` built it.
///
/// # Panics
/// Without the variables it sets.
#[must_use]
pub fn image(name: &str) -> String {
    format!("{}/{name}:{}", variable("MESH_HUB"), variable("MESH_TAG"))
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: cargo xtask e2e does"))
}

/// What `meshctl` did.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn try_meshctl(args: &[&str]) -> Output {
    // coreutils' timeout: a test that hangs tells nothing.
    let mut command = Command::new("timeout");
    command.arg(MESHCTL_SECONDS).arg(binary("meshctl")).args(args);
    command.output().unwrap_or_else(|error| panic!("timeout meshctl: {error}"))
}

/// What `meshctl` printed.
///
/// # Panics
/// When it fails.
#[track_caller]
#[must_use]
pub fn meshctl(args: &[&str]) -> String {
    let output = try_meshctl(args);
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "meshctl {args:?}: {}\n{stdout}{stderr}", output.status);
    stdout
}

/// Namespace of the control plane.
pub const SYSTEM: &str = "istio-system";
/// What asks for injection by the default revision.
pub const INJECTED: (&str, &str) = ("istio-injection", "enabled");

impl Cluster {
    /// Installs the default revision, unless it is there.
    ///
    /// # Panics
    /// When it cannot be installed.
    #[track_caller]
    pub fn with_mesh(&self) {
        if self.find("apps/v1", "Deployment", Some(SYSTEM), "istiod").is_none() {
            install(&[]);
        }
        self.rolled_out("Deployment", SYSTEM, "istiod");
    }

    /// A namespace whose pods get proxies of the default revision, which is installed unless it is there.
    ///
    /// # Panics
    /// When there is no mesh to be had.
    #[track_caller]
    #[must_use]
    pub fn mesh_namespace(&self, name: &str) -> Namespace {
        self.with_mesh();
        self.namespace(name, &[INJECTED])
    }
}

/// Installs with the images under test, and with little asked of a small machine.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn install(more: &[&str]) {
    let settings = [
        format!("values.global.hub={}", variable("MESH_HUB")),
        format!("values.global.tag={}", variable("MESH_TAG")),
        "values.global.imagePullPolicy=IfNotPresent".to_owned(),
        "values.global.proxy.resources.requests.cpu=5m".to_owned(),
        "values.global.proxy.resources.requests.memory=32Mi".to_owned(),
        "values.pilot.resources.requests.cpu=10m".to_owned(),
        "values.pilot.resources.requests.memory=64Mi".to_owned(),
        // For the logs that a failed test leaves.
        "meshConfig.accessLogFile=/dev/stdout".to_owned(),
    ];
    let mut args = vec!["install", "-y"];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    args.extend(more);
    _ = meshctl(&args);
}

/// One sample of a metric: its labels and its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// The samples of one metric on a page in Prometheus' format.
#[must_use]
pub fn samples(page: &str, metric: &str) -> Vec<Sample> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    lines
        .filter_map(|line| {
            let (labels, value) = line.rsplit_once("} ")?;
            let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
            let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
            Some((labels.collect(), value.trim().parse().ok()?))
        })
        .collect()
}

impl Namespace {
    /// `istio_requests_total` as the proxy of a pod counts it.
    ///
    /// # Panics
    /// When it does not say.
    #[track_caller]
    #[must_use]
    pub fn requests(&self, pod: &str) -> Vec<Sample> {
        let page =
            self.get(pod, METRICS, "/stats/prometheus").unwrap_or_else(|error| panic!("metrics of {pod}: {error}"));
        samples(&page.body, "istio_requests_total")
    }

    /// Waits until the proxies of all ready pods hold what was made for them last, as `meshctl proxy-status` shows it.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn synced(&self) {
        let names = |pod: &Value| pod["metadata"]["name"].as_str().map(|name| format!("{name}.{}", self.name));
        wait(&format!("the proxies of {} are in sync", self.name), || {
            let pods: Vec<String> = self.pods("").iter().filter_map(names).collect();
            let table = meshctl(&["proxy-status"]);
            let line = |pod: &String| table.lines().find(|line| line.starts_with(pod.as_str()));
            let good =
                |line: &str| line.matches("SYNCED").count() >= 4 && !line.contains("STALE") && !line.contains("ERROR");
            if pods.iter().all(|pod| line(pod).is_some_and(good)) { Ok(()) } else { Err(table) }
        });
    }
}

/// A Service named `name` with one port, of workloads with the label `app: name` that listen on 8080.
#[must_use]
pub fn service(name: &str, port_name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {port_name}, port: {port}, targetPort: 8080}}]
"
    )
}

/// A Deployment `name-version` that runs one of the shop's services, with its service account `name`.
#[must_use]
pub fn deployment(name: &str, version: &str, service: &str, replicas: u32) -> String {
    let image = image("shop");
    format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}-{version}, labels: {{app: {name}, version: {version}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}, version: {version}}}}}
  template:
    metadata: {{labels: {{app: {name}, version: {version}}}}}
    spec:
      serviceAccountName: {name}
      containers:
      - name: app
        image: {image}
        imagePullPolicy: IfNotPresent
        args: [{service}, --listen, \"0.0.0.0:8080\", --version, {version}]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
        resources: {{requests: {{cpu: 5m, memory: 16Mi}}}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = "# TYPE a counter\na{x=\"1, 2\",y=\"\"} 3\nab{x=\"1\"} 4\n";
        let labels = [("x", "1, 2"), ("y", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(samples(page, "a"), [(BTreeMap::from(labels), 3.0)]);
        assert_eq!(samples(page, "b"), []);
    }
}
