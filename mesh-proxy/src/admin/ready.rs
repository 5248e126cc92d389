//! Whether the proxy may be sent traffic.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;
use mesh_api_rt::admin::{Response, Router};

use super::Admin;
use crate::config::apply::OWN_CERTIFICATE;
use crate::worker::DrainPhase;

/// What is missing for readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotReady {
    /// No consistent configuration has arrived.
    Configuration,
    /// The workload has no certificate.
    Certificate,
    /// Look-ups are captured and cannot be answered.
    Names,
    /// The proxy is draining.
    Draining,
    /// An operator asked for it.
    Failing,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "no configuration has arrived from the control plane",
            Self::Certificate => "the workload has no certificate yet",
            Self::Names => "look-ups are captured, and no table of names has arrived from the control plane",
            Self::Draining => "the proxy is draining",
            Self::Failing => "health checks were told to fail (POST /healthcheck/ok ends it)",
        })
    }
}

impl Admin {
    /// What is missing; `None` when nothing is.
    pub(super) fn not_ready(&self) -> Option<NotReady> {
        let shared = &self.context.shared;
        if *shared.drain.borrow() > DrainPhase::Running {
            return Some(NotReady::Draining);
        }
        if self.failing.load(Relaxed) {
            return Some(NotReady::Failing);
        }
        let live = shared.store.live();
        if !live.is_configured() {
            return Some(NotReady::Configuration);
        }
        let needs_certificate = !self.context.bootstrap.plaintext_control_plane;
        if needs_certificate && live.plan.secret(OWN_CERTIFICATE).is_none() {
            return Some(NotReady::Certificate);
        }
        shared.store.names.are_missing().then_some(NotReady::Names)
    }
}

/// Adds the page: 200 when ready, else 503 with the reason.
pub(super) fn page(router: Router, path: &'static str, admin: &Arc<Admin>) -> Router {
    let admin = Arc::clone(admin);
    router.get(path, "200 when the proxy may be sent traffic", move |_| match admin.not_ready() {
        // Ready all the same: the platform would only start the pod again, as it is.
        None if admin.context.shared.store.captured.get() == Some(&false) => {
            Response::ok("LIVE\nwarning: traffic of this pod is not captured, it passes the mesh by\n")
        }
        None => Response::ok("LIVE\n"),
        Some(why) => Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    })
}
