//! The request path over real sockets on loopback: a worker thread, a plan made by hand, and plain upstreams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budgets;
mod counting;
mod handover;
mod http1;
mod http2;
mod lifecycle;
mod resend;
mod support;
mod tls;
