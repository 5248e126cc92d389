//! Metrics of the control plane, under istiod's names where it has one.

use std::time::Duration;

use mesh_api_xds::type_url::TypeUrl;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// A label `type`: of a resource (`cds`, …), of an event, or of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByType {
    /// The value.
    pub(crate) r#type: &'static str,
}

/// A label `version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByVersion {
    /// The value.
    pub(crate) version: String,
}

/// A label `kind`, of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByKind {
    /// The value.
    pub(crate) kind: &'static str,
}

/// A label `severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BySeverity {
    /// The value.
    pub(crate) severity: &'static str,
}

/// Buckets of times, in seconds: istiod's, with finer ones below, since an edit is to arrive within 100 ms.
const TIMES: [f64; 14] = [0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Buckets of sizes in bytes, istiod's.
const SIZES: [f64; 6] = [1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

fn times() -> Histogram {
    Histogram::new(TIMES)
}

fn sizes() -> Histogram {
    Histogram::new(SIZES)
}

mesh_api_rt::metrics! {
    /// What happens between a source's event and a proxy's acknowledgement.
    pub(crate) struct PushMetrics {
        /// Proxies connected to this control plane, by version of the proxy.
        pub(crate) connected: Family<ByVersion, Gauge> = "pilot_xds",
        /// Connected proxies whose workload's traffic is not led through them.
        pub(crate) uncaptured: Gauge = "meshd_uncaptured_proxies",
        /// Responses sent to proxies, by type of resource.
        pub(crate) pushes: Family<ByType, Counter> = "pilot_xds_pushes",
        /// Resources sent to proxies, by type of resource.
        pub(crate) resources: Family<ByType, Counter> = "meshd_xds_resources_sent_total",
        /// Seconds that the translation for one proxy took.
        pub(crate) push_time: Histogram = "pilot_xds_push_time" => times(),
        /// Seconds from a change at its source until a proxy acknowledged it.
        pub(crate) convergence_time: Histogram = "pilot_proxy_convergence_time" => times(),
        /// Seconds that a proxy waited for its turn.
        pub(crate) queue_time: Histogram = "pilot_proxy_queue_time" => times(),
        /// Seconds from the first change of a batch until its snapshot was begun.
        pub(crate) debounce_time: Histogram = "pilot_debounce_time" => times(),
        /// Seconds that a snapshot took to make.
        pub(crate) snapshot_time: Histogram = "pilot_pushcontext_init_seconds" => times(),
        /// Snapshots that were pushed, by what changed: config or endpoint.
        pub(crate) triggers: Family<ByType, Counter> = "pilot_push_triggers",
        /// Changed objects told by sources, by type: config, svc or eds.
        pub(crate) updates: Family<ByType, Counter> = "pilot_inbound_updates",
        /// Bytes of a response, by type of resource.
        pub(crate) config_size: Family<ByType, Histogram> = "pilot_xds_config_size_bytes" =>
            Family::new_with_constructor(sizes),
        /// Proxies whose last answer about clusters was a rejection.
        pub(crate) cds_reject: Gauge = "pilot_xds_cds_reject",
        /// Proxies whose last answer about endpoints was a rejection.
        pub(crate) eds_reject: Gauge = "pilot_xds_eds_reject",
        /// Proxies whose last answer about listeners was a rejection.
        pub(crate) lds_reject: Gauge = "pilot_xds_lds_reject",
        /// Proxies whose last answer about routes or virtual hosts was a rejection.
        pub(crate) rds_reject: Gauge = "pilot_xds_rds_reject",
        /// Rejections by proxies, by type of resource.
        pub(crate) rejects: Family<ByType, Counter> = "pilot_total_xds_rejects",
        /// Translations that failed because of a mistake in the control plane.
        pub(crate) internal_errors: Counter = "pilot_total_xds_internal_errors",
        /// Seconds that it took to hand a response to a proxy's connection.
        pub(crate) send_time: Histogram = "pilot_xds_send_time" => times(),
        /// Proxies cut off because they did not take a response in time.
        pub(crate) write_timeout: Counter = "pilot_xds_write_timeout",
        /// Answers of proxies to a response that was not their last one.
        pub(crate) expired_nonce: Family<ByType, Counter> = "pilot_xds_expired_nonce",
        /// Services known.
        pub(crate) services: Gauge = "pilot_services",
        /// VirtualServices known.
        pub(crate) virtual_services: Gauge = "pilot_virt_services",
        /// Generation of the last snapshot published.
        pub(crate) generation: Gauge = "meshd_snapshot_generation",
        /// Proxies that wait for a translation.
        pub(crate) queued: Gauge = "meshd_push_queue_length",
        /// Pushes that were merged into one that was already waiting.
        pub(crate) merged: Counter = "meshd_push_merged_total",
        /// Proxies that a snapshot did not concern, summed over snapshots.
        pub(crate) spared: Counter = "meshd_push_spared_total",
        /// Translations made for one proxy.
        pub(crate) translations: Counter = "meshd_translations_total",
        /// Findings about configuration, by severity.
        pub(crate) findings: Family<BySeverity, Gauge> = "meshd_findings",
    }
}

mesh_api_rt::metrics! {
    /// Watches of the cluster.
    pub(crate) struct WatchMetrics {
        /// Lists of all objects of a kind that were begun: at the start, and after gaps in a watch.
        pub(crate) lists: Family<ByKind, Counter> = "meshd_watch_lists_total",
        /// Lists and watches that failed, by kind.
        pub(crate) failures: Family<ByKind, Counter> = "meshd_watch_failures_total",
        /// Changes of objects that watches told, by kind.
        pub(crate) events: Family<ByKind, Counter> = "meshd_watch_events_total",
        /// Objects of the cluster that this control plane keeps, by kind.
        pub(crate) objects: Family<ByKind, Gauge> = "meshd_watch_objects",
    }
}

mesh_api_rt::metrics! {
    /// Connections of proxies.
    pub(crate) struct ServerMetrics {
        /// Connections open, by kind: plaintext or tls.
        pub(crate) connections: Family<ByType, Gauge> = "meshd_connections",
        /// Connections that failed before a request, by why: tls, timeout, limit or accept.
        pub(crate) failed: Family<ByType, Counter> = "meshd_connections_failed_total",
        /// Streams that were refused, by why: unauthenticated, namespace, node, overload or drain.
        pub(crate) refused: Family<ByType, Counter> = "meshd_streams_refused_total",
    }
}

mesh_api_rt::metrics! {
    /// The certificate authority.
    pub(crate) struct CaMetrics {
        /// Certificate requests received.
        pub(crate) requests: Counter = "citadel_server_csr_count",
        /// Certificate requests of callers that could not be authenticated.
        pub(crate) unauthenticated: Counter = "citadel_server_authentication_failure_count",
        /// Certificate requests that could not be read.
        pub(crate) malformed: Counter = "citadel_server_csr_parsing_err_count",
        /// Certificate requests for an identity that the caller may not have.
        pub(crate) identity_refused: Counter = "citadel_server_id_extraction_err_count",
        /// Certificates that could not be issued.
        pub(crate) failed: Counter = "citadel_server_csr_sign_err_count",
        /// Certificates issued.
        pub(crate) issued: Counter = "citadel_server_success_cert_issuance_count",
        /// When the first root expires, in seconds since 1970.
        pub(crate) root_expiry: Gauge = "citadel_server_root_cert_expiry_timestamp",
        /// When the first certificate between the issuing one and the root expires, in seconds since 1970.
        pub(crate) chain_expiry: Gauge = "citadel_server_cert_chain_expiry_timestamp",
        /// When the control plane's own serving certificate expires, in seconds since 1970.
        pub(crate) serving_expiry: Gauge = "meshd_serving_cert_expiry_timestamp",
        /// Whether the root or the issuing certificate ends within 30 days or has ended, by type: root or issuer.
        pub(crate) expiring: Family<ByType, Gauge> = "meshd_expiring_certificates",
        /// Renewals of the serving certificate or the authority that failed.
        pub(crate) renewal_failures: Counter = "meshd_ca_renewal_failures_total",
    }
}

mesh_api_rt::metrics! {
    /// Questions to the API server about the tokens of service accounts.
    pub(crate) struct ReviewMetrics {
        /// Tokens that the API server was asked about.
        pub(crate) asked: Counter = "meshd_token_reviews_total",
        /// Tokens whose answer was remembered from before.
        pub(crate) remembered: Counter = "meshd_token_reviews_remembered_total",
        /// Tokens about which the API server gave no answer.
        pub(crate) failed: Counter = "meshd_token_reviews_failed_total",
    }
}

mesh_api_rt::metrics! {
    /// What the control plane does to the cluster.
    pub(crate) struct ControllerMetrics {
        /// Whether this replica holds a lease, by lock.
        pub(crate) leads: Family<ByType, Gauge> = "meshd_leader",
        /// Objects written, by what: root-cert, webhook, status, address or ingress.
        pub(crate) writes: Family<ByType, Counter> = "meshd_controller_writes_total",
        /// Writes that failed, by what.
        pub(crate) failures: Family<ByType, Counter> = "meshd_controller_failures_total",
        /// Namespaces whose root certificates are those of another control plane, which is left alone.
        pub(crate) foreign_roots: Gauge = "meshd_foreign_root_namespaces",
    }
}

mesh_api_rt::metrics! {
    /// What the API server asked.
    pub(crate) struct WebhookMetrics {
        /// Pods that the API server asked about.
        pub(crate) injections: Counter = "sidecar_injection_requests_total",
        /// Pods that got a proxy.
        pub(crate) injected: Counter = "sidecar_injection_success_total",
        /// Pods that were refused.
        pub(crate) injection_failures: Counter = "sidecar_injection_failure_total",
        /// Pods that stayed as they were.
        pub(crate) skipped: Counter = "sidecar_injection_skip_total",
        /// Objects that were checked and may come in, by kind.
        pub(crate) passed: Family<ByType, Counter> = "galley_validation_passed",
        /// Objects that were refused, by kind.
        pub(crate) failed: Family<ByType, Counter> = "galley_validation_failed",
    }
}

mesh_api_rt::metrics! {
    /// The build, as istiod tells it.
    pub(crate) struct InfoMetrics {
        /// Always one; the label is the version of the control plane.
        pub(crate) info: Family<ByVersion, Gauge> = "pilot_info",
    }
}

impl PushMetrics {
    /// The gauge of proxies that reject a type, if it has one.
    pub(crate) fn rejecting(&self, type_url: TypeUrl) -> Option<&Gauge> {
        match type_url {
            TypeUrl::Cluster => Some(&self.cds_reject),
            TypeUrl::Endpoint => Some(&self.eds_reject),
            TypeUrl::Listener => Some(&self.lds_reject),
            TypeUrl::RouteConfiguration | TypeUrl::VirtualHost => Some(&self.rds_reject),
            TypeUrl::Secret | TypeUrl::NameTable | TypeUrl::Generation => None,
        }
    }
}

/// The word of a resource type in labels, istiod's.
pub(crate) const fn label(type_url: TypeUrl) -> ByType {
    ByType {
        r#type: match type_url {
            TypeUrl::Cluster => "cds",
            TypeUrl::Endpoint => "eds",
            TypeUrl::Listener => "lds",
            TypeUrl::RouteConfiguration => "rds",
            TypeUrl::VirtualHost => "vhds",
            TypeUrl::Secret => "sds",
            TypeUrl::NameTable => "nds",
            TypeUrl::Generation => "mark",
        },
    }
}

/// A time as the histograms take it.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use mesh_api_rt::metrics::Metrics;

    use super::*;

    #[test]
    fn every_name_is_declared_once() {
        let mut metrics = Metrics::new();
        metrics.register::<PushMetrics>().unwrap();
        metrics.register::<ServerMetrics>().unwrap();
        metrics.register::<CaMetrics>().unwrap();
        metrics.register::<ReviewMetrics>().unwrap();
        metrics.register::<WebhookMetrics>().unwrap();
        metrics.register::<ControllerMetrics>().unwrap();
        metrics.register::<InfoMetrics>().unwrap();
        assert!(metrics.declarations().count() > 40);
    }
}
