//! The proxy as a library, so that other programs and tests can run parts of it.
//!
//! Rooms: [`capture`] leads traffic to the proxy, [`net`] owns its sockets, [`tls`] secures them, [`http`] serves requests
//! over [`upstream`] connections, [`config`] brings what all of them run.

pub mod admin;
pub mod agent;
pub mod app;
pub mod args;
pub mod bootstrap;
pub mod buffers;
pub mod capture;
pub mod config;
pub mod conn;
pub mod connections;
pub mod control;
pub mod dns;
pub mod handover;
pub mod http;
pub mod listeners;
pub mod net;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
