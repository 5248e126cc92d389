//! A mesh on loopback: a configuration folder, a control plane, workloads with their services and proxies, in capture mode
//! `NONE`.
//!
//! A workload's service listens on port + 10,000 of the workload's address, its proxy on the port itself; a caller reaches
//! services at the caller's own address and the service's port.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::assert::eventually;
use crate::client::{self, Answer};
use crate::net::Network;
use crate::process::{Process, Spec, binary};

/// Namespace of all workloads.
pub const NAMESPACE: &str = "shop";
/// Host number of the control plane.
const CONTROL_PLANE: u8 = 1;
/// Where the control plane listens.
const XDS_PLAINTEXT: u16 = 15_010;
const XDS_TLS: u16 = 15_012;
const MONITORING: u16 = 15_014;
/// A proxy's admin interface.
const ADMIN: u16 = 15_000;

/// One of the shop's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, of the service and of the shop's command.
    pub name: &'static str,
    /// Name of its port, which says the protocol.
    pub port_name: &'static str,
    /// Its port.
    pub port: u16,
    /// Protocol in a Sidecar resource.
    pub protocol: &'static str,
}

/// HTTP/1.1.
pub const CATALOGUE: Service = Service { name: "catalogue", port_name: "http", port: 8000, protocol: "HTTP" };
/// gRPC.
pub const ORDERS: Service = Service { name: "orders", port_name: "grpc", port: 8001, protocol: "GRPC" };
/// Lines over TCP.
pub const TCP_ECHO: Service = Service { name: "tcp-echo", port_name: "tcp", port: 8002, protocol: "TCP" };
/// WebSocket.
pub const FEED: Service = Service { name: "feed", port_name: "http-feed", port: 8003, protocol: "HTTP" };
/// All of them.
pub const SERVICES: [Service; 4] = [CATALOGUE, ORDERS, TCP_ECHO, FEED];

impl Service {
    /// The port of a workload on which its proxy takes connections.
    #[must_use]
    pub const fn target(&self) -> u16 {
        self.port + 80
    }

    /// The port of a workload on which the service itself listens.
    #[must_use]
    pub const fn local(&self) -> u16 {
        self.target() + 10_000
    }

    /// Its full name.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{NAMESPACE}.svc.cluster.local", self.name)
    }
}

/// What proxies speak among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Mutual TLS; nothing else is accepted.
    Strict,
    /// Plaintext.
    Plaintext,
}

/// A place with an address, where a proxy may run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the pod.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Service account.
    pub account: String,
    /// Labels, as a JSON object.
    pub labels: Value,
    /// `sidecar` or `router`.
    pub role: &'static str,
    /// `NONE` or `REDIRECT`.
    pub interception: &'static str,
}

impl Workload {
    /// A socket address of the workload.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Its proxy's admin interface.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.at(ADMIN)
    }
}

/// A mesh with a running control plane. Everything ends when it is dropped, as do the processes started beside it.
#[derive(Debug)]
pub struct Mesh {
    /// Its addresses.
    pub net: Network,
    /// The control plane.
    pub meshd: Process,
    security: Security,
    next: u8,
    /// Goes last: processes show their logs from it.
    folder: TempDir,
}

