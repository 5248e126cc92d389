//! A mesh of real processes for tests: [`mesh`] writes configuration and starts `meshd`, proxies and services,
//! [`process`] keeps them and their logs, [`client`] talks to them, [`assert`] waits and counts; and [`cluster`], the same on
//! Kubernetes.
//!
//! Not here: test cases (`tests/it`), and anything that knows how a part works inside.
//!
//! Nothing has a fixed place: every mesh claims a loopback network of its own ([`net`]), on which Istio's usual ports are
//! free, and whatever listens on a shared address is handed a socket of that network.
#![expect(clippy::unwrap_used, reason = "a harness has nobody to report to but the test it fails")]

pub mod assert;
pub mod client;
pub mod cluster;
pub mod mesh;
pub mod net;
pub mod process;
