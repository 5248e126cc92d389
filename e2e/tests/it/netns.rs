//! `netns_*`: whole workloads in network namespaces of their own, with real redirection and Istio's real ports.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use e2e::assert::{PATIENCE, eventually};
use e2e::mesh::{CATALOGUE, NAMESPACE, TCP_ECHO};
use e2e::process::{binary, show};
use meshctl::netns::{Process, ProcessSpec, Sandbox, SandboxConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::fine;

/// Mark of proxies' own connections.
const MARK: &str = "1337";
/// A port that redirection of `api` leaves out.
const EXCLUDED: u16 = 9100;
/// A port that no service names.
const UNDECLARED: u16 = 9999;
const CATALOGUE_VIP: &str = "10.96.0.10:8000";
const ECHO_VIP: &str = "10.96.0.12:8002";

const CONTROL: (&str, Ipv4Addr) = ("control", Ipv4Addr::new(10, 77, 0, 2));
/// Another control plane with the same configuration and a root of its own.
const OTHER_CONTROL: (&str, Ipv4Addr) = ("other-control", Ipv4Addr::new(10, 77, 0, 3));
const WEB: (&str, Ipv4Addr) = ("web", Ipv4Addr::new(10, 77, 0, 11));
const API: (&str, Ipv4Addr) = ("api", Ipv4Addr::new(10, 77, 0, 12));
/// Takes plaintext too.
const OPEN: (&str, Ipv4Addr) = ("open", Ipv4Addr::new(10, 77, 0, 13));
/// A proxy whose certificate comes from the other control plane.
const STRANGER: (&str, Ipv4Addr) = ("stranger", Ipv4Addr::new(10, 77, 0, 14));
/// Without a proxy.
const OUTSIDER: (&str, Ipv4Addr) = ("outsider", Ipv4Addr::new(10, 77, 0, 20));

const OBJECTS: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: shop}
spec: {selector: {matchLabels: {app: open}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: v1
kind: Service
metadata: {name: catalogue, namespace: shop}
spec: {clusterIP: 10.96.0.10, selector: {app: api}, ports: [{name: http, port: 8000, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: tcp-echo, namespace: shop}
spec: {clusterIP: 10.96.0.12, selector: {app: api}, ports: [{name: tcp, port: 8002, targetPort: 8082}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalogue, namespace: shop, labels: {kubernetes.io/service-name: catalogue}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.77.0.12], conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: api}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: tcp-echo, namespace: shop, labels: {kubernetes.io/service-name: tcp-echo}}
addressType: IPv4
ports: [{name: tcp, port: 8082}]
endpoints: [{addresses: [10.77.0.12], conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: api}}]
";

/// Workloads on a bridge. Everything ends with the sandbox.
struct Net {
    sandbox: Sandbox,
    folder: TempDir,
}

impl Net {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("config")).unwrap();
        let config = SandboxConfig { helper: binary("meshctl"), ..SandboxConfig::default() };
        let sandbox = Sandbox::create(&config).unwrap_or_else(|error| panic!("{error}"));
        let mut objects = OBJECTS.to_owned();
        for (name, address) in [CONTROL, OTHER_CONTROL, WEB, API, OPEN, STRANGER, OUTSIDER] {
            sandbox.add_workload(name, address).unwrap();
            let mode = if name == OUTSIDER.0 { "disabled" } else { "istio" };
            objects += &format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, \
                 labels: {{app: {name}, security.istio.io/tlsMode: {mode}}}}}\n\
                 spec: {{serviceAccountName: {name}}}\nstatus: {{podIP: {address}}}\n"
            );
        }
        fs::write(folder.path().join("config/mesh.yaml"), objects).unwrap();
        let net = Self { sandbox, folder };
        net.control(CONTROL);
        for (workload, service, port) in [
            (API, CATALOGUE.name, CATALOGUE.target()),
            (API, TCP_ECHO.name, TCP_ECHO.target()),
            (API, CATALOGUE.name, EXCLUDED),
            (OPEN, CATALOGUE.name, UNDECLARED),
        ] {
            let spec = ProcessSpec::new(binary("e2e-shop")).args([service, "--listen", &format!("0.0.0.0:{port}")]);
            let spec = spec.args(["--instance", &format!("{}-{port}", workload.0)]);
            net.spawn(workload.0, &format!("{}-{port}", workload.0), spec);
        }
        for workload in [WEB, API, OPEN] {
            net.proxy(workload, CONTROL);
        }
        net
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn spawn(&self, workload: &str, name: &str, spec: ProcessSpec) -> Process {
        let log = File::create(self.log(name)).unwrap();
        self.sandbox.spawn(workload, spec.log(log).unwrap()).unwrap()
    }

    /// Starts a control plane and waits until it serves.
    fn control(&self, (name, _): (&str, Ipv4Addr)) {
        let folder = self.folder.path();
        let spec = ProcessSpec::new(binary("meshd")).args(["run", "--config-dir"]);
        let spec = spec.args([folder.join("config").display().to_string()]).args(["--state-dir"]);
        self.spawn(name, name, spec.args([folder.join(format!("{name}-state")).display().to_string()]));
        let ready = ["http", "--url", "http://meshd/ready@127.0.0.1:15014"];
        eventually(&format!("{name} serves"), || fine(&self.client(name, &ready)));
    }

    /// Writes the redirection of a workload, starts its proxy and waits until it is ready.
    fn proxy(&self, (name, address): (&str, Ipv4Addr), (control, at): (&str, Ipv4Addr)) {
        let init = ProcessSpec::new(binary("mesh-proxy")).args(["init", "-u", "", "--proxy-mark", MARK, "-d"]);
        let init = init.args([format!("15090,15021,15020,{EXCLUDED}")]);
        self.sandbox.run(name, init, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        let state = self.folder.path().join(format!("{control}-state"));
        let mut mint = std::process::Command::new(binary("meshd"));
        mint.args(["token", "--namespace", NAMESPACE, "--service-account", name, "--state-dir"]).arg(&state);
        let token = self.folder.path().join(format!("{name}.token"));
        fs::write(&token, mint.output().unwrap().stdout).unwrap();
        let spec = ProcessSpec::new(binary("mesh-proxy"))
            .args(["proxy", "sidecar", "--socket-mark", MARK, "--concurrency", "1"])
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_NAME", name)
            .env("INSTANCE_IP", address.to_string())
            .env("SERVICE_ACCOUNT", name)
            .env("ISTIO_METAJSON_LABELS", format!("{{\"app\": \"{name}\"}}"))
            .env("PROXY_CONFIG", format!("{{discoveryAddress: '{at}:15012'}}"))
            .env("ISTIOD_SAN", "istiod.istio-system.svc")
            .env("XDS_ROOT_CA", state.join("root-cert.pem").display().to_string())
            .env("LATEEN_TOKEN_FILE", token.display().to_string());
        self.spawn(name, &format!("{name}.proxy"), spec);
        let ready = ["http", "--url", "http://proxy/ready@127.0.0.1:15000"];
        eventually(&format!("the proxy of {name} is ready"), || fine(&self.client(name, &ready)));
    }

    /// Runs one of the shop's clients in a workload.
    fn client(&self, workload: &str, args: &[&str]) -> Value {
        let spec = ProcessSpec::new(binary("e2e-shop")).args(["client"]).args(args.iter().copied());
        let spec = spec.args(["--timeout", "5s"]);
        let text = self.sandbox.run(workload, spec, PATIENCE + Duration::from_secs(10));
        let text = text.unwrap_or_else(|error| panic!("{error}"));
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Gets a page of a workload's service at an address; the report shows the last answer.
    fn get(&self, from: &str, path: &str, at: &str) -> Value {
        self.client(from, &["http", "--show", "--no-keepalive", "--url", &format!("http://catalogue{path}@{at}")])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["control", "web.proxy", "api.proxy", "open.proxy", "stranger.proxy"] {
                let text = fs::read_to_string(self.log(name)).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(25).collect();
                show(&format!("──── {name}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n")));
            }
        }
    }
}

