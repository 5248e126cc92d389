//! `mesh-proxy replace`: gives the running proxy another program, to be started in its place.
//!
//! For a container, whose files cannot be replaced: an ephemeral container beside it, in its process namespace, brings the new
//! program and ends. The proxy starts it inside its own container, with its variables, files, limits and identity, so that
//! nothing has to be repeated, and for the kubelet nothing has happened.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::time::{Instant, sleep, timeout_at};

use super::channel::Channel;
use super::door;
use super::giver::{GOING, WARM_UP};
use super::message::{Message, ProcessInfo};
use super::take;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for the running proxy to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// `replace`.
#[derive(Args, Clone, Debug)]
pub struct ReplaceArgs {
    /// Name at which the proxy is asked, as its page `/handover` tells it; needed where several run in a network namespace
    #[arg(long)]
    pub door: Option<String>,
}

/// Who serves.
struct Here {
    generation: u32,
    process: ProcessInfo,
    replaced_soon: bool,
}

/// Gives the running proxy the program of this process, and waits until it serves. Returns what to tell.
///
/// # Errors
/// When there is no such proxy, it refuses, or the program does not get ready.
pub async fn run(args: &ReplaceArgs) -> anyhow::Result<String> {
    let name = name(args)?;
    let program = File::open("/proc/self/exe").context("opening this program")?;
    let before = who(&name, Instant::now() + ANSWER).await?;
    let mut channel = connect(&name)?;
    let bring = Message::Bring { process: ProcessInfo::this() };
    let answer = async {
        channel.send(&bring, &[program.as_fd()]).await?;
        channel.receive().await
    };
    match within(ANSWER, answer).await?.context("giving the running proxy this program")? {
        Some((Message::Started, _)) => {}
        Some((Message::Refuse { reason }, _)) => bail!("the running proxy refuses: {reason}"),
        Some(_) => bail!("the running proxy does not know what to do with a program"),
        None => bail!("the running proxy closed the connection; it serves only its own user and process namespace"),
    }
    drop(channel);
    let deadline = Instant::now() + WARM_UP + GOING + ANSWER;
    loop {
        let now = who(&name, deadline).await?;
        if now.generation > before.generation {
            let ProcessInfo { pid, build } = now.process;
            return Ok(format!("replaced: process {pid} ({build}) serves, generation {}", now.generation));
        }
        if !now.replaced_soon {
            bail!("the program did not take over, the proxy before goes on ({}); its log says why", now.process.build);
        }
        sleep(PAUSE).await;
    }
}

fn name(args: &ReplaceArgs) -> anyhow::Result<String> {
    if let Some(name) = &args.door {
        return Ok(name.clone());
    }
    let mut names = door::names().context("looking for running proxies")?;
    match (names.pop(), names.len()) {
        (Some(name), 0) => Ok(name),
        (None, _) => bail!("no proxy runs in this network namespace that could be replaced"),
        (Some(_), more) => bail!("{} proxies run in this network namespace: choose with --door", more + 1),
    }
}

fn connect(name: &str) -> anyhow::Result<Channel> {
    take::connect(name).context("connecting to the running proxy")?.context("the running proxy is gone")
}

/// Asks who serves. While one process takes over from another, neither answers: this waits for the outcome.
async fn who(name: &str, deadline: Instant) -> anyhow::Result<Here> {
    let mut channel = connect(name)?;
    let answer = async {
        channel.send(&Message::Who, &[]).await?;
        channel.receive().await
    };
    let answer = timeout_at(deadline, answer).await.context("the running proxy did not answer in time")?;
    match answer.context("asking who serves")? {
        Some((Message::Here { generation, process, replaced_soon }, _)) => {
            Ok(Here { generation, process, replaced_soon })
        }
        // The one that was asked has handed over meanwhile, and answers to nobody.
        None if Instant::now() < deadline => {
            Ok(Here { generation: 0, process: ProcessInfo::default(), replaced_soon: true })
        }
        Some(_) | None => bail!("the running proxy does not say who it is"),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout_at(Instant::now() + limit, work).await.context("the running proxy did not answer in time")
}
