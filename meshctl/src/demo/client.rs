//! The shop's own clients, run in a workload or outside, and what they measured.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::host::Task;
use super::mesh::Mesh;
use crate::error::CliError;

/// Largest output read (bytes).
const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// Time that a client gets to end beyond its own.
const SPARE: Duration = Duration::from_secs(20);

/// What a client measured; the fields are those of its JSON.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Figures {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Those without an answer, or with one that no client wants.
    pub failed: u64,
    /// Answers by status.
    pub by_status: BTreeMap<String, u64>,
    /// Answers by version, or by the header asked for.
    pub by_group: BTreeMap<String, u64>,
    /// Requests without an answer, by kind.
    pub errors: BTreeMap<String, u64>,
    /// One of these, in words.
    pub error_example: Option<String>,
    /// Latency of answers.
    pub latency_ms: Latency,
    /// Requests per second.
    pub per_second: f64,
    /// The last answer, when it was asked for.
    #[serde(default)]
    pub last: Option<Last>,
}

/// Latency in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Latency {
    /// Half of all answers were faster.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// A whole answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Last {
    /// Its status.
    pub status: u16,
    /// Its body, as JSON where it is.
    pub body: serde_json::Value,
}

impl Figures {
    /// Why some requests failed, in words.
    #[must_use]
    pub fn complaint(&self) -> String {
        let Self { requests, failed, by_status, errors, error_example, .. } = self;
        let example = error_example.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
        format!("{failed} of {requests} requests failed: statuses {by_status:?}, errors {errors:?}{example}")
    }
}

/// A client that runs.
#[derive(Debug)]
pub struct Client {
    task: Task,
    output: std::path::PathBuf,
    what: String,
}

impl Client {
    /// Starts a client in a workload; `None` is outside, where the user is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mesh: &mut Mesh, workload: Option<&str>, args: &[&str]) -> Result<Self, CliError> {
        let what = args.join(" ");
        let (name, output) = mesh.next_output();
        let file = std::fs::File::create(&output)
            .map_err(|error| CliError::internal(format!("cannot write {}", output.display())).because(&error))?;
        let mut spec = mesh.binaries.spec("e2e-shop").args(["client"]).args(args.iter().copied());
        spec.stdout = crate::netns::Output::File(file);
        spec.stderr = crate::netns::Output::File(mesh.dirs.log(&name)?);
        let task = mesh.spawn(workload, spec)?;
        Ok(Self { task, output, what })
    }

    /// Waits until it has done what it was told.
    ///
    /// # Errors
    /// When it takes longer than `limit` and some, or says nothing.
    pub async fn finish(self, limit: Duration) -> Result<Figures, CliError> {
        if self.task.wait(limit + SPARE).await.is_none() {
            self.task.signal(Signal::SIGKILL);
            return Err(CliError::internal(format!("client {} did not end within {limit:?}", self.what)));
        }
        self.figures()
    }

    /// Tells it to stop and returns what it measured.
    ///
    /// # Errors
    /// When it does not stop, or says nothing.
    pub async fn stop(self) -> Result<Figures, CliError> {
        self.task.signal(Signal::SIGTERM);
        self.finish(Duration::ZERO).await
    }

    fn figures(&self) -> Result<Figures, CliError> {
        let failed = || CliError::internal(format!("client {} gave no figures", self.what));
        let mut text = String::new();
        let file = std::fs::File::open(&self.output).map_err(|error| failed().because(&error))?;
        file.take(MAX_OUTPUT_BYTES).read_to_string(&mut text).map_err(|error| failed().because(&error))?;
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| failed().because(&error))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.task.exit().is_none() {
            self.task.signal(Signal::SIGKILL);
        }
    }
}

/// Runs a client to its end.
///
/// # Errors
/// When it cannot be run or says nothing; failed requests are figures.
pub async fn run(mesh: &mut Mesh, workload: Option<&str>, args: &[&str]) -> Result<Figures, CliError> {
    Client::start(mesh, workload, args)?.finish(Duration::from_secs(60)).await
}
