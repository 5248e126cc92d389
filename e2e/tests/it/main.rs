//! Tests over real processes. All are `#[ignore]`d: `cargo xtask ci interop` and `cargo xtask ci namespaces` build the
//! binaries and run them; `cargo xtask e2e` does for those on Kubernetes.

#![expect(clippy::unwrap_used, reason = "tests")]

mod beside;
mod cluster;
mod control;
mod envoy;
mod goldens;
mod handover;
mod interop;
mod netns;
mod peers_analyze;
mod peers_helm;
mod peers_inject;
mod refusals;
mod tls;
mod traffic;
mod world;
