//! The administrative HTTP/1 server: readiness, metrics, dumps, log levels.
//!
//! It runs on a thread and a runtime of its own, so that it answers while every worker is busy, and never takes time from
//! the request path. Each listening socket has its own [`Router`]; sockets come in already bound, because a parent
//! process may have opened them. It serves trusted callers (a scraper, the kubelet, an operator) but bounds all that an
//! untrusted one could send.

mod message;
mod pages;
mod router;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use message::{Request, Response};
pub use router::Router;

/// Largest request body in bytes. The largest we serve is a scope list of the logging endpoint.
pub const MAX_REQUEST_BODY_BYTES: usize = 64 * 1024;
/// Connections served at once per listening socket; more wait in the kernel's queue. Sockets do not share the number, so a
/// flood of one leaves the readiness port alone.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head, and how long a kept-alive connection may rest; above the usual scrape interval of 15 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is asked to end after this time, so that a peer that never reads its answer cannot keep it for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// Time that connections get to finish their answers when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed `accept`: without one a lack of descriptors would make the loop spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct AdminServer {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl AdminServer {
    /// Serves each socket with its router, on a new thread called `name`.
    ///
    /// # Errors
    /// When a socket cannot be made non-blocking, or the kernel refuses the thread or its event queue.
    pub fn start(name: &str, listeners: Vec<(TcpListener, Router)>) -> io::Result<Self> {
        let runtime = crate::runtime::single()?;
        let mut addresses = Vec::with_capacity(listeners.len());
        let mut sockets = Vec::with_capacity(listeners.len());
        {
            let _entered = runtime.enter();
            for (socket, router) in listeners {
                socket.set_nonblocking(true)?;
                addresses.push(socket.local_addr()?);
                sockets.push((AsyncListener::from_std(socket)?, Arc::new(router)));
            }
        }
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&runtime, sockets, &stopped))?;
        Ok(Self { stop, thread: Some(thread), addresses })
    }

    /// Addresses of the sockets, in the order they were given.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the sockets, lets answers under way finish for up to two seconds, and waits for the thread. Blocks.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which the panic hook has reported already.
            let _ = thread.join();
        }
    }
}

fn run(runtime: &Runtime, sockets: Vec<(AsyncListener, Arc<Router>)>, stopped: &watch::Receiver<bool>) {
    runtime.block_on(async {
        let mut loops = JoinSet::new();
        for (socket, router) in sockets {
            loops.spawn(accept_loop(socket, router, stopped.clone()));
        }
        while loops.join_next().await.is_some() {}
    });
}

async fn accept_loop(socket: AsyncListener, router: Arc<Router>, mut stopped: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = wait_for_stop(&mut stopped) => break,
            // A panic of a handler ends up here and is dropped: the panic hook has reported it, the server lives.
            Some(_ended) = connections.join_next() => continue,
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                socket.accept().await.map(|(stream, peer)| (stream, peer, permit))
            } => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let (router, stopped) = (Arc::clone(&router), stopped.clone());
                connections.spawn(async move {
                    serve(stream, peer, router, stopped).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "Admin connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    // The second look at `stopped` in each connection makes it finish its answer; the rest is cut off.
    let _ = timeout(STOP_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the `AdminServer` was dropped.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Arc<Router>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let router = Arc::clone(&router);
        async move { Ok::<_, Infallible>(answer(request, peer, &router).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), service)
    );
    let end = async {
        tokio::select! {
            () = wait_for_stop(&mut stopped) => {}
            () = sleep(CONNECTION_LIFETIME) => {}
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = end => {
            connection.as_mut().graceful_shutdown();
            match timeout(STOP_GRACE, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error = %crate::report::Report::new(&error), "Admin connection ended early");
    }
}

async fn answer(request: hyper::Request<Incoming>, peer: SocketAddr, router: &Router) -> hyper::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let response = match timeout(BODY_TIMEOUT, Limited::new(body, MAX_REQUEST_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => router.dispatch(Request::new(head, body.to_bytes(), peer)).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => Response::text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("request body is larger than {MAX_REQUEST_BODY_BYTES} bytes\n"),
        ),
        Ok(Err(_)) => Response::text(StatusCode::BAD_REQUEST, "request body could not be read\n"),
        Err(_) => Response::text(StatusCode::REQUEST_TIMEOUT, "request body took too long\n"),
    };
    response.into_http()
}
