//! WebSocket: echoes each text, and sends a tick in each interval. Closes with "going away" when told to stop.

use anyhow::Result;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::cli;
use crate::identity::Identity;
use crate::reply::{self, Body};
use crate::serve::{Handler, Server, not_found};
use crate::stop::Stop;

/// Largest message (bytes).
const MESSAGE_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Feed {
    identity: Arc<Identity>,
    interval: Duration,
    stop: Stop,
    /// Held by each conversation; nothing is ever sent.
    open: mpsc::Sender<()>,
}

pub(crate) async fn run(args: cli::Feed, stop: Stop) -> Result<()> {
    let cli::Feed { service, interval } = args;
    let server = Server::bind(Identity::new("feed", &service), &service).await?;
    // A tick needs some time between two.
    let interval = interval.max(Duration::from_millis(1));
    // Conversations outlive the HTTP connections they began on; the channel closes when the last has ended.
    let (open, mut ended) = mpsc::channel(1);
    let feed = Feed { identity: Arc::new(server.identity.clone()), interval, stop: stop.clone(), open };
    server.run(feed, stop).await?;
    _ = tokio::time::timeout(service.drain, ended.recv()).await;
    Ok(())
}

impl Handler for Feed {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/feed" {
            return not_found(&self.identity, &request);
        }
        let Some(accept) = handshake(&request) else {
            let text = "this is a WebSocket: GET with Upgrade: websocket, version 13";
            let mut response = reply::error(&self.identity, StatusCode::UPGRADE_REQUIRED, text);
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            return response;
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let (identity, interval, stop) = (Arc::clone(&self.identity), self.interval, self.stop.clone());
        let open = self.open.clone();
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                // A connection that breaks is the client's to notice.
                _ = converse(&identity, interval, upgraded, &stop).await;
            }
            drop(open);
        });
        let mut response = Response::new(reply::full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        self.identity.write(response.headers_mut());
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// The answer to the client's key when the request is a WebSocket's handshake (RFC 6455, section 4.2.1).
fn handshake<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let asked = has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket");
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    (request.method() == Method::GET && version && asked).then_some(accept)
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

async fn converse(identity: &Identity, interval: Duration, upgraded: Upgraded, stop: &Stop) -> Result<(), Error> {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES)).max_frame_size(Some(MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let mut ticks = tokio::time::interval(interval);
    let mut tick = 0_u64;
    // The first tick of an interval is due at once.
    ticks.tick().await;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let answer = json!({ "from": identity, "echo": text.as_str() });
                    socket.send(Message::text(answer.to_string())).await?;
                }
                Some(Ok(Message::Binary(bytes))) => socket.send(Message::Binary(bytes)).await?,
                // Pings are answered by the protocol; after a close the stream ends.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                tick += 1;
                socket.send(Message::text(json!({ "from": identity, "tick": tick }).to_string())).await?;
            }
            () = stop.wait() => {
                return socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "stopping".into() })).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<()> {
        let request = Request::get("/feed")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.body(()).unwrap()
    }

    #[test]
    fn the_rfcs_example_is_answered_as_it_says() {
        assert_eq!(handshake(&request()).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn anything_less_is_no_handshake() {
        for missing in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
            let mut request = request();
            request.headers_mut().remove(missing);
            assert!(handshake(&request).is_none(), "{missing}");
        }
        let mut post = request();
        *post.method_mut() = Method::POST;
        assert!(handshake(&post).is_none());
    }
}
