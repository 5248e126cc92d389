//! Beside a real Istio, and from it: its control plane in `istio-system` as the default revision, ours as another one, and
//! workloads of both. `cargo xtask e2e --beside` starts a cluster, loads the images of both and runs these.

mod fleet;
mod gateway;
mod leaving;
mod migrate;
mod moving;
mod others;
mod roots;
mod traffic;
