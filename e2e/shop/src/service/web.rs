//! The shop's page: what catalogue and reviews say, and orders over gRPC.
//!
//! `/` asks both and answers 200 when both did well, else 502 with what came. `/api/catalogue…`, `/api/reviews…` pass one
//! answer through with its status; `/api/orders` places an order.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::call::{Answer, Failure, Upstream, passed_on};
use crate::cli;
use crate::client::grpc;
use crate::identity::{INSTANCE, Identity, VERSION};
use crate::proto::PlaceRequest;
use crate::proto::orders_client::OrdersClient;
use crate::reply::{self, Body};
use crate::serve::{Handler, Server, not_found};
use crate::stop::Stop;

#[derive(Debug)]
struct Web {
    identity: Identity,
    catalogue: Upstream,
    reviews: Upstream,
    orders: Option<OrdersClient<Channel>>,
    timeout: Duration,
}

/// What one upstream said.
#[derive(Debug, Serialize)]
struct Part {
    status: Option<u16>,
    version: Option<String>,
    instance: Option<String>,
    milliseconds: f64,
    body: Value,
    error: Option<String>,
}

pub(crate) async fn run(args: cli::Web, stop: Stop) -> Result<()> {
    let cli::Web { service, reach, catalogue, reviews, orders } = args;
    let server = Server::bind(Identity::new("web", &service), &service).await?;
    let upstream = |target| Upstream::new(target, reach.http_proxy, true, reach.timeout);
    let orders = orders.as_ref().map(grpc::channel).transpose().context("reading --orders")?;
    let web = Web {
        identity: server.identity.clone(),
        catalogue: upstream(catalogue),
        reviews: upstream(reviews),
        orders: orders.map(OrdersClient::new),
        timeout: reach.timeout,
    };
    server.run(web, stop).await
}

impl Handler for Web {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if path == "/" {
            return self.page(&request).await;
        }
        if let Some(rest) = path.strip_prefix("/api/catalogue") {
            return self.pass(&self.catalogue, &format!("/products{rest}"), &request, "catalogue").await;
        }
        if let Some(rest) = path.strip_prefix("/api/reviews") {
            let product = if rest.is_empty() { "/0" } else { rest };
            return self.pass(&self.reviews, &format!("/reviews{product}"), &request, "reviews").await;
        }
        match &self.orders {
            Some(orders) if path == "/api/orders" => self.order(orders.clone(), &request).await,
            _ => not_found(&self.identity, &request),
        }
    }
}

