//! A mesh with a caller and services, and the same calls in every protocol.

use std::net::SocketAddr;

use e2e::assert::{eventually, wait_until};
use e2e::client::{self, Answer, shop, url};
use e2e::mesh::{CATALOGUE, FEED, Mesh, ORDERS, Security, Service, TCP_ECHO, Workload, ok};
use e2e::process::Process;
use serde_json::Value;

use crate::envoy;

/// Whose proxy stands beside a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `mesh-proxy`.
    Ours,
    /// A stock Envoy.
    Envoy,
}

/// A workload with its processes.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) workload: Workload,
    pub(crate) app: Process,
    pub(crate) proxy: Process,
}

/// A mesh with one caller.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) caller: Workload,
    pub(crate) proxy: Process,
    pub(crate) backends: Vec<Backend>,
    /// Goes last, and the logs with it.
    pub(crate) mesh: Mesh,
}

impl World {
    pub(crate) fn new(security: Security, caller_kind: Kind) -> Self {
        let mut mesh = Mesh::start(security);
        let caller = mesh.caller("caller");
        let proxy = start(&mesh, &caller, caller_kind);
        Self { mesh, caller, proxy, backends: Vec::new() }
    }

    /// A mesh whose caller's proxy, one of ours, has further variables.
    pub(crate) fn with(security: Security, more: &[(&str, &str)]) -> Self {
        let mut mesh = Mesh::start(security);
        let caller = mesh.caller("caller");
        let proxy = mesh.proxy_with(&caller, more);
        Self { mesh, caller, proxy, backends: Vec::new() }
    }

    /// Adds a service's workload with its proxy.
    pub(crate) fn serve(&mut self, service: Service, version: &str, kind: Kind, more: &[&str]) -> &mut Backend {
        let (workload, app) = self.mesh.serve(service, version, more);
        let proxy = start(&self.mesh, &workload, kind);
        self.backends.push(Backend { workload, app, proxy });
        self.backends.last_mut().unwrap()
    }

    /// Where the caller reaches a service.
    pub(crate) fn at(&self, service: Service) -> SocketAddr {
        self.caller.at(service.port)
    }

    /// Gets a page of the catalogue.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
        client::request(self.at(CATALOGUE), "GET", CATALOGUE.name, path, headers)
    }

    /// Waits until the catalogue answers well.
    #[track_caller]
    pub(crate) fn wait_for_catalogue(&self) {
        eventually("the catalogue answers", || ok(self.get("/healthz", &[])));
    }

    /// Waits until an answer is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str, headers: &[(&str, &str)], wanted: impl Fn(&Answer) -> bool) -> Answer {
        eventually(&format!("an answer of {path} as wanted"), || match self.get(path, headers) {
            Ok(answer) if wanted(&answer) => Ok(answer),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits until requests are answered by one version only.
    #[track_caller]
    pub(crate) fn wait_for_version(&self, version: &str, args: &[&str]) {
        eventually(&format!("all requests go to {version}"), || {
            let report = self.load("/healthz", &[&["-n", "50"], args].concat());
            if report["by_group"][version] == 50 { Ok(()) } else { Err(report.to_string()) }
        });
    }

    /// Sends requests to the catalogue.
    pub(crate) fn load(&self, path: &str, args: &[&str]) -> Value {
        let url = url(CATALOGUE.name, path, self.at(CATALOGUE));
        shop(&[&["http", "--url", &url], args].concat())
    }

    /// Requests that a workload's proxy, one of ours, has counted.
    pub(crate) fn counted(workload: &Workload) -> f64 {
        let page = client::get(workload.admin(), "/stats/prometheus").unwrap().body;
        let mine = page.lines().filter(|line| line.starts_with("istio_requests_total{"));
        mine.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until the caller has sent more requests than now.
    pub(crate) fn wait_for_flow(&self) {
        let before = Self::counted(&self.caller);
        wait_until("requests flow", || Self::counted(&self.caller) > before + 20.0);
    }

    /// Calls every service in its own protocol; nothing may fail.
    #[track_caller]
    pub(crate) fn call_all(&self) {
        self.wait_for_catalogue();
        let (http, grpc) = (self.at(CATALOGUE), self.at(ORDERS));
        let http = url(CATALOGUE.name, "/bytes/1024", http);
        expect_fine(&shop(&["http", "--url", &http, "-n", "200", "-c", "8"]), 200);
        expect_fine(&shop(&["http", "--url", &http, "-n", "20", "--no-keepalive"]), 20);
        // A page that reads the body before it answers: those that do not close their connection, and Envoy says 503.
        let echo = url(CATALOGUE.name, "/echo", self.at(CATALOGUE));
        expect_fine(&shop(&["http", "--url", &echo, "-n", "20", "-X", "POST", "--body-bytes", "100000"]), 20);
        eventually("orders answer", || fine(&shop(&["grpc", "--url", &url(ORDERS.name, "", grpc)])));
        for method in ["unary", "stream", "bidi"] {
            let url = url(ORDERS.name, "", grpc);
            expect_fine(&shop(&["grpc", "--url", &url, "--method", method, "-n", "50", "-c", "8"]), 50);
        }
        let tcp = self.at(TCP_ECHO).to_string();
        eventually("the echo answers", || fine(&shop(&["tcp", "--addr", &tcp])));
        expect_fine(&shop(&["tcp", "--addr", &tcp, "-n", "100", "-c", "4", "--bytes", "3000"]), 100);
        let ws = url(FEED.name, "/feed", self.at(FEED));
        eventually("the feed answers", || fine(&shop(&["ws", "--url", &ws])));
        expect_fine(&shop(&["ws", "--url", &ws, "-n", "50", "-c", "4"]), 50);
    }
}

pub(crate) fn start(mesh: &Mesh, workload: &Workload, kind: Kind) -> Process {
    match kind {
        Kind::Ours => mesh.proxy(workload),
        Kind::Envoy => envoy::start(mesh, workload),
    }
}

/// Whether nothing failed.
pub(crate) fn fine(report: &Value) -> Result<(), String> {
    if report["failed"] == 0 && report["requests"] != 0 { Ok(()) } else { Err(report.to_string()) }
}

/// Fails unless there were so many requests and all went well.
#[track_caller]
pub(crate) fn expect_fine(report: &Value, count: u64) {
    assert_eq!((&report["failed"], &report["requests"]), (&0.into(), &count.into()), "{report}");
}
