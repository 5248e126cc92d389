//! The administrative interface: Envoy's pages on loopback, readiness and metrics for the platform.
//!
//! Runs on a thread of its own. Shapes are Envoy's, because `istioctl` and dashboards read them. What changes state is a
//! POST, and outside of the loopback address it is refused.

mod clusters;
mod drain;
mod dump;
mod envoy;
mod handover;
mod ready;
mod server_info;
mod state;
mod stats;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::Method;
use mesh_api_rt::admin::{AdminServer, Response, Router};
use mesh_api_rt::listen::{ListenError, ListenerTable};
use mesh_api_rt::metrics::{DuplicateMetric, Metrics, process};
use mesh_api_rt::report::Report;
use mesh_api_rt::telemetry::LogHandle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::agent::probe::{self, Probers};
use crate::agent::scrape::{Merged, Targets};
use crate::agent::shutdown::Event;
use crate::bootstrap::Bootstrap;
use crate::capture::own;
use crate::handover::status::Status;
use crate::telemetry::Hub;
use crate::worker::Shared;

/// What the interface shows and steers.
#[derive(Debug)]
pub struct AdminContext {
    /// Static settings.
    pub bootstrap: Arc<Bootstrap>,
    /// Configuration and the state of draining.
    pub shared: Arc<Shared>,
    /// Metrics.
    pub hub: Hub,
    /// Log levels.
    pub logs: LogHandle,
    /// Where a request to drain or to end goes.
    pub stop: mpsc::Sender<Event>,
    /// Probes of the application.
    pub probers: Probers,
    /// Where the application's metrics are.
    pub targets: Targets,
    /// How this process came to its sockets, and to whom it gives them.
    pub handover: Arc<Status>,
}

/// The interface: its ports can be opened and closed, because at a hand-over another process answers.
#[derive(Debug)]
pub struct Desk {
    admin: Arc<Admin>,
    running: Mutex<Option<AdminServer>>,
}

/// Why the interface did not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A port cannot be listened on.
    #[error("the {purpose} port cannot be opened")]
    Listen {
        /// What it is for.
        purpose: &'static str,
        /// What is wrong.
        #[source]
        source: ListenError,
    },
    /// The thread or its runtime cannot be made.
    #[error("the administrative thread cannot be started")]
    Start(#[source] io::Error),
    /// Two metrics have one name: a mistake in the program.
    #[error("metrics cannot be registered")]
    Metrics(#[from] DuplicateMetric),
}

/// Everything that handlers share.
#[derive(Debug)]
struct Admin {
    context: AdminContext,
    metrics: Arc<Metrics>,
    merged: Merged,
    started: Instant,
    started_at: SystemTime,
    /// `/healthcheck/fail` was asked for.
    failing: AtomicBool,
}

impl Desk {
    /// The interface, with its ports closed.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new(context: AdminContext) -> Result<Self, AdminError> {
        Ok(Self { admin: Arc::new(Admin::new(context)?), running: Mutex::default() })
    }

    /// Makes sure that the ports can be opened; the sockets stay in the table.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn reserve(&self, table: &mut ListenerTable) -> Result<(), AdminError> {
        self.listen(table).map(drop)
    }

    /// Answers on the ports that the settings name. A port of 0 is left out.
    ///
    /// # Errors
    /// When a port is taken, or the thread cannot be started.
    pub fn open(&self, table: &mut ListenerTable) -> Result<(), AdminError> {
        let listeners = self.listen(table)?;
        *self.running() = Some(AdminServer::start("admin", listeners).map_err(AdminError::Start)?);
        Ok(())
    }

    /// No longer answers; answers under way are finished, for which it waits up to two seconds. Sockets of the table stay open.
    pub fn close(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.stop();
        }
    }

    /// Whether the proxy may be sent traffic, but for being about to end.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.admin.not_ready().is_none()
    }

    fn running(&self) -> MutexGuard<'_, Option<AdminServer>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, table: &mut ListenerTable) -> Result<Vec<(TcpListener, Router)>, AdminError> {
        let admin = &self.admin;
        let bootstrap = Arc::clone(&admin.context.bootstrap);
        let mut listeners: Vec<(TcpListener, Router)> = Vec::new();
        let mut open = |purpose, address: SocketAddr, router| {
            if address.port() != 0 {
                let socket = table.listen(address).map_err(|source| AdminError::Listen { purpose, source })?;
                listeners.push((socket, router));
            }
            Ok(())
        };
        open("admin", SocketAddr::from(bootstrap.admin), admin.pages())?;
        let of_pod = [
            ("status", bootstrap.status_port, Admin::status_pages as fn(&Arc<Admin>) -> Router),
            ("readiness", bootstrap.readiness_port, Admin::readiness_pages),
            ("metrics", bootstrap.metrics_port, Admin::metrics_pages),
        ];
        let own = bootstrap.node.address;
        for (purpose, port, pages) in of_pod {
            open(purpose, SocketAddr::new(any(own.is_ipv4()), port), pages(admin))?;
            // The kubelet and Prometheus may ask at either address of a dual stack pod.
            if bootstrap.node.metadata.addresses.iter().any(|other| other.is_ipv4() != own.is_ipv4())
                && let Err::<(), AdminError>(error) =
                    open(purpose, SocketAddr::new(any(!own.is_ipv4()), port), pages(admin))
            {
                tracing::warn!(error = %Report::new(&error), "Not served at the pod's second address");
            }
        }
        Ok(listeners)
    }

    /// Addresses of the open ports.
    #[cfg(test)]
    fn addresses(&self) -> Vec<SocketAddr> {
        self.running().as_ref().map_or_else(Vec::new, |running| running.addresses().to_vec())
    }
}