impl Mesh {
    /// Starts a control plane with the services' objects and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(security: Security) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config", "logs", "tokens"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let net = Network::claim();
        let mode = match security {
            Security::Strict => "STRICT",
            Security::Plaintext => "DISABLE",
        };
        let mut objects = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data: {{mesh: '{{accessLogFile: /dev/stdout}}'}}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: default, namespace: istio-system}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        );
        for (number, service) in SERVICES.iter().enumerate() {
            let Service { name, port_name, port, .. } = service;
            writeln!(
                objects,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
                 spec: {{clusterIP: 10.96.0.1{number}, selector: {{app: {name}}}, \
                 ports: [{{name: {port_name}, port: {port}, targetPort: {}}}]}}",
                service.target()
            )
            .unwrap();
        }
        fs::write(folder.path().join("config/mesh.yaml"), objects).unwrap();
        let meshd = meshd(folder.path(), &net).start(&folder.path().join("logs"));
        let mut mesh = Self { folder, net, meshd, security, next: 10 };
        mesh.wait_for_meshd();
        mesh
    }

    /// Starts the control plane again with what the last one left; kill or stop that first.
    ///
    /// # Panics
    /// When it does not serve.
    pub fn restart_meshd(&mut self) {
        self.meshd = meshd(self.folder.path(), &self.net).start(&self.logs());
        self.wait_for_meshd();
    }

    #[track_caller]
    fn wait_for_meshd(&mut self) {
        let at = self.monitoring();
        let meshd = &mut self.meshd;
        eventually("meshd serves", || {
            meshd.expect_alive();
            ok(client::get(at, "/ready"))
        });
    }

    /// The folder that all files of the mesh are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where logs go.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// The control plane's plaintext port.
    #[must_use]
    pub fn xds(&self) -> SocketAddr {
        self.net.socket(CONTROL_PLANE, XDS_PLAINTEXT)
    }

    /// The control plane's TLS port.
    #[must_use]
    pub fn xds_tls(&self) -> SocketAddr {
        self.net.socket(CONTROL_PLANE, XDS_TLS)
    }

    /// The control plane's pages.
    #[must_use]
    pub fn monitoring(&self) -> SocketAddr {
        self.net.socket(CONTROL_PLANE, MONITORING)
    }

    /// The mesh's roots.
    #[must_use]
    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("state/root-cert.pem")
    }

    /// Writes a file of the configuration folder, all at once.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        client::replace(&self.folder.path().join("config").join(format!("{name}.yaml")), text);
    }

    /// Removes a file of the configuration folder.
    ///
    /// # Panics
    /// When it is not there.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join("config").join(format!("{name}.yaml"))).unwrap();
    }

    /// `/debug/syncz`.
    ///
    /// # Panics
    /// When the control plane does not answer.
    #[must_use]
    pub fn syncz(&self) -> Value {
        client::get(self.monitoring(), "/debug/syncz").unwrap().json()
    }

    /// Adds a workload that serves; its service is started, its proxy is not.
    ///
    /// # Panics
    /// When the service cannot be started.
    #[must_use]
    pub fn serve(&mut self, service: Service, version: &str, more: &[&str]) -> (Workload, Process) {
        let name = format!("{}-{version}", service.name);
        let (target, local) = (service.target(), service.local());
        let workload = self.place(&name, service.name, version, "sidecar");
        let ip = workload.ip;
        let app = self.pod(&workload)
            + &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: {}}}}}\n\
                 addressType: IPv4\nports: [{{name: {}, port: {target}}}]\n\
                 endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}, \
                 targetRef: {{kind: Pod, namespace: {NAMESPACE}, name: {name}}}}}]\n\
                 ---\napiVersion: networking.istio.io/v1\nkind: Sidecar\n\
                 metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
                 spec:\n  workloadSelector: {{labels: {{pod: {name}}}}}\n  \
                 ingress: [{{port: {{number: {target}, protocol: {}, name: {}}}, bind: {ip}, captureMode: NONE, \
                 defaultEndpoint: '0.0.0.0:{local}'}}]\n  egress: [{{hosts: ['./*']}}]\n",
                service.name, service.port_name, service.protocol, service.port_name
            );
        self.write(&name, &app);
        let spec = Spec::new(&format!("{name}.app"), binary("e2e-shop")).args([service.name, "--listen"]);
        let spec = spec.args([workload.at(local).to_string()]).args(["--version", version, "--instance", &name]);
        (workload, spec.args(more).start(&self.logs()))
    }

    /// Adds a workload that calls: each service is reached at its address and the service's port.
    pub fn caller(&mut self, name: &str) -> Workload {
        let workload = self.place(name, name, "v1", "sidecar");
        let ip = workload.ip;
        let mut text = self.pod(&workload);
        write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec:\n  workloadSelector: {{labels: {{pod: {name}}}}}\n  egress:\n"
        )
        .unwrap();
        for Service { name, port_name, port, protocol } in SERVICES {
            writeln!(
                text,
                "  - {{port: {{number: {port}, protocol: {protocol}, name: {port_name}}}, bind: {ip}, captureMode: NONE, \
                 hosts: ['./{name}.{NAMESPACE}.svc.cluster.local']}}"
            )
            .unwrap();
        }
        self.write(name, &text);
        workload
    }

    /// Adds a gateway, with a Gateway resource `front` for HTTP of all hosts at port 8080 of its address.
    pub fn gateway(&mut self, name: &str) -> Workload {
        let workload = self.place(name, "gateway", "v1", "router");
        let gateway = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: front, namespace: {NAMESPACE}}}\n\
             spec:\n  selector: {{app: gateway}}\n  servers:\n  - {{port: {{number: 8080, name: http, protocol: HTTP}}, \
             bind: {}, hosts: ['*']}}\n",
            workload.ip
        );
        self.write(name, &(self.pod(&workload) + &gateway));
        workload
    }

    fn place(&mut self, name: &str, app: &str, version: &str, role: &'static str) -> Workload {
        self.next += 1;
        Workload {
            name: name.to_owned(),
            ip: self.net.address(self.next),
            account: app.to_owned(),
            labels: serde_json::json!({ "app": app, "version": version, "pod": name }),
            role,
            interception: "NONE",
        }
    }

    fn pod(&self, workload: &Workload) -> String {
        let mut labels = workload.labels.clone();
        if self.security == Security::Strict {
            labels["security.istio.io/tlsMode"] = "istio".into();
        }
        let Workload { name, ip, account, .. } = workload;
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, labels: {labels}}}\n\
             spec: {{serviceAccountName: {account}}}\nstatus: {{podIP: {ip}}}\n"
        )
    }

    /// A file with a bootstrap token for the workload.
    ///
    /// # Panics
    /// When the control plane's tool makes none.
    #[must_use]
    pub fn token(&self, workload: &Workload) -> PathBuf {
        let state = self.folder.path().join("state");
        let mut mint = Command::new(binary("meshd"));
        mint.arg("token").arg("--state-dir").arg(state).args(["--namespace", NAMESPACE]);
        let output = mint.args(["--service-account", &workload.account]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = self.folder.path().join("tokens").join(&workload.name);
        fs::write(&path, output.stdout).unwrap();
        path
    }

    /// Variables that a proxy of ours is started with.
    #[must_use]
    pub fn proxy_env(&self, workload: &Workload) -> Vec<(&'static str, String)> {
        let config = format!("{{discoveryAddress: '{}', terminationDrainDuration: 1s}}", self.xds_tls());
        vec![
            ("POD_NAMESPACE", NAMESPACE.to_owned()),
            ("POD_NAME", workload.name.clone()),
            ("INSTANCE_IP", workload.ip.to_string()),
            ("SERVICE_ACCOUNT", workload.account.clone()),
            ("ISTIO_META_INTERCEPTION_MODE", workload.interception.to_owned()),
            ("ISTIO_META_WORKLOAD_NAME", workload.name.clone()),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
            ("ISTIO_METAJSON_LABELS", workload.labels.to_string()),
            ("PROXY_CONFIG", config),
            ("ISTIOD_SAN", "istiod.istio-system.svc".to_owned()),
            ("XDS_ROOT_CA", self.roots().display().to_string()),
            ("LATEEN_TOKEN_FILE", self.token(workload).display().to_string()),
        ]
    }

    /// Starts a proxy of ours and waits until it is ready. `more` are further variables.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn proxy_with(&self, workload: &Workload, more: &[(&str, &str)]) -> Process {
        let mut spec = Spec::new(&format!("{}.proxy", workload.name), binary("mesh-proxy"));
        spec = spec.args(["proxy", workload.role, "--concurrency", "1"]);
        for (name, value) in self.proxy_env(workload) {
            spec = spec.env(name, value);
        }
        for (name, value) in more {
            spec = spec.env(name, *value);
        }
        let shared = [("127.0.0.1", ADMIN), ("0.0.0.0", 15_020), ("0.0.0.0", 15_021), ("0.0.0.0", 15_090)];
        for (address, port) in shared {
            spec = spec.socket(&format!("{address}:{port}"), workload.at(port));
        }
        let mut process = spec.start(&self.logs());
        let admin = workload.admin();
        eventually(&format!("the proxy of {} is ready", workload.name), || {
            process.expect_alive();
            ok(client::get(admin, "/ready"))
        });
        process
    }

    /// Starts a proxy of ours and waits until it is ready.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn proxy(&self, workload: &Workload) -> Process {
        self.proxy_with(workload, &[])
    }
}

/// Whether an answer is a good one; for [`eventually`].
///
/// # Errors
/// Says what it is.
pub fn ok(answer: std::io::Result<Answer>) -> Result<Answer, String> {
    match answer {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(format!("{} {:?} {}", answer.status, answer.headers, answer.body)),
        Err(error) => Err(error.to_string()),
    }
}

fn meshd(folder: &Path, net: &Network) -> Spec {
    let at = |port| net.socket(CONTROL_PLANE, port).to_string();
    let spec = Spec::new("meshd", binary("meshd")).args(["run", "--config-dir"]).args([folder.join("config")]);
    let spec = spec.args(["--state-dir"]).args([folder.join("state")]);
    let spec = spec.args(["--grpc-addr", &at(XDS_PLAINTEXT), "--secure-grpc-addr", &at(XDS_TLS)]);
    spec.args(["--monitoring-addr", &at(MONITORING)])
}