fn headers(report: &Value) -> String {
    report["last"]["body"]["headers"].to_string()
}

#[test]
#[ignore = "needs built binaries and user namespaces: cargo xtask ci namespaces"]
fn netns_calls_are_redirected_to_mutual_tls() {
    let net = Net::new();
    eventually("the catalogue answers", || fine(&net.get("web", "/healthz", CATALOGUE_VIP)));
    let echo = net.get("web", "/echo", CATALOGUE_VIP);
    fine(&echo).unwrap();
    assert!(headers(&echo).contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{echo}");
    // Each destination reaches its own port of the same workload, though all arrive at one port of its proxy.
    assert_eq!(echo["by_instance"]["api-8080"], 1, "{echo}");
    let lines = net.client("web", &["tcp", "--addr", ECHO_VIP, "-n", "20"]);
    fine(&lines).unwrap();
    assert_eq!(lines["by_instance"]["api-8082"], 20, "{lines}");
    let load = ["http", "--url", &format!("http://catalogue/bytes/1000@{CATALOGUE_VIP}"), "-n", "500", "-c", "8"];
    fine(&net.client("web", &load)).unwrap();
    // Through its own address a workload reaches itself.
    let own = net.get("api", "/echo", CATALOGUE_VIP);
    fine(&own).unwrap();
    assert!(headers(&own).contains("sa/api"), "{own}");
}

#[test]
#[ignore = "needs built binaries and user namespaces: cargo xtask ci namespaces"]
fn netns_who_does_not_belong_is_refused() {
    let net = Net::new();
    eventually("the catalogue answers", || fine(&net.get("web", "/healthz", CATALOGUE_VIP)));
    // Plaintext to a STRICT port.
    let plain = net.get("outsider", "/healthz", "10.77.0.12:8080");
    assert_eq!((plain["failed"].as_u64(), &plain["by_status"]), (Some(1), &serde_json::json!({})), "{plain}");
    // A certificate of another root, though it says a name of this mesh.
    net.control(OTHER_CONTROL);
    net.proxy(STRANGER, OTHER_CONTROL);
    let stranger = net.get("stranger", "/healthz", CATALOGUE_VIP);
    assert_eq!(stranger["by_status"], serde_json::json!({ "503": 1 }), "{stranger}");
    // The same call with a certificate of this mesh.
    fine(&net.get("web", "/healthz", CATALOGUE_VIP)).unwrap();
}

#[test]
#[ignore = "needs built binaries and user namespaces: cargo xtask ci namespaces"]
fn netns_what_is_not_captured_or_not_declared_keeps_its_destination() {
    let net = Net::new();
    // A port that redirection leaves out is the application's own, whatever the policy.
    let excluded = net.get("outsider", "/healthz", &format!("10.77.0.12:{EXCLUDED}"));
    assert_eq!(excluded["by_instance"]["api-9100"], 1, "{excluded}");
    let ready = net.get("outsider", "/healthz/ready", "10.77.0.12:15021");
    assert_eq!(ready["by_status"]["200"], 1, "{ready}");
    // A port that no service names goes through the proxy to where it was going.
    let at = format!("10.77.0.13:{UNDECLARED}");
    let undeclared = net.get("outsider", "/healthz", &at);
    assert_eq!(undeclared["by_instance"]["open-9999"], 1, "{undeclared}");
    // A destination that no service has, from inside the mesh, is passed through.
    let unknown = net.get("web", "/healthz", &at);
    assert_eq!(unknown["by_instance"]["open-9999"], 1, "{unknown}");
    // The proxy's own port is no way in.
    for port in [15_001, 15_006] {
        let looped = net.get("outsider", "/healthz", &format!("10.77.0.13:{port}"));
        assert_eq!(looped["failed"], 1, "{looped}");
    }
}
