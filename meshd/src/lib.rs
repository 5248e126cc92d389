//! The control plane daemon: sources, hub, push, xDS and certificate services, debug pages.
//!
//! ```text
//! source ──► hub ──► snapshot ──► push::queue ──► push::worker ──► xds::stream ──► proxy
//!             │                        ▲                                │
//!             └─► findings             └── whom it concerns             └─► push::registry (rollout)
//! ```
//!
//! In a cluster besides: `webhook` injects pods and checks objects on every replica; what is written (`controller`, `status`) is
//! written by the one that leads.
//!
//! What is decided is decided in `meshd-core`; here are sockets, tasks, files and clocks. [`app::App`] puts the parts together.

pub mod app;
pub mod args;
mod auth;
mod ca;
pub mod config;
mod controller;
mod debug;
mod duties;
mod findings;
mod hub;
mod kube;
mod metrics;
mod owner;
mod published;
mod push;
#[cfg(test)]
mod reference;
mod source;
mod standing;
mod status;
mod tls;
pub mod token;
mod webhook;
mod xds;
