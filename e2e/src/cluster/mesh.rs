//! A mesh on a cluster: `meshctl`, the control plane, and manifests of workloads.

use std::process::{Command, Output};

use super::Cluster;
use crate::process::binary;

/// Longest that one call of `meshctl` may take, in seconds: it waits for rollouts.
const MESHCTL_SECONDS: &str = "300";

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

impl Cluster {
    /// Installs the default revision, unless it is there.
    ///
    /// # Panics
    /// When it cannot be installed.
    #[track_caller]
    pub fn with_mesh(&self) {
        const NAMESPACE: &str = "istio-system";
        if self.find("apps/v1", "Deployment", Some(NAMESPACE), "istiod").is_none() {
            install(&[]);
        }
        self.rolled_out("Deployment", NAMESPACE, "istiod");
    }
}

/// Installs with the images under test.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn install(more: &[&str]) {
    let hub = format!("values.global.hub={}", variable("MESH_HUB"));
    let tag = format!("values.global.tag={}", variable("MESH_TAG"));
    let mut args = vec!["install", "-y", "--set", &hub, "--set", &tag];
    args.extend(more);
    _ = meshctl(&args);
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
