//! gRPC load on orders, and the channel that web uses too.

use anyhow::{Context, Result};
use http::HeaderMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::call::{self, Failure, FailureKind};
use crate::cli::{GrpcClient, Method};
use crate::client::drive::{Work, drive};
use crate::client::stats::{Outcome, Report};
use crate::proto::orders_client::OrdersClient;
use crate::proto::{Note, PlaceRequest, Server, WatchRequest};
use crate::stop::Stop;
use crate::target::Target;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel that connects when it is first used and again when it has to; requests name the target's host.
///
/// # Errors
/// When the target's address is none for tonic.
pub(crate) fn channel(target: &Target) -> Result<Channel> {
    let endpoint = format!("http://{}", target.endpoint());
    let endpoint = Endpoint::from_shared(endpoint).with_context(|| format!("connecting to {}", target.endpoint()))?;
    Ok(endpoint.origin(target.uri.clone()).connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy())
}

/// A status as gRPC's specification writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

struct Caller {
    orders: OrdersClient<Channel>,
    headers: HeaderMap,
    method: Method,
    messages: u32,
}

pub(crate) async fn run(args: GrpcClient, stop: Stop) -> Result<Report> {
    let headers = call::headers(&args.header)?;
    let channels = (0..args.connections).map(|_| channel(&args.url)).collect::<Result<Vec<_>>>()?;
    let worker = |index: u32| Caller {
        orders: OrdersClient::new(channels[(index % args.connections) as usize].clone()),
        headers: headers.clone(),
        method: args.method,
        messages: args.messages,
    };
    drive(&args.load, &stop, worker).await
}

/// Why a call did not end well.
enum Broken {
    /// The server or a proxy said so.
    Status(Status),
    /// The answers were not those that belong to the question.
    Wrong(String),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Work for Caller {
    async fn once(&mut self, number: u64) -> Result<Outcome, Failure> {
        let called = match self.method {
            Method::Unary => self.unary().await,
            Method::Stream => self.stream(number).await,
            Method::Bidi => self.bidi(number).await,
        };
        match called {
            Ok(server) => Ok(Outcome {
                status: code_name(Code::Ok).to_owned(),
                fine: true,
                group: Some(server.version),
                instance: Some(server.instance),
            }),
            Err(Broken::Status(status)) => {
                Ok(Outcome { status: code_name(status.code()).to_owned(), fine: false, group: None, instance: None })
            }
            Err(Broken::Wrong(text)) => Err(Failure::new(FailureKind::Protocol, text)),
        }
    }
}

impl Caller {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        request
    }

    async fn unary(&mut self) -> Result<Server, Broken> {
        let request = self.request(PlaceRequest { product: "0".to_owned(), quantity: 1 });
        let order = self.orders.place(request).await?.into_inner();
        order.server.ok_or_else(|| Broken::Wrong("the order names no server".to_owned()))
    }

    async fn stream(&mut self, number: u64) -> Result<Server, Broken> {
        let id = number.to_string();
        let request = self.request(WatchRequest { id: id.clone(), events: self.messages, interval_ms: 0 });
        let mut events = self.orders.watch(request).await?.into_inner();
        let mut expected = 0;
        let mut server = None;
        while let Some(event) = events.message().await? {
            if event.id != id || event.sequence != expected {
                return Err(Broken::Wrong(format!("event {} of {} in place {expected}", event.sequence, event.id)));
            }
            expected += 1;
            server = event.server;
        }
        match server {
            Some(server) if expected == self.messages => Ok(server),
            _ => Err(Broken::Wrong(format!("{expected} events of {}", self.messages))),
        }
    }

    /// Each note goes out only after the one before was answered: both directions must be open at the same time.
    async fn bidi(&mut self, number: u64) -> Result<Server, Broken> {
        let (sender, notes) = mpsc::channel(1);
        let request = self.request(ReceiverStream::new(notes));
        let note = |sequence: u32| Note { sequence, text: format!("{number}-{sequence}"), server: None };
        let gone = |_| Broken::Wrong("the call ended before its last note".to_owned());
        sender.send(note(0)).await.map_err(gone)?;
        let mut answers = self.orders.chat(request).await?.into_inner();
        let mut server = None;
        for sequence in 0..self.messages {
            match answers.next().await.transpose()? {
                Some(answer) if answer.text == note(sequence).text => server = answer.server,
                Some(answer) => return Err(Broken::Wrong(format!("answer {:?} to note {sequence}", answer.text))),
                None => return Err(Broken::Wrong(format!("no answer to note {sequence}"))),
            }
            if sequence + 1 < self.messages {
                sender.send(note(sequence + 1)).await.map_err(gone)?;
            }
        }
        drop(sender);
        if answers.next().await.transpose()?.is_some() {
            return Err(Broken::Wrong("more answers than notes".to_owned()));
        }
        server.ok_or_else(|| Broken::Wrong("the answers name no server".to_owned()))
    }
}
