//! Lines over TCP: each is answered with who answers and the line itself. With a banner it is a server that speaks first.

use anyhow::Result;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cli;
use crate::client::tcp::LINE_BYTES;
use crate::identity::Identity;
use crate::knobs::Knobs;
use crate::serve::{self, HealthOnly, Server};
use crate::stop::Stop;

#[derive(Debug)]
struct Echo {
    line: String,
    banner: bool,
    knobs: Knobs,
}

pub(crate) async fn run(args: cli::TcpEcho, stop: Stop) -> Result<()> {
    let cli::TcpEcho { mut service, banner, health } = args;
    let identity = Identity::new("tcp-echo", &service);
    let listener = serve::listen(&identity, service.listen).await?;
    let echo = Arc::new(Echo { line: identity.line(), banner, knobs: Knobs::new(&service) });
    let drain = service.drain;
    let mut tasks = JoinSet::new();
    if let Some(address) = health {
        service.listen = address;
        let server = Server::bind(identity.clone(), &service).await?;
        let stop = stop.clone();
        tasks.spawn(async move {
            // It ends with the order to stop; there is nothing to report then.
            _ = server.run(HealthOnly(identity), stop).await;
        });
    }
    let places = Arc::new(Semaphore::new(serve::CONNECTIONS));
    while let Some(stream) = serve::accept(&listener, &stop).await {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (echo, stop) = (Arc::clone(&echo), stop.clone());
        tasks.spawn(async move {
            // A connection that breaks is the client's to notice.
            _ = converse(&echo, stream, &stop).await;
            drop(place);
        });
    }
    drop(listener);
    _ = tokio::time::timeout(drain, async { while tasks.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Answers until the client ends, or until the line under way is answered once told to stop.
async fn converse(echo: &Echo, mut stream: TcpStream, stop: &Stop) -> std::io::Result<()> {
    let Echo { line: who, banner, knobs } = echo;
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    if *banner {
        write.write_all(format!("{who}\n").as_bytes()).await?;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(LINE_BYTES);
        let count = tokio::select! {
            count = limited.read_until(b'\n', &mut line) => count?,
            () = stop.wait() => break,
        };
        if count == 0 || line.last() != Some(&b'\n') {
            break;
        }
        if knobs.turn().await.is_some() {
            break;
        }
        let mut answer = format!("{who} ").into_bytes();
        answer.extend_from_slice(&line);
        write.write_all(&answer).await?;
    }
    write.shutdown().await
}
