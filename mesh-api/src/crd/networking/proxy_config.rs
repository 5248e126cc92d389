//! ProxyConfig: what the proxies of some workloads are started with. istio/api: networking/v1beta1/proxy_config.proto.

use std::collections::BTreeMap;

use crate::{
    crd::{api, common::WorkloadSelector},
    text::Str,
};

api! {
    /// What the proxies of some workloads are started with. It acts when a pod is injected.
    pub struct ProxyConfig {
        /// The workloads; all of the namespace (or mesh, in the root namespace) when absent.
        pub selector: Option<WorkloadSelector>,
        /// Number of workers; all cores when zero.
        pub concurrency: Option<u32>,
        /// Environment of the proxy.
        pub environment_variables: BTreeMap<Str, Str>,
        /// The proxy's image.
        pub image: Option<Image>,
    }

    /// An image.
    pub struct Image {
        /// `default`, `distroless` or `debug`.
        pub image_type: Str,
    }
}