impl Web {
    async fn page(&self, request: &Request<Incoming>) -> Response<Body> {
        let headers = passed_on(request.headers());
        let (catalogue, reviews) =
            tokio::join!(part(&self.catalogue, "/products", &headers), part(&self.reviews, "/reviews/0", &headers));
        let fine = [&catalogue, &reviews].iter().all(|part| part.status.is_some_and(|status| status < 400));
        let status = if fine { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        let wants_html =
            request.headers().get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
        let mut response = if wants_html {
            reply::typed(&self.identity, status, "text/html; charset=utf-8", html(&self.identity, &catalogue, &reviews))
        } else {
            reply::json(&self.identity, status, json!({ "catalogue": catalogue, "reviews": reviews }))
        };
        for (service, part) in [("catalogue", &catalogue), ("reviews", &reviews)] {
            name_upstream(response.headers_mut(), service, part.version.as_deref(), part.instance.as_deref());
        }
        response
    }

    /// One upstream's answer with its status; our own identity in `x-service` and the like, the upstream's in
    /// `x-<service>-version` and `x-<service>-instance`.
    async fn pass(
        &self,
        upstream: &Upstream,
        path: &str,
        request: &Request<Incoming>,
        service: &str,
    ) -> Response<Body> {
        let headers = passed_on(request.headers());
        let answer = match upstream.call(Method::GET, Some(path), &headers, Bytes::new()).await {
            Ok(answer) => answer,
            Err(failure) => return reply::error(&self.identity, StatusCode::BAD_GATEWAY, &failure.text),
        };
        let mut response = Response::new(reply::full(answer.body.clone()));
        *response.status_mut() = answer.status;
        if let Some(kind) = answer.headers.get(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        self.identity.write(response.headers_mut());
        let (version, instance) = (text(&answer, &VERSION), text(&answer, &INSTANCE));
        name_upstream(response.headers_mut(), service, version.as_deref(), instance.as_deref());
        response
    }

    async fn order(&self, mut orders: OrdersClient<Channel>, request: &Request<Incoming>) -> Response<Body> {
        let mut call = tonic::Request::new(PlaceRequest { product: "0".to_owned(), quantity: 1 });
        call.set_timeout(self.timeout);
        *call.metadata_mut() = tonic::metadata::MetadataMap::from_headers(passed_on(request.headers()));
        match tokio::time::timeout(self.timeout, orders.place(call)).await {
            Ok(Ok(placed)) => {
                let order = placed.into_inner();
                let server = order.server.unwrap_or_default();
                let content = json!({ "order": order.id, "quantity": order.quantity, "from": server.service });
                let mut response = reply::json(&self.identity, StatusCode::OK, content);
                name_upstream(response.headers_mut(), "orders", Some(&server.version), Some(&server.instance));
                response
            }
            Ok(Err(status)) => {
                let text = format!("orders: {} {}", grpc::code_name(status.code()), status.message());
                reply::error(&self.identity, StatusCode::BAD_GATEWAY, &text)
            }
            Err(_) => reply::error(&self.identity, StatusCode::GATEWAY_TIMEOUT, "orders: no answer in time"),
        }
    }
}

async fn part(upstream: &Upstream, path: &str, headers: &HeaderMap) -> Part {
    let start = Instant::now();
    let answer = upstream.call(Method::GET, Some(path), headers, Bytes::new()).await;
    let milliseconds = start.elapsed().as_secs_f64() * 1000.0;
    match answer {
        Ok(answer) => Part {
            status: Some(answer.status.as_u16()),
            version: text(&answer, &VERSION),
            instance: text(&answer, &INSTANCE),
            milliseconds,
            body: content(&answer),
            error: None,
        },
        Err(Failure { kind, text }) => Part {
            status: None,
            version: None,
            instance: None,
            milliseconds,
            body: Value::Null,
            error: Some(format!("{}: {text}", kind.name())),
        },
    }
}

/// The body as JSON, or as text where it is none.
fn content(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into_owned().into())
}

fn text(answer: &Answer, name: &HeaderName) -> Option<String> {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn name_upstream(headers: &mut HeaderMap, service: &str, version: Option<&str>, instance: Option<&str>) {
    for (what, value) in [("version", version), ("instance", instance)] {
        let name = HeaderName::try_from(format!("x-{service}-{what}"));
        if let (Ok(name), Some(Ok(value))) = (name, value.map(HeaderValue::from_str)) {
            headers.insert(name, value);
        }
    }
}

fn html(identity: &Identity, catalogue: &Part, reviews: &Part) -> String {
    let row = |title: &str, part: &Part| {
        let from = format!("{} {}", part.version.as_deref().unwrap_or("-"), part.instance.as_deref().unwrap_or("-"));
        let status = part.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let body = serde_json::to_string_pretty(&part.body).unwrap_or_default();
        let cells = [title, &from, &status, part.error.as_deref().unwrap_or(""), &body].map(escape);
        let [title, from, status, error, body] = cells;
        format!("<h2>{title}</h2><p>{from} &middot; {status} {error}</p><pre>{body}</pre>")
    };
    let who = escape(&identity.line());
    let (catalogue, reviews) = (row("Catalogue", catalogue), row("Reviews", reviews));
    format!("<!doctype html><title>Shop</title><h1>Shop</h1><p>{who}</p>{catalogue}{reviews}\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
