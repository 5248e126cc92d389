//! What sidecar injection is told: the ConfigMap `istio-sidecar-injector` and the annotations and labels of pods.
//!
//! Types and tables only. What they do to a pod is for `meshd_core::inject`.

pub mod config;
pub mod surface;
pub mod values;
pub mod variables;
