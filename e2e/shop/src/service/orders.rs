//! Orders over gRPC; `/healthz` answers on the same port over HTTP/1.1.

use anyhow::Result;
use futures::{Stream, StreamExt, stream};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::codegen::Service;
use tonic::{Status, Streaming};

use crate::cli;
use crate::identity::Identity;
use crate::knobs::Knobs;
use crate::proto::orders_server::{Orders, OrdersServer};
use crate::proto::{Note, Order, OrderEvent, PlaceRequest, WatchRequest};
use crate::reply::Body;
use crate::serve::{Handler, Server, not_found};
use crate::stop::Stop;

/// Events of one `Watch` at most.
const EVENTS: u32 = 10_000;
/// Longest pause between two events (milliseconds).
const LONGEST_INTERVAL_MS: u32 = 60_000;
/// What an order goes through.
const STATES: [&str; 4] = ["placed", "packed", "shipped", "delivered"];

/// The methods.
#[derive(Debug)]
struct Desk {
    identity: Identity,
    knobs: Knobs,
    placed: AtomicU64,
}

/// The methods behind HTTP.
#[derive(Debug)]
struct Door {
    identity: Identity,
    orders: OrdersServer<Desk>,
}

pub(crate) async fn run(args: cli::Service, stop: Stop) -> Result<()> {
    let server = Server::bind(Identity::new("orders", &args), &args).await?;
    let identity = server.identity.clone();
    let desk = Desk { identity: identity.clone(), knobs: Knobs::new(&args), placed: AtomicU64::new(0) };
    server.run(Door { identity, orders: OrdersServer::new(desk) }, stop).await
}

impl Handler for Door {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        if !request.uri().path().starts_with("/shop.v1.Orders/") {
            return not_found(&self.identity, &request);
        }
        let response = match self.orders.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let mut response = response.map(|body| body.map_err(Into::into).boxed_unsync());
        self.identity.write(response.headers_mut());
        response
    }

    fn own_knobs(&self) -> bool {
        true
    }
}

impl Desk {
    async fn turn_knobs(&self) -> Result<(), Status> {
        match self.knobs.turn().await {
            Some(_) => Err(Status::unavailable("failed on purpose")),
            None => Ok(()),
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Orders for Desk {
    async fn place(&self, request: tonic::Request<PlaceRequest>) -> Result<tonic::Response<Order>, Status> {
        self.turn_knobs().await?;
        let PlaceRequest { product, quantity } = request.into_inner();
        if quantity == 0 {
            return Err(Status::invalid_argument("quantity must be at least 1"));
        }
        let number = self.placed.fetch_add(1, Ordering::Relaxed) + 1;
        let id = format!("{}-{number}", self.identity.instance);
        Ok(tonic::Response::new(Order { id, product, quantity, server: Some(self.identity.message()) }))
    }

    type WatchStream = Answers<OrderEvent>;

    async fn watch(&self, request: tonic::Request<WatchRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        self.turn_knobs().await?;
        let WatchRequest { id, events, interval_ms } = request.into_inner();
        let pause = Duration::from_millis(interval_ms.min(LONGEST_INTERVAL_MS).into());
        let server = self.identity.message();
        let events = stream::iter(0..events.min(EVENTS)).then(move |sequence| {
            let state = STATES[(sequence as usize).min(STATES.len() - 1)].to_owned();
            let event = OrderEvent { id: id.clone(), sequence, state, server: Some(server.clone()) };
            async move {
                if sequence > 0 && !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Ok(event)
            }
        });
        Ok(tonic::Response::new(events.boxed()))
    }

    type ChatStream = Answers<Note>;

    async fn chat(
        &self,
        request: tonic::Request<Streaming<Note>>,
    ) -> Result<tonic::Response<Self::ChatStream>, Status> {
        self.turn_knobs().await?;
        let server = self.identity.message();
        let answers = request.into_inner().map(move |note| {
            let Note { sequence, text, .. } = note?;
            Ok(Note { sequence, text, server: Some(server.clone()) })
        });
        Ok(tonic::Response::new(answers.boxed()))
    }
}
