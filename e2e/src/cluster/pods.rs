//! Asking pods: commands, logs, single requests, load.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, LogParams};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{Cluster, Namespace, run, run_for, wait};
use crate::client::{Answer, parse, question};

/// Most that a command's stream may hold, in bytes.
const OUTPUT_BYTES: u64 = 16 << 20;
/// What a client's own bound on time is exceeded by at most.
const LOAD_SLACK: Duration = Duration::from_secs(60);
/// One round of load.
const ROUND: Duration = Duration::from_secs(6);

/// What a command in a container did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Whether it ended with 0.
    pub success: bool,
    /// Its output.
    pub stdout: String,
    /// Its complaints; the reason of a failure too.
    pub stderr: String,
}

impl Cluster {
    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// When it could not be started.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn try_exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<Executed, String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = AttachParams::default().container(container).stdout(true).stderr(true).stdin(false);
        run_for(limit, &format!("{command:?} in {namespace}/{pod}"), async {
            let mut process =
                api.exec(pod, command.iter().copied(), &params).await.map_err(|error| error.to_string())?;
            let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
            let (stdout, stderr) = tokio::join!(whole(stdout), whole(stderr));
            let status = match status {
                Some(status) => status.await,
                None => None,
            };
            let success = status.as_ref().is_some_and(|status| status.status.as_deref() == Some("Success"));
            let reason = status.filter(|_| !success).and_then(|status| status.message).unwrap_or_default();
            Ok(Executed { success, stdout: stdout?, stderr: stderr? + &reason })
        })
    }

    /// Sends one request to a port of a pod, past Services and proxies of other pods: it comes from the pod's own
    /// loopback, as `kubectl port-forward` does.
    ///
    /// # Errors
    /// When there is no connection or no whole answer.
    pub fn ask_pod(&self, namespace: &str, pod: &str, port: u16, method: &str, path: &str) -> Result<Answer, String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let text = run(&format!("{method} {path} of {namespace}/{pod}:{port}"), async {
            let mut forwarded = api.portforward(pod, &[port]).await.map_err(|error| error.to_string())?;
            let mut stream = forwarded.take_stream(port).ok_or("no stream")?;
            let head = question(method, &format!("localhost:{port}"), path, &[]);
            stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
            let mut text = Vec::new();
            stream.take(OUTPUT_BYTES).read_to_end(&mut text).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(text)
        })?;
        parse(&text).ok_or_else(|| format!("no answer: {:?}", String::from_utf8_lossy(&text)))
    }

    /// What a container wrote.
    ///
    /// # Errors
    /// When there is nothing to read.
    pub fn try_logs(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<String, String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams { container: Some(container.to_owned()), previous, ..LogParams::default() };
        run("reading logs", api.logs(pod, &params)).map_err(|error| error.to_string())
    }
}

async fn whole(stream: Option<impl AsyncRead + Unpin>) -> Result<String, String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_BYTES).read_to_end(&mut bytes).await.map_err(|error: io::Error| error.to_string())?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names of a pod's containers, init containers first.
#[must_use]
pub fn containers(pod: &Value) -> Vec<String> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let all = lists.into_iter().flatten().flatten();
    all.filter_map(|container| Some(container["name"].as_str()?.to_owned())).collect()
}

/// Whether a pod is ready and not on its way out.
#[must_use]
pub fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}

