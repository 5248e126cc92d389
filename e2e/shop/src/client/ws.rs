//! WebSocket load: one connection per worker, each message awaited before the next.

use anyhow::{Context, Result};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Uri};
use serde_json::Value;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::call::{self, Failure, FailureKind};
use crate::cli::WsClient;
use crate::client::drive::{Work, drive};
use crate::client::stats::{Outcome, Report};
use crate::stop::Stop;
use crate::target::Target;

/// Messages that may come between a question and its answer (ticks).
const UNASKED: u32 = 1000;

struct Talker {
    target: Arc<Target>,
    uri: Uri,
    headers: HeaderMap,
    socket: Option<WebSocketStream<TcpStream>>,
}

pub(crate) async fn run(args: WsClient, stop: Stop) -> Result<Report> {
    let headers = call::headers(&args.header)?;
    let mut parts = args.url.uri.clone().into_parts();
    parts.scheme = Some("ws".parse().context("naming the scheme")?);
    let uri = Uri::from_parts(parts).context("reading --url")?;
    let target = Arc::new(args.url);
    let worker = |_| Talker { target: Arc::clone(&target), uri: uri.clone(), headers: headers.clone(), socket: None };
    drive(&args.load, &stop, worker).await
}

impl Work for Talker {
    async fn once(&mut self, number: u64) -> Result<Outcome, Failure> {
        // Taken, so that a message given up half way takes its connection with it.
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open().await?,
        };
        let question = format!("message {number}");
        socket.send(Message::text(question.clone())).await.map_err(failure)?;
        for _ in 0..UNASKED {
            let message = socket.next().await.transpose().map_err(failure)?;
            let Some(message) = message else {
                return Err(Failure::new(FailureKind::Closed, "closed before the echo"));
            };
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text)
                .map_err(|error| Failure::new(FailureKind::Protocol, format!("{error} in {text}")))?;
            let Some(echo) = answer.get("echo") else { continue };
            if *echo != question {
                return Err(Failure::new(FailureKind::Protocol, format!("echo {echo} of {question:?}")));
            }
            self.socket = Some(socket);
            let field = |name: &str| Some(answer.get("from")?.get(name)?.as_str()?.to_owned());
            let (group, instance) = (field("version"), field("instance"));
            return Ok(Outcome { status: "echo".to_owned(), fine: true, group, instance });
        }
        Err(Failure::new(FailureKind::Protocol, format!("no echo in {UNASKED} messages")))
    }
}

impl Talker {
    async fn open(&self) -> Result<WebSocketStream<TcpStream>, Failure> {
        let stream = self.target.connect().await.map_err(|error| Failure::connecting(&error))?;
        let mut request = ClientRequestBuilder::new(self.uri.clone());
        for (name, value) in &self.headers {
            request = request.with_header(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(failure)?;
        Ok(socket)
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Io(error) => Failure::broken(&error),
        Error::ConnectionClosed | Error::AlreadyClosed => Failure::new(FailureKind::Closed, error),
        error => Failure::new(FailureKind::Protocol, error),
    }
}
