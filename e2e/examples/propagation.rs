//! How long an edit of a file takes to be in force: a control plane over a folder of services, sidecars in network
//! namespaces of their own, and edits one after the other. `cargo xtask bench propagation` builds what it needs and runs it.
//!
//! Two clocks. *Apply* runs from before the file is put in its place until the control plane's page says that every proxy
//! has acknowledged: what a person waits. *ACK* is the control plane's own, of each proxy and edit, from the moment it
//! learned of the change to the proxy's acknowledgement.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::assert::{eventually, now};
use e2e::client::request;
use e2e::process::binary;
use meshctl::netns::{ProcessSpec, Sandbox, SandboxConfig};
use serde_json::{Value, json};

/// Where the control plane is, among the workloads.
const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NAMESPACE: &str = "shop";
/// Services that have a VirtualService: one in so many.
const ROUTED: usize = 10;
/// Edits that come before those that count.
const WARM_UP: usize = 5;
/// Longest that a mesh of this size takes to start, or an edit to be everywhere.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is edited.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// The weights of a VirtualService.
    Weight,
    /// An address of an EndpointSlice.
    Endpoint,
    /// A service that was not there before.
    Service,
}

impl Edit {
    const ALL: [Self; 3] = [Self::Weight, Self::Endpoint, Self::Service];

    const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight of a VirtualService",
            Self::Endpoint => "endpoint of a Service",
            Self::Service => "new Service",
        }
    }

    /// The file of the edit, its text, and the object that the control plane will name.
    fn file(self, number: usize) -> (String, String, String) {
        match self {
            Self::Weight => {
                let text = virtual_service(0, 49 - number % 40);
                ("vs-0.yaml".to_owned(), text, format!("VirtualService/{NAMESPACE}/s0"))
            }
            Self::Endpoint => {
                let text = service(7, number % 199 + 2);
                ("s-7.yaml".to_owned(), text, format!("EndpointSlice/{NAMESPACE}/s7"))
            }
            Self::Service => {
                let number = 40_000 + number;
                (format!("s-{number}.yaml"), service(number, 1), format!("Service/{NAMESPACE}/s{number}"))
            }
        }
    }
}

struct Settings {
    services: usize,
    proxies: u8,
    edits: usize,
    out: Option<PathBuf>,
}

impl Settings {
    fn read() -> Self {
        let mut settings = Self { services: 1_000, proxies: 20, edits: 100, out: None };
        let mut words = std::env::args().skip(1);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name.as_str() {
                "--services" => settings.services = value.parse().expect("--services is a number"),
                "--proxies" => settings.proxies = value.parse().expect("--proxies is a number up to 200"),
                "--edits" => settings.edits = value.parse().expect("--edits is a number"),
                "--out" => settings.out = Some(value.into()),
                other => panic!("{other}: one of --services, --proxies, --edits, --out"),
            }
        }
        settings
    }
}

/// A service of two endpoints on a VIP of its own.
fn service(number: usize, last: usize) -> String {
    let (high, low) = (number / 200, number % 200 + 1);
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: s{number}, namespace: {NAMESPACE}}}
spec: {{clusterIP: 10.96.{}.{low}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number}, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: s{number}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.{}.{low}.{last}]}}, {{addresses: [10.{}.{low}.201]}}]
",
        high % 250,
        100 + high % 100,
        100 + high % 100,
    )
}

fn virtual_service(number: usize, weight: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: s{number}, namespace: {NAMESPACE}}}
spec:
  hosts: [s{number}]
  http:
  - match: [{{uri: {{prefix: /v{number}}}}}]
    route: [{{destination: {{host: s{number}}}}}]
  - route:
    - {{destination: {{host: s{number}}}, weight: {weight}}}
    - {{destination: {{host: s1}}, weight: {}}}
",
        100 - weight
    )
}

/// Puts a file in its place as a whole, as editors do.
fn put(folder: &Path, name: &str, text: &str) {
    let beside = folder.with_extension("beside");
    fs::write(&beside, text).expect("the folder can be written");
    fs::rename(beside, folder.join(name)).expect("a file can be put in its place");
}

struct Bed {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    monitoring: SocketAddr,
}