impl Namespace {
    /// The ready pods that a label selector finds, at least one.
    ///
    /// # Panics
    /// When none becomes ready.
    #[track_caller]
    #[must_use]
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        wait(&format!("a ready pod {selector}"), || {
            let pods = self.cluster.list("v1", "Pod", Some(&self.name), selector);
            let count = pods.len();
            let pods: Vec<Value> = pods.into_iter().filter(ready).collect();
            if pods.is_empty() { Err(format!("none of {count}")) } else { Ok(pods) }
        })
    }

    /// The name of one ready pod.
    ///
    /// # Panics
    /// As [`Self::pods`].
    #[track_caller]
    #[must_use]
    pub fn pod(&self, selector: &str) -> String {
        self.pods(selector)[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    }

    /// Runs a command in a container, within a minute.
    ///
    /// # Panics
    /// When it could not be started or does not end.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Executed {
        let executed = self.cluster.try_exec(&self.name, pod, container, command, super::CALL);
        executed.unwrap_or_else(|error| panic!("{command:?} in {pod}/{container}: {error}"))
    }

    /// What a container wrote so far.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    #[must_use]
    pub fn logs(&self, pod: &str, container: &str) -> String {
        let logs = self.cluster.try_logs(&self.name, pod, container, false);
        logs.unwrap_or_else(|error| panic!("logs of {pod}/{container}: {error}"))
    }

    /// Gets a page from a port of a pod.
    ///
    /// # Errors
    /// See [`Cluster::ask_pod`].
    pub fn get(&self, pod: &str, port: u16, path: &str) -> Result<Answer, String> {
        self.cluster.ask_pod(&self.name, pod, port, "GET", path)
    }

    /// Runs one of the shop's clients in a pod's container `app` to its end and returns its figures.
    ///
    /// # Panics
    /// When it printed none.
    #[track_caller]
    #[must_use]
    pub fn shop(&self, pod: &str, args: &[&str]) -> Value {
        let client = Client {
            cluster: self.cluster.clone(),
            namespace: self.name.clone(),
            pod: pod.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        client.run(super::CALL + LOAD_SLACK).unwrap_or_else(|error| panic!("the client: {error}"))
    }

    /// Keeps one of the shop's clients at work in a pod's container `app` until told to stop.
    #[must_use]
    pub fn load(&self, pod: &str, args: &[&str]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [Duration::ZERO, ROUND / 2].map(|delay| {
            let client = Client {
                cluster: self.cluster.clone(),
                namespace: self.name.clone(),
                pod: pod.to_owned(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || client.rounds(delay, &stop))
        });
        Load { stop, threads: threads.into() }
    }
}

/// One of the shop's clients in a pod.
#[derive(Debug)]
struct Client {
    cluster: Cluster,
    namespace: String,
    pod: String,
    args: Vec<String>,
}

impl Client {
    fn run(&self, limit: Duration) -> Result<Value, String> {
        let command = ["/usr/local/bin/shop", "client"].into_iter().chain(self.args.iter().map(String::as_str));
        let command: Vec<&str> = command.collect();
        let ended = self.cluster.try_exec(&self.namespace, &self.pod, "app", &command, limit)?;
        let last = ended.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| format!("{error}: {ended:?}"))
    }

    /// Rounds of load, one after the other.
    #[expect(clippy::disallowed_methods, reason = "the two clients of a load take turns in ending")]
    fn rounds(mut self, delay: Duration, stop: &AtomicBool) -> Result<Vec<Value>, String> {
        self.args.extend(["--count".to_owned(), "0".to_owned()]);
        self.args.extend(["--duration".to_owned(), format!("{}s", ROUND.as_secs())]);
        std::thread::sleep(delay);
        let mut rounds = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            rounds.push(self.run(ROUND + LOAD_SLACK)?);
        }
        Ok(rounds)
    }
}

/// Clients at work in a pod: two, which end their rounds at different times, so that there is load at any time.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Value>, String>>>,
}

/// What came of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Those without an answer, or with one that no client wants.
    pub failed: u64,
    /// Answers by version, or by what the client was told to count by.
    pub by_group: BTreeMap<String, u64>,
    /// Failures without an answer, by what the client calls them (`refused`, `closed`, …).
    pub errors: BTreeMap<String, u64>,
    /// Why requests failed: figures of the rounds in which some did.
    pub failures: Vec<String>,
}

impl Load {
    /// Lets the rounds under way end and returns all figures.
    ///
    /// # Panics
    /// When a client printed none.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Figures {
        self.stop.store(true, Ordering::Relaxed);
        let mut figures = Figures::default();
        for thread in std::mem::take(&mut self.threads) {
            for round in thread.join().unwrap().unwrap_or_else(|error| panic!("the client: {error}")) {
                figures.add(&round);
            }
        }
        figures
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Figures {
    fn add(&mut self, round: &Value) {
        let failed = round["failed"].as_u64().unwrap_or(0);
        self.requests += round["requests"].as_u64().unwrap_or(0);
        self.failed += failed;
        for (group, count) in round["by_group"].as_object().into_iter().flatten() {
            *self.by_group.entry(group.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        for (kind, count) in round["errors"].as_object().into_iter().flatten() {
            *self.errors.entry(kind.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        if failed > 0 {
            self.failures.push(round.to_string());
        }
    }
}
