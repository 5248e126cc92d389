//! The control plane daemon: sources, hub, push, xDS and certificate services, debug pages.
mod source;
