//! `meshctl demo --check`: the scenario, one step a line with what it measured.

mod protocols;
mod resilience;
mod routing;
mod security;
mod support;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::mesh::Mesh;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer;

/// The workload whose certificates are short-lived, and how long they live.
pub const SHORT_LIVED: (&str, Duration) = (security::SHORT_LIVED, security::SHORT_TTL);

/// Longest time for one step.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// What a step works with.
#[derive(Debug)]
pub struct Check<'a> {
    /// The mesh.
    pub mesh: &'a mut Mesh,
    /// Requests of the check of shares.
    pub requests: u64,
    /// Everything random comes from here.
    pub rng: StdRng,
}

/// A step: what it measured, or why it failed.
type Step = for<'b> fn(&'b mut Check<'_>) -> Pin<Box<dyn Future<Output = Result<String, CliError>> + 'b>>;

const STEPS: &[(&str, Step)] = &[
    ("ingress reaches web", |check| Box::pin(routing::ingress(check))),
    ("mTLS: certificates seen on every hop", |check| Box::pin(security::certificates(check))),
    ("mTLS: identities seen on every hop", |check| Box::pin(security::identities(check))),
    ("plaintext to a STRICT port is refused", |check| Box::pin(security::plaintext(check))),
    ("a stranger's certificate is refused", |check| Box::pin(security::stranger(check))),
    ("shares of 90 and 10", |check| Box::pin(routing::shares(check))),
    ("route by header", |check| Box::pin(routing::header(check))),
    ("weights edited live", |check| Box::pin(routing::live_edit(check))),
    ("objects applied in random order under traffic", |check| Box::pin(routing::random_order(check))),
    ("a killed instance is ejected, its requests retried", |check| Box::pin(resilience::killed_instance(check))),
    ("fault: delay", |check| Box::pin(routing::delay(check))),
    ("fault: abort", |check| Box::pin(routing::abort(check))),
    ("timeout", |check| Box::pin(routing::timeout(check))),
    ("gRPC unary", |check| Box::pin(protocols::unary(check))),
    ("gRPC streaming", |check| Box::pin(protocols::streaming(check))),
    ("WebSocket echo", |check| Box::pin(protocols::websocket(check))),
    ("TCP echo, server speaks first", |check| Box::pin(protocols::tcp(check))),
    ("meshd killed and restarted under traffic", |check| Box::pin(resilience::control_plane(check))),
    ("certificate rotated under load", |check| Box::pin(security::rotation(check))),
    ("broken YAML is reported, the rest lives", |check| Box::pin(resilience::broken_file(check))),
    ("proxies replaced by new processes under traffic", |check| Box::pin(resilience::successors(check))),
    ("metric series stay within their budget", |check| Box::pin(resilience::series(check))),
];

/// Drives the scenario; `only` chooses steps by words of their names.
///
/// # Errors
/// When results cannot be written. A failed step is an exit code.
pub async fn run(mesh: &mut Mesh, requests: u64, seed: u64, only: &[String]) -> Result<Exit, CliError> {
    let mut failed = 0_u32;
    let mut done = 0_u32;
    let mut check = Check { mesh, requests, rng: StdRng::seed_from_u64(seed) };
    let start = Instant::now();
    for (name, step) in STEPS {
        if !only.is_empty() && !only.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        done += 1;
        let result = match tokio::time::timeout(STEP_LIMIT, step(&mut check)).await {
            Ok(result) => result,
            Err(_) => Err(CliError::internal(format!("not done within {STEP_LIMIT:?}"))),
        };
        // Whatever a step left running must not disturb the next.
        let result = result.and_then(|measured| check.mesh.casualty().map_or(Ok(measured), Err));
        let line = match result {
            Ok(measured) => format!("ok      {name}: {measured}\n"),
            Err(error) => {
                failed += 1;
                format!("FAILED  {name}: {}\n", one_line(&error))
            }
        };
        printer::out(&line).map_err(|error| CliError::internal("cannot write results").because(&error))?;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let text =
        format!("{verdict}: {done} steps, {failed} failed, {:.1} s, seed {seed}\n", start.elapsed().as_secs_f64());
    printer::out(&text).map_err(|error| CliError::internal("cannot write results").because(&error))?;
    Ok(if failed == 0 { Exit::Ok } else { Exit::User })
}

fn one_line(error: &CliError) -> String {
    let mut text = error.message.clone();
    for cause in &error.chain {
        text.push_str(": ");
        text.push_str(cause);
    }
    text
}
