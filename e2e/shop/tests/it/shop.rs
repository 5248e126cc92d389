//! Starting the shop's binary and reading what it says.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

fn shop() -> Command {
    Command::new(env!("CARGO_BIN_EXE_e2e-shop"))
}

/// A running service; stopped when dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: String,
}

impl Service {
    /// Starts a service on a free port of loopback and waits until it listens.
    #[track_caller]
    pub(crate) fn start(service: &str, args: &[&str]) -> Self {
        let mut child = shop().arg(service).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        Self { child, address: told["listening"].as_str().unwrap().to_owned() }
    }

    /// A URL that names `host` and connects here.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("http://{host}@{}", self.address)
    }

    /// Returns once the kernel has `count` established connections to this service.
    pub(crate) fn wait_for_connections(&self, count: usize) {
        let port: u16 = self.address.rsplit_once(':').unwrap().1.parse().unwrap();
        let local = format!(":{port:04X}");
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            // Columns: number, local address, remote address, state (01 = established).
            let mine = |line: &&str| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                columns[1].ends_with(&local) && columns[3] == "01"
            };
            if table.lines().skip(1).filter(mine).count() >= count {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Returns once the service is answering `count` requests.
    pub(crate) fn wait_for_requests(&self, count: usize) {
        let url = format!("http://service/healthz@{}", self.address);
        let expect = count.to_string();
        while client(&["http", "--url", &url, "--group-by", "x-in-flight"])["by_group"][&expect].is_null() {}
    }

    /// Sends SIGTERM and returns the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        signal("TERM", &self.child);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already gone after `stop`.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Runs a client to its end and returns its figures.
#[track_caller]
pub(crate) fn client(args: &[&str]) -> Value {
    finish(start_client(args))
}

pub(crate) fn start_client(args: &[&str]) -> Child {
    shop().arg("client").args(args).stdout(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
pub(crate) fn finish(client: Child) -> Value {
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn interrupt(client: &Child) {
    signal("INT", client);
}

fn signal(name: &str, child: &Child) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}
