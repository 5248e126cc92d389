//! The demo's configuration: ordinary YAML that a user may edit while the mesh runs.

mod described;

use std::fs;
use std::io;
use std::path::Path;

pub use self::described::labels;
use self::described::{services, sidecars, workloads};
use super::plan::{Capture, HTTP_PORT, INGRESS_PORT, NAMESPACE, PROXY_PORT, Plan, ROOT_NAMESPACE};

/// The file whose weights the demo invites to edit.
pub const REVIEWS: &str = "reviews.yaml";

/// Writes all files into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, plan: &Plan) -> io::Result<()> {
    let mut files = vec![
        ("mesh.yaml", mesh(plan)),
        ("gateway.yaml", gateway()),
        (REVIEWS, reviews(90)),
        ("catalogue.yaml", catalogue()),
        ("services.yaml", services(plan)),
        ("workloads.yaml", workloads(plan)),
    ];
    if plan.capture == Capture::None {
        files.push(("sidecars.yaml", sidecars(plan)));
    }
    for (name, text) in files {
        replace(&folder.join(name), &text)?;
    }
    Ok(())
}

/// Puts a file in place at once, so that no reader sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Hidden, so that the folder's reader leaves it alone.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    fs::write(&beside, text)?;
    fs::rename(beside, path)
}

fn mesh(plan: &Plan) -> String {
    let proxy_port = match plan.capture {
        Capture::Redirect => String::new(),
        Capture::None => format!("\n    proxyHttpPort: {PROXY_PORT}"),
    };
    format!(
        "\
# The mesh: its settings, its namespaces, and mutual TLS for everything in it.
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: {ROOT_NAMESPACE}
data:
  mesh: |
    accessLogFile: /dev/stdout{proxy_port}
---
apiVersion: v1
kind: Namespace
metadata:
  name: {ROOT_NAMESPACE}
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: {ROOT_NAMESPACE}
spec:
  mtls:
    mode: STRICT
"
    )
}

fn gateway() -> String {
    format!(
        "\
# What the ingress gateway lets in, and where it goes.
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: shop
  namespace: {NAMESPACE}
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: {INGRESS_PORT}
      name: http
      protocol: HTTP
    hosts: [\"*\"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: shop
  namespace: {NAMESPACE}
spec:
  hosts: [\"*\"]
  gateways: [shop]
  http:
  - match:
    - uri:
        prefix: /feed
    route:
    - destination:
        host: feed
        port:
          number: {HTTP_PORT}
  - route:
    - destination:
        host: web
        port:
          number: {HTTP_PORT}
"
    )
}

/// Reviews: `first` of a hundred requests go to v1, the rest to v2; who says to be ada gets v3.
#[must_use]
pub fn reviews(first: u32) -> String {
    let second = 100_u32.saturating_sub(first);
    format!(
        "\
# Change the two weights, save, and watch the traffic move.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  namespace: {NAMESPACE}
spec:
  hosts: [reviews]
  http:
  - name: ada
    match:
    - headers:
        end-user:
          exact: ada
    route:
    - destination:
        host: reviews
        subset: v3
  - name: everybody
    route:
    - destination:
        host: reviews
        subset: v1
      weight: {first}
    - destination:
        host: reviews
        subset: v2
      weight: {second}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
  namespace: {NAMESPACE}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {{version: v1}}
  - name: v2
    labels: {{version: v2}}
  - name: v3
    labels: {{version: v3}}
"
    )
}

/// Catalogue: faults and a timeout for who asks for them, retries and ejection for everybody.
fn catalogue() -> String {
    format!(
        "\
# Faults for who asks for them by a header; retries and outlier detection for everybody.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: catalogue
  namespace: {NAMESPACE}
spec:
  hosts: [catalogue]
  http:
  - name: delayed
    match:
    - headers:
        x-demo-fault:
          exact: delay
    fault:
      delay:
        fixedDelay: 0.4s
        percentage:
          value: 100
    route:
    - destination:
        host: catalogue
  - name: aborted
    match:
    - headers:
        x-demo-fault:
          exact: abort
    fault:
      abort:
        httpStatus: 418
        percentage:
          value: 100
    route:
    - destination:
        host: catalogue
  - name: impatient
    match:
    - headers:
        x-demo-fault:
          exact: timeout
    timeout: 0.3s
    route:
    - destination:
        host: catalogue
  - name: everybody
    retries:
      attempts: 3
      perTryTimeout: 2s
      retryOn: connect-failure,refused-stream,unavailable,reset,503
    route:
    - destination:
        host: catalogue
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: catalogue
  namespace: {NAMESPACE}
spec:
  host: catalogue
  trafficPolicy:
    outlierDetection:
      consecutive5xxErrors: 5
      consecutiveGatewayErrors: 3
      interval: 1s
      baseEjectionTime: 3s
      maxEjectionPercent: 50
"
    )
}

#[cfg(test)]
mod tests {
    use mesh_api::validate::validate;

    use super::*;

    #[test]
    fn the_demo_s_own_yaml_has_no_findings() {
        for capture in [Capture::Redirect, Capture::None] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &Plan::new(capture)).unwrap();
            for entry in fs::read_dir(folder.path()).unwrap() {
                let path = entry.unwrap().path();
                let parsed = mesh_api::parse::parse(&fs::read_to_string(&path).unwrap(), "default");
                assert_eq!(parsed.findings, [], "{}", path.display());
                assert!(!parsed.objects.is_empty(), "{}", path.display());
                for item in parsed.objects {
                    let item = item.unwrap();
                    assert_eq!(item.findings, [], "{}", path.display());
                    assert_eq!(validate(&item.object), [], "{}", path.display());
                }
            }
        }
    }
}