/// The address that stands for all of a family.
const fn any(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

impl Admin {
    fn new(context: AdminContext) -> Result<Self, AdminError> {
        let mut metrics = Metrics::new();
        process::register(&mut metrics)?;
        context.hub.register(&mut metrics)?;
        context.shared.store.names.register(&mut metrics)?;
        own::register(&mut metrics, context.shared.store.captured.get().copied())?;
        let started = Instant::now();
        state::register(&mut metrics, &context.shared, &context.hub, context.bootstrap.workers, started)?;
        context.handover.register(&mut metrics)?;
        let counters = metrics.register()?;
        let metrics = metrics.share();
        let local_only = context.bootstrap.application.metrics_local_only;
        let merged = Merged::new(Arc::clone(&metrics), counters, context.targets.clone(), local_only);
        Ok(Self { context, metrics, merged, started, started_at: SystemTime::now(), failing: AtomicBool::new(false) })
    }

    /// Port 15000, on loopback.
    fn pages(self: &Arc<Self>) -> Router {
        let router = Router::new()
            .with_metrics("/stats/prometheus", Arc::clone(&self.metrics))
            .with_logging(self.context.logs.clone())
            .with_version(mesh_api_rt::build_info!("mesh-proxy"));
        let router = stats::pages(router, self);
        let router = clusters::pages(router, self);
        let router = server_info::pages(router, self);
        let router = dump::pages(router, self);
        let router = drain::pages(router, self);
        let router = handover::page(router, self);
        ready::page(router, "/ready", self)
    }

    /// Port 15020: what Istio's agent serves.
    fn status_pages(self: &Arc<Self>) -> Router {
        let mut router = Router::new();
        for path in ["/stats/prometheus", "/metrics"] {
            let admin = Arc::clone(self);
            router = router.route_async(Method::GET, path, "Metrics of proxy and application", move |request| {
                let admin = Arc::clone(&admin);
                async move { admin.merged.answer(&request).await }
            });
        }
        for (prefix, doc) in
            [(probe::HEALTH_PREFIX, "Probes of the application"), (probe::LIFECYCLE_PREFIX, "Hooks of the application")]
        {
            let admin = Arc::clone(self);
            router = router.prefix_async(Method::GET, prefix, doc, move |request| {
                let admin = Arc::clone(&admin);
                async move { admin.context.probers.answer(&request).await }
            });
        }
        let router = drain::agent_pages(router, self);
        let router = self.names_page(router);
        ready::page(router, "/healthz/ready", self)
    }

    /// The names that look-ups are answered from, in the form of Istio's agent.
    fn names_page(self: &Arc<Self>, router: Router) -> Router {
        let admin = Arc::clone(self);
        router.get("/debug/ndsz", "Names that look-ups are answered from", move |_| {
            Response::json(&admin.context.shared.store.names.dump())
        })
    }

    /// Port 15021.
    fn readiness_pages(self: &Arc<Self>) -> Router {
        ready::page(Router::new(), "/healthz/ready", self)
    }

    /// Port 15090.
    fn metrics_pages(self: &Arc<Self>) -> Router {
        Router::new().with_metrics("/stats/prometheus", Arc::clone(&self.metrics))
    }
}
