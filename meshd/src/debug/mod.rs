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
//! | `/debug/nodez` | the connected proxies, described for `/debug/computed` |
//! | `POST /debug/computed` | what a proxy that is described would be served; see [`computed`] |

mod computed;
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

use self::computed::ComputeError;
use crate::ca::expiry::Expiries;
use crate::findings::{Findings, merge};
use crate::hub::Question;
use crate::published::Published;
use crate::push::registry::{Connection, Registry};
use crate::push::translate::Translate;

/// What the pages show.
#[derive(Clone)]
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
    /// What makes resources.
    pub(crate) translate: Arc<dyn Translate>,
    /// When the authority's certificates end.
    pub(crate) expiries: Expiries,
}

impl Pages {
    /// The table of pages. All but readiness, metrics and version are for callers on this host: they show the whole
    /// configuration (as istiod's, which asks others for a token; a tool comes through a port forward, which is local).
    pub(crate) fn router(self, metrics: Arc<Metrics>, logging: Option<LogHandle>) -> Router {
        let this = Arc::new(self);
        let ready = Arc::clone(&this);
        let inner = Arc::new(this.local_pages(logging));
        let mut router = Router::new()
            .get("/ready", "200 when proxies are served", move |_| ready.ready())
            .with_metrics("/metrics", metrics)
            .with_version(build_info!("meshd"));
        let listed: Vec<_> = [
            (Method::GET, "/debug/", "Pages for callers on this host; GET /debug/ lists them"),
            (Method::POST, "/debug/", "As above, for those that are given something"),
            (Method::GET, "/logging", "Log levels by scope, for callers on this host"),
            (Method::POST, "/logging", "Change log levels: ?level=debug, ?paths=scope:level,… or ?scope=level"),
        ]
        .into();
        for (method, prefix, doc) in listed {
            let inner = Arc::clone(&inner);
            router = router.prefix_async(method, prefix, doc, move |request: Request| {
                let inner = Arc::clone(&inner);
                async move {
                    if request.is_local() {
                        return inner.dispatch(request).await;
                    }
                    let text = "this page is for callers on the control plane's own host\n";
                    Response::text(StatusCode::FORBIDDEN, text)
                }
            });
        }
        router
    }

    /// The page for kubelets, on a port of its own.
    pub(crate) fn readiness(&self) -> Router {
        let this = self.clone();
        Router::new().get("/ready", "200 when proxies are served and webhooks answer", move |_| this.ready())
    }

    fn local_pages(self: Arc<Self>, logging: Option<LogHandle>) -> Router {
        let this = self;
        let page = |show: fn(&Self, &Request) -> Response| {
            let this = Arc::clone(&this);
            move |request: Request| show(&this, &request)
        };
        let asking = Arc::clone(&this);
        let router = Router::new()
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
            )
            .get(
                "/debug/nodez",
                "The connected proxies, described for /debug/computed",
                page(|this, _| Response::json(&computed::nodes(&this.registry))),
            )
            .post(
                "/debug/computed",
                "What a proxy that the body describes would be served",
                page(|this, request| this.computed(request)),
            )
            .route_async(Method::GET, "/debug/configz", "The objects as they were read", move |_| {
                let this = Arc::clone(&asking);
                async move { this.configz().await }
            });
        let router = match logging {
            Some(handle) => router.with_logging(handle),
            None => router,
        };
        let list: Arc<str> = router.help().into();
        router.get("/debug/", "This list", move |_| Response::ok(list.to_string()))
    }

    fn ready(&self) -> Response {
        if *self.ready.borrow() {
            return Response::ok("ready\n");
        }
        let why = if self.published.borrow().is_none() {
            "sources are not synced"
        } else {
            "not serving, or webhooks do not answer yet"
        };
        Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
    }

    fn findings(&self) -> Response {
        let seen_by_proxies = self.registry.connections().into_iter().flat_map(|connection| connection.findings());
        let all = merge(self.findings.now().iter().cloned().chain(seen_by_proxies));
        Response::json(&FindingsPage { findings: all })
    }

    fn syncz(&self, request: &Request) -> Response {
        let now = std::time::SystemTime::now();
        let page = syncz::page(&self.registry, self.published.borrow().as_ref(), &self.expiries.now(), now);
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

    fn computed(&self, request: &Request) -> Response {
        let Some(published) = self.published.borrow().clone() else {
            return Response::text(StatusCode::SERVICE_UNAVAILABLE, "sources are not synced\n");
        };
        match computed::computed(request.body(), &published, &*self.translate) {
            Ok(page) => Response::json(&page),
            Err(error @ ComputeError::Malformed(_)) => Response::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            Err(error @ ComputeError::Failed) => {
                tracing::error!("Translation for a described proxy failed");
                Response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
            }
        }
    }

    async fn configz(&self) -> Response {
        let (tell, told) = oneshot::channel();
        let question: Question = Box::new(move |world| {
            // The page may have been closed meanwhile.
            let _ = tell.send(configz::page(world));
        });
        let stopping = || Response::text(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping\n");
        // Not both in one expression: a question that was not taken still holds the other end of the answer.
        if self.ask.send(question).await.is_err() {
            return stopping();
        }
        match told.await {
            Ok(page) => Response::json(&page),
            Err(_) => stopping(),
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mesh_api_rt::metrics::Metrics;
    use mesh_api_xds::encoded::Encoded;
    use meshd_core::translate::Translator;

    use super::*;
    use crate::push::registry::tests::mk_metrics;

    fn mk_router(ready: bool) -> Router {
        let metrics = mk_metrics();
        let pages = Pages {
            registry: Registry::new(metrics.clone()),
            findings: Arc::new(Findings::new(metrics)),
            published: watch::channel(None).1,
            ask: mpsc::channel(1).0,
            ready: watch::channel(ready).1,
            translate: Arc::new(Translator::<Encoded>::default()),
            expiries: Expiries::default(),
        };
        pages.router(Metrics::new().share(), None)
    }

    async fn get(router: &Router, path: &str, peer: &str) -> StatusCode {
        let (head, ()) = http::Request::get(path).body(()).unwrap().into_parts();
        let peer: SocketAddr = peer.parse().unwrap();
        router.dispatch(Request::new(head, bytes::Bytes::new(), peer)).await.status()
    }

    #[tokio::test]
    async fn what_shows_configuration_is_for_callers_on_this_host() {
        let router = mk_router(true);
        for path in ["/debug/", "/debug/syncz", "/debug/findings"] {
            assert_eq!(get(&router, path, "127.0.0.1:1").await, StatusCode::OK, "{path}");
            assert_eq!(get(&router, path, "[::1]:1").await, StatusCode::OK, "{path}");
            assert_eq!(get(&router, path, "10.0.0.1:1").await, StatusCode::FORBIDDEN, "{path}");
        }
        for path in ["/ready", "/metrics", "/version"] {
            assert_eq!(get(&router, path, "10.0.0.1:1").await, StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn before_the_first_snapshot_nothing_is_ready() {
        let router = mk_router(false);
        assert_eq!(get(&router, "/ready", "10.0.0.1:1").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&router, "/debug/endpointz", "127.0.0.1:1").await, StatusCode::SERVICE_UNAVAILABLE);
        // The hub is gone.
        assert_eq!(get(&router, "/debug/configz", "127.0.0.1:1").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&router, "/debug/config_dump", "127.0.0.1:1").await, StatusCode::BAD_REQUEST);
        assert_eq!(get(&router, "/debug/config_dump?proxyID=a.b", "127.0.0.1:1").await, StatusCode::NOT_FOUND);
    }
}
