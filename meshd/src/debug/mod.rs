//! The pages of port 15014: readiness, metrics, and what is going on.
//!
//! | Page | What it says |
//! |---|---|
//! | `/ready` | 200 when proxies are served, else 503 |
//! | `/metrics` | Prometheus |
//! | `/version` | the build |
//! | `/logging` | log levels, read and changed |
//! | `/debug/syncz` | every proxy, every type: in step or not; see [`syncz`] |
//! | `/debug/findings` | all that is wrong with configuration |
//! | `/debug/configz` | the objects as they were read |
//! | `/debug/endpointz` | endpoints of each service |
//! | `/debug/config_dump?proxyID=…` | what a proxy is served |
//! | `/debug/edsz?proxyID=…` | the endpoints of that |

mod configz;
mod dump;
mod endpointz;
mod syncz;

use std::sync::Arc;

use http::{Method, StatusCode};
use mesh_api_rt::admin::{Request, Response, Router};
use mesh_api_rt::build_info;
use mesh_api_rt::metrics::Metrics;
use mesh_api_rt::telemetry::LogHandle;
use mesh_api_xds::type_url::TypeUrl;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::findings::{Findings, merge};
use crate::hub::{Published, Question};
use crate::push::registry::{Connection, Registry};

/// What the pages show.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    /// Who is connected.
    pub(crate) registry: Arc<Registry>,
    /// What is wrong.
    pub(crate) findings: Arc<Findings>,
    /// The present snapshot.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Asks the hub about the world.
    pub(crate) ask: mpsc::Sender<Question>,
    /// Whether proxies are served.
    pub(crate) ready: watch::Receiver<bool>,
}

impl Pages {
    /// The table of pages.
    pub(crate) fn router(self, metrics: Arc<Metrics>, logging: Option<LogHandle>) -> Router {
        let this = Arc::new(self);
        let page = |show: fn(&Self, &Request) -> Response| {
            let this = Arc::clone(&this);
            move |request: Request| show(&this, &request)
        };
        let router = Router::new()
            .get("/ready", "200 when proxies are served", page(|this, _| this.ready()))
            .with_metrics("/metrics", metrics)
            .with_version(build_info!("meshd"))
            .get("/debug/syncz", "Every proxy, every type: in step or not", page(|this, request| this.syncz(request)))
            .get("/debug/findings", "All that is wrong with configuration", page(|this, _| this.findings()))
            .get("/debug/endpointz", "Endpoints of each service", page(|this, _| this.endpointz()))
            .get(
                "/debug/config_dump",
                "What a proxy is served: ?proxyID=name.namespace",
                page(|this, request| this.dump(request, &TypeUrl::CONFIG)),
            )
            .get(
                "/debug/edsz",
                "Endpoints that a proxy is served: ?proxyID=name.namespace",
                page(|this, request| this.dump(request, &[TypeUrl::Endpoint])),
            );
        let asking = Arc::clone(&this);
        let router = router.route_async(Method::GET, "/debug/configz", "The objects as they were read", move |_| {
            let this = Arc::clone(&asking);
            async move { this.configz().await }
        });
        match logging {
            Some(handle) => router.with_logging(handle),
            None => router,
        }
    }

    fn ready(&self) -> Response {
        if *self.ready.borrow() {
            return Response::ok("ready\n");
        }
        let why = if self.published.borrow().is_none() { "sources are not synced" } else { "not serving" };
        Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
    }

    fn findings(&self) -> Response {
        let seen_by_proxies = self.registry.connections().into_iter().flat_map(|connection| connection.findings());
        let all = merge(self.findings.now().iter().cloned().chain(seen_by_proxies));
        Response::json(&FindingsPage { findings: all })
    }

    fn syncz(&self, request: &Request) -> Response {
        let page = syncz::page(&self.registry, self.published.borrow().as_ref());
        match request.param("proxyID") {
            None => Response::json(&page),
            Some(id) => Response::json(&page.only(&id)),
        }
    }

    fn endpointz(&self) -> Response {
        match &*self.published.borrow() {
            Some(published) => Response::json(&endpointz::page(&published.snapshot)),
            None => Response::text(StatusCode::SERVICE_UNAVAILABLE, "sources are not synced\n"),
        }
    }

    fn dump(&self, request: &Request, types: &[TypeUrl]) -> Response {
        let Some(id) = request.param("proxyID") else {
            return Response::text(StatusCode::BAD_REQUEST, "name a proxy: ?proxyID=name.namespace\n");
        };
        let connections = self.registry.connections();
        match connections.iter().rev().find(|connection| is_called(connection, &id)) {
            Some(connection) => Response::json(&dump::page(connection, types)),
            None => Response::text(StatusCode::NOT_FOUND, "no such proxy is connected; see /debug/syncz\n"),
        }
    }

    async fn configz(&self) -> Response {
        let (tell, told) = oneshot::channel();
        let question: Question = Box::new(move |world| {
            // The page may have been closed meanwhile.
            let _ = tell.send(configz::page(world));
        });
        let asked = self.ask.send(question).await;
        match (asked, told.await) {
            (Ok(()), Ok(page)) => Response::json(&page),
            _ => Response::text(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping\n"),
        }
    }
}

#[derive(Serialize)]
struct FindingsPage {
    findings: Vec<mesh_api::finding::Finding>,
}

/// Whether users mean this stream by `id`: its key, its node id, or `name.namespace` as `istioctl` writes it.
fn is_called(connection: &Connection, id: &str) -> bool {
    let view = &connection.view;
    connection.key.0 == *id || view.id == *id || format!("{}.{}", view.name, view.namespace) == id
}
