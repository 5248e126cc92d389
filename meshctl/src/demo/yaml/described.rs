//! Services and workloads as the control plane is told of them.

use std::fmt::Write as _;

use crate::demo::plan::{
    Described, HTTP_PORT, NAMESPACE, Plan, RATINGS_HOST, Role, SERVICES, Service, Workload, app_port,
};

pub(super) fn services(plan: &Plan) -> String {
    let mut text = "# The shop's services.\n".to_owned();
    for service in &SERVICES {
        let Service { name, port_name, port, vip, described } = service;
        // Writing to text does not fail.
        let _ = match described {
            Described::Kubernetes => write!(
                text,
                "\
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {NAMESPACE}
spec:
  clusterIP: {vip}
  selector:
    app: {name}
  ports:
  - name: {port_name}
    port: {port}
    targetPort: {port}
---
{}",
                slice(service, plan)
            ),
            Described::Entries => write!(
                text,
                "\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: {name}
  namespace: {NAMESPACE}
spec:
  hosts: [{RATINGS_HOST}]
  addresses: [{vip}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - number: {port}
    name: {port_name}
    protocol: HTTP
  workloadSelector:
    labels:
      app: {name}
"
            ),
        };
    }
    text
}

fn slice(service: &Service, plan: &Plan) -> String {
    let Service { name, port_name, port, .. } = service;
    let mut text = format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {NAMESPACE}
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
ports:
- name: {port_name}
  protocol: TCP
  port: {port}
endpoints:
"
    );
    for workload in plan.servers(name) {
        let _ = write!(
            text,
            "\
- addresses: [{}]
  conditions: {{ready: true}}
  targetRef: {{kind: Pod, name: {}, namespace: {NAMESPACE}}}
",
            workload.address, workload.name
        );
    }
    text
}

/// The labels of a workload, as YAML lines with `indent` and as its proxy is told them.
#[must_use]
pub fn labels(workload: &Workload) -> Vec<(&'static str, String)> {
    let mut labels = vec![("app", workload.app.to_owned()), ("version", workload.version.to_owned())];
    if workload.role == Role::Gateway {
        labels.push(("istio", "ingressgateway".to_owned()));
    } else {
        labels.push(("instance", workload.name.clone()));
        labels.push(("security.istio.io/tlsMode", "istio".to_owned()));
    }
    // As the injector sets them.
    labels.push(("service.istio.io/canonical-name", workload.app.to_owned()));
    labels.push(("service.istio.io/canonical-revision", workload.version.to_owned()));
    labels.push(("service.istio.io/workload-name", workload.workload_name().to_owned()));
    labels
}

pub(super) fn workloads(plan: &Plan) -> String {
    let mut text = "# Where the shop's services run.\n".to_owned();
    for workload in plan.proxied() {
        let Workload { name, app, address, .. } = workload;
        let labels = labels(workload).iter().fold(String::new(), |mut text, (key, value)| {
            let _ = writeln!(text, "    {key}: {value}");
            text
        });
        let namespace = workload.namespace();
        let entry = workload.service().is_some_and(|service| service.described == Described::Entries);
        let _ = if entry {
            write!(
                text,
                "\
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: {name}
  namespace: {namespace}
  labels:
{labels}spec:
  address: {address}
  serviceAccount: {app}
  labels:
{labels}"
            )
        } else {
            write!(
                text,
                "\
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels:
{labels}spec:
  serviceAccountName: {app}
  containers:
  - name: app
status:
  phase: Running
  podIP: {address}
"
            )
        };
    }
    text
}

/// Without capture: which addresses each sidecar listens on.
pub(super) fn sidecars(plan: &Plan) -> String {
    let mut text = "# Nothing is captured here: each sidecar listens on addresses of its own.\n".to_owned();
    for workload in plan.proxied().filter(|workload| workload.role != Role::Gateway) {
        let Workload { name, address, outbound, .. } = workload;
        let _ = write!(
            text,
            "\
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: {name}
  namespace: {NAMESPACE}
spec:
  workloadSelector:
    labels:
      instance: {name}
"
        );
        if let Some(service) = workload.service() {
            let (inside, port, protocol) = (app_port(service), service.port, protocol(service));
            let name = service.port_name;
            let _ = write!(
                text,
                "  ingress:
  - port: {{number: {port}, protocol: {protocol}, name: {name}}}
    bind: {address}
    captureMode: NONE
    defaultEndpoint: 0.0.0.0:{inside}
"
            );
        }
        text.push_str("  egress:\n");
        for (port, protocol, name) in [(HTTP_PORT, "HTTP", "http"), (9000, "GRPC", "grpc"), (7000, "TCP", "tcp")] {
            let hosts: Vec<String> = SERVICES
                .iter()
                .filter(|service| service.port == port)
                .map(|service| format!("\"./{}\"", service.host()))
                .collect();
            let _ = write!(
                text,
                "  - port: {{number: {port}, protocol: {protocol}, name: {name}}}
    bind: {outbound}
    captureMode: NONE
    hosts: [{}]
",
                hosts.join(", ")
            );
        }
    }
    text
}

fn protocol(service: &Service) -> &'static str {
    match service.port_name {
        "grpc" => "GRPC",
        "tcp" => "TCP",
        _ => "HTTP",
    }
}
