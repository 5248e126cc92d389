//! The products.

use anyhow::Result;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use crate::cli;
use crate::identity::Identity;
use crate::reply::{Body, json};
use crate::serve::{Handler, Server, not_found};
use crate::stop::Stop;

#[derive(Clone, Copy, Debug, Serialize)]
struct Product {
    id: &'static str,
    name: &'static str,
    cents: u32,
}

const PRODUCTS: [Product; 4] = [
    Product { id: "0", name: "Lateen sail", cents: 129_900 },
    Product { id: "1", name: "Hemp rope, 30 m", cents: 4_900 },
    Product { id: "2", name: "Brass compass", cents: 8_900 },
    Product { id: "3", name: "Oil lamp", cents: 3_500 },
];

#[derive(Debug)]
struct Catalogue(Identity);

pub(crate) async fn run(args: cli::Service, stop: Stop) -> Result<()> {
    let server = Server::bind(Identity::new("catalogue", &args), &args).await?;
    let catalogue = Catalogue(server.identity.clone());
    server.run(catalogue, stop).await
}

impl Handler for Catalogue {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let products: &[Product] = match request.uri().path().strip_prefix("/products") {
            Some("" | "/") => &PRODUCTS,
            Some(rest) => {
                let found = PRODUCTS.iter().position(|product| rest.strip_prefix('/') == Some(product.id));
                let Some(at) = found else { return not_found(&self.0, &request) };
                &PRODUCTS[at..=at]
            }
            None => return not_found(&self.0, &request),
        };
        json(&self.0, StatusCode::OK, serde_json::json!({ "products": products }))
    }
}
