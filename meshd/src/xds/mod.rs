//! The gRPC server of proxies: connections, callers, and the pump of the discovery protocol.

pub(crate) mod limit;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod stream;
pub(crate) mod view;