impl Bed {
    fn start(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("config");
        fs::create_dir(&config).expect("a folder");
        for number in 0..settings.services {
            put(&config, &format!("s-{number}.yaml"), &service(number, 1));
            if number % ROUTED == 0 {
                put(&config, &format!("vs-{number}.yaml"), &virtual_service(number, 50));
            }
        }
        let sandbox = SandboxConfig { helper: binary("meshctl"), ..SandboxConfig::default() };
        let sandbox = Sandbox::create(&sandbox).unwrap_or_else(|error| panic!("{error}"));
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let monitoring = socket.local_addr().expect("its address");
        sandbox.add_workload("control", CONTROL).unwrap_or_else(|error| panic!("{error}"));
        let bed = Self { sandbox, folder, monitoring };
        let spec = ProcessSpec::new(binary("meshd")).args(["run", "--config-dir"]);
        let spec = spec.args([config.display().to_string(), "--state-dir".to_owned()]).args([bed.path("state")]);
        bed.spawn("control", spec.socket((Ipv4Addr::UNSPECIFIED, 15_014).into(), socket));
        eventually("the control plane serves", || {
            let answer = request(monitoring, "GET", "meshd", "/ready", &[]).map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
        for number in 1..=settings.proxies {
            bed.proxy(number);
        }
        bed
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn spawn(&self, workload: &str, spec: ProcessSpec) {
        let log = File::create(self.path(&format!("{workload}.log"))).expect("a log file");
        let spec = spec.log(log).expect("a log file");
        self.sandbox.spawn(workload, spec).unwrap_or_else(|error| panic!("{error}"));
    }

    fn proxy(&self, number: u8) {
        let (name, address) = (format!("p{number}"), Ipv4Addr::new(10, 77, 1, number));
        self.sandbox.add_workload(&name, address).unwrap_or_else(|error| panic!("{error}"));
        let mut mint = std::process::Command::new(binary("meshd"));
        mint.args(["token", "--namespace", NAMESPACE, "--service-account", &name, "--state-dir"]);
        let token = mint.arg(self.path("state")).output().expect("meshd token runs").stdout;
        fs::write(self.path(&format!("{name}.token")), token).expect("a token file");
        let spec = ProcessSpec::new(binary("mesh-proxy"))
            .args(["proxy", "sidecar", "--concurrency", "1"])
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_NAME", name.as_str())
            .env("INSTANCE_IP", address.to_string())
            .env("SERVICE_ACCOUNT", name.as_str())
            .env("PROXY_CONFIG", format!("{{discoveryAddress: '{CONTROL}:15012'}}"))
            .env("ISTIOD_SAN", "istiod.istio-system.svc")
            .env("XDS_ROOT_CA", self.path("state/root-cert.pem"))
            .env("LATEEN_TOKEN_FILE", self.path(&format!("{name}.token")));
        self.spawn(&name, spec);
    }

    fn page(&self) -> Value {
        let answer = request(self.monitoring, "GET", "meshd", "/debug/syncz", &[]).expect("the control plane answers");
        answer.json()
    }

    /// Waits until every proxy has everything.
    fn synced(&self, proxies: u8) {
        let started = now();
        loop {
            let page = self.page();
            let known = page["proxies"]
                .as_array()
                .map_or(0, |all| all.iter().filter(|proxy| proxy["types"]["LDS"]["status"] == "SYNCED").count());
            if known == usize::from(proxies) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{known} of {proxies} proxies are in sync");
            e2e::assert::pause();
        }
    }

    /// Makes an edit and waits until every proxy acknowledged it; milliseconds on both clocks.
    fn edit(&self, edit: Edit, number: usize, proxies: u8) -> (f64, f64) {
        let (name, text, object) = edit.file(number);
        let seen = last_change(&self.page());
        let started = now();
        put(&self.folder.path().join("config"), &name, &text);
        loop {
            let page = self.page();
            let took = started.elapsed();
            let done = page["changes"].as_array().into_iter().flatten().find(|change| {
                let names = change["objects"].as_array().into_iter().flatten();
                number_of(&change["id"]) > seen && names.into_iter().any(|name| name.as_str() == Some(object.as_str()))
            });
            if let Some(change) = done.filter(|change| change["done"] == true) {
                assert_eq!(change["confirmed"], proxies, "{change}");
                return (
                    took.as_secs_f64() * 1e3,
                    change["tookMs"].as_f64().expect("a finished change took some time"),
                );
            }
            assert!(took < PATIENCE, "{object}: not everywhere: {page}");
        }
    }
}

fn number_of(id: &Value) -> u64 {
    id.as_str().and_then(|id| id.parse().ok()).unwrap_or(0)
}

fn last_change(page: &Value) -> u64 {
    page["changes"].as_array().and_then(|changes| changes.last()).map_or(0, |change| number_of(&change["id"]))
}

/// The smallest value that this share of all is not above.
fn percentile(sorted: &[f64], share: usize) -> f64 {
    let at = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0.0)
}

fn summary(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    json!({
        "p50_ms": percentile(&values, 50),
        "p90_ms": percentile(&values, 90),
        "p99_ms": percentile(&values, 99),
        "max_ms": values.last().copied().unwrap_or(0.0),
    })
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn main() {
    let settings = Settings::read();
    let bed = Bed::start(&settings);
    bed.synced(settings.proxies);
    println!("{} services, {} proxies, {} edits of each kind", settings.services, settings.proxies, settings.edits);
    println!("{:38} {:>8} {:>8} {:>8} {:>8}   milliseconds", "", "p50", "p90", "p99", "max");
    let mut rows = Vec::new();
    for edit in Edit::ALL {
        let (mut apply, mut last_ack) = (Vec::new(), Vec::new());
        for number in 0..WARM_UP + settings.edits {
            let (all, acks) = bed.edit(edit, number, settings.proxies);
            if number >= WARM_UP {
                apply.push(all);
                last_ack.push(acks);
            }
        }
        // The control plane's percentiles are over its last changes, of all proxies.
        let acks = bed.page()["convergence"].clone();
        for (clock, figures) in [("apply", summary(apply)), ("last ACK", summary(last_ack))] {
            let figure = |name: &str| figures[name].as_f64().unwrap_or(0.0);
            let (p50, p90, p99) = (figure("p50_ms"), figure("p90_ms"), figure("p99_ms"));
            let name = format!("{}, {clock}", edit.name());
            println!("{name:38} {p50:8.1} {p90:8.1} {p99:8.1} {:8.1}", figure("max_ms"));
            rows.push(json!({"edit": edit.name(), "clock": clock, "figures": figures, "acks": acks}));
        }
    }
    if let Some(out) = &settings.out {
        fs::write(out, format!("{:#}\n", Value::Array(rows))).expect("the results can be written");
    }
}
