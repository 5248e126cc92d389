//! The stars.

use anyhow::Result;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::cli;
use crate::identity::Identity;
use crate::reply::{Body, json};
use crate::serve::{Handler, Server, not_found};
use crate::stop::Stop;

#[derive(Debug)]
struct Ratings(Identity);

pub(crate) async fn run(args: cli::Service, stop: Stop) -> Result<()> {
    let server = Server::bind(Identity::new("ratings", &args), &args).await?;
    let ratings = Ratings(server.identity.clone());
    server.run(ratings, stop).await
}

impl Handler for Ratings {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path().strip_prefix("/ratings/") {
            Some(product) => {
                let ratings = serde_json::json!({ "ada": 5, "grace": 4 });
                json(&self.0, StatusCode::OK, serde_json::json!({ "product": product, "stars": ratings }))
            }
            None => not_found(&self.0, &request),
        }
    }
}
