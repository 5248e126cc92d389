//! What customers say. v1 alone, other versions with stars from ratings: black in v2, red in v3.

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::call::{Upstream, passed_on};
use crate::cli;
use crate::identity::Identity;
use crate::reply::{self, Body};
use crate::serve::{Handler, Server, not_found};
use crate::stop::Stop;

#[derive(Debug)]
struct Reviews {
    identity: Identity,
    ratings: Option<Upstream>,
}

pub(crate) async fn run(args: cli::Reviews, stop: Stop) -> Result<()> {
    let cli::Reviews { service, reach, ratings } = args;
    let server = Server::bind(Identity::new("reviews", &service), &service).await?;
    let identity = server.identity.clone();
    let ratings = ratings
        .filter(|_| identity.version != "v1")
        .map(|target| Upstream::new(target, reach.http_proxy, true, reach.timeout));
    server.run(Reviews { identity, ratings }, stop).await
}

impl Handler for Reviews {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(product) = request.uri().path().strip_prefix("/reviews/") else {
            return not_found(&self.identity, &request);
        };
        let ratings = match &self.ratings {
            Some(ratings) => self.stars(ratings, product, &request).await,
            None => Value::Null,
        };
        let reviews = json!([
            { "reviewer": "ada", "text": "Holds in any wind." },
            { "reviewer": "grace", "text": "Found no bug in it." },
        ]);
        let content = json!({ "product": product, "reviews": reviews, "ratings": ratings });
        reply::json(&self.identity, StatusCode::OK, content)
    }
}

impl Reviews {
    /// The stars, or why there are none: reviews without stars are better than no reviews.
    async fn stars(&self, ratings: &Upstream, product: &str, request: &Request<Incoming>) -> Value {
        let path = format!("/ratings/{product}");
        let answer = ratings.call(Method::GET, Some(&path), &passed_on(request.headers()), Bytes::new()).await;
        let colour = if self.identity.version == "v2" { "black" } else { "red" };
        match answer {
            Ok(answer) if answer.status.is_success() => {
                let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or(Value::Null);
                json!({ "colour": colour, "from": body })
            }
            Ok(answer) => json!({ "error": format!("ratings answered {}", answer.status) }),
            Err(failure) => json!({ "error": failure.text }),
        }
    }
}
