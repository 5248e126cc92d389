//! Draining and stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;
use mesh_api_rt::admin::{Request, Response, Router};

use super::Admin;
use crate::agent::shutdown::Event;
use crate::worker::DrainPhase;

/// Envoy's pages.
pub(super) fn pages(router: Router, admin: &Arc<Admin>) -> Router {
    let (listeners, quit, fail, ok) = (Arc::clone(admin), Arc::clone(admin), Arc::clone(admin), Arc::clone(admin));
    let reopen = Arc::clone(admin);
    router
        .post(
            "/drain_listeners",
            "Connections end after their request, and no more are accepted: ?graceful (still accept), ?inboundonly, ?skip_exit",
            local(move |request| listeners.drain_listeners(request)),
        )
        .post("/quitquitquit", "End the process now", local(move |_| quit.ask(Event::Quit)))
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
        .post(
            "/drain",
            "Ask inbound connections to go elsewhere; the process goes on",
            local(move |_| drain.ask(Event::Drain)),
        )
        .post("/quitquitquit", "End the process now", local(move |_| quit.ask(Event::Quit)))
}

impl Admin {
    fn drain_listeners(&self, request: &Request) -> Response {
        // None ends the process, which is what `skip_exit` asks for.
        for (name, _) in request.query() {
            if !matches!(&*name, "graceful" | "inboundonly" | "skip_exit") {
                let known = "graceful, inboundonly, skip_exit";
                return Response::text(StatusCode::BAD_REQUEST, format!("unknown parameter {name}; known: {known}\n"));
            }
        }
        let (inbound_only, graceful) = (request.param("inboundonly").is_some(), request.param("graceful").is_some());
        self.advance(match (inbound_only, graceful) {
            (true, true) => DrainPhase::Inbound,
            (true, false) => DrainPhase::InboundClosed,
            (false, true) => DrainPhase::All,
            (false, false) => DrainPhase::Closed,
        })
    }

    fn advance(&self, phase: DrainPhase) -> Response {
        self.context.shared.drain.send_if_modified(|now| {
            let next = now.then(phase);
            std::mem::replace(now, next) != next
        });
        Response::ok("OK\n")
    }

    fn ask(&self, event: Event) -> Response {
        // A full channel means that it was asked for many times already.
        let _ = self.context.stop.try_send(event);
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
