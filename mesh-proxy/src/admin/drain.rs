//! Draining and stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;
use mesh_api_rt::admin::{Request, Response, Router};

use super::{Admin, StopRequest};
use crate::worker::DrainPhase;

/// Envoy's pages.
pub(super) fn pages(router: Router, admin: &Arc<Admin>) -> Router {
    let (listeners, quit, fail, ok) = (Arc::clone(admin), Arc::clone(admin), Arc::clone(admin), Arc::clone(admin));
    let reopen = Arc::clone(admin);
    router
        .post(
            "/drain_listeners",
            "Stop accepting; connections end after their request: ?graceful, ?inboundonly, ?skip_exit",
            local(move |request| listeners.drain_listeners(request)),
        )
        .post("/quitquitquit", "End the process now", local(move |_| quit.ask(StopRequest::Now)))
        .post(
            "/healthcheck/fail",
            "Make readiness fail",
            local(move |_| {
                fail.failing.store(true, Relaxed);
                Response::ok("OK\n")
            }),
        )
        .post(
            "/healthcheck/ok",
            "End what /healthcheck/fail began",
            local(move |_| {
                ok.failing.store(false, Relaxed);
                Response::ok("OK\n")
            }),
        )
        .post(
            "/reopen_logs",
            "Open access logs anew, after a rotation",
            local(move |_| {
                reopen.context.hub.sinks().reopen();
                Response::ok("OK\n")
            }),
        )
}

/// Pages of Istio's agent.
pub(super) fn agent_pages(router: Router, admin: &Arc<Admin>) -> Router {
    let (drain, quit) = (Arc::clone(admin), Arc::clone(admin));
    router
        .post("/drain", "Stop accepting from the mesh; the process goes on", local(move |_| drain.drain_inbound()))
        .post("/quitquitquit", "End the process now", local(move |_| quit.ask(StopRequest::Now)))
}

impl Admin {
    fn drain_listeners(&self, request: &Request) -> Response {
        // Every drain here is graceful, and none ends the process: both parameters are accepted for what they say already.
        for (name, _) in request.query() {
            if !matches!(&*name, "graceful" | "inboundonly" | "skip_exit") {
                let known = "graceful, inboundonly, skip_exit";
                return Response::text(StatusCode::BAD_REQUEST, format!("unknown parameter {name}; known: {known}\n"));
            }
        }
        let inbound_only = request.param("inboundonly").is_some();
        self.advance(if inbound_only { DrainPhase::Inbound } else { DrainPhase::All })
    }

    /// A gateway has no inbound side: there, everything is drained.
    fn drain_inbound(&self) -> Response {
        self.advance(if self.context.bootstrap.is_gateway() { DrainPhase::All } else { DrainPhase::Inbound })
    }

    fn advance(&self, phase: DrainPhase) -> Response {
        self.context.shared.drain.send_if_modified(|now| {
            let forward = *now < phase;
            if forward {
                *now = phase;
            }
            forward
        });
        Response::ok("OK\n")
    }

    fn ask(&self, request: StopRequest) -> Response {
        // A full channel means that a stop was asked for already.
        let _ = self.context.stop.try_send(request);
        Response::ok("OK\n")
    }
}

/// Refuses callers from other hosts.
fn local(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> impl Fn(Request) -> Response + Send + Sync {
    move |request| {
        if request.is_local() {
            handler(&request)
        } else {
            Response::text(StatusCode::FORBIDDEN, "only requests from localhost are allowed\n")
        }
    }
}
